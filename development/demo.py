"""The demo of `make run`: an organization with credits, a handful of varied calls through Envoy, and their bill."""

import asyncio
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
from pyreqwest.client import Client, ClientBuilder
from rich.console import Console
from rich.table import Table

from development.processes import StackError
from development.stack import Stack
from development.state import write_private

VISIBLE_SECONDS = 15
POLL_SECONDS = 0.1

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Demo:
    """What the first start made and later starts find again."""

    organization_id: str
    key: str


@dataclass(frozen=True, slots=True)
class DemoCall:
    """One call to make, and what it shows."""

    shows: str
    project: str
    body: Json


def _chat(model: str, prompt: str, **more: object) -> Json:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **more}


CALLS = (
    DemoCall("plain", "web", _chat("gpt-4o", "What does a toll gate do?")),
    DemoCall("streamed", "web", _chat("gpt-4o-mini", "Count to forty. simulate:tokens=40", stream=True)),
    DemoCall(
        "cached prompt", "web", _chat("gpt-4.1", "The long preamble again. simulate:prompt=1000 simulate:cached=600")
    ),
    DemoCall("own key", "lab", _chat("gpt-4o", "What does a toll gate do?")),
    DemoCall("failing", "web", _chat("gpt-4o", "This one the provider cannot answer. simulate:status=500")),
)


async def run_demo(stack: Stack, console: Console) -> None:
    """Makes the calls, waits until the ledger has them, and prints the bill. Raises StackError when a step fails."""
    async with ClientBuilder().base_url(f"{stack.url}/").build() as client:
        demo = await _demo_of(stack, client)
        before = await _get(client, "v1/balance", demo.key)
        ids = [await _call(client, demo.key, call) for call in CALLS]
        details = await _until_recorded(client, demo.key, ids)
        after = await _get(client, "v1/balance", demo.key)
        activity = await _get(client, "activity?days=1", demo.key)
    _print_calls(console, details)
    _print_lines(console, details)
    _print_activity(console, activity)
    _print_balance(console, details, before, after)
    _print_next_steps(console, stack.url, demo.key)


async def _demo_of(stack: Stack, client: Client) -> Demo:
    path = stack.state.demo
    if path.exists():
        return Demo(**orjson.loads(path.read_bytes()))
    demo = await _make_demo(client, stack.secrets.operator_key)
    write_private(path, orjson.dumps(asdict(demo)))
    return demo


async def _make_demo(client: Client, operator_key: str) -> Demo:
    async def post(path: str, **body: object) -> Json:
        return await _json(client, "POST", path, operator_key, body)

    made = await post("v1/organizations", display_name="Demo", plan="PLAN_PRO", payload_retained=True)
    organization_id = made["organization"]["organization_id"]
    await post("v1/projects", organization_id=organization_id, project_id="web")
    await post("v1/projects", organization_id=organization_id, project_id="lab", mode="PROJECT_MODE_HYBRID")
    await post("v1/provider_keys", organization_id=organization_id, provider="openai", secret="sk-own-demo")  # noqa: S106
    await post("v1/credit_grants", organization_id=organization_id, grant_id="welcome", amount="25")
    key = await post("v1/api_keys", organization_id=organization_id, display_name="demo")
    return Demo(organization_id, key["secret"])


async def _call(client: Client, key: str, call: DemoCall) -> str:
    """Makes a call and returns its request id; whether it succeeds is for the bill to tell."""
    headers = {"authorization": f"Bearer {key}", "x-tollgate-project": call.project, "x-tollgate-workflow": call.shows}
    answer = await client.post("v1/chat/completions").headers(headers).body_json(call.body).build().send()
    await answer.bytes()
    request_id = answer.headers.get("x-tollgate-request-id")
    if request_id is None:
        raise StackError(f"the {call.shows} call came back with {answer.status} and without a request id")
    return str(request_id)


async def _until_recorded(client: Client, key: str, ids: list[str]) -> list[Json]:
    """The calls as reporting knows them; records take up to two seconds from answer to figure."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    while True:
        details = [await _get(client, f"v1/requests/{request_id}", key, missing_is_none=True) for request_id in ids]
        found = [detail for detail in details if detail]
        if len(found) == len(ids):
            return found
        if time.monotonic() > deadline:
            raise StackError(f"{len(ids) - len(found)} calls are not in the books after {VISIBLE_SECONDS} seconds")
        await asyncio.sleep(POLL_SECONDS)


async def _get(client: Client, path: str, key: str, *, missing_is_none: bool = False) -> Json:
    return await _json(client, "GET", path, key, None, missing_is_none=missing_is_none)


async def _json(
    client: Client, method: str, path: str, key: str, body: Json | None, *, missing_is_none: bool = False
) -> Json:
    request = client.request(method, path).header("authorization", f"Bearer {key}")
    answer = await (request if body is None else request.body_json(body)).build().send()
    if answer.status == 404 and missing_is_none:
        return {}
    if answer.status != 200:
        raise StackError(f"{method} /{path} was answered with {answer.status}: {await answer.text()}")
    parsed: Json = await answer.json()
    return parsed


def _print_calls(console: Console, details: list[Json]) -> None:
    table = Table("call", "model", "provider", "status", "in", "out", "paid from", "cost USD", title="\nThe calls")
    for detail in details:
        call = detail["request"]
        tokens = (_count(call["input_tokens"]), _count(call["output_tokens"]))
        cost = detail["cost_exact"] or "unpriced"
        table.add_row(
            call["workflow"], call["model"], call["provider"], str(call["status"]), *tokens, call["funding"], cost
        )
    console.print(table)


def _count(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def _print_lines(console: Console, details: list[Json]) -> None:
    table = Table("call", "line", "quantity", "USD each", "discount", "cost USD", "charged", title="\nThe bill")
    for detail in details:
        for line in detail["cost_lines"]:
            values = (line["line"], line["quantity"], line["unit_price"], line["discount"], line["cost"])
            table.add_row(detail["request"]["workflow"], *values, "yes" if line["charged"] else "no")
    lines = [line for detail in details for line in detail["cost_lines"]]
    table.add_section()
    table.add_row("total", "", "", "", "", _sum(lines), "")
    table.add_row("charged to credits", "", "", "", "", _sum([line for line in lines if line["charged"]]), "")
    console.print(table)


def _sum(lines: list[Json]) -> str:
    return f"{sum((Decimal(line['cost']) for line in lines), Decimal(0)).normalize():f}"


def _print_activity(console: Console, activity: Json) -> None:
    table = Table("day", "model", "calls", "errors", "in", "out", "cost USD", title="\nGET /activity?days=1")
    for day in activity["activity"]:
        for row in day["modelBreakdown"]:
            counts = [f"{row[name]:,.0f}" for name in ("requestCount", "errorCount", "inputTokens", "outputTokens")]
            table.add_row(day["date"], row["id"] or "–", *counts, f"{row['cost']:.12f}".rstrip("0").rstrip("."))
        table.add_section()
        totals = [f"{day[name]:,.0f}" for name in ("requestCount", "errorCount", "inputTokens", "outputTokens")]
        table.add_row(day["date"], "all", *totals, day["costExact"])
    console.print(table)


def _print_balance(console: Console, details: list[Json], before: Json, after: Json) -> None:
    moved = Decimal(before["balance"]) - Decimal(after["balance"])
    charged = sum((Decimal(detail["charged_exact"]) for detail in details), Decimal(0))
    verdict = "[green]which is what was charged[/]" if moved == charged else f"[red]but {charged:f} was charged[/]"
    console.print(
        f"\nThe balance went from {before['balance']} to {after['balance']} USD: {moved.normalize():f} less, {verdict}."
    )


def _print_next_steps(console: Console, url: str, key: str) -> None:
    today = datetime.now(UTC).date()
    console.print(f"\nThe demo's key is [bold]{key}[/]. To go on:\n")
    body = '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}'
    for line in (
        f"curl {url}/v1/chat/completions -H 'authorization: Bearer {key}' -H 'x-tollgate-project: web' -d '{body}'",
        f"curl '{url}/activity?from={today}&to={today}' -H 'authorization: Bearer {key}'",
        f"curl '{url}/v1/requests?limit=5' -H 'authorization: Bearer {key}'",
    ):
        console.print(f"  {line}", soft_wrap=True, markup=False)

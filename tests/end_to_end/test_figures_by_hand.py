"""Every figure of every family, against what a pencil says of the calls in `figures_by_hand`, to the last digit."""

import csv
import io
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from development.addresses import Addresses
from development.stack import Stack
from development.state import State
from tests.end_to_end.conftest import Api, Json, eventually
from tests.end_to_end.figures_by_hand import DAY, GRANTED, PLAIN, Scene, play, providers_file


def _words(text: str) -> list[str]:
    return text.split()


FIGURES = _words(
    """
    requestCount inputTokens outputTokens totalTokens cachedTokens cost inputCost outputCost cachedInputCost
    cacheWriteInputCost requestCost webSearchCost dataStorageCost imageInputCost imageOutputCost audioInputCost
    audioOutputCost errorCount errorRate clientErrorCount cacheCount cacheRate discountSavings creditsRequestCount
    apiKeysRequestCount creditsCost apiKeysCost creditsDataStorageCost apiKeysDataStorageCost
    """
)
# Of each day, in the order of FIGURES. What adds up to each is in the tables of `figures_by_hand`.
BEFORE = [
    *(1, 10, 1, 11, 0),
    # 0.04 less a fifth; half of it is input.
    *(0.032, 0.016, 0.016, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    *(0, 0, 0, 0, 0, 0.008, 1, 0, 0.032, 0, 0, 0),
]
YESTERDAY = [
    # 1,000 + 100 in, 200 + 50 out; 600 + 10 from caches.
    *(4, 1_100, 250, 1_350, 610),
    # Batch 0.4 in, 0.06 cached, 2 out; everything 0.057 + 0.06 + 0.032 in, 0.33 + 0.14 + 0.18 + 0.16 out, 0.001 cached,
    # 0.01 written, a call 0.5, two searches 0.5, storage of 150 tokens.
    *(4.4300015, 0.549, 2.81, 0.061, 0.01, 0.5, 0.5, 0.0000015, 0.06, 0.18, 0.032, 0.16),
    # Two of four failed, one of them with a 429; one was made with an own key, and failed.
    *(2, 50, 1, 0, 0, 0, 3, 1, 4.4300015, 0, 0.0000015, 0),
]
TODAY = [
    # 1,000 twice, 500, 100, 10 in; 100 twice, 50, 10, 5 out.
    *(8, 2_610, 265, 2_875, 4),
    # In 1 + 0.8 + 0.24 + 0.006; out 1 + 0.8 + 0.24 + 0.05; cached 0.0004; a call 0.5 and a rejection 0.75; storage of
    # 2,875 tokens.
    *(5.38642875, 2.046, 2.09, 0.0004, 0, 1.25, 0, 0.00002875, 0, 0, 0, 0),
    # Three of eight failed, two of them with a 400; one came from our cache; a fifth of 2 and of 0.6 was saved. The own
    # key's call is 0.48 and storage of 110 tokens.
    *(3, 37.5, 2, 1, 12.5, 0.52, 7, 1, 4.90642765, 0.4800011, 0.00002765, 0.0000011),
]
# Of today and yesterday, credits; storage of the own key's call is among it. What was imported is not.
CHARGED = ("0", "4.4300015", "4.90642875")
IN_ALL = [
    *(13, 3_720, 516, 4_236, 614),
    *(9.84843025, 2.611, 4.916, 0.0614, 0.01, 1.75, 0.5, 0.00003025, 0.06, 0.18, 0.032, 0.16),
    *(5, 100 * 5 / 13, 3, 1, 100 / 13, 0.528, 11, 2, 9.36842915, 0.4800011, 0.00002915, 0.0000011),
]
CHARGED_IN_ALL = "9.33643025"
ROW = _words(
    """
    id provider requestCount errorCount cacheCount inputTokens outputTokens totalTokens cachedTokens cost
    creditsRequestCount apiKeysRequestCount creditsCost apiKeysCost
    """
)
MODELS_TODAY = [
    ("alpha", "north", 2, 0, 1, 2_000, 200, 2_200, 0, 2.000022, 2, 0, 2.000022, 0),
    ("alpha", "south", 1, 0, 0, 500, 50, 550, 0, 1.6000055, 1, 0, 1.6000055, 0),
    ("gamma", "east", 3, 2, 0, 10, 5, 15, 4, 1.30640015, 3, 0, 1.30640015, 0),
    ("beta", "south", 1, 0, 0, 100, 10, 110, 0, 0.4800011, 0, 1, 0, 0.4800011),
    ("", "", 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0),
]
PROVIDERS_TODAY = [
    ("south", "south", 2, 0, 0, 600, 60, 660, 0, 2.0800066, 1, 1, 1.6000055, 0.4800011),
    ("north", "north", 2, 0, 1, 2_000, 200, 2_200, 0, 2.000022, 2, 0, 2.000022, 0),
    ("east", "east", 3, 2, 0, 10, 5, 15, 4, 1.30640015, 3, 0, 1.30640015, 0),
    ("", "", 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0),
]
WORKFLOWS_TODAY = [
    ("", "", 6, 3, 0, 610, 65, 675, 4, 3.38640675, 5, 1, 2.90640565, 0.4800011),
    ("chat", "", 2, 0, 1, 2_000, 200, 2_200, 0, 2.000022, 2, 0, 2.000022, 0),
]
KEYS_TODAY = [
    ("all", "", 5, 1, 1, 2_600, 260, 2_860, 0, 4.0800286, 4, 1, 3.6000275, 0.4800011),
    ("mobile", "", 3, 2, 0, 10, 5, 15, 4, 1.30640015, 3, 0, 1.30640015, 0),
]

CALL = _words(
    """
    project_id workflow requested_model model provider status error streamed cached funding input_tokens
    output_tokens cost attempt_count
    """
)
CREDITS, OWN_KEY = "credits", "own_key"
CALLS: dict[str, tuple[Any, ...]] = {
    "plain": ("web", "chat", "north/alpha", "alpha", "north", 200, "", False, False, CREDITS, 1000, 100, 2.000011, 1),
    "cached": ("web", "chat", "north/alpha", "alpha", "north", 200, "", False, True, CREDITS, 1000, 100, 0.000011, 0),
    "rescued": ("web", "", "alpha", "alpha", "south", 200, "", True, False, CREDITS, 500, 50, 1.6000055, 2),
    "own key": ("lab", "", "south/beta", "beta", "south", 200, "", False, False, OWN_KEY, 100, 10, 0.4800011, 1),
    "prompt cache": ("mobile", "", "east/gamma", "gamma", "east", 200, "", False, False, CREDITS, 10, 5, 0.55640015, 1),
    "failed": ("mobile", "", "east/gamma", "gamma", "east", 502, "status", False, False, CREDITS, None, None, 0, 1),
    "refused": ("web", "", "", "", "", 400, "invalid_request", False, False, CREDITS, None, None, 0, 0),
    "rejected": (
        *("mobile", "", "east/gamma", "gamma", "east", 400, "content_filter", False, False, CREDITS, None, None),
        *(0.75, 1),
    ),
    "batch": ("web", "batch", "alpha", "alpha", "north", 200, "", True, False, CREDITS, 1000, 200, 2.46, 1),
    "everything": ("mobile", "", "gamma", "gamma", "east", 200, "", False, False, CREDITS, 100, 50, 1.9700015, 1),
    "broken": ("lab", "", "beta", "beta", "south", 502, "timeout", False, False, OWN_KEY, None, None, 0, 1),
    "throttled": ("web", "", "", "", "", 429, "rate_limited", False, False, CREDITS, None, None, 0, 0),
    "imported": ("web", "", "alpha", "alpha", "south", 200, "", False, False, CREDITS, 10, 1, 0.032, 0),
}


@pytest.fixture(scope="module")
async def scene(new_state: State) -> AsyncIterator[Scene]:
    addresses = Addresses.free()
    file = providers_file(new_state.directory / "three.toml", addresses.simulator)
    own = {"TOLLGATE_PROVIDERS_FILE": str(file), "SIMULATOR_API_KEY": "simulated"}
    stack = Stack(new_state, addresses, router_environment=own)
    try:
        await stack.start()
        played = play(stack, Api(stack.url, stack.secrets.operator_key))
        eventually(lambda: played.api.get("/v1/requests"), lambda answer: answer.body["total"] == len(CALLS))
        yield played
    finally:
        await stack.stop()


def read(api: Api, path: str) -> Json:
    answer = api.get(path)
    assert answer.status == 200, answer
    body: Json = answer.body
    return body


def period(label: str, figures: list[Any], charged: str) -> Json:
    exact = {"costExact": format(Decimal(str(figures[5])), "f"), "chargedExact": charged}
    return {"date": label, **dict(zip(FIGURES, figures, strict=True)), **exact}


def without_breakdowns(shown: Json) -> Json:
    return {name: value for name, value in shown.items() if not name.endswith("Breakdown")}


def rows(*values: tuple[Any, ...]) -> list[Json]:
    return [dict(zip(ROW, one, strict=True)) for one in values]


def test_every_field_of_every_day(scene: Scene) -> None:
    expected = [
        period(day, figures, charged)
        for day, figures, charged in zip(scene.days, (BEFORE, YESTERDAY, TODAY), CHARGED, strict=True)
    ]

    for path in ("/activity", "/v1/activity"):
        days = read(scene.api, f"{path}?days=30")["activity"]

        assert [without_breakdowns(day) for day in days] == expected


def test_a_range_has_its_idle_days(scene: Scene) -> None:
    idle = str(scene.today - 3 * DAY)

    days = read(scene.api, f"/activity?from={idle}&to={scene.days[1]}")["activity"]

    assert [day["requestCount"] for day in days] == [0, 1, 4]
    assert without_breakdowns(days[0]) == period(idle, [0] * len(FIGURES), "0")


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [("model", MODELS_TODAY), ("provider", PROVIDERS_TODAY), ("workflow", WORKFLOWS_TODAY), ("apiKey", KEYS_TODAY)],
)
def test_every_field_of_every_breakdown(scene: Scene, group_by: str, expected: list[tuple[Any, ...]]) -> None:
    today = read(scene.api, f"/activity?days=1&groupBy={group_by}")["activity"][0]

    if group_by == "apiKey":
        expected = [(scene.api_key_ids[name], *rest) for name, *rest in expected]
    assert today[f"{group_by}Breakdown"] == rows(*expected)
    assert today["modelBreakdown"] == rows(*MODELS_TODAY)
    others = {"model", "provider", "workflow", "apiKey"} - {group_by, "model"}
    assert [today[f"{other}Breakdown"] for other in others] == [[]] * len(others)


def test_a_project_key_sees_the_figures_of_its_project(scene: Scene) -> None:
    (today,) = read(scene.mobile, "/activity?days=1")["activity"]

    assert today["modelBreakdown"] == rows(MODELS_TODAY[2])
    assert (today["requestCount"], today["costExact"]) == (3, "1.30640015")


def test_hours_add_up_to_their_day_and_days_are_those_of_the_zone(scene: Scene) -> None:
    hours = read(scene.api, f"/activity?from={scene.days[1]}&to={scene.days[1]}&granularity=hourly")["activity"]
    # 23:59:59 in UTC is 5:29:59 of the next day in Kolkata.
    days = read(scene.api, f"/activity?from={scene.days[0]}&to={scene.days[1]}&timezone=Asia/Kolkata")["activity"]

    assert [hour["requestCount"] for hour in hours] == [4 if number == 10 else 0 for number in range(24)]
    assert hours[10]["costExact"] == "4.4300015"
    assert [(day["requestCount"], day["costExact"]) for day in days] == [(0, "0"), (5, "4.4620015")]


def test_every_field_of_the_summary(scene: Scene) -> None:
    summary = read(scene.api, "/v1/activity/summary?days=3")

    part = "requestCount errorCount inputTokens outputTokens totalTokens cost dataStorageCost costExact chargedExact"
    figures = period("", IN_ALL, CHARGED_IN_ALL)
    del figures["date"]
    assert summary == figures | {
        "from": scene.days[0],
        "to": scene.days[2],
        "credits": dict(
            zip(
                part.split(),
                (11, 4, 3_620, 506, 4_126, 9.36842915, 0.00002915, "9.36842915", "9.33642915"),
                strict=True,
            )
        ),
        "apiKeys": dict(
            zip(part.split(), (2, 1, 100, 10, 110, 0.4800011, 0.0000011, "0.4800011", "0.0000011"), strict=True)
        ),
        "apiKeysSavings": 0.48,
        "apiKeysSavingsExact": "0.48",
    }


@pytest.mark.parametrize("question", ["", "?days=3", "?days=365&group_by=provider"])
def test_every_field_of_the_analytics(scene: Scene, question: str) -> None:
    before, yesterday, today = scene.days

    assert read(scene.api, f"/v1/analytics{question}") == {
        # 13 calls, of which two were refused before any attempt.
        "total_requests": 11,
        "successful_requests": 8,
        "failed_requests": 3,
        "success_rate": 8 / 11,
        "providers": {"north": counts(3, 3), "south": counts(4, 3), "east": counts(4, 2)},
        "models": {"alpha": counts(5, 5), "beta": counts(2, 1), "gamma": counts(4, 2)},
        "projects": {"web": counts(5, 5), "lab": counts(2, 1), "mobile": counts(4, 2)},
        "daily": [
            {"date": before, **counts(1, 1), "failure_rate": 0},
            {"date": yesterday, **counts(3, 2), "failure_rate": 1 / 3},
            {"date": today, **counts(7, 5), "failure_rate": 2 / 7},
        ],
        "group_by": "provider",
        "daily_breakdown": [
            {"date": before, "key": "south", **counts(1, 1), "failure_rate": 0},
            {"date": yesterday, "key": "east", **counts(1, 1), "failure_rate": 0},
            {"date": yesterday, "key": "north", **counts(1, 1), "failure_rate": 0},
            {"date": yesterday, "key": "south", **counts(1, 0), "failure_rate": 1},
            {"date": today, "key": "east", **counts(3, 1), "failure_rate": 2 / 3},
            {"date": today, "key": "north", **counts(2, 2), "failure_rate": 0},
            {"date": today, "key": "south", **counts(2, 2), "failure_rate": 0},
        ],
    }


def counts(requests: int, successful: int) -> Json:
    return {"requests": requests, "successful": successful, "failed": requests - successful}


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [("model", [("alpha", 3), ("beta", 1), ("gamma", 3)]), ("project", [("lab", 1), ("mobile", 3), ("web", 3)])],
)
def test_analytics_of_today_by_something_else(scene: Scene, group_by: str, expected: list[tuple[str, int]]) -> None:
    answer = read(scene.api, f"/v1/analytics?days=1&group_by={group_by}")

    assert [(row["key"], row["requests"]) for row in answer["daily_breakdown"]] == expected
    assert read(scene.api, "/v1/analytics?project_id=lab")["providers"] == {"south": counts(2, 1)}


def test_every_field_of_the_overview(scene: Scene) -> None:
    overview = read(scene.api, "/v1/overview?days=3")
    lab = read(scene.api, "/v1/overview?days=2&project_id=lab")

    latencies = {name: overview.pop(name) for name in list(overview) if name.endswith("_ms")}
    assert overview == {
        "chart": [
            {"date": day, "requests": figures[0], "tokens": figures[3], "cost": figures[5]}
            for day, figures in zip(scene.days, (BEFORE, YESTERDAY, TODAY), strict=True)
        ],
        "top_providers": ["east:gamma", "north:alpha", "south:alpha", "south:beta"],
        "fail_rate": 100 * 5 / 13,
        "tokens": 4_236,
        "cost": 9.84843025,
    }
    # Of the eleven calls that were measured, the slowest took 1,200 ms.
    assert latencies["latency_p99_ms"] == pytest.approx(1_200, rel=0.02)
    assert latencies["time_to_first_token_p50_ms"] > 0
    assert latencies["latency_p50_ms"] <= latencies["latency_p95_ms"] <= latencies["latency_p99_ms"]
    assert (lab["fail_rate"], lab["tokens"], lab["cost"]) == (50, 110, 0.4800011)


def test_percentiles_are_within_two_per_cent(scene: Scene) -> None:
    answer = read(scene.api, "/v1/latency?days=3")

    # The calls of these days have durations that we chose. One that was refused has none.
    chosen = {
        (scene.days[0], "alpha"): (300, 50),
        (scene.days[1], "alpha"): (400, 100),
        (scene.days[1], "beta"): (1_200, None),
        (scene.days[1], "gamma"): (800, 200),
    }
    shown = {(row["date"], row["key"]): row for row in answer["daily"]}
    for place, (latency_ms, first_token_ms) in chosen.items():
        for percent in (50, 95, 99):
            assert shown[place][f"latency_p{percent}_ms"] == pytest.approx(latency_ms, rel=0.02)
            first_token = shown[place][f"time_to_first_token_p{percent}_ms"]
            assert first_token == (first_token_ms and pytest.approx(first_token_ms, rel=0.02))
    assert [(row["date"], row["key"], row["requests"]) for row in answer["daily"]] == [
        *((date, key, 1) for date, key in chosen),
        *((scene.days[2], key, requests) for key, requests in (("alpha", 3), ("beta", 1), ("gamma", 3))),
    ]
    assert [(group["key"], group["requests"]) for group in answer["groups"]] == [
        ("alpha", 5),
        ("gamma", 4),
        ("beta", 2),
    ]


def test_every_field_of_the_failures(scene: Scene) -> None:
    names = ("side", "status", "error_type", "provider", "model", "failures")

    assert read(scene.api, "/v1/failures?days=3") == {
        "total_failures": 5,
        "client_failures": 3,
        "provider_failures": 2,
        "failures": [
            dict(zip(names, failure, strict=True))
            for failure in (
                ("provider", 502, "status", "east", "gamma", 1),
                ("provider", 502, "timeout", "south", "beta", 1),
                ("client", 400, "content_filter", "east", "gamma", 1),
                ("client", 400, "invalid_request", "", "", 1),
                ("client", 429, "rate_limited", "", "", 1),
            )
        ],
        "daily": [
            {"date": scene.days[1], "client_failures": 1, "provider_failures": 1},
            {"date": scene.days[2], "client_failures": 2, "provider_failures": 1},
        ],
    }


def test_every_field_of_every_call(scene: Scene) -> None:
    listed = {row["id"]: row for row in read(scene.api, "/v1/requests?limit=500")["requests"]}

    assert listed.keys() == set(scene.ids.values())
    for name, expected in CALLS.items():
        call = listed[scene.ids[name]]
        assert {field: call[field] for field in CALL} == dict(zip(CALL, expected, strict=True)), name
        is_early, is_mobiles = name in ("plain", "cached"), name in ("prompt cache", "failed", "rejected")
        assert call["metadata"] == ({"team": "red"} if is_early else {})
        assert call["endpoint"] == "chat_completions"
        if name != "imported":
            assert call["api_key_id"] == scene.api_key_ids["mobile" if is_mobiles else "all"]
    yesterday = [listed[scene.ids[name]] for name in ("batch", "everything", "broken", "imported")]
    assert [(call["latency_ms"], call["time_to_first_token_ms"]) for call in yesterday] == [
        (400, 100),
        (800, 200),
        (1_200, None),
        (300, 50),
    ]
    assert yesterday[-1]["timestamp"] == f"{scene.days[0]}T23:59:59.000000Z"


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("project_id=lab", {"own key", "broken"}),
        ("provider=north", {"plain", "cached", "batch"}),
        ("model=gamma&status=ok", {"prompt cache", "everything"}),
        ("status=error", {"failed", "refused", "rejected", "broken", "throttled"}),
        ("status=502", {"failed", "broken"}),
        ("cached=true", {"cached"}),
        ("funding=own_key", {"own key", "broken"}),
        ("workflow=batch", {"batch"}),
        ("metadata.team=red", {"plain", "cached"}),
        ("min_cost=1.97", {"plain", "batch", "everything"}),
        ("min_latency_ms=800&to={yesterday}", {"everything", "broken"}),
        ("from={yesterday}&to={yesterday}", {"batch", "everything", "broken", "throttled"}),
    ],
)
def test_lists_counts_and_exports_are_of_the_same_calls(scene: Scene, question: str, names: set[str]) -> None:
    question = question.format(yesterday=scene.days[1])

    listed = read(scene.api, f"/v1/requests?{question}")
    exported = scene.api.get(f"/v1/export/requests.jsonl?{question}")

    assert {row["id"] for row in listed["requests"]} == {scene.ids[name] for name in names}
    assert listed["total"] == len(names) == int(exported.headers["x-total-rows"])
    assert {json.loads(line)["id"] for line in exported.body.splitlines()} == {scene.ids[name] for name in names}


def test_every_line_of_a_call_that_has_every_kind(scene: Scene) -> None:
    call = read(scene.api, f"/v1/requests/{scene.ids['everything']}")

    names = ("line", "quantity", "unit_price", "cost")
    lines = [tuple(line[name] for name in names) for line in call["cost_lines"]]
    assert lines == [
        # 100 less 10 cached, 5 written, 20 of images, 8 of audio.
        ("INPUT", "57", "0.001", "0.057"),
        ("CACHED_INPUT", "10", "0.0001", "0.001"),
        ("CACHE_WRITE", "5", "0.002", "0.01"),
        ("IMAGE_INPUT", "20", "0.003", "0.06"),
        ("AUDIO_INPUT", "8", "0.004", "0.032"),
        # 50 less 7 of reasoning, 6 of images, 4 of audio.
        ("OUTPUT", "33", "0.01", "0.33"),
        ("REASONING_OUTPUT", "7", "0.02", "0.14"),
        ("IMAGE_OUTPUT", "6", "0.03", "0.18"),
        ("AUDIO_OUTPUT", "4", "0.04", "0.16"),
        ("REQUEST", "1", "0.5", "0.5"),
        ("WEB_SEARCH", "2", "0.25", "0.5"),
        ("DATA_STORAGE", "150", "0.00000001", "0.0000015"),
    ]
    assert all(line["charged"] and line["list_cost"] == line["cost"] for line in call["cost_lines"])
    assert {name: value for name, value in call["usage"].items() if value} == {
        "input_tokens": 100,
        "cached_input_tokens": 10,
        "cache_write_tokens": 5,
        "input_image_tokens": 20,
        "input_audio_tokens": 8,
        "output_tokens": 50,
        "reasoning_tokens": 7,
        "output_image_tokens": 6,
        "output_audio_tokens": 4,
        "web_searches": 2,
    }
    assert (call["cost_exact"], call["charged_exact"], call["saved_exact"]) == ("1.9700015", "1.9700015", "0")
    assert (call["usage_source"], call["discount"], call["flags"], call["unpriced"]) == ("reported", "0", [], False)


def test_a_rescued_call_shows_who_failed_who_answered_and_what_was_saved(scene: Scene) -> None:
    call = read(scene.api, f"/v1/requests/{scene.ids['rescued']}")

    tries = [
        tuple(one[name] for name in ("order", "provider", "model", "status", "error", "funding"))
        for one in call["attempts"]
    ]
    assert tries == [(1, "north", "alpha", 503, "status", "credits"), (2, "south", "alpha", 200, "", "credits")]
    assert [(line["line"], line["discount"], line["list_cost"], line["cost"]) for line in call["cost_lines"]] == [
        ("INPUT", "0.2", "1", "0.8"),
        ("OUTPUT", "0.2", "1", "0.8"),
        ("DATA_STORAGE", "0", "0.0000055", "0.0000055"),
    ]
    assert (call["discount"], call["saved_exact"]) == ("0.2", "0.4")
    assert "simulate:status=503@north" in call["request_body"]


@pytest.mark.parametrize(
    ("name", "cost", "charged", "saved"),
    [
        ("cached", "0.000011", "0.000011", "0"),
        ("own key", "0.4800011", "0.0000011", "0.12"),
        ("rejected", "0.75", "0.75", "0"),
        ("failed", "0", "0", "0"),
        ("refused", "0", "0", "0"),
        ("imported", "0.032", "0", "0.008"),
    ],
)
def test_what_a_call_cost_who_paid_and_what_was_saved(
    scene: Scene, name: str, cost: str, charged: str, saved: str
) -> None:
    call = read(scene.api, f"/v1/requests/{scene.ids[name]}")

    assert (call["cost_exact"], call["charged_exact"], call["saved_exact"]) == (cost, charged, saved)


def test_exports_are_the_activity_and_the_calls_exactly(scene: Scene) -> None:
    activity = table(scene.api.get("/v1/export/activity.csv?days=3").body)
    activity_lines = objects(scene.api.get("/v1/export/activity.jsonl?days=3").body)
    calls = table(scene.api.get("/v1/export/requests.csv").body)
    call_lines = objects(scene.api.get("/v1/export/requests.jsonl").body)

    for shown in (activity, activity_lines):
        assert [row["charged"] for row in shown] == list(CHARGED)
        for row, figures in zip(shown, (BEFORE, YESTERDAY, TODAY), strict=True):
            assert [Decimal(str(row[name])) for name in FIGURES] == [Decimal(str(figure)) for figure in figures]
    for rows_of_calls in (calls, call_lines):
        by_id = {row["id"]: row for row in rows_of_calls}
        for name, expected in CALLS.items():
            assert Decimal(by_id[scene.ids[name]]["cost"]) == Decimal(str(expected[CALL.index("cost")]))
        assert sum(Decimal(row["cost"]) for row in rows_of_calls) == Decimal("9.84843025")
        assert sum(Decimal(row["charged"]) for row in rows_of_calls) == Decimal(CHARGED_IN_ALL)
        assert sum(Decimal(row["saved"]) for row in rows_of_calls) == Decimal("0.528")


def table(file: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file, newline="")))


def objects(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.splitlines()]


def test_the_books_say_what_the_figures_say(scene: Scene) -> None:
    statement = read(scene.api, f"/v1/statement?from={scene.days[0]}&to={scene.days[2]}")

    assert scene.api.balance() == Decimal(GRANTED) - Decimal(CHARGED_IN_ALL)
    assert statement["balance"]["usage"] == statement["total"]["charged"] == CHARGED_IN_ALL
    assert statement["total"]["discount"] == "0.528"
    assert read(scene.api, "/v1/books:verify")["agree"] is True


def test_an_answer_that_is_kept_for_one_organization_is_not_given_to_another(scene: Scene) -> None:
    stranger = scene.another_organization()

    answer = stranger.post("/v1/chat/completions", PLAIN, x_tollgate_project="web")
    again = stranger.post("/v1/chat/completions", PLAIN, x_tollgate_project="web")

    assert [one.headers["x-tollgate-cache"] for one in (answer, again)] == ["miss", "hit"]

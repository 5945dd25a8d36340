"""Exports say what lists and activity say, exactly, as files that programs can read."""

import asyncio
import csv
import io
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from services.reporting import servicer_exports
from tests.contract.reporting.books import NOW, Books, Customer
from tests.contract.reporting.reporting_server import Reporting, fields_of, refusal_of
from tollgate.reporting.v1 import export_service_pb2 as pb

SECOND = timedelta(seconds=1)
NOTE = 'a "quoted", comma\nand line'
FORMULA = "=cmd|' /C calc'!A0"


async def export(reporting: Reporting, customer: Customer, name: str, **parameters: str) -> tuple[str, dict[str, str]]:
    """The file and its headers."""
    request = getattr(pb, f"Export{name}Request")(**fields_of(parameters))
    call: Any = getattr(reporting.exports, f"Export{name}")(request, metadata=customer.key.metadata, timeout=10)
    content = b"".join([message.data async for message in call])
    return content.decode(), dict(await call.initial_metadata())


def rows_of(file: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file, newline="")))


@pytest.fixture(scope="module")
def acme(books: Books) -> Customer:
    customer = books.customer()
    books.record(
        customer.call(workflow=FORMULA, metadata={"note": NOTE}),
        customer.own_key_call(at=NOW - SECOND, time_to_first_token_ms=None, streamed=True),
        customer.failed_call(at=NOW - 2 * SECOND),
        customer.call(at=NOW - 3 * SECOND, model="unheard-of"),
        customer.refused_call(at=NOW - timedelta(days=1)),
    )
    return customer


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"status": "ok"},
        {"status": "502"},
        {"limit": "2"},
        {"funding": "own_key"},
        {"cached": "false", "provider": "openai", "model": "gpt-4o"},
        {"from": "2026-05-20", "to": "2026-05-20T10:30:00Z"},
        {"min_latency_ms": "820", "min_cost": "0.0045"},
        {"metadata.note": NOTE},
    ],
    ids=str,
)
async def test_an_export_of_calls_is_their_list(
    reporting: Reporting, acme: Customer, parameters: dict[str, str]
) -> None:
    listed = await reporting.list(acme.key, **parameters)
    file, headers = await export(reporting, acme, "RequestsCsv", **parameters)
    lines, _ = await export(reporting, acme, "RequestsJsonl", **parameters)

    exported = rows_of(file)
    assert [row["id"] for row in exported] == [call.id for call in listed.requests]
    assert headers["x-total-rows"] == str(len(listed.requests))
    assert [json.loads(line)["id"] for line in lines.splitlines()] == [call.id for call in listed.requests]
    for row, call in zip(exported, listed.requests, strict=True):
        shown = MessageToDict(call, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        assert set(row) - set(shown) == {"charged", "saved"}
        assert row["timestamp"] == call.timestamp
        assert row["streamed"] == str(call.streamed).lower()
        assert (row["endpoint"], row["funding"], row["status"]) == (call.endpoint, call.funding, str(call.status))
        assert json.loads(row["metadata"]) == dict(call.metadata)
        assert row["cost"] == ("" if shown["cost"] is None else str(Decimal(str(shown["cost"])).normalize()))


async def test_amounts_are_exact_and_what_is_unknown_is_empty(reporting: Reporting, acme: Customer) -> None:
    file, _ = await export(reporting, acme, "RequestsCsv")
    lines, _ = await export(reporting, acme, "RequestsJsonl")

    credit, own_key, failed, unpriced, _ = rows_of(file)
    assert (credit["cost"], credit["charged"], own_key["cost"], own_key["charged"]) == (
        "0.0045",
        "0.0045",
        "0.0045",
        "0",
    )
    assert (failed["cost"], failed["input_tokens"], failed["time_to_first_token_ms"]) == ("0", "", "")
    assert unpriced["cost"] == ""
    assert json.loads(lines.splitlines()[0])["cost"] == "0.0045"
    assert json.loads(lines.splitlines()[3])["cost"] is None


async def test_a_csv_is_as_rfc_4180_has_it_and_runs_nothing(reporting: Reporting, acme: Customer) -> None:
    file, headers = await export(reporting, acme, "RequestsCsv")
    lines, _ = await export(reporting, acme, "RequestsJsonl")

    assert rows_of(file)[0]["workflow"] == f"'{FORMULA}"
    assert json.loads(lines.splitlines()[0])["workflow"] == FORMULA
    assert file.startswith("id,timestamp,project_id,")
    assert file.endswith("\r\n")
    assert file.count("\r\n") == 6
    assert headers["content-disposition"] == 'attachment; filename="requests.csv"'


async def test_an_export_leads_on_after_the_last_row_that_arrived(reporting: Reporting, acme: Customer) -> None:
    whole, _ = await export(reporting, acme, "RequestsCsv")
    arrived = rows_of(whole)[:2]

    rest, headers = await export(reporting, acme, "RequestsCsv", page_token=arrived[-1]["id"])

    assert arrived + rows_of(rest) == rows_of(whole)
    assert headers["x-total-rows"] == "3"


async def test_nothing_to_export_is_a_file_too(reporting: Reporting, books: Books) -> None:
    nobody = books.customer()

    calls, headers = await export(reporting, nobody, "RequestsCsv")
    lines, _ = await export(reporting, nobody, "RequestsJsonl")
    days, _ = await export(reporting, nobody, "ActivityCsv")

    assert (len(rows_of(calls)), lines, len(rows_of(days)), headers["x-total-rows"]) == (0, "", 0, "0")
    assert days.startswith("date,requestCount,")


@pytest.mark.parametrize("parameters", [{}, {"granularity": "hourly"}, {"timezone": "Asia/Kolkata"}], ids=str)
async def test_an_export_of_activity_is_the_activity(
    reporting: Reporting, acme: Customer, parameters: dict[str, str]
) -> None:
    periods = await reporting.activity(acme.key, **parameters)
    file, headers = await export(reporting, acme, "ActivityCsv", **parameters)
    lines, _ = await export(reporting, acme, "ActivityJsonl", **parameters)

    exported = rows_of(file)
    assert headers["x-total-rows"] == str(len(periods)) == str(len(exported))
    for row, line, period in zip(exported, lines.splitlines(), periods, strict=True):
        shown = MessageToDict(period, always_print_fields_with_no_presence=True)
        assert row["cost"] == period.cost_exact == json.loads(line)["cost"]
        assert row["charged"] == period.charged_exact
        assert {name for name in shown if name not in row} == {
            *(f"{kind}Breakdown" for kind in ("model", "apiKey", "provider", "workflow")),
            "costExact",
            "chargedExact",
        }
        numbers = {name: value for name, value in shown.items() if name in row and name != "date"}
        assert {name: float(row[name]) for name in numbers} == pytest.approx(numbers)


@pytest.mark.parametrize("group_by", ["model", "apiKey", "provider", "workflow"])
async def test_groups_of_a_day_add_up_to_the_day(reporting: Reporting, acme: Customer, group_by: str) -> None:
    days, _ = await export(reporting, acme, "ActivityCsv")
    groups, _ = await export(reporting, acme, "ActivityCsv", group_by=group_by)

    for day in rows_of(days):
        mine = [row for row in rows_of(groups) if row["date"] == day["date"]]
        for name in ("requestCount", "cost", "charged", "apiKeysCost", "errorCount"):
            assert sum(Decimal(row[name]) for row in mine) == Decimal(day[name])


async def test_activity_leads_on_with_the_last_day_that_arrived(reporting: Reporting, acme: Customer) -> None:
    whole = rows_of((await export(reporting, acme, "ActivityCsv"))[0])

    rest = rows_of((await export(reporting, acme, "ActivityCsv", page_token=whole[-1]["date"]))[0])
    wrong = await refusal_of(export(reporting, acme, "ActivityCsv", page_token="2020-01-01"))

    assert rest == whole[-1:]
    assert wrong.field == "page_token"


@pytest.mark.parametrize(
    ("name", "parameters", "field"),
    [
        ("RequestsCsv", {"status": "fine"}, "status"),
        ("RequestsJsonl", {"page_token": "7"}, "page_token"),
        ("RequestsCsv", {"limit": "0"}, "limit"),
        ("ActivityCsv", {"days": "0"}, "days"),
        ("ActivityJsonl", {"group_by": "colour"}, "groupBy"),
    ],
    ids=str,
)
async def test_a_wrong_parameter_of_an_export_is_named_before_anything_is_sent(
    reporting: Reporting, acme: Customer, name: str, parameters: dict[str, str], field: str
) -> None:
    assert (await refusal_of(export(reporting, acme, name, **parameters))).field == field


async def test_an_export_that_is_given_up_makes_room_for_another(
    reporting: Reporting, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicer_exports, "CHUNK_BYTES", 1)
    customer = books.customer()
    books.record(*(customer.call(at=NOW - number * SECOND) for number in range(40)))

    for _ in range(3 * servicer_exports.EXPORTS_MAX):
        call = reporting.exports.ExportRequestsCsv(pb.ExportRequestsCsvRequest(), metadata=customer.key.metadata)
        await call.read()
        call.cancel()
        await asyncio.sleep(0.05)

    file, _ = await export(reporting, customer, "RequestsCsv")
    assert len(rows_of(file)) == 40

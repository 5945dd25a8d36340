import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.common.errors import UnavailableError
from services.ledger.errors import SequenceGapError
from services.ledger.storage.usage.contents import PreparedBatch
from services.ledger.storage.usage.ingest import Ingest, Outcome, Recount
from services.ledger.storage.usage.usage import prepare_session
from services.ledger.storage.writer import DatabaseWriter
from services.ledger.usage.records import RecordFlag, RecordStatus
from tests.conftest import Database
from tests.usage_builders import (
    COST_PICO,
    Books,
    Recorder,
    a_price_book,
    a_record,
    a_recorder,
    a_request,
    add_organization,
    books_of,
    now_in_utc,
    waiting_backends,
)
from tollgate.ledger.v1.usage_pb2 import OutputImages, Usage, UsageRecord

RECORDED, DUPLICATE, CONFLICT, INVALID = RecordStatus


@pytest.fixture(scope="module")
async def recorder(database: Database) -> AsyncIterator[Recorder]:
    async with a_recorder(database) as running:
        yield running


@pytest.fixture
def organization_id(database: Database) -> str:
    return add_organization(database)


def rows(database: Database, query: str, *values: object) -> list[Any]:
    with psycopg.connect(database.admin_url) as connection:
        return connection.execute(query.encode(), values).fetchall()


async def test_a_finished_call_is_in_records_lines_figures_journal_and_balance(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    assert await recorder.statuses(a_request(a_record(organization_id))) == [RECORDED]

    books = books_of(database, organization_id)
    assert books.record_count == 1
    assert books.records_charged == COST_PICO
    assert books.agree


async def test_every_field_of_a_record_is_stored_as_it_came(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    record = a_record(
        organization_id,
        streamed=True,
        workflow="summaries",
        service_tier="flex",
        error_type="none",
        metadata={"ticket": "T-1", "größe": "ß"},
        usage=Usage(input_tokens=9, output_tokens=8, output_images=[OutputImages(size="1024x1024", count=2)]),
    )

    await recorder.record(a_request(record))

    (stored,) = rows(
        database,
        """
        SELECT project_id, workflow, service_tier, error_type, metadata, streamed, input_tokens, output_tokens,
               output_images, cached_input_image_tokens, attempts, latency_ms, time_to_first_token_ms, start_time,
               request_day::text, price_version_id, unpriced
          FROM reporting.usage_record WHERE organization_id = %s
        """,
        organization_id,
    )
    assert stored[:5] == ("web", "summaries", "flex", "none", {"ticket": "T-1", "größe": "ß"})
    assert stored[5:10] == (True, 9, 8, 2, None)
    assert stored[10] == [
        {
            "provider": "openai",
            "upstream_model": "gpt-4o",
            "funding": 1,
            "status": 200,
            "error_type": "",
            "start_offset_ms": 0,
            "latency_ms": 890,
        }
    ]
    start_time = record.start_time.ToDatetime(now_in_utc().tzinfo)
    assert stored[11:] == (900, 200, start_time, f"{start_time:%Y-%m-%d}", 1, False)


async def test_a_record_without_usage_has_none_rather_than_zeros(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    record = a_record(organization_id, outcome=2, status=502, usage=None, usage_source=0)

    await recorder.record(a_request(record))

    query = (
        "SELECT input_tokens, web_searches, cost_pico, unpriced FROM reporting.usage_record WHERE organization_id = %s"
    )
    assert rows(database, query, organization_id) == [(None, None, 0, False)]


async def test_a_model_without_a_price_costs_an_unknown_amount_rather_than_zero(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    await recorder.record(a_request(a_record(organization_id, model="brand-new", payload_retained=True)))

    query = """
        SELECT cost_pico, charged_pico, unpriced, price_version_id
          FROM reporting.usage_record WHERE organization_id = %s
    """
    storage_pico = 1_200 * 10_000
    assert rows(database, query, organization_id) == [(None, storage_pico, True, None)]
    query = "SELECT unpriced_count, charged_pico FROM reporting.usage_hour WHERE organization_id = %s"
    assert rows(database, query, organization_id) == [(1, storage_pico)]


async def test_a_cost_line_says_how_its_amount_came_about(database: Database, organization_id: str) -> None:
    async with a_recorder(database, a_price_book(discount="0.2")) as recorder:
        await recorder.record(a_request(a_record(organization_id)))

    query = """
        SELECT line_number, line, quantity, unit_price, discount, cost_pico, list_cost_pico, charged
          FROM reporting.cost_line WHERE organization_id = %s ORDER BY line_number
    """
    fifth = Decimal("0.2")
    assert rows(database, query, organization_id) == [
        (1, "INPUT", 400, Decimal("0.0000025"), fifth, 800_000_000, 1_000_000_000, True),
        (2, "CACHED_INPUT", 600, Decimal("0.00000125"), fifth, 600_000_000, 750_000_000, True),
        (3, "OUTPUT", 200, Decimal("0.00001"), fifth, 1_600_000_000, 2_000_000_000, True),
    ]
    books = books_of(database, organization_id)
    # We earned the list price and gave a discount; the organization owes what is left.
    assert books.balances == {3: -3_000_000_000, 5: 3_750_000_000, 6: -750_000_000}
    assert books.agree


async def test_a_call_on_the_customers_own_key_is_shown_and_not_charged(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    await recorder.record(a_request(a_record(organization_id, funding=2)))

    books = books_of(database, organization_id)
    assert books.records_cost == COST_PICO
    assert books.records_charged == 0
    assert books.sequences == []
    assert books.agree


async def test_a_repeated_record_is_a_duplicate_whoever_sends_it(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    record = a_record(organization_id)
    await recorder.record(a_request(record, producer_id=str(uuid4())))

    assert await recorder.statuses(a_request(record)) == [DUPLICATE]
    assert await recorder.statuses(a_request(record, producer_id=str(uuid4()), first_sequence=1)) == [DUPLICATE]
    assert books_of(database, organization_id).record_count == 1


async def test_another_record_under_the_same_id_is_a_conflict_and_is_set_aside(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    record = a_record(organization_id)
    other = a_record(organization_id, request_id=record.request_id, latency_ms=1)
    await recorder.record(a_request(record))

    receipt = await recorder.record(a_request(other))

    assert [(result.status, result.reason) for result in receipt.results] == [
        (CONFLICT, "request_id belongs to another record")
    ]
    (stored,) = rows(
        database, "SELECT record FROM ledger.rejected_record WHERE status = 3 AND reason LIKE 'request_id%%'"
    )
    assert UsageRecord.FromString(stored[0]).latency_ms == 1
    assert books_of(database, organization_id).record_count == 1


async def test_repeats_and_conflicts_within_one_batch_are_told_apart(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    record = a_record(organization_id)
    other = a_record(organization_id, request_id=record.request_id, latency_ms=1)

    assert await recorder.statuses(a_request(record, other, record)) == [RECORDED, CONFLICT, DUPLICATE]
    assert await recorder.statuses(a_request(other, record)) == [CONFLICT, DUPLICATE]
    assert books_of(database, organization_id).agree


async def test_a_committed_sequence_is_a_duplicate_without_looking_further(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    producer_id = str(uuid4())
    await recorder.record(a_request(a_record(organization_id), producer_id=producer_id))

    receipt = await recorder.record(
        a_request(a_record(organization_id), a_record(organization_id), producer_id=producer_id)
    )

    assert [result.status for result in receipt.results] == [DUPLICATE, RECORDED]
    assert receipt.committed_sequence == 2
    assert books_of(database, organization_id).record_count == 2


async def test_sequences_begin_again_with_each_epoch(recorder: Recorder, organization_id: str) -> None:
    producer_id = str(uuid4())
    await recorder.record(a_request(a_record(organization_id), producer_id=producer_id))

    assert await recorder.statuses(a_request(a_record(organization_id), producer_id=producer_id, epoch=2)) == [RECORDED]


async def test_records_that_skip_a_sequence_are_refused_and_told_where_to_go_on(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    producer_id = str(uuid4())
    await recorder.record(a_request(a_record(organization_id), producer_id=producer_id))

    with pytest.raises(SequenceGapError) as refused:
        await recorder.record(a_request(a_record(organization_id), producer_id=producer_id, first_sequence=3))

    assert refused.value.metadata == {"committed_sequence": "1", "sequence": "3"}
    assert books_of(database, organization_id).record_count == 1


async def test_a_gap_of_one_producer_stops_no_other(recorder: Recorder, organization_id: str) -> None:
    gap, fine = (
        a_request(a_record(organization_id), producer_id=str(uuid4()), first_sequence=sequence) for sequence in (2, 1)
    )

    refused = asyncio.create_task(recorder.record(gap))
    receipt = await recorder.record(fine)

    assert receipt.committed_sequence == 1
    with pytest.raises(SequenceGapError):
        await refused


async def test_calls_of_one_producer_that_come_together_may_come_in_any_order(
    recorder: Recorder, organization_id: str
) -> None:
    producer_id = str(uuid4())
    requests = [
        a_request(a_record(organization_id), producer_id=producer_id, first_sequence=sequence) for sequence in (3, 1, 2)
    ]

    receipts = await asyncio.gather(*map(recorder.record, requests))

    assert all(receipt.results[0].status is RECORDED for receipt in receipts)


async def test_a_poison_record_never_stops_its_neighbours(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    producer_id = str(uuid4())
    poison = a_record(organization_id, usage=Usage(input_tokens=-1))
    stranger = a_record(str(uuid4()))

    receipt = await recorder.record(
        a_request(a_record(organization_id), poison, stranger, a_record(organization_id), producer_id=producer_id)
    )

    assert [(result.status, result.reason) for result in receipt.results] == [
        (RECORDED, ""),
        (INVALID, "usage.input_tokens must be from 0 to 1000000000000, got -1"),
        (INVALID, "organization_id names no organization"),
        (RECORDED, ""),
    ]
    assert receipt.committed_sequence == 4
    query = "SELECT sequence, record FROM ledger.rejected_record WHERE producer_id = %s ORDER BY sequence"
    set_aside = rows(database, query, producer_id)
    assert [sequence for sequence, _ in set_aside] == [2, 3]
    assert UsageRecord.FromString(set_aside[0][1]) == poison
    assert books_of(database, organization_id).record_count == 2


async def test_a_record_that_costs_more_than_can_be_booked_is_invalid(recorder: Recorder, organization_id: str) -> None:
    huge = a_record(organization_id, usage=Usage(output_tokens=10**12))

    receipt = await recorder.record(a_request(huge, a_record(organization_id)))

    assert [result.status for result in receipt.results] == [INVALID, RECORDED]
    assert receipt.results[0].reason.startswith("usage costs too much: ")


async def test_figures_may_grow_beyond_what_any_single_amount_can_hold(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    # Each costs eight million USD; a line can hold a little over nine.
    records = [a_record(organization_id, usage=Usage(output_tokens=8 * 10**11)) for _ in range(5)]

    assert await recorder.statuses(a_request(*records)) == [RECORDED] * 5

    books = books_of(database, organization_id)
    assert books.hours_cost == 40 * 10**18
    assert books.agree


async def test_a_record_that_only_the_database_refuses_is_set_aside_alone(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger.usage_record ADD CONSTRAINT no_poison CHECK (workflow <> 'poison')")
    poison = a_record(organization_id, workflow="poison")
    requests = [
        a_request(a_record(organization_id), poison, a_record(organization_id), producer_id=str(uuid4())),
        a_request(a_record(organization_id)),
    ]

    first, second = await asyncio.gather(*map(recorder.record, requests))

    assert [result.status for result in first.results] == [RECORDED, INVALID, RECORDED]
    assert first.results[1].reason.startswith("cannot be stored: ")
    assert (first.committed_sequence, second.results[0].status) == (3, RECORDED)
    assert books_of(database, organization_id).agree


async def test_a_record_from_up_to_five_minutes_ahead_is_taken_at_receipt_time_and_flagged(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    ahead = now_in_utc() + timedelta(minutes=4)

    assert await recorder.statuses(a_request(a_record(organization_id, at=ahead))) == [RECORDED]

    ((start_time, flags),) = rows(
        database, "SELECT start_time, flags FROM reporting.usage_record WHERE organization_id = %s", organization_id
    )
    assert start_time <= now_in_utc()
    assert flags == [RecordFlag.TIME_IN_FUTURE]


async def test_a_late_record_lands_in_the_hour_it_belongs_to(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    late = now_in_utc() - timedelta(days=30)

    await recorder.record(a_request(a_record(organization_id, at=late)))

    ((hour,),) = rows(database, "SELECT hour FROM reporting.usage_hour WHERE organization_id = %s", organization_id)
    assert hour == late.replace(minute=0, second=0, microsecond=0)


async def test_detail_is_kept_in_the_partition_of_its_term_and_day(recorder: Recorder, database: Database) -> None:
    organization_id = add_organization(database)
    day = now_in_utc() - timedelta(days=20)

    await recorder.record(a_request(a_record(organization_id, at=day)))

    query = "SELECT tableoid::regclass::text FROM ledger.usage_record WHERE organization_id = %s"
    assert rows(database, query, organization_id) == [(f"ledger.usage_record_090_{day:%Y%m%d}",)]


async def test_figures_are_kept_by_everything_they_are_asked_by(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    await recorder.record(
        a_request(
            a_record(organization_id),
            a_record(organization_id, streamed=True, workflow="chat"),
            a_record(organization_id, workflow="chat", cache_hit=True),
            a_record(organization_id, outcome=8, status=429, usage=None, usage_source=0, model="", provider=""),
        )
    )

    query = """
        SELECT workflow, model, sum(request_count), sum(success_count), sum(client_error_count), sum(refused_count),
               sum(cache_count), sum(streamed_count), sum(output_tokens), sum(output_cost_pico), sum(latency_ms_sum)
          FROM reporting.usage_hour WHERE organization_id = %s GROUP BY 1, 2 ORDER BY 1, 2
    """
    assert rows(database, query, organization_id) == [
        ("", "", 1, 0, 1, 1, 0, 0, 0, 0, 900),
        ("", "gpt-4o", 1, 1, 0, 0, 0, 0, 200, 2_000_000_000, 900),
        ("chat", "gpt-4o", 2, 2, 0, 0, 1, 1, 400, 2_000_000_000, 1_800),
    ]


async def test_a_connection_that_is_killed_in_mid_batch_costs_nothing_but_time(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    request = a_request(*(a_record(organization_id) for _ in range(5)), producer_id=str(uuid4()))
    with psycopg.connect(database.admin_url) as blocker:
        # The batch gets as far as the figures, and waits there for a lock until it is killed.
        blocker.execute("LOCK TABLE ledger.usage_hour IN SHARE MODE")
        delivery = asyncio.create_task(recorder.record(request))
        (killed,) = await waiting_backends(database)
        blocker.execute("SELECT pg_terminate_backend(%s)", (killed,))

    receipt = await delivery

    assert [result.status for result in receipt.results] == [RECORDED] * 5
    books = books_of(database, organization_id)
    assert books.record_count == 5
    assert books.agree


class LosesAnAnswer(Ingest):
    """Commits, and then loses the connection before anybody hears of it, once."""

    lost = False

    def record(self, connection: psycopg.Connection, batch: PreparedBatch, receipt_time: datetime) -> Outcome | Recount:
        outcome = super().record(connection, batch, receipt_time)
        if not self.lost:
            self.lost = True
            connection.close()
            connection.execute("SELECT 1")
        return outcome


@pytest.mark.parametrize("producer_id", ["", str(uuid4())], ids=["by request id", "by sequence"])
async def test_a_commit_whose_answer_was_lost_is_recognised_when_it_is_retried(
    database: Database, organization_id: str, producer_id: str
) -> None:
    async with a_recorder(database, ingest=LosesAnAnswer()) as recorder:
        statuses = await recorder.statuses(a_request(a_record(organization_id), producer_id=producer_id))

    assert statuses == [DUPLICATE]
    books = books_of(database, organization_id)
    assert books.record_count == 1
    assert books.agree


async def test_without_a_database_callers_are_told_to_try_again(database: Database) -> None:
    writer = DatabaseWriter(database.ledger_url.replace("/tollgate_", "/no_such_"), prepare_session)

    with pytest.raises(UnavailableError):
        await writer.run(lambda connection: None)

    writer.close()


async def test_overlapping_deliveries_from_many_writers_never_deadlock_and_count_once(database: Database) -> None:
    organizations = [add_organization(database) for _ in range(3)]
    records = [a_record(organizations[number % 3], workflow=f"w{number % 4}") for number in range(60)]

    async def deliver(seed: int) -> None:
        shuffled = sorted(records, key=lambda record: hash((seed, record.request_id)))
        async with a_recorder(database) as recorder:
            for start in range(0, 60, 20):
                await recorder.record(a_request(*shuffled[start : start + 20]))

    await asyncio.gather(*map(deliver, range(8)))

    for organization_id in organizations:
        books = books_of(database, organization_id)
        assert books.record_count == 20
        assert books.records_charged == 20 * COST_PICO
        assert books.agree


# What may differ between records of the property test: outcome, funding, model, workflow, days of age.
_KINDS = st.tuples(
    st.sampled_from([1, 2, 7]),
    st.sampled_from([1, 2]),
    st.sampled_from(["gpt-4o", "unpriced"]),
    st.sampled_from(["", "chat"]),
    st.sampled_from([0, 1]),
)


@st.composite
def _deliveries(draw: st.DrawFn) -> tuple[list[tuple[int, int, str, str, int]], list[list[int]]]:
    """Kinds of records, and batches of their numbers in which each comes at least once."""
    kinds = draw(st.lists(_KINDS, min_size=1, max_size=8))
    order = draw(st.permutations([*range(len(kinds)), *draw(st.lists(st.sampled_from(range(len(kinds))), max_size=8))]))
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=4)) | {0, len(order)})
    return kinds, [list(order[start:end]) for start, end in pairwise(cuts)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries=_deliveries(), together=st.booleans())
def test_any_order_repetition_splitting_and_interleaving_gives_the_same_books(
    deliveries: tuple[list[tuple[int, int, str, str, int]], list[list[int]]], together: bool, database: Database
) -> None:
    kinds, batches = deliveries

    async def books_after(batches: list[list[int]], together: bool) -> Books:
        organization_id = add_organization(database)
        now = now_in_utc()
        records = [
            a_record(
                organization_id,
                at=now - timedelta(days=age, minutes=number),
                outcome=outcome,
                funding=funding,
                model=model,
                workflow=workflow,
            )
            for number, (outcome, funding, model, workflow, age) in enumerate(kinds)
        ]
        async with a_recorder(database) as recorder:
            requests = [a_request(*(records[number] for number in batch)) for batch in batches]
            if together:
                await asyncio.gather(*map(recorder.record, requests))
            else:
                for request in requests:
                    await recorder.record(request)
        return books_of(database, organization_id)

    at_once = asyncio.run(books_after([list(range(len(kinds)))], together=False))
    books = asyncio.run(books_after(batches, together))

    assert books.agree
    assert (books.record_count, books.records_cost, books.balances) == (
        at_once.record_count,
        at_once.records_cost,
        at_once.balances,
    )

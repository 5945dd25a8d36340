"""Finished calls become priced records in the books."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from services.common.errors import DomainError, UnavailableError
from services.ledger.errors import SequenceGapError
from services.ledger.metrics import BATCH_RECORDS, BATCH_SECONDS, RECORDS, WAITING_RECORDS
from services.ledger.prices.price_book import PriceBook
from services.ledger.pricing import AmountTooLargeError, PricedCall, price_call
from services.ledger.storage.usage.contents import CannotStoreError, PreparedBatch, prepare, recounted
from services.ledger.storage.usage.ingest import Outcome, Recount
from services.ledger.storage.usage.usage import pack_record
from services.ledger.usage.batching import Batcher
from services.ledger.usage.records import (
    Delivery,
    PricedRecord,
    Receipt,
    Received,
    RecordFlag,
    RecordResult,
    RecordStatus,
    UsageRecord,
)

# Pricing this many takes about as long as a short call may wait for its turn.
RECORDS_AT_ONCE = 50
# So many bytes of payload wait, and are written, like one record more: about what a record takes.
PAYLOAD_BYTES_PER_RECORD = 4_096
# Each time, others have recorded some more of a batch meanwhile.
RECOUNTS_MAX = 100
# A record's cost is a BIGINT, like that of each of its lines.
COST_PICO_MAX = 2**63 - 1
_IMPORTED = RecordFlag.IMPORTED
_RECORDED = (RecordStatus.RECORDED, "")

# Has a batch written, as received at this moment. Raises CannotStoreError like `Ingest.record`, and UnavailableError.
WriteBatch = Callable[[PreparedBatch, datetime], Awaitable[Outcome | Recount]]

log = logging.getLogger("tollgate.ledger.recording")


class UsageRecorder:
    """Prices deliveries and has them written, several in one transaction. Lives from `start` to `close`."""

    def __init__(
        self, write_batch: WriteBatch, price_book: Callable[[], PriceBook], *, clock: Callable[[], datetime]
    ) -> None:
        self._write_batch = write_batch
        self._price_book = price_book
        self._clock = clock
        # Of deliveries that are priced in parts.
        self._turn = asyncio.Lock()
        self._batcher: Batcher[Delivery, Receipt] = Batcher(self._write)

    def start(self) -> None:
        WAITING_RECORDS.set_function(lambda: self._batcher.queue_size)
        self._batcher.start()

    async def close(self) -> None:
        """Writes what waits, and ends."""
        await self._batcher.close()

    async def record(self, delivery: Delivery) -> Receipt:
        """What became of each record, once it is committed.

        Raises SequenceGapError when the producer skipped records, UnavailableError when the database is away or too
        much is waiting; delivering the same again is then right, and safe.
        """
        if len(delivery.received) <= RECORDS_AT_ONCE:
            _price(delivery.received, self._price_book())
        else:
            # Side by side they would all be ready at the same late moment, and be written while nothing is priced.
            async with self._turn:
                await self._price_in_parts(delivery.received)
        receipt = await self._batcher.submit(delivery, _weight(delivery))
        _count(receipt)
        return receipt

    async def _price_in_parts(self, received: Sequence[Received]) -> None:
        book = self._price_book()
        for start in range(0, len(received), RECORDS_AT_ONCE):
            _price(received[start : start + RECORDS_AT_ONCE], book)
            await asyncio.sleep(0)

    async def _write(self, deliveries: Sequence[Delivery]) -> list[Receipt | DomainError]:
        BATCH_RECORDS.observe(sum(len(delivery.received) for delivery in deliveries))
        with BATCH_SECONDS.time():
            try:
                return await self._write_at_once(deliveries)
            except CannotStoreError as error:
                log.warning("records are written one by one", extra={"error": str(error)})
                return [await self._write_one_by_one(delivery) for delivery in deliveries]

    async def _write_at_once(self, deliveries: Sequence[Delivery]) -> list[Receipt | DomainError]:
        # Here, while the batch before is being written.
        batch = prepare(deliveries)
        for _ in range(RECOUNTS_MAX):
            outcome = await self._write_batch(batch, self._clock())
            if isinstance(outcome, Outcome):
                return _receipts(deliveries, outcome)
            batch = recounted(batch, deliveries, outcome.new)
        raise UnavailableError("Others record the same calls just now; try again.")

    async def _write_one_by_one(self, delivery: Delivery) -> Receipt | DomainError:
        """Sets aside the record that cannot be stored, and records its neighbours."""
        results: list[RecordResult] = []
        committed_sequence = 0
        for index, received in enumerate(delivery.received):
            single = replace(delivery, first_sequence=delivery.first_sequence + index, received=[received])
            try:
                (outcome,) = await self._write_at_once([single])
            except CannotStoreError as error:
                log.exception("a record cannot be stored", extra={"request_id": received.request_id})
                received.record, received.problem = None, f"cannot be stored: {error}"
                (outcome,) = await self._write_at_once([single])
            if isinstance(outcome, DomainError):
                return outcome
            results += outcome.results
            committed_sequence = outcome.committed_sequence
        return Receipt(results, committed_sequence)


def _price(received: Iterable[Received], book: PriceBook) -> None:
    for one in received:
        if one.record is not None:
            try:
                one.priced = priced(one.record, book)
                # Now, while the record is at hand.
                one.row = pack_record(one.priced)
            except AmountTooLargeError as error:
                one.record, one.problem = None, f"usage costs too much: {error}"


def _receipts(deliveries: Iterable[Delivery], outcome: Outcome) -> list[Receipt | DomainError]:
    """What became of each delivery, in their order."""
    settled = outcome.settled
    receipts: list[Receipt | DomainError] = []
    index = 0
    for place, (delivery, committed_sequence) in enumerate(zip(deliveries, outcome.committed_sequences, strict=True)):
        if place in outcome.gaps:
            receipts.append(SequenceGapError(committed_sequence, delivery.first_sequence))
        else:
            results = [
                tuple.__new__(RecordResult, (one.request_id, *settled.get(number, _RECORDED)))
                for number, one in enumerate(delivery.received, index)
            ]
            receipts.append(Receipt(results, committed_sequence))
        index += len(delivery.received)
    return receipts


def _count(receipt: Receipt) -> None:
    statuses = [result.status for result in receipt.results]
    for status in RecordStatus:
        count = statuses.count(status)
        if count:
            RECORDS.labels(status.name).inc(count)


def _weight(delivery: Delivery) -> int:
    """What it adds to a batch, in records."""
    payload_bytes = sum(received.payload.size for received in delivery.received if received.payload is not None)
    return len(delivery.received) + payload_bytes // PAYLOAD_BYTES_PER_RECORD


def priced(record: UsageRecord, book: PriceBook) -> PricedRecord:
    """The record with the prices and the discount in force when the call started. Raises AmountTooLargeError."""
    start_time = record.start_time
    version = book.version_at(record.provider, record.model, start_time)
    discount = book.discount_for(record.organization_id, record.provider, record.model, start_time)
    call = price_call(
        record.usage,
        outcome=record.outcome,
        funding=record.funding,
        cache_hit=record.cache_hit,
        payload_retained=record.payload_retained,
        service_tier=record.service_tier,
        start_time=start_time,
        prices=None if version is None else version.prices,
        discount=discount,
        is_normalised=True,
    )
    if call.saved_pico + (call.cost_pico or 0) > COST_PICO_MAX:
        raise AmountTooLargeError("the lines together are more than a record can hold")
    if _IMPORTED in record.flags:
        call = _shown_only(call)
    # What `PricedRecord(…)` does, in a third of its time.
    return tuple.__new__(PricedRecord, (record, call, None if version is None else version.version_id, discount))


def _shown_only(call: PricedCall) -> PricedCall:
    """The same costs, charged to nobody."""
    lines = tuple(line._replace(charged=False) for line in call.lines)
    return call._replace(lines=lines, charged_pico=0)

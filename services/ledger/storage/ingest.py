"""A batch of deliveries becomes part of the books: one transaction, from the producers' cursors to the balances."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from uuid import UUID

import psycopg
from psycopg import Connection, errors

from services.common.errors import DomainError
from services.common.uuid7 import new_uuid7
from services.ledger.books.journal import Balances, Charge, EntryKind, charge
from services.ledger.errors import SequenceGapError
from services.ledger.retention.retention import Place
from services.ledger.storage import books, leases, partitions, usage
from services.ledger.storage.contents import Contents, PackedSums, PreparedBatch, in_order, priced_of
from services.ledger.storage.deliveries import Log, Rejected, advance_cursors, lock_cursors, set_aside
from services.ledger.storage.keeping import Keeping, classes_in_use, find_keeping
from services.ledger.storage.partitions import Partition, Partitions
from services.ledger.storage.payloads import copy_payloads
from services.ledger.usage.records import (
    Delivery,
    Payload,
    Receipt,
    Received,
    RecordFlag,
    RecordResult,
    RecordStatus,
    Reserved,
    UsageRecord,
)

# What the database or the packing of rows says of values that cannot be stored. Nothing of the kind is known to pass
# our checks; should it, then one record must not hold up all that come after it.
_CANNOT_STORE = (errors.DataError, errors.CheckViolation, struct.error, OverflowError, UnicodeError)


# A partition may be dropped between being made sure of and being written to: late records come to days that expire.
PARTITION_TRIES = 5


class CannotStoreError(Exception):
    """Something in a batch that passed our checks cannot be stored. Nothing of the batch was."""


class Ingest:
    """Records batches on the connection of the one writer. Lives as long as it."""

    def __init__(self) -> None:
        self._partitions = Partitions()

    @staticmethod
    def prepare(deliveries: Sequence[Delivery]) -> PreparedBatch:
        """What `record` takes. Raises CannotStoreError like it."""
        try:
            return PreparedBatch.of(deliveries)
        except _CANNOT_STORE as error:
            raise CannotStoreError(str(error)) from error

    def record(
        self, connection: Connection, batch: PreparedBatch, receipt_time: datetime
    ) -> list[Receipt | DomainError]:
        """What became of each delivery, in their order.

        Raises what the database raises. Then nothing was recorded, or the answer to the commit was lost: doing the same
        again is right in both cases. Raises CannotStoreError when it is of no use.
        """
        for tries_left in reversed(range(PARTITION_TRIES)):
            try:
                return self._record(connection, batch, receipt_time)
            except _CANNOT_STORE as error:
                self._partitions.forget()
                if not (tries_left and _was_dropped(error)):
                    raise CannotStoreError(str(error).partition("\n")[0]) from error
            except psycopg.Error:
                self._partitions.forget()
                raise
        raise AssertionError("the last try returns or raises")

    def _record(
        self, connection: Connection, batch: PreparedBatch, receipt_time: datetime
    ) -> list[Receipt | DomainError]:
        keeping = find_keeping(connection, {organization_id for organization_id, _, _ in batch.places})
        self._partitions.ensure(connection, _partitions(batch, keeping))
        with connection.transaction():
            return _Batch(connection, receipt_time, keeping).record(batch)

    def prepare_days(self, connection: Connection, today: date) -> None:
        """Makes the partitions of today and tomorrow, so that midnight finds its own."""
        for day in (today, today + timedelta(days=1)):
            places = [Place(one, day) for one in classes_in_use(connection)]
            self._partitions.ensure(connection, [partitions.of_keys(day), *map(partitions.of_detail, places)])

    def prepare_day(self, connection: Connection, organization_id: str, day: date) -> None:
        """Makes the partitions that calls of an organization on this day go to."""
        for keeping in find_keeping(connection, [organization_id]).values():
            place = Place(keeping.retention_class, day)
            self._partitions.ensure(connection, [partitions.of_keys(day), partitions.of_detail(place)])


class _Batch:
    """One transaction's worth of deliveries."""

    def __init__(self, connection: Connection, receipt_time: datetime, keeping: Mapping[str, Keeping]) -> None:
        self._connection = connection
        self._receipt_time = receipt_time
        self._keeping = keeping
        # A new one for every try: what an earlier try may have committed must not look like ours.
        self._batch_id: UUID = new_uuid7()
        self._cursors: dict[Log, int] = {}

    def record(self, batch: PreparedBatch) -> list[Receipt | DomainError]:
        deliveries = batch.deliveries
        self._cursors = lock_cursors(self._connection, {log for log in map(_log_of, deliveries) if log is not None})
        before = dict(self._cursors)
        gaps = self._admit(deliveries)
        admitted = [delivery for index, delivery in enumerate(deliveries) if index not in gaps]

        self._claim([one for delivery in in_order(admitted) for one in delivery.received if one.is_new], batch.contents)
        # After the books, which whoever grants leases locks first too.
        leases.settle(self._connection, _reserved(admitted))
        set_aside(self._connection, _rejected(admitted), self._receipt_time)
        advanced = {log: sequence for log, sequence in self._cursors.items() if sequence > before[log]}
        advance_cursors(self._connection, advanced)
        return [gaps.get(index) or self._receipt(delivery) for index, delivery in enumerate(deliveries)]

    def _admit(self, deliveries: Sequence[Delivery]) -> dict[int, DomainError]:
        """Finds repeats by sequence and what cannot be taken. Returns the deliveries before which some are missing."""
        gaps: dict[int, DomainError] = {}
        for index, delivery in sorted(enumerate(deliveries), key=lambda pair: pair[1].first_sequence):
            log = _log_of(delivery)
            repeat_count = 0
            if log is not None:
                committed = self._cursors[log]
                if delivery.first_sequence > committed + 1:
                    gaps[index] = SequenceGapError(committed, delivery.first_sequence)
                    continue
                repeat_count = committed + 1 - delivery.first_sequence
                self._cursors[log] = max(committed, delivery.first_sequence + len(delivery.received) - 1)
            for place, received in enumerate(delivery.received):
                if place < repeat_count:
                    received.settle(RecordStatus.DUPLICATE)
                elif received.record is None:
                    received.settle(RecordStatus.INVALID, received.problem)
                elif received.record.organization_id not in self._keeping:
                    received.settle(RecordStatus.INVALID, "organization_id names no organization")
                else:
                    received.settle(RecordStatus.RECORDED)
        return gaps

    def _claim(self, received: list[Received], prepared: Contents) -> None:
        """Tells new from duplicate from conflict, within the batch and against everything recorded before."""
        contents = prepared if received == prepared.received else Contents.of(received)
        if not contents.firsts:
            return
        held = usage.claim_keys(self._connection, contents.keys, self._batch_id)
        for key, content_hash in held.items():
            _compare(contents.firsts[key], content_hash)
        for key, repeat in contents.repeats:
            _compare(repeat, held.get(key, contents.firsts[key].content_hash))
        new = [one for key, one in contents.firsts.items() if key not in held]
        if new:
            self._write(new, contents.sums if not held else PackedSums.of(new))

    def _write(self, new: Sequence[Received], sums: PackedSums) -> None:
        usage.copy_records(self._connection, map(self._row, new), self._batch_id)
        retained = [payload for one in new if one.payload is not None and (payload := self._payload(one)) is not None]
        if retained:
            copy_payloads(self._connection, retained)
        sums.add(self._connection)
        books.post(
            self._connection,
            sums.charges,
            self._receipt_time,
            lambda organization_id, balances: self._entry(sums.charges[organization_id], balances),
        )

    def _row(self, one: Received) -> tuple[int, bytes]:
        """The retention class and the packed row."""
        priced = priced_of(one)
        return self._keeping[priced.record.organization_id].retention_class, one.row or usage.pack_record(priced)

    def _payload(self, one: Received) -> tuple[int, UsageRecord, Payload] | None:
        """What is retained of a record. Nothing once its organization wants that no more, whatever was sent."""
        record = priced_of(one).record
        keeping = self._keeping[record.organization_id]
        if one.payload is None or not keeping.payload_retained:
            return None
        return keeping.retention_class, record, one.payload

    def _entry(self, due: Charge, balances: Balances) -> books.Entry:
        return books.Entry(EntryKind.USAGE, str(self._batch_id), charge(due, balances))

    def _receipt(self, delivery: Delivery) -> Receipt:
        log = _log_of(delivery)
        results = [tuple.__new__(RecordResult, (one.request_id, one.status, one.reason)) for one in delivery.received]
        return Receipt(results, 0 if log is None else self._cursors[log])


def _log_of(delivery: Delivery) -> Log | None:
    return None if delivery.producer_id is None else Log(delivery.producer_id, delivery.epoch)


def _partitions(batch: PreparedBatch, keeping: Mapping[str, Keeping]) -> set[Partition]:
    """Where these records go. A key's day is that of its id, which is all that a repeat is known by."""
    kept = {place: keeping[place[0]].retention_class for place in batch.places if place[0] in keeping}
    detail = {Place(retention_class, usage.date_of(day)) for (_, _, day), retention_class in kept.items()}
    payloads = {Place(kept[place], usage.date_of(place[2])) for place in batch.payload_places if place in kept}
    return {
        *(partitions.of_keys(usage.date_of(day)) for day in {day for _, day, _ in batch.places}),
        *map(partitions.of_detail, detail),
        *map(partitions.of_payloads, payloads),
    }


def _was_dropped(error: Exception) -> bool:
    """Whether a row found no partition. Of a CHECK, PostgreSQL would say which."""
    return isinstance(error, errors.CheckViolation) and error.diag.constraint_name is None


def _compare(one: Received, stored_hash: bytes) -> None:
    if one.content_hash == stored_hash:
        one.settle(RecordStatus.DUPLICATE)
    else:
        one.settle(RecordStatus.CONFLICT, "request_id belongs to another record")


def _reserved(deliveries: Iterable[Delivery]) -> list[Reserved]:
    """What records had reserved. Those that were there already have freed it."""
    return [
        one.reserved
        for delivery in deliveries
        for one in delivery.received
        if one.reserved is not None and one.status is not RecordStatus.DUPLICATE
    ]


def _rejected(deliveries: Iterable[Delivery]) -> list[Rejected]:
    """What is set aside. Who imports has the record still, and would fill our disk with what is wrong with it."""
    return [
        Rejected(
            status=one.status,
            reason=one.reason,
            content=one.content,
            producer_id=delivery.producer_id,
            epoch=delivery.epoch,
            sequence=delivery.first_sequence + place if delivery.producer_id is not None else 0,
        )
        for delivery in deliveries
        for place, one in enumerate(delivery.received)
        if one.status >= RecordStatus.CONFLICT and (one.record is None or RecordFlag.IMPORTED not in one.record.flags)
    ]

"""A batch of deliveries becomes part of the books: one transaction, from the producers' cursors to the balances."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg import Connection, errors

from services.common.uuid7 import new_uuid7
from services.ledger.books.journal import Balances, Charge, EntryKind, charge
from services.ledger.retention.retention import Place
from services.ledger.storage import partitions
from services.ledger.storage.books import books, leases
from services.ledger.storage.partitions import Partition, Partitions
from services.ledger.storage.usage import usage
from services.ledger.storage.usage.contents import (
    CANNOT_PACK,
    CannotStoreError,
    Claims,
    PackedSums,
    PreparedBatch,
    PreparedDelivery,
    in_order,
)
from services.ledger.storage.usage.deliveries import Log, Rejected, advance_cursors, lock_cursors, set_aside
from services.ledger.storage.usage.keeping import Keeping, classes_in_use, find_keeping
from services.ledger.storage.usage.payloads import copy_payloads
from services.ledger.usage.records import RecordStatus, Reserved

# What the database, or the driver, says of values that cannot be stored.
_CANNOT_STORE = (errors.DataError, errors.CheckViolation, *CANNOT_PACK)


# A partition may be dropped between being made sure of and being written to: late records come to days that expire.
PARTITION_TRIES = 5

_DUPLICATE = (RecordStatus.DUPLICATE, "")
_CONFLICT = (RecordStatus.CONFLICT, "request_id belongs to another record")


class Outcome(NamedTuple):
    """What became of a batch."""

    # By number, what was not recorded, and why it could not be taken.
    settled: dict[int, tuple[RecordStatus, str]]
    # Of each delivery's log, in their order; 0 without a producer.
    committed_sequences: list[int]
    # The places of deliveries before which some are missing. Nothing of them was recorded.
    gaps: set[int]


class Recount(NamedTuple):
    """Nothing was recorded, because others than those that the sums count are new: these, in the order of keys."""

    new: list[int]


class _CountsOthersError(Exception):
    """Ends a transaction whose sums are not of what is new."""

    def __init__(self, new: list[int]) -> None:
        super().__init__()
        self.new = new


class Ingest:
    """Records batches on the connection of the one writer. Lives as long as it."""

    def __init__(self) -> None:
        self._partitions = Partitions()

    def record(self, connection: Connection, batch: PreparedBatch, receipt_time: datetime) -> Outcome | Recount:
        """What became of the batch.

        Raises what the database raises. Then nothing was recorded, or the answer to the commit was lost: doing the same
        again is right in both cases. Raises CannotStoreError when it is of no use.
        """
        for tries_left in reversed(range(PARTITION_TRIES)):
            try:
                return self._record(connection, batch, receipt_time)
            except _CountsOthersError as error:
                return Recount(error.new)
            except _CANNOT_STORE as error:
                self._partitions.forget()
                if not (tries_left and _was_dropped(error)):
                    raise CannotStoreError(str(error).partition("\n")[0]) from error
            except psycopg.Error:
                self._partitions.forget()
                raise
        raise AssertionError("the last try returns or raises")

    def _record(self, connection: Connection, batch: PreparedBatch, receipt_time: datetime) -> Outcome:
        keeping = find_keeping(connection, {organization_id for organization_id, _, _ in batch.places})
        self._partitions.ensure(connection, _partitions(batch, keeping))
        with connection.transaction():
            return _Batch(connection, batch, receipt_time, keeping).record()

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

    def __init__(
        self, connection: Connection, batch: PreparedBatch, receipt_time: datetime, keeping: Mapping[str, Keeping]
    ) -> None:
        self._connection = connection
        self._batch = batch
        self._receipt_time = receipt_time
        self._keeping = keeping
        # A new one for every try: what an earlier try may have committed must not look like ours.
        self._batch_id: UUID = new_uuid7()
        self._cursors: dict[Log, int] = {}
        self._settled: dict[int, tuple[RecordStatus, str]] = {}

    def record(self) -> Outcome:
        deliveries = self._batch.deliveries
        logs = [_log_of(delivery) for delivery in deliveries]
        self._cursors = lock_cursors(self._connection, {log for log in logs if log is not None})
        before = dict(self._cursors)
        gaps = self._admit(deliveries)
        admitted = [delivery for place, delivery in enumerate(deliveries) if place not in gaps]

        admitted_numbers = [number for delivery in in_order(admitted) for number in delivery.numbers]
        self._claim([number for number in admitted_numbers if number not in self._settled])
        # After the books, which whoever grants leases locks first too.
        leases.settle(self._connection, self._reserved(admitted_numbers))
        set_aside(self._connection, self._rejected(admitted), self._receipt_time)
        advanced = {log: sequence for log, sequence in self._cursors.items() if sequence > before[log]}
        advance_cursors(self._connection, advanced)
        return Outcome(self._settled, [0 if log is None else self._cursors[log] for log in logs], gaps)

    def _admit(self, deliveries: Sequence[PreparedDelivery]) -> set[int]:
        """Finds repeats by sequence and what cannot be taken. Returns the deliveries before which some are missing."""
        records = self._batch.records
        gaps: set[int] = set()
        for place, delivery in sorted(enumerate(deliveries), key=lambda pair: pair[1].first_sequence):
            log = _log_of(delivery)
            repeat_count = 0
            if log is not None:
                committed = self._cursors[log]
                if delivery.first_sequence > committed + 1:
                    gaps.add(place)
                    continue
                repeat_count = committed + 1 - delivery.first_sequence
                self._cursors[log] = max(committed, delivery.first_sequence + len(delivery.numbers) - 1)
            self._settled |= dict.fromkeys(delivery.numbers[:repeat_count], _DUPLICATE)
            for number in delivery.numbers[repeat_count:]:
                if records.organization_ids[number] not in self._keeping:
                    problem = records.problems.get(number, "organization_id names no organization")
                    self._settled[number] = (RecordStatus.INVALID, problem)
        return gaps

    def _claim(self, numbers: list[int]) -> None:
        """Tells new from duplicate from conflict, within the batch and against everything recorded before."""
        batch, keys = self._batch, self._batch.records.keys
        claims = batch.claims if len(numbers) == batch.takeable_count else Claims.of(batch.records, numbers)
        if claims.packed is None:
            return
        held = usage.claim_keys(self._connection, claims.packed, len(claims.firsts), self._batch_id)
        for first, repeat in claims.repeats:
            self._compare(repeat, held.get(keys[first], batch.records.content_hashes[first]))
        new = claims.firsts
        if held:
            for number in claims.firsts:
                if keys[number] in held:
                    self._compare(number, held[keys[number]])
            new = [number for number in claims.firsts if keys[number] not in held]
        if new:
            if new != batch.counted:
                raise _CountsOthersError(new)
            self._write(new, batch.sums)

    def _compare(self, number: int, stored_hash: bytes) -> None:
        is_same = self._batch.records.content_hashes[number] == stored_hash
        self._settled[number] = _DUPLICATE if is_same else _CONFLICT

    def _write(self, new: Sequence[int], sums: PackedSums) -> None:
        rows = self._batch.records.rows
        kept = self._keeping_of(new)
        packed = ((keeping.retention_class, rows[number]) for number, keeping in zip(new, kept, strict=True))
        usage.copy_records(self._connection, packed, self._batch_id)
        self._write_payloads(zip(new, kept, strict=True))
        sums.add(self._connection)
        books.post(
            self._connection,
            sums.charges,
            self._receipt_time,
            lambda organization_id, balances: self._entry(sums.charges[organization_id], balances),
        )

    def _write_payloads(self, new: Iterable[tuple[int, Keeping]]) -> None:
        """What is retained of records. Nothing once their organization wants that no more, whatever was sent."""
        packed = self._batch.records.payload_rows
        retained = [
            (keeping.retention_class, packed[number])
            for number, keeping in new
            if keeping.payload_retained and number in packed
        ]
        if retained:
            copy_payloads(self._connection, retained)

    def _keeping_of(self, numbers: Iterable[int]) -> list[Keeping]:
        owners = self._batch.records.organization_ids
        return [self._keeping[owner] for number in numbers if (owner := owners[number]) is not None]

    def _entry(self, due: Charge, balances: Balances) -> books.Entry:
        return books.Entry(EntryKind.USAGE, str(self._batch_id), charge(due, balances))

    def _reserved(self, numbers: Iterable[int]) -> list[Reserved]:
        """What records had reserved. Those that were there already have freed it."""
        reserved = self._batch.records.reserved
        return [
            reserved[number]
            for number in (numbers if reserved else ())
            if number in reserved and self._settled.get(number) != _DUPLICATE
        ]

    def _rejected(self, deliveries: Iterable[PreparedDelivery]) -> list[Rejected]:
        """What is set aside. Who imports has the record still, and would fill our disk with what is wrong with it."""
        return [
            Rejected(
                *self._settled[number],
                content=self._batch.records.contents[number],
                producer_id=delivery.producer_id,
                epoch=delivery.epoch,
                sequence=delivery.first_sequence + place if delivery.producer_id is not None else 0,
            )
            for delivery in deliveries
            for place, number in enumerate(delivery.numbers)
            if self._is_rejected(number)
        ]

    def _is_rejected(self, number: int) -> bool:
        settled = self._settled.get(number)
        return settled is not None and settled != _DUPLICATE and number not in self._batch.records.imported


def _log_of(delivery: PreparedDelivery) -> Log | None:
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

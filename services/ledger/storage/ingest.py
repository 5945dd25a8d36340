"""A batch of deliveries becomes part of the books: one transaction, from the producers' cursors to the balances."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

import psycopg
from psycopg import Connection, errors

from services.common.errors import DomainError
from services.common.uuid7 import new_uuid7
from services.ledger.daily import money_by_day, records_by_day
from services.ledger.day_counts import durations_by_day, failures_by_day
from services.ledger.errors import SequenceGapError
from services.ledger.journal import Balances, Charge, EntryKind, charge
from services.ledger.records import (
    Delivery,
    Payload,
    PricedRecord,
    Receipt,
    Received,
    RecordFlag,
    RecordResult,
    RecordStatus,
    Reserved,
    UsageRecord,
)
from services.ledger.retention import Place
from services.ledger.rollups import add_up, spent_by_keys
from services.ledger.storage import books, daily, day_figures, leases, partitions, usage
from services.ledger.storage.deliveries import Log, Rejected, advance_cursors, lock_cursors, set_aside
from services.ledger.storage.keeping import Keeping, classes_in_use, find_keeping
from services.ledger.storage.partitions import Partition, Partitions
from services.ledger.storage.payloads import copy_payloads
from services.ledger.storage.usage import KeyOfRecord

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

    def record(
        self, connection: Connection, deliveries: Sequence[Delivery], receipt_time: datetime
    ) -> list[Receipt | DomainError]:
        """What became of each delivery, in their order.

        Raises what the database raises. Then nothing was recorded, or the answer to the commit was lost: doing the same
        again is right in both cases. Raises CannotStoreError when it is of no use.
        """
        for tries_left in reversed(range(PARTITION_TRIES)):
            try:
                return self._record(connection, deliveries, receipt_time)
            except _CANNOT_STORE as error:
                self._partitions.forget()
                if not (tries_left and _was_dropped(error)):
                    raise CannotStoreError(str(error).partition("\n")[0]) from error
            except psycopg.Error:
                self._partitions.forget()
                raise
        raise AssertionError("the last try returns or raises")

    def _record(
        self, connection: Connection, deliveries: Sequence[Delivery], receipt_time: datetime
    ) -> list[Receipt | DomainError]:
        received = [one for delivery in deliveries for one in delivery.received if one.record is not None]
        keeping = find_keeping(connection, {one.record.organization_id for one in received if one.record is not None})
        self._partitions.ensure(connection, _partitions(received, keeping))
        with connection.transaction():
            return _Batch(connection, receipt_time, keeping).record(deliveries)

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


@dataclass(slots=True)
class _Candidate:
    """A record that is no repeat by sequence, and what is found out about it."""

    received: Received
    # None and 0 without a producer.
    log: Log | None
    sequence: int
    status: RecordStatus = RecordStatus.RECORDED
    reason: str = ""

    def reject(self, status: RecordStatus, reason: str) -> None:
        self.status, self.reason = status, reason

    @property
    def is_new(self) -> bool:
        return self.status is RecordStatus.RECORDED

    @property
    def is_rejected(self) -> bool:
        return self.status >= RecordStatus.CONFLICT

    @property
    def priced(self) -> PricedRecord:
        if self.received.priced is None:
            raise ValueError(f"record {self.received.request_id} was not priced")
        return self.received.priced


class _Batch:
    """One transaction's worth of deliveries."""

    def __init__(self, connection: Connection, receipt_time: datetime, keeping: Mapping[str, Keeping]) -> None:
        self._connection = connection
        self._receipt_time = receipt_time
        self._keeping = keeping
        # A new one for every try: what an earlier try may have committed must not look like ours.
        self._batch_id: UUID = new_uuid7()
        self._cursors: dict[Log, int] = {}

    def record(self, deliveries: Sequence[Delivery]) -> list[Receipt | DomainError]:
        self._cursors = lock_cursors(self._connection, {log for log in map(_log_of, deliveries) if log is not None})
        before = dict(self._cursors)
        admitted = self._admit(deliveries)
        candidates = [one for taken in admitted.values() if isinstance(taken, list) for one in taken]

        self._reject_what_cannot_be_taken(candidates)
        self._claim(candidates)
        self._write([one for one in candidates if one.is_new])
        # After the books, which whoever grants leases locks first too.
        leases.settle(self._connection, filter(None, map(_reserved, candidates)))
        set_aside(self._connection, map(_rejected, filter(_is_set_aside, candidates)), self._receipt_time)
        advanced = {log: sequence for log, sequence in self._cursors.items() if sequence > before[log]}
        advance_cursors(self._connection, advanced)
        return [self._outcome(delivery, admitted[index]) for index, delivery in enumerate(deliveries)]

    def _admit(self, deliveries: Sequence[Delivery]) -> dict[int, list[_Candidate] | DomainError]:
        """The candidates of each delivery, by its place. Those of one log go in the order of their sequence."""
        admitted: dict[int, list[_Candidate] | DomainError] = {}
        for index, delivery in sorted(enumerate(deliveries), key=lambda pair: pair[1].first_sequence):
            log = _log_of(delivery)
            if log is None:
                admitted[index] = [_Candidate(received, None, 0) for received in delivery.received]
                continue
            committed = self._cursors[log]
            if delivery.first_sequence > committed + 1:
                admitted[index] = SequenceGapError(committed, delivery.first_sequence)
                continue
            numbered = enumerate(delivery.received, delivery.first_sequence)
            admitted[index] = [_Candidate(received, log, number) for number, received in numbered if number > committed]
            self._cursors[log] = max(committed, delivery.first_sequence + len(delivery.received) - 1)
        return admitted

    def _reject_what_cannot_be_taken(self, candidates: Iterable[_Candidate]) -> None:
        for one in candidates:
            if one.received.record is None:
                one.reject(RecordStatus.INVALID, one.received.problem)
            elif one.received.record.organization_id not in self._keeping:
                one.reject(RecordStatus.INVALID, "organization_id names no organization")

    def _claim(self, candidates: Iterable[_Candidate]) -> None:
        """Tells new from duplicate from conflict, within the batch and against everything recorded before."""
        firsts: dict[KeyOfRecord, _Candidate] = {}
        repeats: list[tuple[KeyOfRecord, _Candidate]] = []
        for one in candidates:
            if not one.is_new:
                continue
            record = one.priced.record
            key = KeyOfRecord(record.organization_id, record.request_day, record.request_id)
            if firsts.setdefault(key, one) is not one:
                repeats.append((key, one))
        if not firsts:
            return

        keys = sorted(firsts)
        hashes = [firsts[key].received.content_hash for key in keys]
        held = usage.claim_keys(self._connection, keys, hashes, self._batch_id)
        for key, content_hash in held.items():
            _compare(firsts[key], content_hash)
        for key, one in repeats:
            _compare(one, held.get(key, firsts[key].received.content_hash))

    def _write(self, new: Sequence[_Candidate]) -> None:
        if not new:
            return
        records = [one.priced for one in new]
        usage.copy_records(self._connection, map(self._row, new), self._batch_id)
        retained = [payload for one in new if (payload := self._payload(one)) is not None]
        if retained:
            copy_payloads(self._connection, retained)
        hours = add_up(records)
        usage.add_figures(self._connection, hours)
        day_figures.add_durations(self._connection, durations_by_day(records))
        day_figures.add_failures(self._connection, failures_by_day(records))
        daily.add_records(self._connection, records_by_day(hours))
        daily.add_money(self._connection, money_by_day(records))
        leases.add_spending(self._connection, spent_by_keys(hours))
        charges = _charges(records)
        books.post(
            self._connection,
            charges,
            self._receipt_time,
            lambda organization_id, balances: self._entry(charges[organization_id], balances),
        )

    def _row(self, one: _Candidate) -> tuple[int, bytes]:
        """The retention class and the packed row."""
        keeping = self._keeping[one.priced.record.organization_id]
        return keeping.retention_class, one.received.row or usage.pack_record(one.priced)

    def _payload(self, one: _Candidate) -> tuple[int, UsageRecord, Payload] | None:
        """What is retained of a record. Nothing once its organization wants that no more, whatever was sent."""
        record, keeping = one.priced.record, self._keeping[one.priced.record.organization_id]
        if one.received.payload is None or not keeping.payload_retained:
            return None
        return keeping.retention_class, record, one.received.payload

    def _entry(self, due: Charge, balances: Balances) -> books.Entry:
        return books.Entry(EntryKind.USAGE, str(self._batch_id), charge(due, balances))

    def _outcome(self, delivery: Delivery, admitted: list[_Candidate] | DomainError) -> Receipt | DomainError:
        if isinstance(admitted, DomainError):
            return admitted
        repeats = delivery.received[: len(delivery.received) - len(admitted)]
        results = [RecordResult(received.request_id, RecordStatus.DUPLICATE) for received in repeats]
        results += [RecordResult(one.received.request_id, one.status, one.reason) for one in admitted]
        log = _log_of(delivery)
        return Receipt(results, 0 if log is None else self._cursors[log])


def _log_of(delivery: Delivery) -> Log | None:
    return None if delivery.producer_id is None else Log(delivery.producer_id, delivery.epoch)


def _partitions(received: Iterable[Received], keeping: Mapping[str, Keeping]) -> set[Partition]:
    """Where these records go. A key's day is that of its id, which is all that a repeat is known by."""
    key_days: set[int] = set()
    places: set[tuple[int, int]] = set()
    payload_places: set[tuple[int, int]] = set()
    for one in received:
        record = one.record
        if record is None:
            continue
        key_days.add(record.request_day)
        kept = keeping.get(record.organization_id)
        if kept is not None:
            place = (kept.retention_class, usage.start_day(record))
            places.add(place)
            if one.payload is not None:
                payload_places.add(place)
    return {
        *(partitions.of_keys(usage.date_of(day)) for day in key_days),
        *(partitions.of_detail(Place(one, usage.date_of(day))) for one, day in places),
        *(partitions.of_payloads(Place(one, usage.date_of(day))) for one, day in payload_places),
    }


def _was_dropped(error: Exception) -> bool:
    """Whether a row found no partition. Of a CHECK, PostgreSQL would say which."""
    return isinstance(error, errors.CheckViolation) and error.diag.constraint_name is None


def _compare(one: _Candidate, stored_hash: bytes) -> None:
    if one.received.content_hash == stored_hash:
        one.status = RecordStatus.DUPLICATE
    else:
        one.reject(RecordStatus.CONFLICT, "request_id belongs to another record")


def _charges(records: Iterable[PricedRecord]) -> dict[str, Charge]:
    """What each organization's credits pay for. Organizations that pay nothing are left out."""
    charged_pico: dict[str, int] = {}
    list_pico: dict[str, int] = {}
    for one in records:
        organization_id = one.record.organization_id
        before_discounts = 0
        for line in one.priced.lines:
            if line.charged:
                before_discounts += line.list_cost_pico
        if before_discounts:
            list_pico[organization_id] = list_pico.get(organization_id, 0) + before_discounts
            charged_pico[organization_id] = charged_pico.get(organization_id, 0) + one.priced.charged_pico
    return {organization_id: Charge(charged_pico[organization_id], due) for organization_id, due in list_pico.items()}


def _is_set_aside(one: _Candidate) -> bool:
    """Who imports has the record still, and would fill our disk with what is wrong with it."""
    record = one.received.record
    return one.is_rejected and (record is None or RecordFlag.IMPORTED not in record.flags)


def _reserved(one: _Candidate) -> Reserved | None:
    """What a record had reserved. One that is there already has freed it."""
    return None if one.status is RecordStatus.DUPLICATE else one.received.reserved


def _rejected(one: _Candidate) -> Rejected:
    log = one.log
    return Rejected(
        status=one.status,
        reason=one.reason,
        content=one.received.content,
        producer_id=None if log is None else log.producer_id,
        epoch=0 if log is None else log.epoch,
        sequence=one.sequence,
    )

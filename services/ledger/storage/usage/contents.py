"""What a batch will write, worked out before its transaction begins, while the one before it is being written.

Nearly always everything in a batch is new. Then nothing is left for its transaction but to send what lies ready here;
where some of it is there already, what the rest adds up to is worked out anew, and the transaction begins again.

All of it goes to the process that writes: records as a few long lists, which are pickled in a third of the time that as
many small values take.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

from psycopg import Connection

from services.ledger.books.journal import Charge
from services.ledger.storage.books import leases
from services.ledger.storage.usage import daily, day_figures, usage
from services.ledger.storage.usage.payloads import pack_payload
from services.ledger.usage.daily import DayKey, Sums, charges_in, money_by_day, records_by_day
from services.ledger.usage.day_counts import FailureKey, durations_by_day, failures_by_day
from services.ledger.usage.records import Delivery, PricedRecord, Received, RecordFlag, Reserved
from services.ledger.usage.rollups import add_up, by_hour, spent_by_keys

# What packing says of values that cannot be stored, here or in the driver. Nothing of the kind is known to pass our
# checks; should it, then one record must not hold up all that come after it.
CANNOT_PACK = (struct.error, OverflowError, UnicodeError)
_IMPORTED = RecordFlag.IMPORTED


class CannotStoreError(Exception):
    """Something in a batch that passed our checks cannot be stored. Nothing of the batch was."""


class PackedSums(NamedTuple):
    """What new records add to figures, days, spending and books."""

    figures: list[bytes]
    durations: bytes
    failures: Mapping[FailureKey, int]
    days: Mapping[DayKey, Sums]
    money: list[bytes]
    spending: Mapping[tuple[str, str, date], int]
    charges: Mapping[str, Charge]

    @classmethod
    def of(cls, records: Iterable[PricedRecord]) -> "PackedSums":
        groups = by_hour(records)
        hours, money = add_up(groups), money_by_day(groups)
        return cls(
            usage.pack_figures(hours),
            day_figures.pack_durations(durations_by_day(groups)),
            failures_by_day(groups),
            records_by_day(hours),
            daily.pack_money(money),
            spent_by_keys(hours),
            charges_in(money),
        )

    def add(self, connection: Connection) -> None:
        """Adds to the sums that are there, all but the charges."""
        usage.write_figures(connection, self.figures)
        day_figures.add_durations(connection, self.durations)
        day_figures.add_failures(connection, self.failures)
        daily.add_records(connection, self.days)
        daily.write_money(connection, self.money)
        leases.add_spending(connection, self.spending)


class PreparedRecords(NamedTuple):
    """What the transaction needs of a batch's records, by their numbers: what all of them have in lists."""

    # None for records that cannot be taken.
    organization_ids: list[str | None]
    # What is wrong with those.
    problems: dict[int, str]
    contents: list[bytes]
    content_hashes: list[bytes]
    # As `usage.key_bytes` and `usage.pack_record` make them; empty where nothing can be taken.
    keys: list[bytes]
    rows: list[bytes]
    # As `payloads.pack_payload` makes them.
    payload_rows: dict[int, bytes]
    reserved: dict[int, Reserved]
    imported: set[int]

    @classmethod
    def of(cls, received: Sequence[Received]) -> "PreparedRecords":
        records = [one.record for one in received]
        return cls(
            [None if record is None else record.organization_id for record in records],
            {number: one.problem for number, one in enumerate(received) if one.record is None},
            [one.content for one in received],
            [one.content_hash for one in received],
            [b"" if record is None else usage.key_bytes(record) for record in records],
            [b"" if one.record is None else one.row or usage.pack_record(_priced_of(one)) for one in received],
            {
                number: pack_payload(one.record, one.payload)
                for number, one in enumerate(received)
                if one.record is not None and one.payload is not None
            },
            {number: one.reserved for number, one in enumerate(received) if one.reserved is not None},
            {number for number, record in enumerate(records) if record is not None and _IMPORTED in record.flags},
        )


class PreparedDelivery(NamedTuple):
    """A delivery's place in its producer's log. None, 0 and 0 without a producer."""

    producer_id: str | None
    epoch: int
    first_sequence: int
    # Of its records.
    numbers: range


class Claims(NamedTuple):
    """The keys of some records."""

    # In the order of keys.
    firsts: list[int]
    # Records with the key of an earlier one, each after that.
    repeats: list[tuple[int, int]]
    # None where there are none.
    packed: usage.PackedKeys | None

    @classmethod
    def of(cls, records: PreparedRecords, numbers: Iterable[int]) -> "Claims":
        keys, hashes = records.keys, records.content_hashes
        firsts: dict[bytes, int] = {}
        repeats = [(first, one) for one in numbers if (first := firsts.setdefault(keys[one], one)) != one]
        claimed = sorted(firsts.items())
        in_order_of_keys = [number for _, number in claimed]
        content_hashes = [hashes[number] for number in in_order_of_keys]
        packed = usage.pack_keys([key for key, _ in claimed], content_hashes) if claimed else None
        return cls(in_order_of_keys, repeats, packed)


class PreparedBatch(NamedTuple):
    """Deliveries that are written together."""

    deliveries: list[PreparedDelivery]
    records: PreparedRecords
    # Organization, day of the id and day of the start, in days since 1970, of what can be taken.
    places: set[tuple[str, int, int]]
    # Of those, the ones that come with payloads.
    payload_places: set[tuple[str, int, int]]
    # Of everything that can be taken.
    claims: Claims
    # What the sums count, in the order of keys.
    counted: list[int]
    sums: PackedSums

    @property
    def takeable_count(self) -> int:
        return len(self.claims.firsts) + len(self.claims.repeats)


def prepare(deliveries: Sequence[Delivery]) -> PreparedBatch:
    """The batch that is written when all that can be taken is new. Raises CannotStoreError."""
    with _packing():
        return _prepared(deliveries)


def recounted(batch: PreparedBatch, deliveries: Sequence[Delivery], new: list[int]) -> PreparedBatch:
    """The batch that is written when only these are new. Raises CannotStoreError."""
    with _packing():
        return batch._replace(counted=new, sums=_sums_of(_received(deliveries), new))


def in_order(deliveries: Iterable[PreparedDelivery]) -> list[PreparedDelivery]:
    """Those of one log go in the order of their sequence."""
    return sorted(deliveries, key=lambda delivery: delivery.first_sequence)


@contextmanager
def _packing() -> Iterator[None]:
    try:
        yield
    except CANNOT_PACK as error:
        raise CannotStoreError(str(error)) from error


def _prepared(deliveries: Sequence[Delivery]) -> PreparedBatch:
    received = _received(deliveries)
    records = PreparedRecords.of(received)
    ends = list(accumulate((len(one.received) for one in deliveries), initial=0))
    placed = [
        PreparedDelivery(one.producer_id, one.epoch, one.first_sequence, range(start, end))
        for one, (start, end) in zip(deliveries, pairwise(ends), strict=True)
    ]
    numbers = chain.from_iterable(delivery.numbers for delivery in in_order(placed))
    claims = Claims.of(records, [number for number in numbers if records.organization_ids[number] is not None])
    sums = _sums_of(received, claims.firsts)
    return PreparedBatch(placed, records, *_places(received), claims, claims.firsts, sums)


def _received(deliveries: Iterable[Delivery]) -> list[Received]:
    return list(chain.from_iterable(delivery.received for delivery in deliveries))


def _sums_of(received: Sequence[Received], numbers: Iterable[int]) -> PackedSums:
    return PackedSums.of(_priced_of(received[number]) for number in numbers)


def _places(received: Iterable[Received]) -> tuple[set[tuple[str, int, int]], set[tuple[str, int, int]]]:
    places: set[tuple[str, int, int]] = set()
    payload_places: set[tuple[str, int, int]] = set()
    for one in received:
        record = one.record
        if record is not None:
            place = (record.organization_id, record.request_day, usage.start_day(record))
            places.add(place)
            if one.payload is not None:
                payload_places.add(place)
    return places, payload_places


def _priced_of(received: Received) -> PricedRecord:
    """Raises ValueError for a record that was not priced."""
    if received.priced is None:
        raise ValueError(f"record {received.request_id} was not priced")
    return received.priced

"""What a batch will write, worked out before its transaction begins, while the one before it is being written.

Nearly always everything in a batch is new. Then nothing is left for its transaction but to send what lies ready here;
where some of it is there already, the transaction works out the rest anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from psycopg import Connection

from services.ledger.books.journal import Charge
from services.ledger.storage import daily, day_figures, leases, usage
from services.ledger.usage.daily import DayKey, Sums, charges_in, money_by_day, records_by_day
from services.ledger.usage.day_counts import FailureKey, durations_by_day, failures_by_day
from services.ledger.usage.records import Delivery, PricedRecord, Received
from services.ledger.usage.rollups import add_up, by_hour, spent_by_keys


@dataclass(frozen=True, slots=True)
class PackedSums:
    """What new records add to figures, days, spending and books."""

    figures: list[bytes]
    durations: bytes
    failures: Mapping[FailureKey, int]
    days: Mapping[DayKey, Sums]
    money: list[bytes]
    spending: Mapping[tuple[str, str, date], int]
    charges: Mapping[str, Charge]

    @classmethod
    def of(cls, received: Iterable[Received]) -> "PackedSums":
        groups = by_hour(map(priced_of, received))
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


@dataclass(frozen=True, slots=True)
class Contents:
    """The records of a batch that can be taken, and what they add up to."""

    received: list[Received]
    # By key, in the order of keys.
    firsts: dict[bytes, Received]
    # Records with the key of an earlier one.
    repeats: list[tuple[bytes, Received]]
    keys: bytes
    # As if every one of `firsts` were new.
    sums: PackedSums

    @classmethod
    def of(cls, received: list[Received]) -> "Contents":
        firsts: dict[bytes, Received] = {}
        repeats: list[tuple[bytes, Received]] = []
        for one in received:
            key = usage.key_bytes(priced_of(one).record)
            if firsts.setdefault(key, one) is not one:
                repeats.append((key, one))
        firsts = dict(sorted(firsts.items(), key=_key_of))
        keys = usage.pack_keys((key, one.content_hash) for key, one in firsts.items())
        return cls(received, firsts, repeats, keys, PackedSums.of(firsts.values()))


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """Deliveries that are written together."""

    deliveries: Sequence[Delivery]
    # Organization, day of the id and day of the start, in days since 1970, of what can be taken.
    places: set[tuple[str, int, int]]
    # Of those, the ones that come with payloads.
    payload_places: set[tuple[str, int, int]]
    contents: Contents

    @classmethod
    def of(cls, deliveries: Sequence[Delivery]) -> "PreparedBatch":
        received = [one for delivery in in_order(deliveries) for one in delivery.received if one.record is not None]
        places: set[tuple[str, int, int]] = set()
        payload_places: set[tuple[str, int, int]] = set()
        for one in received:
            record = priced_of(one).record
            place = (record.organization_id, record.request_day, usage.start_day(record))
            places.add(place)
            if one.payload is not None:
                payload_places.add(place)
        return cls(deliveries, places, payload_places, Contents.of(received))


def in_order(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """Those of one log go in the order of their sequence."""
    return sorted(deliveries, key=lambda delivery: delivery.first_sequence)


def priced_of(received: Received) -> PricedRecord:
    """Raises ValueError for a record that was not priced."""
    if received.priced is None:
        raise ValueError(f"record {received.request_id} was not priced")
    return received.priced


def _key_of(item: tuple[bytes, Received]) -> bytes:
    return item[0]

"""What a worker may spend of one organization's credit. Pure: times are arguments, messages are for others to send.

The ledger's half of the promise is in `services/ledger/leases`; this is the router's: a reservation is taken from the
unreserved part of one lease, and that part goes down in no other way than by reservations and what is given back.
When a call has ended, its record names what it can have cost at most, now that its usage is known; once the record is
durable, the rest is unreserved again. It would not do any earlier: a record that is lost is replaced by one that names
the whole. Near the end of the balance a lease is for one call; its rest is not kept for this worker's next call, but
free for everybody as soon as the ledger has recorded the call, so its record goes on naming the whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

# While the ledger is away, leases are used for so much longer than they were granted for. The ledger keeps holding
# them, because it cannot know what was reserved.
STALE_SECONDS_MAX = 300.0
# What nobody has reserved from for so long is given back.
IDLE_SECONDS = 15.0
# Below this part of what the leases in use were granted, more is leased before anybody has to wait for it.
EARLY_PART = 0.5


@dataclass(slots=True, eq=False)
class HeldLease:
    """A lease as its router sees it. In pico-USD."""

    lease_id: str
    granted_pico: int
    # When its time is over, and when to say that it is still needed.
    end: float
    renew_at: float
    unreserved_pico: int
    # When something was last reserved, or it was asked for.
    used_at: float
    # True when it was all that was needed and no more.
    is_single: bool = False
    # All that was given back since it began.
    returned_pico: int = 0
    # True when nothing will be reserved from it any more.
    is_closed: bool = False


class Reservation(NamedTuple):
    """The worst case of one call, set aside. In pico-USD."""

    lease: HeldLease
    reserved_pico: int


@dataclass(frozen=True, slots=True)
class Return:
    """What the ledger is to be told of a lease: the total given back since it began, in pico-USD."""

    lease_id: str
    returned_pico: int
    closed: bool


@dataclass(slots=True)
class Purse:
    """The leases of one organization, or of one of its keys that has a spending limit, in one worker."""

    # Those in use, by id. The oldest first.
    leases: dict[str, HeldLease] = field(default_factory=dict)
    # What the ledger does not know yet, by lease.
    unsaid: dict[str, Return] = field(default_factory=dict)

    def reserve(self, amount_pico: int, now: float) -> Reservation | None:
        """Takes the amount from one lease; None when no lease has so much."""
        for lease in self.leases.values():
            if lease.unreserved_pico >= amount_pico and now < lease.end + STALE_SECONDS_MAX:
                lease.unreserved_pico -= amount_pico
                lease.used_at = now
                return Reservation(lease, amount_pico)
        return None

    def put_back(self, reservation: Reservation, kept_pico: int = 0) -> None:
        """Undoes a reservation, but for what a record names of it."""
        lease, rest_pico = reservation.lease, reservation.reserved_pico - kept_pico
        if not rest_pico:
            return
        if not lease.is_closed:
            lease.unreserved_pico += rest_pico
            return
        lease.returned_pico += rest_pico
        self._say(lease)

    def can_ever_reserve(self, amount_pico: int) -> bool:
        """Whether a lease is large enough, once its calls have ended."""
        return any(not lease.is_single and lease.granted_pico >= amount_pico for lease in self.leases.values())

    def take_in(
        self, lease_id: str, granted_pico: int, needed_pico: int, asked_at: float, lease_seconds: float
    ) -> None:
        """A lease was granted that was asked for at that moment."""
        self.leases[lease_id] = HeldLease(
            lease_id,
            granted_pico,
            end=asked_at + lease_seconds,
            renew_at=asked_at + lease_seconds / 2,
            unreserved_pico=granted_pico,
            used_at=asked_at,
            is_single=granted_pico == needed_pico,
        )

    def runs_low(self) -> bool:
        """Whether more should be leased before anybody has to wait for it."""
        granted_pico = unreserved_pico = 0
        for lease in self.leases.values():
            unreserved_pico += lease.unreserved_pico
            granted_pico = max(granted_pico, lease.granted_pico)
        return unreserved_pico < EARLY_PART * granted_pico

    def close_all(self) -> None:
        """Gives back everything that is not reserved."""
        for lease in list(self.leases.values()):
            self._close(lease)

    def due(self, now: float) -> list[str]:
        """Leases of which the ledger is to hear: half-way through their time, or because nobody uses them.

        Those that have nothing left, or are far beyond their time, are closed.
        """
        due = []
        for lease in list(self.leases.values()):
            if now >= lease.end + STALE_SECONDS_MAX or (lease.unreserved_pico == 0 and now >= lease.renew_at):
                self._close(lease)
            elif now >= lease.renew_at or self._is_idle(lease, now):
                due.append(lease.lease_id)
        return due

    def close_idle(self, now: float) -> None:
        """Gives back what nobody uses. While the ledger is away, they may be all there is."""
        for lease in list(self.leases.values()):
            if self._is_idle(lease, now):
                self._close(lease)

    def _is_idle(self, lease: HeldLease, now: float) -> bool:
        return now - lease.used_at >= IDLE_SECONDS

    def renewed(self, asked: Iterable[str], in_force: Iterable[str], asked_at: float, lease_seconds: float) -> None:
        """The ledger has prolonged those that are in force; the others hold nothing any more."""
        known = set(in_force)
        for lease_id in asked:
            lease = self.leases.get(lease_id)
            if lease is None:
                continue
            if lease_id not in known:
                lease.unreserved_pico, lease.is_closed = 0, True
                del self.leases[lease_id]
                continue
            lease.end, lease.renew_at = asked_at + lease_seconds, asked_at + lease_seconds / 2

    def returns(self) -> tuple[Return, ...]:
        """What to tell the ledger. Stays until `said`."""
        return tuple(self.unsaid.values())

    def said(self, returns: Iterable[Return]) -> None:
        """The ledger knows so much now."""
        for one in returns:
            if self.unsaid.get(one.lease_id) == one:
                del self.unsaid[one.lease_id]

    def _close(self, lease: HeldLease) -> None:
        lease.returned_pico += lease.unreserved_pico
        lease.unreserved_pico, lease.is_closed = 0, True
        del self.leases[lease.lease_id]
        if lease.returned_pico:
            self._say(lease)

    def _say(self, lease: HeldLease) -> None:
        self.unsaid[lease.lease_id] = Return(lease.lease_id, lease.returned_pico, lease.is_closed)

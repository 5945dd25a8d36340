"""How much credit is leased, and what leases hold. Pure.

**What holds.** For every organization, at every moment, with amounts in pico-USD:

    worth = PREPAID + PROMOTIONAL + RECEIVABLE, without credit that has ended
    held  = the sum over its leases of  granted - returned - settled - lapsed,  none of them below zero
    free  = worth - held

1. A lease is granted only out of what is free, so granting leaves `free` at 0 or above.
2. For each lease, the ledger's `held` is never less than what its router has not reserved yet plus what is named by
   records that are not recorded yet, those that a crash would make of running calls included. The router takes a call's
   worst case from the unreserved part before any provider is called, and names it in the record; when the call has
   ended, it may name less, and what that leaves is unreserved again. Recording it adds what it names to `settled`. What
   the router gives back, it has taken from the unreserved part first; totals instead of differences make it harmless
   when messages are lost, repeated or overtake each other.
3. A call costs at most what its record names, so recording it lowers `worth` by no more than `held`: `free` does not
   fall, and `worth` stays at 0 or above. What is not covered by a lease and lowers `worth` (the end of credit, refunds)
   takes no more than what is free.

**When a router dies.** Time alone frees nothing: the dead worker's log still owes records. A lease belongs to one life
of one log. Whoever takes the log over ships, in order, everything that life wrote, and for calls that were begun and
not finished a record that costs nothing; when the ledger has committed all of that, no record that names the life's
leases can come any more, and what they still hold lapses. Only a log that never comes back (a lost disk) needs an
operator's grace: what leases still hold so long after their end lapses too, is counted apart, and records that come
later still are charged without cover.

A life of a log that is over gets no lease, so that a request that was delayed on the way cannot strand credit.
"""

from dataclasses import dataclass
from enum import IntEnum

from services.common.money import PICO_PER_USD

LEASE_SECONDS = 60
# Of what is free, at most one part of this many, and so much money: enough for many calls, and not missed elsewhere.
FREE_PARTS = 10
SHARE_PICO_MAX = 5 * PICO_PER_USD


class LeaseOutcome(IntEnum):
    """What became of a wish for credit. The numbers are those of `tollgate.ledger.v1.LeaseOutcome`."""

    GRANTED = 1
    INSUFFICIENT = 2
    HELD = 3
    LIMIT_REACHED = 4
    ORGANIZATION_LIMIT_REACHED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Credit that a router would like to have. In pico-USD."""

    # Less is of no use.
    needed_pico: int
    # What is going to be needed; only more than the ordinary share matters.
    wanted_pico: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a spending limit allows in its period. In pico-USD."""

    limit_pico: int
    # Charged already to calls that began in the period.
    spent_pico: int
    # By leases that count towards the limit.
    held_pico: int

    @property
    def left_pico(self) -> int:
        return self.limit_pico - self.spent_pico

    @property
    def free_pico(self) -> int:
        return self.left_pico - self.held_pico


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What there is to lease from, as of one moment. In pico-USD."""

    worth_pico: int
    held_pico: int
    # None without a limit.
    key: Budget | None = None
    organization: Budget | None = None

    @property
    def free_pico(self) -> int:
        limits = [budget.free_pico for budget in (self.key, self.organization) if budget is not None]
        return max(0, min([self.worth_pico - self.held_pico, *limits]))


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether there is a lease, and of how much."""

    outcome: LeaseOutcome
    # 0 unless granted.
    granted_pico: int
    # What could have been leased.
    available_pico: int


def decide(wish: Wish, means: Means) -> Decision:
    """Leases a share of what is free; near the end of it, exactly what is needed, or nothing."""
    free = means.free_pico
    if wish.needed_pico > free:
        return Decision(_refusal(wish.needed_pico, means), 0, free)
    share = min(max(SHARE_PICO_MAX, wish.wanted_pico), free // FREE_PARTS)
    return Decision(LeaseOutcome.GRANTED, max(wish.needed_pico, share), free)


def _refusal(needed_pico: int, means: Means) -> LeaseOutcome:
    """Final where waiting cannot help: even if everything that is held came back, it would not be enough."""
    if needed_pico > means.worth_pico:
        return LeaseOutcome.INSUFFICIENT
    if means.key is not None and needed_pico > means.key.left_pico:
        return LeaseOutcome.LIMIT_REACHED
    if means.organization is not None and needed_pico > means.organization.left_pico:
        return LeaseOutcome.ORGANIZATION_LIMIT_REACHED
    return LeaseOutcome.HELD


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One lease as the ledger keeps it. In pico-USD."""

    granted_pico: int
    # Totals since it was granted: given back by the router, taken over by records, freed because none can come.
    returned_pico: int = 0
    settled_pico: int = 0
    lapsed_pico: int = 0

    @property
    def held_pico(self) -> int:
        return self.granted_pico - self.returned_pico - self.settled_pico - self.lapsed_pico


def returned_more(lease: Lease, total_pico: int) -> int:
    """By how much a total that the router names exceeds what was known. Never more than the lease holds."""
    return min(max(0, total_pico - lease.returned_pico), lease.held_pico)


def settled_more(lease: Lease, reserved_pico: int) -> int:
    """What recorded calls take over of what they reserved; less only where the lease has lapsed before they came."""
    return min(reserved_pico, lease.held_pico)

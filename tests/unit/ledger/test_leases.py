"""Leases, decided and modelled: the ledger's half and the router's half, with everything between them unsafe."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.ledger.leases.leases import (
    SHARE_PICO_MAX,
    Budget,
    Decision,
    Lease,
    LeaseOutcome,
    Means,
    Wish,
    decide,
    returned_more,
    settled_more,
)
from services.router.credit.purse import Purse, Reservation, Return

USD = 10**12


def outcome_of(needed: int, means: Means) -> LeaseOutcome:
    return decide(Wish(needed_pico=needed), means).outcome


def test_a_lease_is_a_tenth_of_what_is_free() -> None:
    means = Means(worth_pico=20 * USD, held_pico=10 * USD)

    assert decide(Wish(needed_pico=1), means) == Decision(LeaseOutcome.GRANTED, USD, 10 * USD)


def test_a_lease_is_at_most_five_dollars_unless_more_is_wanted() -> None:
    means = Means(worth_pico=1_000 * USD, held_pico=0)

    assert decide(Wish(needed_pico=1), means).granted_pico == SHARE_PICO_MAX == 5 * USD
    assert decide(Wish(needed_pico=1, wanted_pico=30 * USD), means).granted_pico == 30 * USD
    assert decide(Wish(needed_pico=1, wanted_pico=300 * USD), means).granted_pico == 100 * USD


def test_near_the_end_of_the_balance_a_lease_is_a_single_call() -> None:
    means = Means(worth_pico=100, held_pico=30)

    assert decide(Wish(needed_pico=60), means) == Decision(LeaseOutcome.GRANTED, 60, 70)


@pytest.mark.parametrize(
    ("means", "outcome"),
    [
        pytest.param(Means(worth_pico=99, held_pico=0), LeaseOutcome.INSUFFICIENT, id="there is less"),
        pytest.param(Means(worth_pico=100, held_pico=1), LeaseOutcome.HELD, id="running calls hold it"),
        pytest.param(Means(worth_pico=-5, held_pico=0), LeaseOutcome.INSUFFICIENT, id="something is owed"),
        pytest.param(
            Means(worth_pico=900, held_pico=0, key=Budget(limit_pico=150, spent_pico=51, held_pico=0)),
            LeaseOutcome.LIMIT_REACHED,
            id="the key has spent too much",
        ),
        pytest.param(
            Means(worth_pico=900, held_pico=0, key=Budget(limit_pico=150, spent_pico=50, held_pico=1)),
            LeaseOutcome.HELD,
            id="calls of the key hold what is left of its limit",
        ),
        pytest.param(
            Means(worth_pico=900, held_pico=0, organization=Budget(limit_pico=99, spent_pico=0, held_pico=0)),
            LeaseOutcome.ORGANIZATION_LIMIT_REACHED,
            id="the organization may not spend so much",
        ),
    ],
)
def test_what_cannot_be_covered_is_refused_because(means: Means, outcome: LeaseOutcome) -> None:
    assert outcome_of(100, means) is outcome


def test_totals_that_come_twice_or_late_are_given_back_once() -> None:
    lease = Lease(granted_pico=100, returned_pico=40, settled_pico=20)

    assert [returned_more(lease, total) for total in (30, 40, 70, 500)] == [0, 0, 30, 40]


def test_a_record_takes_over_what_it_reserved_and_never_more_than_is_held() -> None:
    lease = Lease(granted_pico=100, lapsed_pico=90)

    assert [settled_more(lease, reserved) for reserved in (4, 10, 50)] == [4, 10, 10]


# The model: two workers with logs, a ledger, and a network that loses, repeats and reorders.


@dataclass(frozen=True)
class Record:
    lease_id: str
    reserved_pico: int
    cost_pico: int


@dataclass(eq=False)
class Call:
    reservation: Reservation


@dataclass(eq=False)
class Worker:
    """One slot of a spool, and whoever has it at the moment."""

    name: str
    epoch: int = 1
    purse: Purse = field(default_factory=Purse)
    running: list[Call] = field(default_factory=list)
    # Everything that was ever written and how much of it the ledger has.
    log: list[Record] = field(default_factory=list)
    recorded: int = 0
    # How long the log was when this life began: everything before is owed by earlier ones.
    inherited: int = 0
    asked: int = 0
    pending: tuple[str, int] | None = None


@dataclass
class HeldByLedger:
    worker: str
    epoch: int
    lease: Lease


@dataclass(frozen=True)
class Acquire:
    worker: str
    epoch: int
    lease_id: str
    needed: int
    returns: tuple[Return, ...]


@dataclass(frozen=True)
class Granted:
    worker: str
    epoch: int
    lease_id: str
    pico: int
    returns: tuple[Return, ...]


@dataclass(frozen=True)
class GiveBack:
    worker: str
    epoch: int
    returns: tuple[Return, ...]


@dataclass(frozen=True)
class Drained:
    worker: str
    before_epoch: int


Message = Acquire | Granted | GiveBack | Drained


class LeaseModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.workers = [Worker("a"), Worker("b")]
        self.worth = 1_000
        self.leases: dict[str, HeldByLedger] = {}
        self.drained: dict[str, int] = {"a": 1, "b": 1}
        self.network: list[Message] = []

    # Routers

    @rule(which=st.integers(0, 1), worst=st.integers(1, 400))
    def call(self, which: int, worst: int) -> None:
        worker = self.workers[which]
        reservation = worker.purse.reserve(worst, 0.0)
        if reservation is not None:
            worker.running.append(Call(reservation))
        else:
            self._ask(worker, worst)

    @rule(which=st.integers(0, 1), worst=st.integers(1, 400))
    def call_at_best(self, which: int, worst: int) -> None:
        """The network does what it mostly does: question and answer arrive at once."""
        for _ in range(2):
            asked = len(self.network)
            self.call(which, worst)
            while len(self.network) > asked:
                self._take(self.network.pop())

    def _ask(self, worker: Worker, needed: int) -> None:
        if worker.pending is None:
            worker.asked += 1
            worker.pending = (f"{worker.name}{worker.epoch}.{worker.asked}", needed)
        # The same again where no answer has come.
        lease_id, asked = worker.pending
        self.network.append(Acquire(worker.name, worker.epoch, lease_id, asked, worker.purse.returns()))

    @rule(which=st.integers(0, 1), pick=st.integers(0, 100), part=st.floats(0, 1))
    def finish(self, which: int, pick: int, part: float) -> None:
        worker = self.workers[which]
        if worker.running:
            call = worker.running.pop(pick % len(worker.running))
            lease, reserved = call.reservation.lease, call.reservation.reserved_pico
            cost = int(part * reserved)
            named = reserved if lease.is_single else cost
            worker.log.append(Record(lease.lease_id, named, cost))
            worker.purse.put_back(call.reservation, named)

    @rule(which=st.integers(0, 1), pick=st.integers(0, 100))
    def refuse(self, which: int, pick: int) -> None:
        """The spool did not take the call: there will be no record."""
        worker = self.workers[which]
        if worker.running:
            worker.purse.put_back(worker.running.pop(pick % len(worker.running)).reservation)

    @rule(which=st.integers(0, 1))
    def give_back(self, which: int) -> None:
        worker = self.workers[which]
        worker.purse.close_all()
        self.network.append(GiveBack(worker.name, worker.epoch, worker.purse.returns()))

    @rule(which=st.integers(0, 1))
    def kill(self, which: int) -> None:
        """The next life finds what was begun and not finished."""
        worker = self.workers[which]
        lost = [Record(call.reservation.lease.lease_id, call.reservation.reserved_pico, 0) for call in worker.running]
        worker.log += lost
        worker.epoch, worker.purse, worker.running, worker.pending = worker.epoch + 1, Purse(), [], None
        worker.inherited = len(worker.log)

    @rule(which=st.integers(0, 1), count=st.integers(1, 3), heard=st.booleans())
    def ship(self, which: int, count: int, heard: bool = True) -> None:
        worker = self.workers[which]
        for record in worker.log[worker.recorded : worker.recorded + count]:
            self._record(record)
            worker.recorded += 1
        if worker.epoch > 1 and worker.recorded >= worker.inherited:
            self.network.append(Drained(worker.name, worker.epoch))
            if heard:
                self._take(self.network[-1])

    # The ledger

    def _record(self, record: Record) -> None:
        self.worth -= record.cost_pico
        held = self.leases[record.lease_id]
        more = settled_more(held.lease, record.reserved_pico)
        assert more == record.reserved_pico, "a call was not covered"
        held.lease = replace(held.lease, settled_pico=held.lease.settled_pico + more)

    @rule(pico=st.integers(1, 500))
    def grant_credit(self, pico: int) -> None:
        self.worth += pico

    @rule(pico=st.integers(1, 500))
    def end_credit(self, pico: int) -> None:
        """Credit that ends takes no more than what is free."""
        self.worth -= min(pico, self.worth - self.held)

    # The network

    @precondition(lambda self: self.network)
    @rule(pick=st.integers(0, 1_000), again=st.booleans())
    def deliver(self, pick: int, again: bool) -> None:
        index = pick % len(self.network)
        message = self.network[index] if again else self.network.pop(index)
        self._take(message)

    @precondition(lambda self: self.network)
    @rule(pick=st.integers(0, 1_000))
    def lose(self, pick: int) -> None:
        self.network.pop(pick % len(self.network))

    def _take(self, message: Message) -> None:
        if isinstance(message, Acquire):
            self._return(message.returns)
            self._acquire(message)
        elif isinstance(message, GiveBack):
            self._return(message.returns)
        elif isinstance(message, Drained):
            self._drain(message)
        else:
            self._hear(message)

    def _acquire(self, message: Acquire) -> None:
        known = self.leases.get(message.lease_id)
        if known is None:
            if message.epoch < self.drained[message.worker]:
                return
            means = Means(worth_pico=self.worth, held_pico=self.held)
            decision = decide(Wish(needed_pico=message.needed), means)
            if decision.outcome is LeaseOutcome.GRANTED:
                known = HeldByLedger(message.worker, message.epoch, Lease(granted_pico=decision.granted_pico))
                self.leases[message.lease_id] = known
        granted = 0 if known is None else known.lease.granted_pico
        self.network.append(Granted(message.worker, message.epoch, message.lease_id, granted, message.returns))

    def _return(self, returns: tuple[Return, ...]) -> None:
        for one in returns:
            held = self.leases[one.lease_id]
            more = returned_more(held.lease, one.returned_pico)
            held.lease = replace(held.lease, returned_pico=held.lease.returned_pico + more)

    def _drain(self, message: Drained) -> None:
        self.drained[message.worker] = max(self.drained[message.worker], message.before_epoch)
        for held in self.leases.values():
            if held.worker == message.worker and held.epoch < message.before_epoch:
                lease = held.lease
                held.lease = replace(lease, lapsed_pico=lease.lapsed_pico + lease.held_pico)

    def _hear(self, answer: Granted) -> None:
        worker = next(worker for worker in self.workers if worker.name == answer.worker)
        if worker.epoch != answer.epoch:
            return
        worker.purse.said(answer.returns)
        if worker.pending is not None and worker.pending[0] == answer.lease_id:
            _, needed = worker.pending
            worker.pending = None
            if answer.pico:
                worker.purse.take_in(answer.lease_id, answer.pico, needed, 0.0, 60.0)

    # What holds

    @property
    def held(self) -> int:
        return sum(held.lease.held_pico for held in self.leases.values())

    @invariant()
    def the_balance_covers_all_that_is_held(self) -> None:
        assert 0 <= self.held <= self.worth

    @invariant()
    def a_lease_holds_what_its_router_may_still_spend(self) -> None:
        owed = dict.fromkeys(self.leases, 0)
        for worker in self.workers:
            for lease in worker.purse.leases.values():
                owed[lease.lease_id] += lease.unreserved_pico
            for call in worker.running:
                owed[call.reservation.lease.lease_id] += call.reservation.reserved_pico
            for record in worker.log[worker.recorded :]:
                owed[record.lease_id] += record.reserved_pico
        assert all(owed[lease_id] <= held.lease.held_pico for lease_id, held in self.leases.items())

    def teardown(self) -> None:
        """Once everything has been heard, finished, shipped and given back, nothing is held any more."""
        for worker in self.workers:
            self.kill(self.workers.index(worker))
            self.ship(self.workers.index(worker), len(worker.log) + 1)
        assert self.held == 0


LeaseModel.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestLeasesUnderFire = LeaseModel.TestCase

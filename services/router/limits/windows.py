"""How much was asked for in the last sixty seconds, to the second. Pure: the time is an argument.

A window is kept as one sum per second. A second counts until all of it is over sixty seconds past, so that in no sixty
seconds, wherever they begin, more than the limit is let through.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

WINDOW_SECONDS = 60
NAMES_MAX = 50_000


class Claim(NamedTuple):
    """A wish to take something from a window."""

    name: str
    limit: int
    # What to take. May be more than is left: how many tokens a call needs is only known when it is over.
    amount: int = 1


class Room(NamedTuple):
    """What is left of a claim's window after it was granted or refused."""

    limit: int
    left: int
    # Until the window is empty again.
    reset_seconds: float
    # Until one more may be taken; 0 when it may be.
    wait_seconds: float


class Taking(NamedTuple):
    """What became of some claims: all were granted, or none."""

    rooms: Sequence[Room]
    # The second on the clock of the windows, for `adjust`.
    second: int
    # Until all may be granted; 0 when they were.
    wait_seconds: float = 0.0


def refused(rooms: Sequence[Room], second: int) -> Taking:
    """Nothing was taken, because there is no room in one of them."""
    return Taking(rooms, second, max(room.wait_seconds for room in rooms))


class Windows(Protocol):
    """Where windows are kept: in this process, or where all replicas share them."""

    async def take(self, claims: Sequence[Claim]) -> Taking:
        """Takes all claims, or none where one finds its window full."""

    async def adjust(self, second: int, claims: Sequence[Claim]) -> None:
        """Adds to what was taken in a second, or gives back where the amount is negative."""


@dataclass(slots=True)
class _Cell:
    second: int
    amount: int


class SlidingWindow:
    """The sums of one name."""

    __slots__ = ("_cells", "_used")

    def __init__(self) -> None:
        self._cells: deque[_Cell] = deque()
        self._used = 0

    def used(self, now: float) -> int:
        """What was taken in the last sixty seconds."""
        while self._cells and self._cells[0].second + WINDOW_SECONDS + 1 <= now:
            self._used -= self._cells.popleft().amount
        return self._used

    def room(self, limit: int, now: float) -> Room:
        """What is left, and how long to wait where nothing is."""
        used = self.used(now)
        reset_seconds = self._cells[-1].second + WINDOW_SECONDS + 1 - now if self._cells else 0.0
        return Room(limit, max(0, limit - used), reset_seconds, 0.0 if used < limit else self._wait_seconds(limit, now))

    def take(self, claim: Claim, now: float) -> Room:
        """Counts it, and says what is left. What is older than the window must be gone already."""
        second = int(now)
        self.add(second, claim.amount)
        return Room(claim.limit, max(0, claim.limit - self._used), second + WINDOW_SECONDS + 1 - now, 0.0)

    def add(self, second: int, amount: int) -> None:
        """Counts what was taken, or given back, in a second that is no later than the newest one."""
        if self._cells and self._cells[-1].second == second:
            self._cells[-1].amount += amount
            self._used += amount
            return
        cell = next((each for each in reversed(self._cells) if each.second <= second), None)
        if cell is None and self._cells:
            # Its own second is forgotten, and what is given back with it. What was used beyond is counted now.
            cell = self._cells[-1]
            amount = max(0, amount)
        elif cell is None or cell.second < second:
            cell = _Cell(second, 0)
            self._cells.append(cell)
        cell.amount += amount
        self._used += amount

    def _wait_seconds(self, limit: int, now: float) -> float:
        used = self._used
        for cell in self._cells:
            used -= cell.amount
            if used < limit:
                return cell.second + WINDOW_SECONDS + 1 - now
        return float(WINDOW_SECONDS)  # nothing is ever let through by a limit of 0


class MemoryWindows:
    """Windows of one process, for the clock given with each question."""

    def __init__(self) -> None:
        self._windows: OrderedDict[str, SlidingWindow] = OrderedDict()

    def take_at(self, now: float, claims: Sequence[Claim]) -> Taking:
        pairs = [(self._window(claim.name), claim) for claim in claims]
        for window, claim in pairs:
            if window.used(now) >= claim.limit:
                return refused([each.room(one.limit, now) for each, one in pairs], int(now))
        return Taking([window.take(claim, now) for window, claim in pairs], int(now))

    def adjust_at(self, second: int, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self._window(claim.name).add(second, claim.amount)

    def _window(self, name: str) -> SlidingWindow:
        window = self._windows.get(name)
        if window is None:
            window = self._windows[name] = SlidingWindow()
            if len(self._windows) > NAMES_MAX:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(name)
        return window

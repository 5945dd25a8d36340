"""How many calls a worker is answering, and what their bodies take, whichever way they came."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.common.errors import UnavailableError

# Is told how large a call's body is by now. Raises UnavailableError when that is too much beside the others.
Hold = Callable[[int], None]


class RunningCalls:
    """Of one worker."""

    def __init__(self, count_max: int, bodies_bytes_max: int) -> None:
        self._count_max = count_max
        self._free_bytes = bodies_bytes_max
        # Those that are running.
        self.count = 0

    @contextmanager
    def one_more(self) -> Iterator[Hold]:
        """What its body holds at the end is free again. Raises UnavailableError when there are as many as may be."""
        if self.count >= self._count_max:
            raise UnavailableError("Too many calls are running here; try again.")
        held_bytes = 0

        def hold(size_bytes: int) -> None:
            nonlocal held_bytes
            more = size_bytes - held_bytes
            if more > self._free_bytes:
                raise UnavailableError(
                    "The bodies of running calls take all the room that there is for them; try again."
                )
            self._free_bytes -= more
            held_bytes = size_bytes

        self.count += 1
        try:
            yield hold
        finally:
            self.count -= 1
            self._free_bytes += held_bytes

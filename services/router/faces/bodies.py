"""What the bodies of all running calls may take together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.common.errors import UnavailableError

# Is told how large a call's body is by now. Raises UnavailableError when that is too much beside the others.
Hold = Callable[[int], None]


class Bodies:
    """Of one worker."""

    def __init__(self, bytes_max: int) -> None:
        self._free_bytes = bytes_max

    @contextmanager
    def of_one_call(self) -> Iterator[Hold]:
        """What it holds at the end is free again."""
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

        try:
            yield hold
        finally:
            self._free_bytes += held_bytes

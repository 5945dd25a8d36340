"""Arrays as PostgreSQL writes them, for parameters that a statement casts to the type of an array.

The driver asks of each element of a list how it is to be packed, which took more of a batch than all of its statements.
"""

from collections.abc import Iterable
from datetime import date


def array_of(values: Iterable[int | str | date]) -> str:
    """For numbers, times and ids, which need no quotes. Whatever others chose to write goes as a list."""
    return "{" + ",".join(map(str, values)) + "}"


def array_of_arrays(arrays: Iterable[str]) -> str:
    """Of texts that `array_of` made, which need not be of one length."""
    return "{" + ",".join(f'"{one}"' for one in arrays) + "}"

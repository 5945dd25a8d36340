"""The files of a spool as a fault finds them: when a call is in them, and how to ruin them."""

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

from services.router.spool.entry import Entry, Kind
from services.router.spool.segment import HEADER_BYTES, Segment
from tollgate.ledger.v1.usage_pb2 import UsageRecord

_POLL_SECONDS = 0.002
_SECONDS_MAX = 20.0


def segments_of(spool: Path) -> list[Path]:
    """Oldest first."""
    return sorted(spool.glob("*/*.segment"))


async def wait_for_entries(spool: Path, tag: str, count: int) -> None:
    """Returns as soon as a call has so many entries on disk: 1 when it has started, 2 when it has finished."""
    deadline = time.monotonic() + _SECONDS_MAX
    while sum(_count(path, tag.encode()) for path in segments_of(spool)) < count:
        assert time.monotonic() < deadline, f"{tag} has not been written {count} times within {_SECONDS_MAX} s"
        await asyncio.sleep(_POLL_SECONDS)


def _count(path: Path, data: bytes) -> int:
    try:
        return path.read_bytes().count(data)
    except FileNotFoundError:  # shipped and removed meanwhile
        return 0


def finished_entries(path: Path) -> Iterator[tuple[Entry, UsageRecord]]:
    """Every finished record of a segment that no process uses."""
    segment = Segment.load(path)
    try:
        for found in segment.scan(HEADER_BYTES):
            if isinstance(found, Entry) and found.kind is Kind.FINISHED:
                yield found, UsageRecord.FromString(found.payload)
    finally:
        segment.close()


def tear(path: Path, dice: random.Random) -> None:
    """Leaves half an entry behind the last one, as a crash in mid-write does."""
    segment = Segment.load(path)
    end = max((found.end for found in segment.scan(HEADER_BYTES)), default=HEADER_BYTES)
    torn = segment.header.marker + dice.randbytes(dice.randint(1, 200))
    segment.close()
    overwrite(path, end, torn)


def overwrite(path: Path, position: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)


def flip(path: Path, position: int) -> None:
    """Changes one byte."""
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes((byte ^ 0xFF,)))

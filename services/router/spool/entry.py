"""How one entry of the spool looks on disk. Pure: bytes in, bytes out.

    marker 4 | crc32c 4 | length 4 | kind 1 | sequence 8 | payload …        (little-endian)

The marker is four random bytes of the segment: bytes of another file, or bytes a client put into a record, are never
taken for an entry, and a reader that lost its place finds the next entry by searching for it. The checksum covers
everything after itself.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import google_crc32c

MARKER_BYTES = 4
# By its contract a record has at most about 16 KiB, and two bodies of 256 KiB each where they are retained; a length
# beyond this is damage, not a record.
PAYLOAD_BYTES_MAX = 576 * 1024

_CHECKSUM = struct.Struct("<I")
_COVERED = struct.Struct("<IBQ")
_COVERED_START = MARKER_BYTES + _CHECKSUM.size
OVERHEAD_BYTES = _COVERED_START + _COVERED.size


class Kind(IntEnum):
    """What an entry says about its call."""

    # The provider is about to be called. The payload is the record a crash would make.
    STARTED = 1
    # The call is over. The payload is its record.
    FINISHED = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, and the bytes of its segment it was found in."""

    kind: Kind
    # From 1, without gaps, within an epoch; 0 for what was only started.
    sequence: int
    # A UsageRecord without its sequence.
    payload: bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no entry, where an entry must have been."""

    start: int
    end: int
    # True when no entry follows: what a crash leaves of its last write looks like this.
    is_tail: bool


def encode(marker: bytes, kind: Kind, sequence: int, payload: bytes) -> bytes:
    """The bytes of one entry. Raises ValueError as `check_payload` does."""
    check_payload(payload)
    covered = _COVERED.pack(len(payload), kind, sequence) + payload
    return marker + _CHECKSUM.pack(google_crc32c.value(covered)) + covered


def check_payload(payload: bytes) -> None:
    """Raises ValueError for a payload that no reader would accept."""
    if not 0 < len(payload) <= PAYLOAD_BYTES_MAX:
        raise ValueError(f"a payload has 1 to {PAYLOAD_BYTES_MAX} bytes, got {len(payload)}")


def decode(data: bytes, marker: bytes, start: int, origin: int = 0) -> Entry | None:
    """The entry that begins at `start`, or None when there is no whole and undamaged one.

    `origin` is where in its file `data` begins.
    """
    payload_start = start + OVERHEAD_BYTES
    if payload_start > len(data) or data[start : start + MARKER_BYTES] != marker:
        return None
    length, kind, sequence = _COVERED.unpack_from(data, start + _COVERED_START)
    end = payload_start + length
    if not 0 < length <= PAYLOAD_BYTES_MAX or end > len(data) or kind not in _KINDS:
        return None
    (checksum,) = _CHECKSUM.unpack_from(data, start + MARKER_BYTES)
    if google_crc32c.value(data[start + _COVERED_START : end]) != checksum:
        return None
    return Entry(_KINDS[kind], sequence, data[payload_start:end], origin + start, origin + end)


def scan(data: bytes, marker: bytes, origin: int = 0) -> Iterator[Entry | Damage]:
    """Every entry in order, and every stretch of damage between them. Zeros at the end are the end."""
    start = 0
    while start < len(data):
        found = decode(data, marker, start, origin) or _resynchronize(data, marker, start, origin)
        if found is None:
            return
        yield found
        start = found.end - origin


def _resynchronize(data: bytes, marker: bytes, start: int, origin: int) -> Damage | None:
    candidate = data.find(marker, start + 1) if marker else -1
    while candidate != -1:
        if decode(data, marker, candidate) is not None:
            return Damage(origin + start, origin + candidate, is_tail=False)
        candidate = data.find(marker, candidate + 1)
    if data.count(0, start) == len(data) - start:
        return None
    return Damage(origin + start, origin + len(data), is_tail=True)


_KINDS = {kind.value: kind for kind in Kind}

"""An epoch and a sequence, kept in place in a small file: writing it needs no new space on a full disk."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import google_crc32c

_VALUE = struct.Struct("<16sQQ")
_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Epoch:
    """One life of one producer's log. Sequences begin at 1 in each."""

    producer_id: UUID
    # From 1.
    number: int


class Register:
    """Says what was written last, or that it does not know; never something else."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises OSError."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def read(self) -> tuple[Epoch, int] | None:
        """The epoch and sequence, or None when nothing was written or the file is damaged."""
        data = os.pread(self._descriptor, _VALUE.size + _CHECKSUM.size, 0)
        value, checksum = data[: _VALUE.size], data[_VALUE.size :]
        if checksum != _CHECKSUM.pack(google_crc32c.value(value)):
            return None
        producer_id, number, sequence = _VALUE.unpack(value)
        return Epoch(UUID(bytes=producer_id), number), sequence

    def write(self, epoch: Epoch, sequence: int = 0, *, durable: bool) -> None:
        """Raises OSError."""
        value = _VALUE.pack(epoch.producer_id.bytes, epoch.number, sequence)
        os.pwrite(self._descriptor, value + _CHECKSUM.pack(google_crc32c.value(value)), 0)
        if durable:
            os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

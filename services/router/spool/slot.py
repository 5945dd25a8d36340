"""The directory of one worker's spool, and who its records come from."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from services.common.settings import SettingError
from services.router.spool.register import Epoch, Register

SLOT_COUNT_MAX = 256
SEGMENT_SUFFIX = ".segment"


@dataclass(frozen=True, slots=True)
class Slot:
    """A directory that this process alone uses while it holds the lock."""

    directory: Path
    # Who we are: the producer, and the epoch that this process counts up when it opens the slot.
    identity: Register
    # What the ledger has committed. A hint: when it is missing, the ledger tells duplicates from news.
    cursor: Register
    # The first life of which records may still come, as far as the ledger was told.
    settled: Register
    lock: int

    @classmethod
    def take(cls, directory: Path) -> "Slot":
        """The first slot under the directory that nobody holds. Raises SettingError when there is none to be had."""
        try:
            for number in range(SLOT_COUNT_MAX):
                slot = cls._try(directory / str(number))
                if slot is not None:
                    return slot
        except OSError as error:
            raise SettingError(f"the spool directory {directory} cannot be used: {error.strerror}") from error
        raise SettingError(f"the spool directory {directory} has no free slot; are {SLOT_COUNT_MAX} workers running?")

    @classmethod
    def take_abandoned(cls, directory: Path) -> "Slot | None":
        """A slot that no process has and that is not done with: it holds segments, or the ledger was not told that its
        lives are over. None when there is none. Raises OSError.
        """
        for number in range(SLOT_COUNT_MAX):
            if _is_unsettled(directory / str(number)):
                slot = cls._try(directory / str(number))
                if slot is not None:
                    return slot
        return None

    @classmethod
    def _try(cls, directory: Path) -> "Slot | None":
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return cls(
            directory,
            identity=Register(directory / "identity"),
            cursor=Register(directory / "cursor"),
            settled=Register(directory / "settled"),
            lock=lock,
        )

    def next_epoch(self) -> Epoch:
        """Counts the epoch up, durably. Raises OSError.

        An epoch used twice would make the ledger take new records for old ones; so a slot whose identity cannot be
        read becomes a new producer.
        """
        last = self.identity.read()
        epoch = Epoch(last[0].producer_id, last[0].number + 1) if last else Epoch(uuid4(), 1)
        self.identity.write(epoch, durable=True)
        sync_directory(self.directory)
        return epoch

    def release(self) -> None:
        """Gives the slot to whoever asks next."""
        self.identity.close()
        self.cursor.close()
        self.settled.close()
        os.close(self.lock)


def _is_unsettled(directory: Path) -> bool:
    """Whether a slot that was left would leave something open. Raises OSError."""
    if not (directory / "identity").exists():
        return False
    if any(directory.glob(f"*{SEGMENT_SUFFIX}")):
        return True
    last, settled = _read(directory / "identity"), _read(directory / "settled")
    return last is not None and (
        settled is None or settled.producer_id != last.producer_id or settled.number <= last.number
    )


def _read(path: Path) -> Epoch | None:
    register = Register(path)
    try:
        value = register.read()
    finally:
        register.close()
    return None if value is None else value[0]


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

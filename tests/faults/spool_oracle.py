"""What the ledger and the clients know, to hold a spool to its promises."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from services.router.spool import Batch
from tollgate.ledger.v1.usage_pb2 import UsageRecord

Row = tuple[UUID, int, int, UsageRecord]


def digest_of(record: UsageRecord) -> str:
    """Equal for records of the same content."""
    return hashlib.sha256(record.SerializeToString(deterministic=True)).hexdigest()


@dataclass
class Oracle:
    """Fails as soon as something reaches the ledger that must not."""

    begun: set[str] = field(default_factory=set)
    # Those whose begin has returned.
    running: set[str] = field(default_factory=set)
    # Those whose finish has returned: the client has its answer.
    done: set[str] = field(default_factory=set)
    # What the ledger has, by request id.
    digest_by_id: dict[str, str] = field(default_factory=dict)
    # The request ids under each number, by producer and epoch.
    logs: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def record(self, producer: str, epoch: str, sequence: int, request_id: str, digest: str) -> None:
        """Takes a record as the ledger would. The same under the same number, again, is no news."""
        numbered = self.logs.setdefault((producer, epoch), [])
        assert sequence <= len(numbered) + 1, f"sequence {sequence} of epoch {epoch} leaves a gap"
        if sequence <= len(numbered):
            assert numbered[sequence - 1] == request_id, f"sequence {sequence} of epoch {epoch} was used twice"
        else:
            assert request_id not in self.digest_by_id, f"{request_id} was sent under two numbers"
            numbered.append(request_id)
        assert self.digest_by_id.setdefault(request_id, digest) == digest, f"{request_id} was sent with other content"

    def committed_sequence(self, batch: Batch) -> int:
        """How much of its log the ledger has."""
        return len(self.logs.get((str(batch.epoch.producer_id), str(batch.epoch.number)), []))

    def record_rows(self, rows: Iterable[Row]) -> None:
        for producer, epoch, sequence, record in rows:
            self.record(str(producer), str(epoch), sequence, record.request_id, digest_of(record))

    def check_promises(self) -> None:
        """Everything promised is there, and nothing that nobody asked for."""
        recorded = set(self.digest_by_id)
        assert self.done - recorded == set(), "a client saw these finish, and they are lost"
        assert recorded - self.begun == set(), "these were invented"

"""Who a key belongs to, as the ledger says, remembered for a second; for five minutes while the ledger is away."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from services.common.authentication import Caller, Scope
from services.common.errors import (
    DomainError,
    InvalidApiKeyError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyRequest, ResolveKeyResponse

# A revoked key must stop within one second, so nothing older is believed while the ledger answers.
FRESH_SECONDS = 1.0
# From here on an answer is renewed in the background, so that a busy key never waits for the ledger.
RENEW_SECONDS = 0.5
STALE_SECONDS_MAX = 300.0
# After the ledger failed to answer, how long older answers are given without asking again.
FAILED_PAUSE_SECONDS = 1.0
ENTRIES_MAX = 20_000

Resolve = Callable[[ResolveKeyRequest], Awaitable[ResolveKeyResponse]]
_Name = tuple[bytes, str]


class _Entry:
    """One answer of the ledger: a grant, or a refusal."""

    __slots__ = ("age_from", "expires", "grant", "refusal")

    def __init__(self, age_from: float, answer: ResolveKeyResponse | DomainError) -> None:
        self.age_from = age_from
        self.grant = answer if isinstance(answer, ResolveKeyResponse) else None
        self.refusal = answer if isinstance(answer, DomainError) else None
        self.expires: datetime | None = None
        if self.grant is not None and self.grant.HasField("expire_time"):
            self.expires = self.grant.expire_time.ToDatetime(tzinfo=UTC)

    def get(self) -> ResolveKeyResponse:
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)  # or each raise would add to the last
        if self.grant is None or (self.expires is not None and self.expires <= datetime.now(UTC)):
            raise InvalidApiKeyError
        return self.grant


class Directory:
    """A cache over `DirectoryService.ResolveKey`, asking once at a time per key. Lives as long as its worker."""

    def __init__(self, resolve: Resolve, clock: Callable[[], float] = time.monotonic) -> None:
        self._resolve = resolve
        self._clock = clock
        self._entries: OrderedDict[_Name, _Entry] = OrderedDict()
        self._asking: dict[_Name, asyncio.Task[_Entry]] = {}
        self._failed_at = float("-inf")
        self._failing_since: float | None = None

    @property
    def size(self) -> int:
        """How many answers are remembered."""
        return len(self._entries)

    @property
    def silence_seconds(self) -> float:
        """For how long the ledger has failed to answer; 0 while it answers."""
        return self._clock() - self._failing_since if self._failing_since is not None else 0.0

    async def resolve(self, key_hash: bytes, project_id: str = "") -> ResolveKeyResponse:
        """What the bearer may do.

        Raises InvalidApiKeyError for a key that is not in force, and UnavailableError when the ledger is away and the
        key was not seen for five minutes.
        """
        name = (key_hash, project_id)
        entry = self._entries.get(name)
        if entry is None:
            return (await self._ask(name)).get()

        age = self._clock() - entry.age_from
        if age < FRESH_SECONDS:
            if age > RENEW_SECONDS and name not in self._asking:
                self._begin_asking(name)
            return entry.get()
        # An old refusal is no answer: the key may have been made since.
        may_be_stale = entry.grant is not None and age < STALE_SECONDS_MAX
        if may_be_stale and self._clock() - self._failed_at < FAILED_PAUSE_SECONDS:
            return entry.get()
        try:
            return (await self._ask(name)).get()
        except UnavailableError:
            if may_be_stale:
                return entry.get()
            raise

    async def find(self, key_hash: bytes) -> Caller | None:
        """The bearer as the gRPC server's guard wants to know it; None when the key is not in force."""
        try:
            grant = await self.resolve(key_hash)
        except InvalidApiKeyError:
            return None
        return Caller(
            scope=Scope(grant.scope),
            organization_id=grant.organization_id or None,
            project_id=grant.project_id or None,
            api_key_id=grant.api_key_id,
            read_only=grant.read_only,
        )

    async def _ask(self, name: _Name) -> _Entry:
        task = self._asking.get(name) or self._begin_asking(name)
        # Shielded: one caller giving up must not take the answer from the others.
        return await asyncio.shield(task)

    def _begin_asking(self, name: _Name) -> asyncio.Task[_Entry]:
        task = asyncio.create_task(self._renewed(name))
        self._asking[name] = task
        task.add_done_callback(lambda done: self._end_asking(name, done))
        return task

    def _end_asking(self, name: _Name, done: asyncio.Task[_Entry]) -> None:
        del self._asking[name]
        if not done.cancelled():
            done.exception()  # Nobody may be waiting for a renewal; then its failure is nobody's news.

    async def _renewed(self, name: _Name) -> _Entry:
        key_hash, project_id = name
        # What the ledger says is as old as the question, not as the answer.
        asked_at = self._clock()
        try:
            answer = await self._resolve(ResolveKeyRequest(key_hash=key_hash, project_id=project_id))
            entry = _Entry(asked_at, answer)
        except UnavailableError:
            self._failed_at = self._clock()
            self._failing_since = self._failed_at if self._failing_since is None else self._failing_since
            raise
        except DomainError as refusal:
            entry = _Entry(asked_at, refusal)
        self._failing_since = None
        self._entries[name] = entry
        self._entries.move_to_end(name)
        if len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)
        return entry


def refusal_from_status(error: grpc.aio.AioRpcError) -> DomainError:
    """What the ledger meant: a refusal that is the caller's business, or that it cannot answer."""
    code = error.code()
    message = error.details() or ""
    if code is grpc.StatusCode.UNAUTHENTICATED and _reason(error) == InvalidApiKeyError.reason:
        return InvalidApiKeyError()
    if code is grpc.StatusCode.NOT_FOUND:
        return _worded(NotFoundError("such project"), message)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return _worded(InvalidRequestError("project_id", "is not valid"), message)
    return UnavailableError("Keys cannot be checked right now; try again.")


def _worded(error: DomainError, message: str) -> DomainError:
    error.message = message or error.message
    return error


def _reason(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(cast("grpc.Call", error))
    details: list[AnyMessage] = list(status.details) if status is not None else []
    for detail in details:
        info = ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""

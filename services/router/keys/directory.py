"""Who a key belongs to, as the ledger says. What it said is remembered while it says that nothing changed, else for a
second; and for five minutes while it is away.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Set
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
from tollgate.ledger.v1.directory_service_pb2 import PROJECT_MODE_OWN_KEYS, ResolveKeyRequest, ResolveKeyResponse

# A revoked key must stop within one second, so nothing older is believed while the ledger answers.
FRESH_SECONDS = 1.0
# After this share of the time an answer is renewed in the background, so that a busy key never waits for the ledger.
RENEW_SHARE = 0.5
# While the ledger tells what changes. In case that it ever misses something.
WATCHED_SECONDS_MAX = 10.0
# It tells four times a second. Together with that this has to stay below the one second.
SILENCE_SECONDS_MAX = 0.6
STALE_SECONDS_MAX = 300.0
# After the ledger failed to answer, how long older answers are given without asking again.
FAILED_PAUSE_SECONDS = 1.0
ENTRIES_MAX = 20_000

Resolve = Callable[[ResolveKeyRequest], Awaitable[ResolveKeyResponse]]
_Name = tuple[bytes, str]


class _Entry:
    """One answer of the ledger: a grant, or a refusal."""

    __slots__ = ("age_from", "expires", "grant", "is_watched", "refusal")

    def __init__(self, age_from: float, answer: ResolveKeyResponse | DomainError) -> None:
        self.age_from = age_from
        # Whether it is told when the answer is no longer right.
        self.is_watched = False
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
        # Since when all changes are told; None until the first message.
        self._watched_from: float | None = None
        self._heard_at = float("-inf")
        self._changed_at = float("-inf")

    @property
    def size(self) -> int:
        """How many answers are remembered."""
        return len(self._entries)

    @property
    def silence_seconds(self) -> float:
        """For how long the ledger has failed to answer; 0 while it answers."""
        return self._clock() - self._failing_since if self._failing_since is not None else 0.0

    @property
    def is_watching(self) -> bool:
        """True while the ledger tells what changes."""
        return self._watched_from is not None and self._clock() - self._heard_at < SILENCE_SECONDS_MAX

    def begin_watch(self) -> None:
        """From the next message on all changes will be told; what was before it, nobody has heard of."""
        self._watched_from = None

    def hear(self, organization_ids: Set[str]) -> None:
        """The ledger says which organizations have changed since its last message."""
        now = self._heard_at = self._clock()
        if self._watched_from is None:
            self._watched_from = now
        if not organization_ids:
            return
        self._changed_at = now
        for entry in self._entries.values():
            if entry.is_watched and entry.grant is not None and entry.grant.organization_id in organization_ids:
                entry.is_watched = False
                entry.age_from = min(entry.age_from, now - FRESH_SECONDS)

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
        fresh_seconds = WATCHED_SECONDS_MAX if self._is_known_right(entry) else FRESH_SECONDS
        if age < fresh_seconds:
            if age > fresh_seconds * RENEW_SHARE and name not in self._asking:
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

    def _is_known_right(self, entry: _Entry) -> bool:
        watched_from = self._watched_from
        return entry.is_watched and watched_from is not None and entry.age_from >= watched_from and self.is_watching

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
        # A change that was told in the meantime may be in the answer or not.
        entry.is_watched = asked_at > self._changed_at and _is_told_of(entry)
        self._entries[name] = entry
        self._entries.move_to_end(name)
        if len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)
        return entry


def _is_told_of(entry: _Entry) -> bool:
    """Whether the ledger says when the answer changes: not when there is credit again, nor of refusals or operators."""
    grant = entry.grant
    if grant is None or not grant.organization_id:
        return False
    return grant.credit_available or grant.project_mode == PROJECT_MODE_OWN_KEYS


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

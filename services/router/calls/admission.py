"""Decides whether a call may be made, and what will be tried. Nothing has been spent when it refuses."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.common.authentication import Scope, hash_key, key_from_headers
from services.common.errors import DomainError, ErrorKind, ForbiddenError, InvalidRequestError, ReadOnlyKeyError
from services.router.calls.answers import AnswerFormat, format_asked_for
from services.router.calls.recording import Recorder
from services.router.calls.records import Arrival, CallRecord
from services.router.error_bodies import status_of
from services.router.formats.endpoint import Endpoint, ModelRequest
from services.router.formats.members import PROJECT_ID
from services.router.keys.directory import Directory
from services.router.limits.limits import Limiter, Permit, Subject
from services.router.routing.planning import Planner
from services.router.routing.policies import NO_LIMIT, Policy, policy_for
from services.router.routing.routing import Mode, PlannedAttempt
from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyResponse

PROJECT_HEADER = "x-tollgate-project"
END_USER_HEADER = "x-tollgate-user"
END_USER_LENGTH_MAX = 256

_MODES = frozenset(map(int, Mode))
_CALLERS = frozenset({int(Scope.ORGANIZATION), int(Scope.PROJECT)})

ReadBody = Callable[[], Awaitable[bytes]]


@dataclass(slots=True)
class IncomingCall:
    """A call whose caller is known, and what holds for it."""

    record: CallRecord
    endpoint: Endpoint
    headers: Mapping[str, str] = field(repr=False)
    grant: ResolveKeyResponse = field(repr=False)
    policy: Policy
    # As the project wants it, until it is known whether the call wants it otherwise.
    answer_format: AnswerFormat


@dataclass(slots=True)
class AdmittedCall:
    """A call that may be made. Its permit has to be ended."""

    record: CallRecord
    request: ModelRequest
    grant: ResolveKeyResponse
    policy: Policy
    answer_format: AnswerFormat
    permit: Permit
    plan: Sequence[PlannedAttempt]


class Admission:
    """Authenticates, checks, limits and routes calls. Lives as long as its worker."""

    def __init__(
        self, directory: Directory, planner: Planner, limiter: Limiter, recorder: Recorder, defaults: Policy
    ) -> None:
        self._directory = directory
        self._planner = planner
        self._limiter = limiter
        self._recorder = recorder
        self._defaults = defaults

    async def grant(self, headers: Mapping[str, str], project_id: str = "") -> ResolveKeyResponse:
        """What the bearer of the call's key may do. 401 before anything else is looked at."""
        return await self._directory.resolve(hash_key(key_from_headers(headers)), project_id)

    async def identify(self, arrival: Arrival, endpoint: Endpoint, headers: Mapping[str, str]) -> IncomingCall:
        """Finds out who calls. Raises a DomainError for a key that is not in force."""
        named_project = headers.get(PROJECT_HEADER, "")
        grant = await self.grant(headers, named_project if PROJECT_ID.fullmatch(named_project) else "")
        record = CallRecord(arrival, endpoint.number, grant)
        policy = policy_for(grant, self._defaults)
        return IncomingCall(record, endpoint, headers, grant, policy, policy.answer_format)

    async def read(self, call: IncomingCall, read_body: ReadBody, streams: bool | None) -> ModelRequest:
        """Checks what was sent, and for which project. Raises a DomainError."""
        call.answer_format = format_asked_for(call.headers, call.policy.answer_format)
        _require_caller_of_models(call.grant)
        named_project = call.headers.get(PROJECT_HEADER, "")
        if named_project and not PROJECT_ID.fullmatch(named_project):
            raise InvalidRequestError(PROJECT_HEADER, "must be 1 to 64 letters, digits or ._:-")
        call.record.describe(call.headers)
        request = call.endpoint.read(await read_body(), call.headers)
        call.record.wire.requested_model = request.model
        call.record.wire.streamed = request.streamed
        if streams not in (None, request.streamed):
            raise InvalidRequestError("stream", f"must be {str(streams).lower()} here")
        if not call.grant.project_id and request.project_id and not named_project:
            named_project = request.project_id
            call.grant = await self.grant(call.headers, named_project)
            call.policy = policy_for(call.grant, self._defaults)
            call.answer_format = format_asked_for(call.headers, call.policy.answer_format)
            call.record.take_grant(call.grant)
        _require_project(call.grant, named_project)
        return request

    async def admit(self, call: IncomingCall, request: ModelRequest) -> AdmittedCall:
        """Lets a call in that was read. Raises a DomainError when it is one too many, or nothing may be tried."""
        permit = await self._limiter.admit(limited_subjects(call, request), len(request.body))
        try:
            plan = self._planner.plan(request, call.grant, call.policy.preference)
        except BaseException:
            await permit.end(0)
            raise
        return AdmittedCall(call.record, request, call.grant, call.policy, call.answer_format, permit, plan)

    async def refuse(self, call: IncomingCall, error: DomainError) -> None:
        """Records a refusal. It is the caller's business, so it counts; where there is a project to count it under."""
        record, grant = call.record, call.grant
        if error.kind is ErrorKind.UNAVAILABLE or not grant.organization_id or not grant.project_id:
            return
        is_own = int(grant.project_mode) == Mode.OWN_KEYS
        record.wire.funding = usage_pb2.FUNDING_OWN_KEY if is_own else usage_pb2.FUNDING_CREDITS
        refused = record.end(usage_pb2.OUTCOME_REFUSED, status_of(error), error.reason.lower())
        await self._recorder.finish_failed(refused)


def _require_caller_of_models(grant: ResolveKeyResponse) -> None:
    if grant.scope not in _CALLERS or not grant.organization_id:
        raise ForbiddenError("An operator key calls no models; use a key of an organization.")
    if grant.read_only:
        raise ReadOnlyKeyError


def _require_project(grant: ResolveKeyResponse, named_project: str) -> None:
    if not grant.project_id and not named_project:
        raise InvalidRequestError(PROJECT_HEADER, "is needed with a key that is not bound to a project")
    if not grant.project_id or grant.project_mode not in _MODES:
        raise ForbiddenError(f"This key may not use project {named_project}.", project_id=named_project)


def limited_subjects(call: IncomingCall, request: ModelRequest) -> Sequence[Subject]:
    """Everybody whose limits the call counts against. Raises InvalidRequestError for an end user that is no name."""
    grant, policy = call.grant, call.policy
    project = f"{grant.organization_id}/{grant.project_id}"
    subjects = []
    if policy.key_limit is not NO_LIMIT:
        subjects.append(Subject("key", grant.api_key_id, policy.key_limit))
    if policy.project_limit is not NO_LIMIT:
        subjects.append(Subject("project", project, policy.project_limit))
    if policy.end_user_limit is not NO_LIMIT and (end_user := _end_user(call.headers, request)):
        subjects.append(Subject("end user", f"{project}/{end_user}", policy.end_user_limit))
    if policy.address_limit is not NO_LIMIT and call.record.arrival.address:
        subjects.append(Subject("address", call.record.arrival.address, policy.address_limit))
    return subjects


def _end_user(headers: Mapping[str, str], request: ModelRequest) -> str:
    """As the header names them, else as the format does; empty when nobody says."""
    metadata = request.members.get("metadata")
    named = (
        headers.get(END_USER_HEADER)
        or request.members.get("user")
        or (metadata.get("user_id") if isinstance(metadata, dict) else None)
        or ""
    )
    if not isinstance(named, str) or len(named) > END_USER_LENGTH_MAX:
        raise InvalidRequestError("user", f"must be a text of at most {END_USER_LENGTH_MAX} characters")
    return named

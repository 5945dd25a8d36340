"""Decides whether a call may be made, and what will be tried. Nothing has been spent when it refuses."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from services.common.authentication import Scope, hash_key, key_from_headers
from services.common.errors import DomainError, ErrorKind, ForbiddenError, InvalidRequestError, ReadOnlyKeyError
from services.router.directory import Directory
from services.router.error_bodies import status_of
from services.router.formats.endpoint import Endpoint, ModelRequest
from services.router.formats.members import PROJECT_ID
from services.router.key_ring import KeyRing
from services.router.recording import Recorder
from services.router.records import Arrival, CallRecord
from services.router.routing import Mode, PlannedAttempt, RoutingTable, plan
from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyResponse

PROJECT_HEADER = "x-tollgate-project"

ReadBody = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class AdmittedCall:
    """A call that may be made."""

    record: CallRecord
    request: ModelRequest
    grant: ResolveKeyResponse
    plan: Sequence[PlannedAttempt]


class Admission:
    """Authenticates, checks and routes calls. Lives as long as its worker."""

    def __init__(self, directory: Directory, table: RoutingTable, key_ring: KeyRing, recorder: Recorder) -> None:
        self._directory = directory
        self._table = table
        self._key_ring = key_ring
        self._recorder = recorder

    async def grant(self, headers: Mapping[str, str], project_id: str = "") -> ResolveKeyResponse:
        """What the bearer of the call's key may do. 401 before anything else is looked at."""
        return await self._directory.resolve(hash_key(key_from_headers(headers)), project_id)

    async def admit(
        self,
        arrival: Arrival,
        endpoint: Endpoint,
        headers: Mapping[str, str],
        read_body: ReadBody,
        streams: bool | None,
    ) -> AdmittedCall:
        """Raises a DomainError when the call is refused; the refusal is recorded once the caller is known."""
        named_project = headers.get(PROJECT_HEADER, "")
        is_well_named = PROJECT_ID.fullmatch(named_project) is not None
        grant = await self.grant(headers, named_project if is_well_named else "")
        record = CallRecord(arrival, endpoint.number, grant)
        try:
            _require_caller_of_models(grant)
            if named_project and not is_well_named:
                raise InvalidRequestError(PROJECT_HEADER, "must be 1 to 64 letters, digits or ._:-")
            record.describe(headers)
            request = endpoint.read(await read_body(), headers)
            record.wire.requested_model = request.model
            record.wire.streamed = request.streamed
            if streams not in (None, request.streamed):
                raise InvalidRequestError("stream", f"must be {str(streams).lower()} here")
            if not grant.project_id and request.project_id and not named_project:
                named_project = request.project_id
                grant = await self.grant(headers, named_project)
            record.take_grant(grant)
            _require_project(grant, named_project)
            return AdmittedCall(record, request, grant, self._plan(request, grant))
        except DomainError as error:
            await self._record_refusal(record, grant, error)
            raise

    def _plan(self, request: ModelRequest, grant: ResolveKeyResponse) -> Sequence[PlannedAttempt]:
        offers = self._table.candidates(request.model)
        candidates = tuple(each for each in offers if request.endpoint.name in each.endpoints)
        if not candidates:
            raise InvalidRequestError("model", f"'{request.model}' is not offered on {request.endpoint.path}")
        own_keys = self._key_ring.own_keys(grant)
        return plan(candidates, Mode(int(grant.project_mode)), own_keys, credit_available=grant.credit_available)

    async def _record_refusal(self, record: CallRecord, grant: ResolveKeyResponse, error: DomainError) -> None:
        """Refusals are the caller's business, so they are counted; where there is a project to count them under."""
        if error.kind is ErrorKind.UNAVAILABLE or not grant.organization_id or not grant.project_id:
            return
        is_own = int(grant.project_mode) == Mode.OWN_KEYS
        record.wire.funding = usage_pb2.FUNDING_OWN_KEY if is_own else usage_pb2.FUNDING_CREDITS
        refused = record.end(usage_pb2.OUTCOME_REFUSED, status_of(error), error.reason.lower())
        await self._recorder.finish_failed(refused)


def _require_caller_of_models(grant: ResolveKeyResponse) -> None:
    if int(grant.scope) not in (Scope.ORGANIZATION, Scope.PROJECT) or not grant.organization_id:
        raise ForbiddenError("An operator key calls no models; use a key of an organization.")
    if grant.read_only:
        raise ReadOnlyKeyError


def _require_project(grant: ResolveKeyResponse, named_project: str) -> None:
    if not grant.project_id and not named_project:
        raise InvalidRequestError(PROJECT_HEADER, "is needed with a key that is not bound to a project")
    if not grant.project_id or int(grant.project_mode) not in tuple(Mode):
        raise ForbiddenError(f"This key may not use project {named_project}.", project_id=named_project)

"""What a caller may look at. A filter that names what is not the caller's is refused, whether it exists or not."""

from uuid import UUID

from services.common.authentication import Caller
from services.common.errors import ForbiddenError, InvalidRequestError
from services.reporting.parameters import optional_uuid
from services.reporting.reader import Snapshot
from services.reporting.view import View


def view_of(
    caller: Caller,
    *,
    organization_id: str,
    project_id: str,
    api_key_id: UUID | None = None,
    provider: str = "",
    model: str = "",
    workflow: str = "",
) -> View:
    """What the caller looks at with these filters; "" is one left out.

    Raises ForbiddenError for what is not the caller's, and InvalidRequestError.
    """
    named = optional_uuid("organization_id", organization_id)
    allowed = caller.organization(str(named) if named else "")
    return View(
        organization_id=UUID(allowed) if allowed else None,
        project_id=caller.project(project_id),
        api_key_id=api_key_id,
        provider=provider or None,
        model=model or None,
        workflow=workflow or None,
    )


def one_organization(view: View) -> UUID:
    """Raises InvalidRequestError where an operator named none and all make no sense."""
    if view.organization_id is None:
        raise InvalidRequestError("organization_id", "is needed with an operator key.")
    return view.organization_id


async def require_own(view: View, caller: Caller, snapshot: Snapshot) -> None:
    """Raises ForbiddenError when project or key are not the caller's. Operators may name anything."""
    if caller.reaches_all:
        return
    project_id, api_key_id = view.project_id, view.api_key_id
    if project_id is not None and project_id != caller.project_id and not await snapshot.has_project(project_id):
        raise ForbiddenError(f"This key may not use project {project_id}; leave it out.", project_id=project_id)
    if api_key_id is not None and not await snapshot.has_api_key(api_key_id, caller.project_id):
        raise ForbiddenError(f"This key may not use API key {api_key_id}; leave it out.", api_key_id=str(api_key_id))

"""What a caller may name. Pure.

In a path, what is missing and what is not the caller's are not found, in the same words. In a filter, what is not the
caller's is refused, whether it exists or not.
"""

from uuid import UUID

from services.common.authentication import Caller
from services.common.errors import ForbiddenError, NotFoundError
from services.ledger.accounts.accounts import is_name, organization_uuid
from services.ledger.accounts.keys import ApiKey


def one_organization(caller: Caller, named: str) -> UUID:
    """The caller's own, or for operators the one they name. Raises InvalidRequestError or ForbiddenError."""
    return UUID(caller.one_organization(_well_formed(named)))


def organization_or_all(caller: Caller, named: str) -> UUID | None:
    """Like `one_organization`, but None for operators who name none."""
    organization_id = caller.organization(_well_formed(named))
    return None if organization_id is None else UUID(organization_id)


def organization_in_path(caller: Caller, text: str) -> UUID:
    """Raises NotFoundError for one that is not the caller's."""
    named = uuid_in_path("organization", text)
    if not (caller.reaches_all or str(named) == caller.organization_id):
        raise NotFoundError(f"organization {named}")
    return named


def uuid_in_path(kind: str, text: str) -> UUID:
    """Raises NotFoundError for what is no UUID: an id that cannot exist is as absent as one that does not."""
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFoundError(f"{kind} whose id is not a UUID") from error


def name_in_path(kind: str, text: str) -> str:
    """Raises NotFoundError for what names no project or provider."""
    if not is_name(text):
        raise NotFoundError(f"{kind} whose id is not 1 to 64 letters, digits or ._:-")
    return text


def own_key(caller: Caller, api_key_id: UUID, found: ApiKey | None) -> ApiKey:
    """The key that was found, or not, by an id in a path. Raises NotFoundError for one that is not the caller's."""
    if found is None or not reaches_key(caller, found):
        raise NotFoundError(f"API key {api_key_id}")
    return found


def reaches_key(caller: Caller, key: ApiKey) -> bool:
    """Whether the caller may know of the key: of all those of an organization, of a project's key only itself."""
    if caller.reaches_all:
        return True
    if caller.project_id is not None:
        return str(key.api_key_id) == caller.api_key_id
    return str(key.organization_id) == caller.organization_id


def foreign(what: str, named: str) -> ForbiddenError:
    """For a filter that names what is not the caller's."""
    return ForbiddenError(f"This key may not use {what} {named}; leave it out.", named=named)


def _well_formed(named: str) -> str:
    if named:
        organization_uuid(named)
    return named

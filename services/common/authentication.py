"""Who calls, and what that lets them see. Pure: finding the key is somebody else's work."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from services.common.errors import ForbiddenError, InvalidApiKeyError, InvalidRequestError, ReadOnlyKeyError


class Scope(IntEnum):
    """How far a key reaches, widest first. The numbers are those of `tollgate.access.v1.Scope`."""

    SERVICE = 1
    OPERATOR = 2
    ORGANIZATION = 3
    PROJECT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The bearer of a valid key, or another of our services."""

    scope: Scope
    # None for services and operators, who reach every organization.
    organization_id: str | None = None
    # None unless the scope is PROJECT.
    project_id: str | None = None
    # None for services.
    api_key_id: str | None = None
    read_only: bool = False

    @property
    def reaches_all(self) -> bool:
        return self.scope <= Scope.OPERATOR

    def require(self, scope: Scope, *, writes: bool) -> None:
        """Raises unless the caller may use a method that asks for `scope`."""
        if self.scope > scope:
            raise ForbiddenError(f"This needs a key of scope {scope.name.lower()}.", scope=scope.name.lower())
        if writes and self.read_only:
            raise ReadOnlyKeyError

    def organization(self, named: str) -> str | None:
        """The organization to look at: the caller's own, or for operators the one they name. None means all."""
        if self.organization_id is None:
            return named or None
        if named not in ("", self.organization_id):
            raise ForbiddenError(
                f"This key may not use organization {named}; leave organization_id out.", organization_id=named
            )
        return self.organization_id

    def one_organization(self, named: str) -> str:
        """Like `organization`, where "all" makes no sense."""
        organization_id = self.organization(named)
        if organization_id is None:
            raise InvalidRequestError("organization_id", "is needed with an operator key")
        return organization_id

    def project(self, named: str) -> str | None:
        """The project to look at: the key's own, or the one named. None means all of the organization."""
        if self.project_id is None:
            return named or None
        if named not in ("", self.project_id):
            raise ForbiddenError(f"This key may not use project {named}; leave the project out.", project_id=named)
        return self.project_id


class KeyDirectory(Protocol):
    """Finds who a key belongs to."""

    async def find(self, key_hash: bytes) -> Caller | None:
        """The bearer, or None for a key that is unknown, revoked or expired."""


def hash_key(key: str) -> bytes:
    """What is stored and looked up in place of a key. Keys are 256 random bits, so a plain hash cannot be reversed."""
    return hashlib.sha256(key.encode()).digest()


def key_from_headers(headers: Mapping[str, str]) -> str:
    """The key a client sent: a bearer token, or `x-api-key` where there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    if not key:
        raise InvalidApiKeyError
    return key

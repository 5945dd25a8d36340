"""The part of all calls that an answer is about."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Which calls are looked at. None does not restrict. The names are those of columns of the views."""

    organization_id: UUID | None
    project_id: str | None
    api_key_id: UUID | None
    provider: str | None = None
    model: str | None = None
    workflow: str | None = None
    # The number of `tollgate.ledger.v1.Funding`.
    funding: int | None = None

    @property
    def filters(self) -> dict[str, Any]:
        """What restricts, by column."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}

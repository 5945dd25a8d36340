"""How far back a plan shows. One place decides it for all services: the SQL function `ledger.kept_since`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TIMESTAMP, ColumnElement, Select, bindparam, func, literal, select

from services.reporting.views import organization

_MOMENT = TIMESTAMP(timezone=True)


@dataclass(frozen=True, slots=True)
class Retention:
    """How far back an organization sees its calls; over all organizations, the furthest."""

    days: int
    # Single calls from then on are shown.
    kept_since: datetime
    # The class that an organization's detail is in; None while a change of plan is being carried out.
    detail_class: int | None = None


def figures_kept_since(as_of: datetime) -> ColumnElement[Any]:
    """From when on figures are shown, in a statement that joins `organization`.

    An hour stays until all of it is past.
    """
    return func.date_trunc("hour", _kept_since(literal(as_of, _MOMENT)), "UTC")


def _kept_since(moment: ColumnElement[Any]) -> ColumnElement[Any]:
    columns = organization.c
    return func.ledger.kept_since(moment, columns.retention_days, columns.retention_floor)


# `days`, `kept_since` and `detail_class` at the moment `as_of`, of every organization that is seen; null where none is.
RETENTION_OF_ALL: Select[Any] = select(
    func.max(organization.c.retention_days).label("days"),
    func.min(_kept_since(bindparam("as_of", type_=_MOMENT))).label("kept_since"),
    func.min(organization.c.retention_class).label("detail_class"),
)
# The same of the one `organization_id`.
RETENTION_OF_ONE = RETENTION_OF_ALL.where(organization.c.organization_id == bindparam("organization_id"))

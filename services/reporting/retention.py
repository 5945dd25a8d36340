"""How far back a plan shows. One place decides it for all services: the SQL function `ledger.kept_since`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TIMESTAMP, ColumnElement, Select, func, literal, select

from services.reporting.views import organization


@dataclass(frozen=True, slots=True)
class Retention:
    """How far back an organization sees its calls; over all organizations, the furthest."""

    days: int
    # Single calls from then on are shown.
    kept_since: datetime
    # The class that an organization's detail is in; None while a change of plan is being carried out.
    detail_class: int | None = None


def retention_at(as_of: datetime) -> Select[Any]:
    """`days`, `kept_since` and `detail_class`, of every organization that is seen; all null where none is."""
    return select(
        func.max(organization.c.retention_days).label("days"),
        func.min(_kept_since(as_of)).label("kept_since"),
        func.min(organization.c.retention_class).label("detail_class"),
    )


def figures_kept_since(as_of: datetime) -> ColumnElement[Any]:
    """From when on figures are shown, in a statement that joins `organization`.

    An hour stays until all of it is past.
    """
    return func.date_trunc("hour", _kept_since(as_of), "UTC")


def _kept_since(as_of: datetime) -> ColumnElement[Any]:
    columns = organization.c
    moment = literal(as_of, TIMESTAMP(timezone=True))
    return func.ledger.kept_since(moment, columns.retention_days, columns.retention_floor)

"""Where detail lies: in partitions by class, the days it is kept, and the day its call started on.

A question names both, or the database plans, locks and visits every partition there is: after a year, hundreds.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, false, literal, or_, select
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from services.reporting.periods import DAY
from services.reporting.views import detail_class

Columns = ReadOnlyColumnCollection[str, Any]


@dataclass(frozen=True, slots=True)
class Places:
    """The classes that the detail of whoever is looked at may be in.

    The conditions are for the columns of a view of detail. They say nothing new, but let the database look there only.
    """

    classes: tuple[int, ...]

    def since(self, columns: Columns, start_time: datetime) -> ColumnElement[bool]:
        """Where calls lie that started then or later."""
        return self.between(columns, start_time.astimezone(UTC).date(), None)

    def between(self, columns: Columns, first_day: date, last_day: date | None) -> ColumnElement[bool]:
        """Where calls lie that started on these days in UTC, the last one included."""
        each = []
        for number, one in enumerate(self.classes):
            # Were the days the same for all classes, the planner would see that, ask for `= ANY` of the classes, and
            # then make nothing of it. One that differs is enough.
            margin = DAY if number == 0 and len(self.classes) > 1 else 0 * DAY
            each.append(_lies_in(columns, one, first_day - margin, None if last_day is None else last_day + margin))
        return or_(*each) if each else false()


def _lies_in(columns: Columns, retention_class: int, first_day: date, last_day: date | None) -> ColumnElement[bool]:
    # A literal: of a parameter in a generic plan the planner makes nothing either.
    its_class = columns["retention_class"] == literal(retention_class, literal_execute=True)
    days = columns["request_day"] >= first_day
    return and_(its_class, days) if last_day is None else and_(its_class, days, columns["request_day"] <= last_day)


def every_class() -> Select[Any]:
    """All classes that there is detail of."""
    return select(detail_class.c.retention_class).order_by(detail_class.c.retention_class)

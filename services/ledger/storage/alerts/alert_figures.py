"""What alert rules measure, in PostgreSQL: sums of days, of hours and of the calls around them, and durations of calls.

Works inside its caller's transaction. All of one answer is read at one moment.
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import Connection

from services.ledger.alerts.alert_states import Durations, WindowFigures
from services.ledger.alerts.alert_windows import Span, window_parts
from services.ledger.pricing import Outcome


class Calls(NamedTuple):
    """Whose calls are measured."""

    organization_id: UUID
    # None for all projects.
    project_id: str | None


class Sight(NamedTuple):
    """How far back an organization sees its calls, and where they lie."""

    kept_since: datetime
    # None while a change of plan is being carried out: then in any.
    retention_class: int | None


_SIGHT = """
    SELECT ledger.kept_since(%(now)s, retention_days, retention_floor), retention_class
      FROM reporting.organization WHERE organization_id = %(organization_id)s
"""
_ROLLUP = "sum(request_count), sum(success_count), sum(input_tokens + output_tokens), sum(cost_pico)"
# An unpriced call may have a line, for its storage.
_DETAIL = """
    count(*), count(*) FILTER (WHERE status BETWEEN 200 AND 299),
    sum(COALESCE(input_tokens, 0) + COALESCE(output_tokens, 0)),
    sum(COALESCE(cost_pico, (SELECT sum(line_cost) FROM unnest(line_cost_pico) AS line_cost)))
"""
_SUM = """
    SELECT COALESCE(sum(request_count), 0)::bigint, COALESCE(sum(success_count), 0)::bigint,
           COALESCE(sum(token_count), 0)::numeric, COALESCE(sum(cost_pico), 0)::numeric
      FROM ({parts}) AS part (request_count, success_count, token_count, cost_pico)
"""
_NO_PART = "SELECT 0, 0, 0, 0"
_DURATIONS = """
    SELECT count(*), percentile_disc(%(fraction)s) WITHIN GROUP (ORDER BY latency_ms)
      FROM ledger.usage_record WHERE {calls} AND outcome NOT IN ({without_latency})
"""
_WITHOUT_LATENCY = f"{Outcome.REFUSED:d}, {Outcome.UNKNOWN:d}"


def prepare_session(connection: Connection) -> None:
    """Makes what a connection needs before anything else here."""
    # Only a plan for these days knows which partitions it can do without.
    connection.execute("SET plan_cache_mode = force_custom_plan")


def find_sight(connection: Connection, organization_id: UUID, now: datetime) -> Sight:
    row = connection.execute(_SIGHT, {"organization_id": organization_id, "now": now}).fetchone()
    if row is None:
        raise LookupError(f"organization {organization_id} is not there")
    return Sight(*row)


def figures_of(connection: Connection, calls: Calls, window: Span, retention_class: int | None) -> WindowFigures:
    """What the calls that began in the window add up to."""
    query = _Query(calls, retention_class)
    parts = window_parts(window)
    branches = [query.calls_within(_DETAIL, edge) for edge in parts.edges]
    branches += [query.hours_within(hours) for hours in parts.hours]
    if parts.days is not None:
        branches.append(query.days_within(*parts.days))
    statement = _SUM.format(parts=" UNION ALL ".join(branches or [_NO_PART]))
    row = connection.execute(statement.encode(), query.values).fetchone()
    if row is None:
        raise AssertionError("a sum has one row")
    return WindowFigures(*map(int, row))


def durations_of(
    connection: Connection, calls: Calls, window: Span, retention_class: int | None, percentile: int
) -> Durations:
    """How long the calls that began in the window took: the shortest that so many per cent stayed within."""
    query = _Query(calls, retention_class)
    condition = query.within(window)
    statement = _DURATIONS.format(calls=condition, without_latency=_WITHOUT_LATENCY)
    row = connection.execute(statement.encode(), query.values | {"fraction": percentile / 100}).fetchone()
    if row is None:
        raise AssertionError("a sum has one row")
    return Durations(*row)


class _Query:
    """Parts of a statement, and the values they name."""

    def __init__(self, calls: Calls, retention_class: int | None) -> None:
        self.values: dict[str, Any] = {"organization_id": calls.organization_id}
        self._of_calls = "organization_id = %(organization_id)s"
        if calls.project_id is not None:
            self._of_calls += " AND project_id = %(project_id)s"
            self.values["project_id"] = calls.project_id
        self._of_class = ""
        if retention_class is not None:
            self._of_class = "AND retention_class = %(retention_class)s"
            self.values["retention_class"] = retention_class

    def days_within(self, first: Any, end: Any) -> str:
        condition = f"day >= {self._name(first)} AND day < {self._name(end)}"
        return f"SELECT {_ROLLUP} FROM ledger.usage_day WHERE {self._of_calls} AND {condition}"  # noqa: S608

    def hours_within(self, span: Span) -> str:
        condition = f"hour >= {self._name(span.start)} AND hour < {self._name(span.end)}"
        return f"SELECT {_ROLLUP} FROM ledger.usage_hour WHERE {self._of_calls} AND {condition}"  # noqa: S608

    def calls_within(self, sums: str, span: Span) -> str:
        return f"SELECT {sums} FROM ledger.usage_record WHERE {self.within(span)}"  # noqa: S608

    def within(self, span: Span) -> str:
        """The condition for single calls, with the days that say where they lie."""
        first_day, last_day = (moment.astimezone(UTC).date() for moment in span)
        return f"""
            {self._of_calls} {self._of_class}
            AND request_day >= {self._name(first_day)} AND request_day <= {self._name(last_day)}
            AND start_time >= {self._name(span.start)} AND start_time < {self._name(span.end)}
        """

    def _name(self, value: Any) -> str:
        name = f"value_{len(self.values)}"
        self.values[name] = value
        return f"%({name})s"

"""The one reader of the published views.

Every read is one read-only transaction that first says whose rows it may see.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import psycopg
from psycopg.errors import QueryCanceled
from sqlalchemy import Row, Select, bindparam, or_, select, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.errors import InvalidRequestError, UnavailableError
from services.reporting import activity_query, request_total
from services.reporting.driver import Driver, compiled, driver_of
from services.reporting.figures_query import FIGURES_ROWS_MAX, FiguresSource, Statement
from services.reporting.places import Places, every_class
from services.reporting.request_query import (
    Listing,
    count_of_all_pages,
    lines_of_request,
    one_page,
    one_request,
    payload_of_request,
)
from services.reporting.retention import RETENTION_OF_ALL, RETENTION_OF_ONE, Retention
from services.reporting.summaries import ActivitySums, Breakdown, Dimension, FiguresRow
from services.reporting.view import View
from services.reporting.views import api_key, project

# An export may take longer than anything else. Its transaction holds back what retention wants to drop.
COPY_SECONDS = 900
RowValue = TypeVar("RowValue")
# Made once: making a statement takes longer than the answer to a small one.
_PROJECT = select(project.c.project_id).where(
    project.c.organization_id == bindparam("organization_id"), project.c.project_id == bindparam("project_id")
)


class WholeRequest(NamedTuple):
    """One call, its cost lines, and what is retained of it."""

    row: Row[Any]
    lines: list[Row[Any]]
    # None where nothing is.
    payload: Row[Any] | None


class Reader:
    """Opens snapshots. Lives as long as the service."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @asynccontextmanager
    async def snapshot(self, organization_id: UUID | None) -> AsyncIterator["Snapshot"]:
        """What the views show of one organization, or (None) of all. All reads within see the same moment.

        Raises UnavailableError when the database does not answer, or not in time.
        """
        try:
            async with self._engine.connect() as connection:
                driver = await driver_of(connection)
                await driver.execute(_visibility(organization_id))
                yield Snapshot(connection, driver, organization_id)
                # At a rollback the driver forgets every statement that it prepared.
                await driver.commit()
        except (OperationalError, InterfaceError, PoolTimeoutError, psycopg.OperationalError) as error:
            if isinstance(getattr(error, "orig", error), QueryCanceled):
                raise UnavailableError("Reading took too long; ask for a shorter period or fewer calls.") from error
            raise UnavailableError("Figures cannot be read right now; try again.") from error


class Snapshot:
    """Reads at one moment, of one organization or of all. Ends with its transaction."""

    def __init__(self, connection: AsyncConnection, driver: Driver, organization_id: UUID | None) -> None:
        self._connection = connection
        self._driver = driver
        self._organization_id = organization_id

    async def retention(self, as_of: datetime) -> Retention | None:
        """How far back is shown. None when there is no organization."""
        of_one = self._organization_id is not None
        parameters = {"as_of": as_of} | ({"organization_id": self._organization_id} if of_one else {})
        statement = Statement(RETENTION_OF_ONE if of_one else RETENTION_OF_ALL, parameters, is_prepared=True)
        ((days, kept_since, detail_class),) = await self.rows(statement)
        return None if days is None else Retention(days, kept_since, detail_class)

    async def places(self, retention: Retention | None) -> Places:
        """Where the detail is that can be seen."""
        if self._organization_id is not None and retention is not None and retention.detail_class is not None:
            return Places((retention.detail_class,))
        return Places(tuple((await self._connection.execute(every_class())).scalars().all()))

    async def has_project(self, project_id: str) -> bool:
        """Whether the organization has this project."""
        parameters = {"organization_id": self._organization_id, "project_id": project_id}
        return bool(await self.rows(Statement(_PROJECT, parameters, is_prepared=True)))

    async def has_api_key(self, api_key_id: UUID, project_id: str | None) -> bool:
        """Whether the organization has this key, and it may call for the project, if one is given."""
        statement = select(api_key.c.api_key_id).where(
            api_key.c.organization_id == self._organization_id, api_key.c.api_key_id == api_key_id
        )
        if project_id is not None:
            statement = statement.where(or_(api_key.c.project_id.is_(None), api_key.c.project_id == project_id))
        return (await self._connection.execute(statement)).first() is not None

    async def figures(self, source: FiguresSource, dimension: Dimension) -> ActivitySums:
        """What activity is made of. Raises InvalidRequestError for a question whose answer is too long."""
        by_model = await self._breakdown(source, Dimension.MODEL)
        by_group = [] if dimension is Dimension.MODEL else await self._breakdown(source, dimension)
        return ActivitySums(await self.totals(source), by_model, by_group)

    async def totals(self, source: FiguresSource) -> list[FiguresRow]:
        """Every figure, by period and funding."""
        return await self._rows(activity_query.totals(source), activity_query.row_of_totals, source)

    async def groups(self, source: FiguresSource, dimension: Dimension) -> list[FiguresRow]:
        """Every figure of every group. Raises InvalidRequestError for a question whose answer is too long."""
        row_of = partial(activity_query.row_of_group, dimension)
        return await self._rows(activity_query.groups(source, dimension), row_of, source)

    async def _breakdown(self, source: FiguresSource, dimension: Dimension) -> list[Breakdown]:
        row_of = partial(activity_query.row_of_breakdown, dimension)
        return await self._rows(activity_query.breakdown(source, dimension), row_of, source)

    async def copied(self, options: str, statement: Select[Any]) -> AsyncIterator[bytes]:
        """What the statement returns, a line at a time as COPY writes them, without ever holding them all."""
        compiled = statement.compile(dialect=self._connection.dialect, compile_kwargs={"render_postcompile": True})
        await self._connection.execute(text(f"SET LOCAL statement_timeout = '{COPY_SECONDS}s'"))
        query = f"COPY ({compiled}) TO STDOUT WITH ({options})"
        async with self._driver.cursor() as cursor, cursor.copy(query.encode(), compiled.params) as copy:
            async for line in copy:
                yield bytes(line)

    async def rows(self, statement: Statement) -> Sequence[Sequence[Any]]:
        """What a statement returns, whole."""
        if statement.is_prepared:
            query, constants = compiled(statement.select, self._connection.dialect)
            cursor = await self._driver.execute(query, {**constants, **statement.parameters}, prepare=True)
            return await cursor.fetchall()
        result: Sequence[Row[Any]] = (await self._connection.execute(statement.select, statement.parameters)).all()
        return result

    async def _rows(
        self, statement: Statement, row_of: Callable[[Sequence[Any]], RowValue], source: FiguresSource
    ) -> list[RowValue]:
        rows = [row_of(row) for row in await self.rows(statement)]
        if len(rows) > FIGURES_ROWS_MAX:
            raise InvalidRequestError(
                source.timeline.asked_by,
                f"cover more than {FIGURES_ROWS_MAX} rows of figures; ask for fewer days, days instead of hours, "
                "or one project.",
            )
        return rows

    async def request_page(self, listing: Listing, before: UUID | None, limit: int, offset: int = 0) -> list[Row[Any]]:
        """One page of a list of calls, and one call more if there is one."""
        return list(await self._connection.execute(one_page(listing, before, limit + 1, offset)))

    async def request_count(self, listing: Listing, source: FiguresSource) -> int:
        """How many calls are listed: from figures of the same time where they tell, or else one by one."""
        statement = request_total.from_figures(listing.calls, source)
        if statement is None:
            statement = Statement(count_of_all_pages(listing))
        ((count,),) = await self.rows(statement)
        return count or 0

    async def request_count_before(self, listing: Listing, before: UUID) -> int:
        """How many of the listed calls are before an id."""
        return int((await self._connection.execute(count_of_all_pages(listing, before))).scalar_one())

    async def request(self, view: View, places: Places, since: datetime, request_id: UUID) -> WholeRequest | None:
        """One call, or None when the view shows no such call."""
        row = (await self._connection.execute(one_request(view, places, since, request_id))).one_or_none()
        if row is None:
            return None
        lines = await self._connection.execute(lines_of_request(row))
        payload = await self._connection.execute(payload_of_request(row))
        return WholeRequest(row, list(lines), payload.one_or_none())


def _visibility(organization_id: UUID | None) -> bytes:
    """Row-level security goes by this. A literal, because that is what a sharded database passes on to its nodes."""
    if organization_id is None:
        return b"SET LOCAL ROLE tollgate_reporting_operator"
    return f"SET LOCAL tollgate.organization_id = '{organization_id}'".encode()

"""Sees to it that what has expired leaves the disk in time. One ledger at a time does; the others stand by."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar, TypeVarTuple
from uuid import UUID

from psycopg import Connection

from services.common.errors import UnavailableError
from services.ledger.metrics import (
    EXPIRED_ROWS,
    RETENTION_FAILURES,
    RETENTION_LEADER,
    RETENTION_OVERDUE_SECONDS,
    RETENTION_PROBLEMS,
)
from services.ledger.retention.retention import DAY, REJECTED_DAYS, Mismatch, Place, end_of, expiry_of, expiry_of_keys
from services.ledger.storage import partitions
from services.ledger.storage.leadership import give_up, lead
from services.ledger.storage.retention import expiry, settlement
from services.ledger.storage.retention.expiry import Attempt, Outcome
from services.ledger.storage.writer import DatabaseWriter

TASK = "retention"
PASS_SECONDS = 300.0
# Partitions expire at midnight; those of the first second are promised to be gone 24 hours later.
AFTER_MIDNIGHT_SECONDS = 0.1
# A drop that finds its tables busy tries again so often, and then in the next pass.
TRIES = 20
BUSY_SECONDS = 0.5
# One pass does no more than this, so that a year of history that goes at once does not hold up anything else.
PLACES_MAX = 100
# Days of figures, each of one organization.
HOURS_MAX = 2_000
HOURS_AT_ONCE = 200
CHANGED_DAYS_MAX = 500
REJECTED_MAX = 10_000

Ts = TypeVarTuple("Ts")
T = TypeVar("T")
log = logging.getLogger("tollgate.ledger.retention")


class Expirer:
    """Lets things expire, in passes. Lives as long as the service, and so does its writer, which is its own."""

    def __init__(self, writer: DatabaseWriter, *, clock: Callable[[], datetime], holder: UUID) -> None:
        self._writer = writer
        self._clock = clock
        self._holder = holder

    async def follow(self) -> None:
        """Makes a pass every few minutes and at every midnight in UTC, for ever."""
        while True:
            try:
                await self.make_pass()
            except UnavailableError as error:
                RETENTION_FAILURES.inc()
                log.warning("retention waits for the database: %s", error.message)
            except Exception:
                # Recording must go on, whatever is wrong here; what stays too long shows in the metrics.
                RETENTION_FAILURES.inc()
                log.exception("retention failed")
            await asyncio.sleep(_seconds_to_next(self._clock()))

    async def make_pass(self) -> None:
        """Lets expire what is due, up to the bounds of a pass. Does nothing while another ledger leads."""
        if not await self._leads():
            return
        await self._settle_changes()
        await self._drop_places()
        await self._delete_hours()
        await self._write_down_settled()
        await self._drop_keys()
        await self._delete_rejected()
        await self._measure()

    async def close(self) -> None:
        """Finishes what was begun, and lets another ledger lead at once."""
        with suppress(UnavailableError):
            await self._do(give_up, TASK, self._holder)
        RETENTION_LEADER.set(0)
        self._writer.close()

    async def _leads(self) -> bool:
        leads = await self._do(lead, TASK, self._holder, self._clock())
        RETENTION_LEADER.set(leads)
        return leads

    async def _settle_changes(self) -> None:
        """Deletes and moves what lies where it should not since a plan changed."""
        left = CHANGED_DAYS_MAX
        for change in await self._do(settlement.changes):
            places = await self._do(settlement.misplaced, change)
            for place in places[:left]:
                await self._clear(change.organization_id, place)
            left -= len(places)
            if left <= 0 or not await self._leads():
                return

    async def _write_down_settled(self) -> None:
        for change in await self._do(settlement.changes):
            await self._do(settlement.settle, change, self._clock())

    async def _drop_places(self) -> None:
        now = self._clock()
        expired = [place for place in await self._do(partitions.places) if expiry_of(place) <= now]
        for place in expired[:PLACES_MAX]:
            attempt = await self._try(expiry.drop_place, place, now)
            for organization_id in attempt.seen_by:
                await self._clear(organization_id, place)
            if attempt.seen_by:
                await self._try(expiry.drop_place, place, now)
            if not await self._leads():
                return

    async def _clear(self, organization_id: str, place: Place) -> None:
        await self._try(settlement.clear, organization_id, place, self._clock())

    async def _delete_hours(self) -> None:
        now, stuck, left = self._clock(), set[str](), HOURS_MAX
        while left > 0 and await self._leads():
            due = await self._do(expiry.hours_due, now, min(left, HOURS_AT_ONCE), stuck)
            for one in due:
                attempt = await self._try(expiry.delete_hours, one, now)
                if attempt.outcome is not Outcome.DONE:
                    stuck.add(one.organization_id)
            left -= len(due)
            if not due:
                return

    async def _drop_keys(self) -> None:
        now = self._clock()
        expired = [day for day in await self._do(partitions.key_days) if expiry_of_keys(day) <= now]
        for day in expired[:PLACES_MAX]:
            await self._try(expiry.drop_keys, day, now)

    async def _delete_rejected(self) -> None:
        count = await self._do(expiry.delete_rejected, self._clock() - REJECTED_DAYS * DAY, REJECTED_MAX)
        EXPIRED_ROWS.labels("REJECTED").inc(count)

    async def _try(self, attempt_once: Callable[[Connection, *Ts], Attempt], *values: *Ts) -> Attempt:
        """Tries while others are in the way. Counts what went, and tells what must not go."""
        attempt = await self._do(attempt_once, *values)
        for _ in range(TRIES):
            if attempt.outcome is not Outcome.BUSY:
                break
            await asyncio.sleep(BUSY_SECONDS)
            attempt = await self._do(attempt_once, *values)
        for kind, row_count in attempt.rows.items():
            EXPIRED_ROWS.labels(kind.name).inc(row_count)
        if attempt.rows:
            words = {kind.name: row_count for kind, row_count in attempt.rows.items()}
            log.info("expired", extra={"what": [str(value) for value in values], "rows": words})
        if attempt.mismatches:
            _complain(attempt.mismatches)
            await self._do(expiry.write_problems, attempt.mismatches, self._clock())
        return attempt

    async def _measure(self) -> None:
        now = self._clock()
        RETENTION_PROBLEMS.set(await self._do(expiry.count_problems))
        overdue = [(now - expiry_of(place)).total_seconds() for place in await self._do(partitions.places)]
        RETENTION_OVERDUE_SECONDS.set(max([0.0, *overdue]))

    async def _do(self, work: Callable[[Connection, *Ts], T], *values: *Ts) -> T:
        return await self._writer.run(lambda connection: work(connection, *values))


def _complain(mismatches: Iterable[Mismatch]) -> None:
    for one in mismatches:
        details = {
            "organization_id": one.organization_id,
            "day": str(one.day),
            "kind": one.kind.name,
            "expected": one.expected._asdict(),
            "found": one.found._asdict(),
        }
        log.critical("records are not what was recorded; they stay until somebody knows why", extra=details)


def _seconds_to_next(now: datetime) -> float:
    to_midnight = (end_of(now.astimezone(UTC).date()) - now).total_seconds() + AFTER_MIDNIGHT_SECONDS
    return min(PASS_SECONDS, to_midnight)

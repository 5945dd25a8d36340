"""Ships finished records from the spool to the ledger, until the ledger has committed them."""

import asyncio
import logging
import random
from collections import Counter as Tally
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from prometheus_client import Counter

from services.common.grpc_client import service_metadata
from services.router.spool import Batch, Outbox, Spool, SpoolSettings
from services.router.spool.outbox import RECORD_COUNT_MAX
from services.router.spool.register import Epoch
from tollgate.ledger.v1.usage_pb2 import UsageRecord
from tollgate.ledger.v1.usage_service_pb2 import RecordStatus, RecordUsageRequest, RecordUsageResponse
from tollgate.ledger.v1.usage_service_pb2_grpc import UsageServiceStub

# Long enough to share one call among many records, short enough that every figure is right within two seconds.
GATHER_SECONDS = 0.05
CALL_TIMEOUT_SECONDS = 10.0
RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 5.0
# How often to look for segments that can be removed while no record comes.
IDLE_SECONDS = 1.0
# How often to look for what workers that are gone left behind; one slot each time.
SWEEP_SECONDS = 10.0

# Says that a log's lives before this one are over.
Settle = Callable[[Epoch], Awaitable[None]]

SENT = Counter("tollgate_sender_records_total", "Records the ledger answered for, by what became of them.", ("status",))
FAILURES = Counter("tollgate_sender_failures_total", "Calls to the ledger that failed, by gRPC code.", ("code",))
_SET_ASIDE = (RecordStatus.RECORD_STATUS_CONFLICT, RecordStatus.RECORD_STATUS_INVALID)

log = logging.getLogger("tollgate.sender")


class LedgerBehindError(Exception):
    """The ledger took a batch and did not say that it has committed all of it, which its contract excludes."""


class Sender:
    """Runs from `start` to `stop`, one batch at a time. Whatever fails is tried again; nothing is given up."""

    def __init__(self, outbox: Outbox, channel: grpc.aio.Channel, service_token: str) -> None:
        self._outbox = outbox
        self._stub = UsageServiceStub(channel)
        self._metadata = service_metadata(service_token)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name="sender")

    async def stop(self, drain_seconds: float) -> None:
        """Ships what is left, for so long at most. What then remains is shipped by the next life."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                await self.drain()
        if self._outbox.depth:
            log.warning("stopped with %d records unsent; they stay in the spool", self._outbox.depth)

    async def drain(self) -> None:
        """Returns when everything has been shipped, however long that takes. Not to be used between start and stop."""
        failure_count = 0
        while not await self._ship_all(gather_seconds=0):
            failure_count += 1
            await asyncio.sleep(retry_seconds(failure_count))

    async def _run(self) -> None:
        failure_count = 0
        while True:
            if failure_count == 0:
                await self._outbox.wait(IDLE_SECONDS)
                await asyncio.sleep(GATHER_SECONDS)
            else:
                await asyncio.sleep(retry_seconds(failure_count))
            failure_count = 0 if await self._ship_all(GATHER_SECONDS) else failure_count + 1

    async def _ship_all(self, gather_seconds: float) -> bool:
        """Ships until nothing is left, waiting between batches for another whole one. False when something failed."""
        try:
            while (batch := await self._outbox.read()) is not None:
                await self._ship(batch)
                if self._outbox.depth < RECORD_COUNT_MAX:
                    # While calls go on there is always a record or two: each would travel alone.
                    await asyncio.sleep(gather_seconds)
        except grpc.aio.AioRpcError as error:
            FAILURES.labels(error.code().name).inc()
            log.warning("the ledger did not take records: %s %s", error.code().name, error.details())
            return False
        except Exception:
            # A sender that ends would fill the disk; one that complains every few seconds is found.
            FAILURES.labels("BUG").inc()
            log.exception("records could not be shipped")
            return False
        return True

    async def _ship(self, batch: Batch) -> None:
        request = request_from_batch(batch)
        try:
            response = await self._stub.RecordUsage(request, metadata=self._metadata, timeout=CALL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            committed_sequence = committed_before_gap(error)
            if committed_sequence is not None:
                self._outbox.rewind(batch, committed_sequence)
            raise
        if response.committed_sequence < batch.last_sequence:
            raise LedgerBehindError(f"sent up to {batch.last_sequence}, committed {response.committed_sequence}")
        _report(response)
        self._outbox.commit(batch, response.committed_sequence)


class Sweeper:
    """Ships what workers that are gone left behind, from slots that no worker has taken again. Runs beside a sender."""

    def __init__(
        self,
        directory: Path,
        settings: SpoolSettings,
        channel: grpc.aio.Channel,
        service_token: str,
        *,
        settle: Settle | None = None,
    ) -> None:
        """`settle` is told of each log that was shipped whole, with the first of its lives to come."""
        self._settle = settle
        self._directory = directory
        self._settings = settings
        self._channel = channel
        self._service_token = service_token
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name="sweeper")

    async def stop(self) -> None:
        """Leaves what is not shipped yet to another worker, or to the next life."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            # Also before the first time: workers that start together are to find their own slots free.
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self._sweep_one()
            except Exception:
                log.exception("what other workers left could not be shipped")

    async def _sweep_one(self) -> None:
        spool = await asyncio.to_thread(Spool.open_abandoned, self._directory, self._settings)
        if spool is None:
            return
        log.warning("shipping %d records that another worker left in %s", spool.outbox.depth, spool.directory)
        try:
            await Sender(spool.outbox, self._channel, self._service_token).drain()
            if self._settle is not None and spool.outbox.has_settled_past:
                first_to_come = Epoch(spool.epoch.producer_id, spool.epoch.number + 1)
                await self._settle(first_to_come)
                spool.note_settled(first_to_come)
        finally:
            spool.close()


def request_from_batch(batch: Batch) -> RecordUsageRequest:
    """The batch with every record numbered."""
    request = RecordUsageRequest(producer_id=str(batch.epoch.producer_id), epoch=batch.epoch.number)
    for sequence, payload in enumerate(batch.payloads, batch.first_sequence):
        record = UsageRecord.FromString(payload)
        record.sequence = sequence
        request.records.append(record)
    return request


def committed_before_gap(error: grpc.aio.AioRpcError) -> int | None:
    """Where the ledger wants us to go on, if that is what the error says."""
    status = rpc_status.from_call(cast("grpc.Call", error))
    for detail in status.details if status is not None else ():
        info = ErrorInfo()
        if detail.Unpack(info) and info.reason == "SEQUENCE_GAP":
            return int(info.metadata["committed_sequence"])
    return None


def retry_seconds(failure_count: int) -> float:
    """Doubles with every failure, and varies, so that many routers do not come back at once."""
    longest = min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * 2 ** min(failure_count, 16))
    return random.uniform(max(RETRY_SECONDS_MIN, longest / 2), longest)  # noqa: S311 not a secret


def _report(response: RecordUsageResponse) -> None:
    for status, count in Tally(result.status for result in response.results).items():
        SENT.labels(RecordStatus.Name(status).removeprefix("RECORD_STATUS_")).inc(count)
    for result in response.results:
        if result.status in _SET_ASIDE:
            extra = {"request_id": result.request_id, "reason": result.reason}
            log.error("the ledger set a record aside: %s", RecordStatus.Name(result.status), extra=extra)

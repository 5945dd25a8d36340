"""Joins the parts of one worker. The only module that knows them all."""

import asyncio
from typing import TYPE_CHECKING

import grpc

from services.common.grpc_client import open_channel, service_metadata
from services.common.grpc_server import GrpcServer, Service
from services.common.metrics import serve_metrics
from services.common.settings import SettingError
from services.common.tracing import start_tracing
from services.router import gauges
from services.router.calls.admission import Admission
from services.router.calls.attempts import Attempts
from services.router.calls.call_log import CallLog
from services.router.calls.calls import Calls
from services.router.calls.idempotency import IdempotencyKeys
from services.router.calls.recording import Recorder
from services.router.calls.response_cache import ResponseCache
from services.router.credit.covering import LeaseCovers
from services.router.credit.credit import LeasedCredit
from services.router.credit.credit_ledger import CreditLedger
from services.router.credit.past import Past, say_until_heard
from services.router.credit.price_bounds import PriceBounds
from services.router.credit.prices import ListPrices, PriceList
from services.router.faces.http_face import HttpFace
from services.router.faces.model_list import ModelList
from services.router.faces.running_calls import RunningCalls
from services.router.faces.servicer import InferenceServicer
from services.router.keys.directory import Directory, Resolve, refusal_from_status
from services.router.keys.directory_watch import DirectoryWatch, OpenStream
from services.router.keys.key_ring import KeyRing
from services.router.limits.limits import Limiter, LocalWindows
from services.router.routing.health import Health
from services.router.routing.planning import Planner
from services.router.routing.routing import RoutingTable
from services.router.sender import Sender, Sweeper
from services.router.server import HttpServer
from services.router.settings import Settings
from services.router.spool import Spool
from services.router.upstream import Upstream, client_context
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyRequest, ResolveKeyResponse, WatchDirectoryRequest
from tollgate.ledger.v1.directory_service_pb2_grpc import DirectoryServiceStub
from tollgate.ledger.v1.price_service_pb2 import ListPricesRequest, ListPricesResponse
from tollgate.ledger.v1.price_service_pb2_grpc import PriceServiceStub
from tollgate.router.v1 import inference_service_pb2
from tollgate.router.v1.inference_service_pb2_grpc import add_InferenceServiceServicer_to_server

if TYPE_CHECKING:
    from services.router.calls.call_traces import CallTraces
    from services.router.limits.redis_windows import RedisWindows

DIRECTORY_TIMEOUT_SECONDS = 2.0
PRICES_TIMEOUT_SECONDS = 10.0
# How long to go on sending records at the end. What is left then waits in the spool for the next start.
LAST_SEND_SECONDS = 3.0
# How long clients may take at the end to take what was answered.
LAST_ANSWER_SECONDS = 2.0


class Worker:
    """Everything that runs in one worker process, from its start to its stop."""

    def __init__(
        self, settings: Settings, spool: Spool, channel: grpc.aio.Channel, traces: "CallTraces | None"
    ) -> None:
        """Use `start`."""
        self._spool = spool
        self._channel = channel
        self._traces = traces
        self._call_log = CallLog()
        token = settings.grpc.service_token
        self._sender = Sender(spool.outbox, channel, token)
        credit_ledger = CreditLedger(channel, token)
        self._past = Past(spool, credit_ledger.end_lives)
        self._credit = LeasedCredit(credit_ledger, spool.epoch)
        self._sweeper = Sweeper(
            settings.spool_directory,
            settings.spool,
            channel,
            token,
            settle=lambda before: say_until_heard(credit_ledger.end_lives, before),
        )
        context = client_context()
        self._upstreams = [Upstream(provider, context) for provider in settings.providers]

        covers = LeaseCovers(self._credit, PriceBounds(credit_ledger.price_bounds))
        recorder = Recorder(spool, self._call_log, covers, traces)
        key_ring = KeyRing(settings.provider_key_private)
        directory = Directory(_resolve_by(channel, token))
        self._directory_watch = DirectoryWatch(directory, _watch_by(channel, token))
        candidates = [candidate for provider in settings.providers for candidate in provider.candidates]
        self._prices = PriceList(_list_prices_by(channel, token), candidates)
        health = Health(settings.policies.cooldown_seconds)
        planner = Planner(
            RoutingTable(candidates, settings.policies.auto.models),
            key_ring,
            health,
            auto_order=settings.policies.auto.order,
            price_of=self._prices.token_price,
        )
        self._redis_windows = _open_redis(settings.redis_url)
        limiter = Limiter(self._redis_windows or LocalWindows())
        admission = Admission(directory, planner, limiter, recorder, settings.policies.defaults)
        attempts = Attempts({upstream.provider.name: upstream for upstream in self._upstreams}, key_ring, health)
        cache = ResponseCache(settings.cache_bytes)
        calls = Calls(admission, attempts, recorder, cache, IdempotencyKeys(), covers=covers)

        limits = settings.face_limits
        running = RunningCalls(limits.calls_max, limits.bodies_bytes_max)
        self._face = HttpFace(
            calls,
            admission,
            ModelList(candidates, settings.policies.auto.models, key_ring, self._prices.version),
            settings.providers,
            health,
            running=running,
            limits=limits,
            traces=traces,
        )
        self._server = HttpServer(self._face.handle)
        gauges.show(running, directory, cache)
        gauges.show_providers((provider.name for provider in settings.providers), health)
        self._servicer = InferenceServicer(calls, running, limits.trusted_proxy_count)
        self._grpc = GrpcServer(settings.grpc, directory, [_inference_service(self._servicer)])
        self._cut_off_after_seconds = settings.grpc.drain_seconds

    @classmethod
    async def start(cls, settings: Settings) -> "Worker":
        """Raises SettingError when an address is taken or the spool cannot be used."""
        spool = Spool.open(settings.spool_directory, settings.spool)
        traces = _start_traces(settings.grpc.traces_endpoint)
        worker = cls(settings, spool, open_channel(settings.ledger_address, settings.grpc.tls), traces)
        _serve_metrics(settings)
        await worker._grpc.start()
        worker._sender.start()
        worker._sweeper.start()
        worker._directory_watch.start()
        worker._prices.start()
        worker._credit.start()
        worker._past.start()
        await worker._server.start(settings.http_address, reuse_port=settings.worker_count > 1)
        return worker

    async def stop(self, notice_seconds: int) -> None:
        """Says "draining", takes no more calls after the notice, and cuts off what runs for too long.

        Returns when every call has its record and everything is closed.
        """
        self._face.is_draining = True
        await asyncio.sleep(notice_seconds)
        await self._drain()
        for upstream in self._upstreams:
            upstream.close()
        await self._directory_watch.stop()
        await self._prices.stop()
        await self._past.stop()
        await self._credit.stop()
        if self._redis_windows is not None:
            await self._redis_windows.close()
        await self._sweeper.stop()
        await self._sender.stop(LAST_SEND_SECONDS)
        await self._channel.close(None)
        self._spool.close()
        self._call_log.flush()
        if self._traces is not None:
            self._traces.close()

    async def _drain(self) -> None:
        self._server.drain()
        cut_off = asyncio.get_running_loop().call_later(self._cut_off_after_seconds, self._cut_off)
        await self._grpc.stop()
        await self._servicer.wait_for_running()
        await self._server.wait_for_running()
        cut_off.cancel()
        await self._server.stop(LAST_ANSWER_SECONDS)

    def _cut_off(self) -> None:
        self._server.cut_off()
        self._servicer.cut_off()


def _inference_service(servicer: InferenceServicer) -> Service:
    descriptor = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]
    return Service(descriptor, add_InferenceServiceServicer_to_server, servicer)


def _resolve_by(channel: grpc.aio.Channel, service_token: str) -> Resolve:
    stub = DirectoryServiceStub(channel)
    metadata = service_metadata(service_token)

    async def resolve(request: ResolveKeyRequest) -> ResolveKeyResponse:
        try:
            return await stub.ResolveKey(request, metadata=metadata, timeout=DIRECTORY_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise refusal_from_status(error) from error

    return resolve


def _start_traces(endpoint: str | None) -> "CallTraces | None":
    provider = start_tracing("router", endpoint)
    if provider is None:
        return None
    from services.router.calls.call_traces import CallTraces  # noqa: PLC0415 nor does whoever does not trace

    return CallTraces(provider)


def _watch_by(channel: grpc.aio.Channel, service_token: str) -> OpenStream:
    stub = DirectoryServiceStub(channel)
    metadata = service_metadata(service_token)
    return lambda: stub.WatchDirectory(WatchDirectoryRequest(), metadata=metadata)


def _open_redis(url: str | None) -> "RedisWindows | None":
    if url is None:
        return None
    from services.router.limits.redis_windows import RedisWindows  # noqa: PLC0415 20 MiB that most workers do not need

    try:
        return RedisWindows(url)
    except ValueError as error:
        raise SettingError(f"TOLLGATE_REDIS_URL is not a URL of a Redis: {error}") from error


def _list_prices_by(channel: grpc.aio.Channel, service_token: str) -> ListPrices:
    stub = PriceServiceStub(channel)
    metadata = service_metadata(service_token)

    async def list_prices(request: ListPricesRequest) -> ListPricesResponse:
        return await stub.ListPrices(request, metadata=metadata, timeout=PRICES_TIMEOUT_SECONDS)

    return list_prices


def _serve_metrics(settings: Settings) -> None:
    """Each worker on a port of its own, counted up from the one that is set."""
    host, _, port = settings.metrics_address.rpartition(":")
    for number in range(settings.worker_count):
        try:
            serve_metrics(f"{host}:{int(port) + number}")
        except SettingError:
            if number == settings.worker_count - 1:
                raise
        else:
            return

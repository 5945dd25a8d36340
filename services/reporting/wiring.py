"""Joins the parts of the reporting service. The only module that knows them all."""

import gc
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.database import check_database, open_database
from services.common.grpc_server import GrpcServer, Service, stop_signal
from services.common.key_store import DatabaseKeyDirectory
from services.common.metrics import serve_metrics
from services.reporting.asking import Asker
from services.reporting.reader import Reader
from services.reporting.servicer_activity import ActivityServicer
from services.reporting.servicer_analytics import AnalyticsServicer
from services.reporting.servicer_exports import ExportServicer
from services.reporting.servicer_insights import InsightServicer
from services.reporting.servicer_requests import RequestServicer
from services.reporting.settings import Settings
from tollgate.reporting.v1 import (
    activity_service_pb2,
    activity_service_pb2_grpc,
    analytics_service_pb2,
    analytics_service_pb2_grpc,
    export_service_pb2,
    export_service_pb2_grpc,
    insight_service_pb2,
    insight_service_pb2_grpc,
    request_service_pb2,
    request_service_pb2_grpc,
)

# Below the gateway's limit for an answer, so that a caller is told what to do about it.
STATEMENT_SECONDS = 8
COLLECTOR_THRESHOLDS = (10_000, 20, 50)


def services_over(engine: AsyncEngine, now: Callable[[], datetime]) -> list[Service]:
    """Every service that reporting offers."""
    asker = Asker(Reader(engine), now)
    return [
        Service(
            activity_service_pb2.DESCRIPTOR.services_by_name["ActivityService"],
            activity_service_pb2_grpc.add_ActivityServiceServicer_to_server,
            ActivityServicer(asker),
        ),
        Service(
            analytics_service_pb2.DESCRIPTOR.services_by_name["AnalyticsService"],
            analytics_service_pb2_grpc.add_AnalyticsServiceServicer_to_server,
            AnalyticsServicer(asker),
        ),
        Service(
            export_service_pb2.DESCRIPTOR.services_by_name["ExportService"],
            export_service_pb2_grpc.add_ExportServiceServicer_to_server,
            ExportServicer(asker),
        ),
        Service(
            insight_service_pb2.DESCRIPTOR.services_by_name["InsightService"],
            insight_service_pb2_grpc.add_InsightServiceServicer_to_server,
            InsightServicer(asker),
        ),
        Service(
            request_service_pb2.DESCRIPTOR.services_by_name["RequestService"],
            request_service_pb2_grpc.add_RequestServiceServicer_to_server,
            RequestServicer(asker),
        ),
    ]


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. Raises SettingError when it cannot start."""
    stopped = stop_signal()
    engine = open_database(settings.database_url, statement_seconds=STATEMENT_SECONDS)
    try:
        await check_database(engine)
        serve_metrics(settings.metrics_address)
        server = GrpcServer(settings.server, DatabaseKeyDirectory(engine), services_over(engine, _now))
        await server.start()
        _spare_the_collector()
        await stopped.wait()
        await server.stop()
    finally:
        await engine.dispose()


def _spare_the_collector() -> None:
    """What is there at the start stays, and an answer is many objects that leave no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def _now() -> datetime:
    return datetime.now(UTC)

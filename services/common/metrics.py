"""Metrics in Prometheus format, each service on a port of its own."""

from prometheus_client import Counter, Histogram, start_http_server

from services.common.settings import SettingError

GRPC_CALLS = Counter("tollgate_grpc_calls_total", "gRPC calls by method and code.", ("method", "code"))
GRPC_SECONDS = Histogram("tollgate_grpc_seconds", "How long gRPC calls took.", ("method",))


def serve_metrics(address: str) -> None:
    """Serves `/metrics` from a thread of its own until the process ends."""
    host, _, port = address.rpartition(":")
    try:
        start_http_server(int(port), host)
    except OSError as error:
        raise SettingError(f"cannot serve metrics on {address}: {error.strerror}") from error

"""Channels to our own services: the service token on every call, keepalive, quick reconnection."""

import grpc

from services.common.grpc_calls import SERVICE_TOKEN_HEADER
from services.common.grpc_server import MESSAGE_BYTES_MAX
from services.common.tls import NO_TLS, Tls

_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def open_channel(address: str, tls: Tls = NO_TLS) -> grpc.aio.Channel:
    """A channel that connects when first used, and again whenever it has to."""
    credentials = tls.channel_credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=_OPTIONS)


def service_metadata(service_token: str) -> tuple[tuple[str, str], ...]:
    """What proves to another service that a call comes from inside."""
    return ((SERVICE_TOKEN_HEADER, service_token),)

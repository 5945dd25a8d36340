"""A gRPC server of ours: guarded methods, health, reflection, drain."""

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.authentication import KeyDirectory
from services.common.grpc_calls import Guard, Handler, guarded
from services.common.settings import Environment, SettingError
from services.common.tls import NO_TLS, Tls
from services.common.tracing import read_traces_endpoint

# A batch of 1,000 records of ordinary size is under 1 MiB; nobody needs more than this.
MESSAGE_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What every gRPC server reads from the environment."""

    listen_address: str
    service_token: str
    reflection: bool
    drain_seconds: int
    # True when several processes listen on the one address and share its connections.
    reuse_port: bool = False
    tls: Tls = NO_TLS
    # Where spans go. None where nobody traces.
    traces_endpoint: str | None = None

    @classmethod
    def read(
        cls, environment: Environment, address_name: str, address_default: str, *, reuse_port: bool = False
    ) -> "ServerSettings":
        return cls(
            listen_address=environment.address(address_name, address_default),
            service_token=environment.text("TOLLGATE_SERVICE_TOKEN"),
            reflection=environment.flag("TOLLGATE_REFLECTION"),
            drain_seconds=environment.integer("TOLLGATE_DRAIN_SECONDS", 10, least=0, most=600),
            reuse_port=reuse_port,
            tls=Tls.read(environment),
            traces_endpoint=read_traces_endpoint(environment),
        )


@dataclass(frozen=True, slots=True)
class Service:
    """A servicer, with the contract it fulfils and the generated function that registers it."""

    descriptor: ServiceDescriptor
    register: Callable[[Any, Any], None]
    servicer: object
    # Ends what would go on for ever, when the server stops.
    end_streams: Callable[[], None] | None = None


class _Handlers:
    """Takes the place of a server while generated code registers a servicer, and keeps the handlers."""

    def __init__(self) -> None:
        self.by_method: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The older of two ways to register; generated code calls both."""

    def add_registered_method_handlers(self, service_name: str, handlers: dict[str, Handler]) -> None:
        self.by_method.update(handlers)


class GrpcServer:
    """Serves from `start` to `stop`."""

    def __init__(self, settings: ServerSettings, keys: KeyDirectory, services: Sequence[Service]) -> None:
        self._settings = settings
        self._server: Any = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", int(settings.reuse_port)),
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ]
        )
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._end_streams = [service.end_streams for service in services if service.end_streams is not None]
        guard = Guard(keys, settings.service_token)
        for service in services:
            self._add(service, guard)
        if settings.reflection:
            names = [service.descriptor.full_name for service in services]
            reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], self._server)

    def _add(self, service: Service, guard: Guard) -> None:
        registered = _Handlers()
        service.register(service.servicer, registered)
        name = service.descriptor.full_name
        handlers = {
            method.name: guarded(method, registered.by_method[method.name], guard)
            for method in service.descriptor.methods
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self._server.add_registered_method_handlers(name, handlers)

    async def start(self) -> None:
        """Raises SettingError when the address is taken."""
        address = self._settings.listen_address
        try:
            _try_to_bind(address, reuse_port=self._settings.reuse_port)
            credentials = self._settings.tls.server_credentials()
            if credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, credentials)
        except (OSError, RuntimeError) as error:
            raise SettingError(f"cannot listen on {address}; is something else using the port?") from error
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Says "not serving", lets running calls finish for the drain time, then ends."""
        await self._health.enter_graceful_shutdown()
        for end_streams in self._end_streams:
            end_streams()
        await self._server.stop(self._settings.drain_seconds)


def _try_to_bind(address: str, *, reuse_port: bool) -> None:
    """Raises OSError when the address cannot be had. gRPC would print a line of its own about that."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
        probe.bind((host.strip("[]"), int(port)))


def stop_signal() -> asyncio.Event:
    """Set on SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped

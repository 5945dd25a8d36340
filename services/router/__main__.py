"""Starts the router: `python -m services.router`."""

import socket
import sys

from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server.mp import MPServer

from services.common.settings import SettingError
from services.router import memory
from services.router.settings import Settings
from services.router.spool.slot import Slot

# What a worker may take beyond its drain time, to send and close, before it is killed.
_STOP_SECONDS = 10
_RESPAWN_SECONDS = 1.0
_HEADER_READ_MILLISECONDS = 10_000


def main() -> int:
    try:
        settings = Settings.read()
        for address in (settings.http_address, settings.grpc.listen_address, settings.metrics_address):
            require_free(address)
        # Tried here too, where what is wrong can still be said in one line.
        Slot.take(settings.spool_directory).release()
    except SettingError as error:
        print(f"router: {error}", file=sys.stderr)
        return 2
    memory.keep_low()
    server_for(settings).serve()
    return 0


def require_free(address: str) -> None:
    """Raises SettingError when something listens there: workers share their addresses and would not notice."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_server((host.strip("[]"), int(port)), family=_family(host)):
            pass
    except OSError as error:
        raise SettingError(
            f"cannot listen on {address}: {error.strerror}; is something else using the port?"
        ) from error


def server_for(settings: Settings) -> MPServer:
    """The supervisor of the workers."""
    host, _, port = settings.http_address.rpartition(":")
    return MPServer(
        "services.router.app:application",
        address=host.strip("[]"),
        port=int(port),
        interface=Interfaces.RSGI,
        workers=settings.worker_count,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_READ_MILLISECONDS),
        websockets=False,
        backlog=2048,
        respawn_failed_workers=settings.worker_count > 1,
        respawn_interval=_RESPAWN_SECONDS,
        workers_kill_timeout=settings.drain_notice_seconds + settings.grpc.drain_seconds + _STOP_SECONDS,
        log_enabled=False,
    )


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


if __name__ == "__main__":
    sys.exit(main())

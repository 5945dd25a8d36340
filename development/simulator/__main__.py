"""Starts the simulated provider: `python -m development.simulator`."""

import os
import socket
import sys

from granian.constants import HTTPModes, Interfaces, Loops
from granian.server.mp import MPServer

from services.common.settings import Environment, SettingError


def main() -> int:
    try:
        address = Environment(os.environ).address("TOLLGATE_SIMULATOR_ADDRESS", "127.0.0.1:8099")
        host, _, port = address.rpartition(":")
        try:
            socket.create_server((host, int(port))).close()
        except OSError as error:
            raise SettingError(f"cannot listen on {address}: {error.strerror}") from error
    except SettingError as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2
    MPServer(
        "development.simulator.app:application",
        address=host,
        port=int(port),
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=2048,
        log_enabled=False,
    ).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())

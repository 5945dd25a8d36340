"""Starts the router: `python -m services.router`."""

import socket
import sys

from services.common.logs import start_logging
from services.common.settings import SettingError
from services.router import memory
from services.router.settings import WRONG_SETTING, Settings
from services.router.spool.slot import Slot
from services.router.supervisor import Supervisor


def main() -> int:
    try:
        settings = Settings.read()
        for address in (settings.http_address, settings.grpc.listen_address, settings.metrics_address):
            require_free(address)
        # Tried here too, where what is wrong can still be said in one line.
        Slot.take(settings.spool_directory).release()
    except SettingError as error:
        print(f"router: {error}", file=sys.stderr)
        return WRONG_SETTING
    memory.keep_low()
    start_logging("router", settings.log_level)
    return Supervisor(settings).run()


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


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


if __name__ == "__main__":
    sys.exit(main())

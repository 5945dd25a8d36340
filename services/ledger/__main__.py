"""Starts the ledger: `python -m services.ledger`."""

import os
import sys

import uvloop

from services.common.logs import start_logging
from services.common.settings import SettingError
from services.ledger.settings import Settings
from services.ledger.wiring import serve

# The writer waits for PostgreSQL without the interpreter's lock and wants it back for moments only; at the usual 5 ms
# every answer of the database would wait that long for the event loop to pause.
THREAD_SWITCH_SECONDS = 0.0005


def main() -> int:
    try:
        settings = Settings.from_environ(os.environ)
        start_logging("ledger", settings.log_level)
        sys.setswitchinterval(THREAD_SWITCH_SECONDS)
        uvloop.run(serve(settings))
    except SettingError as error:
        print(f"ledger: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

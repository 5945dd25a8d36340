"""Starts the ledger: `python -m services.ledger`."""

import os
import sys

import uvloop

from services.common.logs import start_logging
from services.common.settings import SettingError
from services.common.tracing import traced
from services.ledger.settings import Settings
from services.ledger.wiring import serve


def main() -> int:
    try:
        settings = Settings.from_environ(os.environ)
        start_logging("ledger", settings.log_level)
        with traced("ledger", settings.server.traces_endpoint):
            uvloop.run(serve(settings))
    except SettingError as error:
        print(f"ledger: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

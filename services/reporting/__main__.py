"""Starts the reporting service: `python -m services.reporting`."""

import os
import sys

import uvloop

from services.common.logs import start_logging
from services.common.settings import SettingError
from services.common.tracing import traced
from services.reporting.settings import Settings
from services.reporting.wiring import serve


def main() -> int:
    try:
        settings = Settings.from_environ(os.environ)
        start_logging("reporting", settings.log_level)
        with traced("reporting", settings.server.traces_endpoint):
            uvloop.run(serve(settings))
    except SettingError as error:
        print(f"reporting: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Logs: one JSON object per line on standard error."""

import logging
import sys

from pythonjsonlogger.orjson import OrjsonFormatter


def start_logging(service: str, level: str = "INFO") -> None:
    """Sends everything that is logged, by us and by libraries, to standard error. `extra` becomes members."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        OrjsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            static_fields={"service": service},
            timestamp="time",
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)

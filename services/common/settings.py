"""Reads settings from the environment. A missing or wrong one stops the start with its name and what to do."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_ADDRESS = re.compile(r"[A-Za-z0-9.\-_\[\]:]+:(\d{1,5})", re.ASCII)


class SettingError(Exception):
    """One line for the operator: which setting, what is wrong, what to do."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment, read by name. `None` as default means that the setting is needed."""

    variables: Mapping[str, str]

    def text(self, name: str, default: str | None = None) -> str:
        value = self.variables.get(name) or default
        if value is None:
            raise SettingError(f"{name} is not set")
        return value

    def optional_text(self, name: str) -> str | None:
        return self.variables.get(name) or None

    def address(self, name: str, default: str | None = None) -> str:
        """A `host:port` to listen on or to connect to."""
        value = self.text(name, default)
        match = _ADDRESS.fullmatch(value)
        if match is None or not 0 < int(match[1]) < 65536:
            raise SettingError(f"{name} must be host:port, got {value!r}")
        return value

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        value = self.text(name, str(default))
        if not re.fullmatch(r"\d{1,18}", value, re.ASCII) or not least <= int(value) <= most:
            raise SettingError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
        return int(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.text(name, "true" if default else "false")
        if value not in ("true", "false"):
            raise SettingError(f"{name} must be 'true' or 'false', got {value!r}")
        return value == "true"

    def path(self, name: str, default: str | None = None) -> Path:
        return Path(self.text(name, default))

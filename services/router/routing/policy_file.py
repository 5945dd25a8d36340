"""What the providers file says beside the providers: how calls are treated unless their project or key says otherwise.

The README of the router has an example.
"""

import tomllib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from services.common.settings import SettingError
from services.router.calls.answers import AnswerFormat
from services.router.limits.limits import Limit
from services.router.routing.ordering import Order, Preference
from services.router.routing.policies import CACHE_SECONDS_MAX, NO_LIMIT, Policy

_NUMBER_MAX = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoModels:
    """What the model `auto` chooses from, and by what."""

    models: tuple[str, ...] = ()
    order: Order = Order.PRICE


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """All that the file says about calls."""

    defaults: Policy
    cooldown_seconds: int
    auto: AutoModels


def read_policies(path: Path, models: Container[str]) -> PolicyFile:
    """Raises SettingError naming file, table and what is wrong. The file must be there and be TOML; `models` are those
    it offers."""
    document = tomllib.loads(path.read_text())
    defaults = _Table(path, "defaults", document.get("defaults"))
    limits = _Table(path, "limits", document.get("limits"))
    auto = _Table(path, "auto", document.get("auto"))
    auto.require_known("models", models)
    return PolicyFile(
        defaults=Policy(
            preference=Preference(
                order=Order[defaults.one_of("order", ("configured", "price", "latency")).upper()],
                providers=defaults.texts("prefer"),
            ),
            cache_seconds=defaults.whole("cache_seconds", CACHE_SECONDS_MAX) or 0,
            answer_format=AnswerFormat[defaults.one_of("answer_format", ("raw", "meta", "envelope")).upper()],
            key_limit=_limit(limits.table("key")),
            project_limit=_limit(limits.table("project")),
            end_user_limit=_limit(limits.table("end_user")),
            address_limit=_limit(limits.table("address")),
        ),
        cooldown_seconds=_or_default(defaults.whole("cooldown_seconds", 60), 5),
        auto=AutoModels(
            models=auto.texts("models"), order=Order[auto.one_of("order", ("price", "latency", "configured")).upper()]
        ),
    )


def _or_default(value: int | None, default: int) -> int:
    return default if value is None else value


def _limit(table: "_Table") -> Limit:
    if table.is_empty:
        return NO_LIMIT
    return Limit(
        requests_per_minute=table.whole("requests_per_minute", _NUMBER_MAX),
        tokens_per_minute=table.whole("tokens_per_minute", _NUMBER_MAX),
        concurrent_calls=table.whole("concurrent_calls", _NUMBER_MAX),
    )


class _Table:
    """One table, read member by member."""

    def __init__(self, path: Path, name: str, members: Any) -> None:
        self._path = path
        self._name = name
        if members is not None and not isinstance(members, dict):
            self._fail("must be a table")
        self._members: Mapping[str, Any] = members or {}

    @property
    def is_empty(self) -> bool:
        return not self._members

    def table(self, name: str) -> "_Table":
        return _Table(self._path, f"{self._name}.{name}", self._members.get(name))

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        """The first choice where nothing is said."""
        value = self._members.get(name, choices[0])
        if value not in choices:
            self._fail(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        return str(value)

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._members.get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self._fail(f"{name} must be a list of texts, got {value!r}")
        return tuple(value)

    def require_known(self, name: str, known: Container[str]) -> None:
        for value in self.texts(name):
            if value not in known:
                self._fail(f"{name}: no provider offers {value!r}")

    def whole(self, name: str, most: int) -> int | None:
        """None where nothing is said."""
        value = self._members.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most):
            self._fail(f"{name} must be a whole number from 0 to {most}, got {value!r}")
        return value

    def _fail(self, problem: str) -> NoReturn:
        raise SettingError(f"{self._path}, [{self._name}]: {problem}")

"""The configured providers, read from a TOML file. The README of the router has an example of each kind."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

from services.common.settings import SettingError
from services.router.formats.registry import PROVIDER_FORMATS, endpoints_of
from services.router.routing.routing import Candidate

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_URL = re.compile(r"https?://[^\s/]+[^\s]*")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_SECONDS_MAX = 3600
_WEIGHT_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a provider wants to be shown its key."""

    header: str
    prefix: str = ""


_BEARER = Credentials("authorization", "Bearer ")
_CREDENTIALS: Mapping[str, Credentials] = {
    "openai": _BEARER,
    "anthropic": Credentials("x-api-key"),
    "gemini": Credentials("x-goog-api-key"),
}
_HEADERS: Mapping[str, Mapping[str, str]] = {"anthropic": {"anthropic-version": "2023-06-01"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider, with the platform's key for it."""

    name: str
    format: str
    # Without a slash at its end; `{model}` in it stands for the model that is asked.
    base_url: str
    # Added to every URL, without the question mark.
    query: str
    credentials: Credentials
    # Sent with every call.
    headers: Mapping[str, str] = field(repr=False)
    api_key: str = field(repr=False)
    connect_timeout_seconds: int
    idle_timeout_seconds: int
    total_timeout_seconds: int
    # True: when a client leaves in mid-answer, read on until the usage is known. False: cancel, and estimate.
    drains: bool
    # True where the models take a budget of tokens for their thinking, and no effort.
    thinks_by_budget: bool
    candidates: tuple[Candidate, ...]

    def url_for(self, path: str, upstream_model: str) -> str:
        """Where to send a call."""
        url = self.base_url.replace("{model}", quote(upstream_model, safe="")) + path
        if not self.query:
            return url
        return f"{url}{'&' if '?' in path else '?'}{self.query}"


def read_providers(path: Path, environ: Mapping[str, str]) -> tuple[Provider, ...]:
    """The providers in the order of the file. Raises SettingError naming file, provider and what is wrong."""
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingError(f"TOLLGATE_PROVIDERS_FILE {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not TOML: {error}") from error

    tables = document.get("providers")
    if not isinstance(tables, list) or not tables:
        raise SettingError(f"{path} has no [[providers]]")
    providers = tuple(_Table(path, table).provider(environ) for table in tables)
    names = [provider.name for provider in providers]
    if len(set(names)) < len(names):
        raise SettingError(f"{path} names a provider twice: {', '.join(names)}")
    return providers


class _Table:
    """One `[[providers]]` table, read member by member."""

    def __init__(self, path: Path, members: Any) -> None:
        self._members: dict[str, Any] = members if isinstance(members, dict) else {}
        self._where = f"{path}, provider {self._members.get('name', '?')}"

    def provider(self, environ: Mapping[str, str]) -> Provider:
        name = self._text("name", _NAME)
        wire_format = self._one_of("format", PROVIDER_FORMATS)
        return Provider(
            name=name,
            format=wire_format,
            base_url=self._text("base_url", _URL).rstrip("/"),
            query=urlencode(self._texts("query")),
            credentials=self._credentials(wire_format),
            headers={**_HEADERS.get(wire_format, {}), **self._texts("headers")},
            api_key=self._api_key(environ),
            connect_timeout_seconds=self._seconds("connect_timeout_seconds", 5),
            idle_timeout_seconds=self._seconds("idle_timeout_seconds", 120),
            total_timeout_seconds=self._seconds("total_timeout_seconds", 600),
            drains=self._one_of("when_client_leaves", ("drain", "cancel"), "drain") == "drain",
            thinks_by_budget=self._one_of("thinking", ("effort", "budget"), "effort") == "budget",
            candidates=self._candidates(name, endpoints_of(wire_format)),
        )

    def _api_key(self, environ: Mapping[str, str]) -> str:
        variable = self._text("api_key_variable", re.compile(r"\w+"))
        key = environ.get(variable)
        if not key:
            raise SettingError(f"{variable} is not set; {self._where} needs it")
        return key

    def _credentials(self, wire_format: str) -> Credentials:
        header = self._members.get("api_key_header")
        if header is None:
            return _CREDENTIALS[wire_format]
        if not isinstance(header, str) or not _HEADER.fullmatch(header):
            self._fail(f"api_key_header must be the name of a header, got {header!r}")
        return _BEARER if header.lower() == _BEARER.header else Credentials(header.lower())

    def _candidates(self, name: str, possible: frozenset[str]) -> tuple[Candidate, ...]:
        offered = self._endpoints(self._members, possible)
        models = self._members.get("models")
        if isinstance(models, list):
            models = {str(model): model for model in models}
        if not isinstance(models, dict) or not models:
            self._fail("models must map at least one model to the provider's name for it")
        return tuple(self._candidate(name, model, value, offered, possible) for model, value in models.items())

    def _candidate(
        self, name: str, model: str, value: Any, offered: frozenset[str], possible: frozenset[str]
    ) -> Candidate:
        upstream, maximum, weight = value, None, None
        if isinstance(value, dict):
            upstream, maximum = value.get("upstream", model), value.get("output_tokens_max")
            weight = value.get("weight")
            offered = self._endpoints(value, possible) if "endpoints" in value else offered
        if not isinstance(upstream, str) or not upstream:
            self._fail(f"model {model} must be a name or a table with 'upstream'")
        if maximum is not None and (not isinstance(maximum, int) or maximum < 1):
            self._fail(f"model {model}: output_tokens_max must be a whole number from 1")
        if weight is not None and (not isinstance(weight, int | float) or not 0 <= weight <= _WEIGHT_MAX):
            self._fail(f"model {model}: weight must be a number from 0 to {_WEIGHT_MAX}")
        return Candidate(name, model, upstream, maximum, offered, weight)

    def _endpoints(self, members: Mapping[str, Any], possible: frozenset[str]) -> frozenset[str]:
        """Those that are named, or all that are possible."""
        named = members.get("endpoints")
        if named is None:
            return possible
        if not isinstance(named, list) or not named or not possible.issuperset(map(str, named)):
            self._fail(f"endpoints must be of {', '.join(sorted(possible))}, got {named!r}")
        return frozenset(named)

    def _texts(self, name: str) -> Mapping[str, str]:
        values = self._members.get(name, {})
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            self._fail(f"{name} must be a table of texts, got {values!r}")
        return values

    def _text(self, name: str, pattern: re.Pattern[str]) -> str:
        value = self._members.get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self._fail(f"{name} must match {pattern.pattern}, got {value!r}")
        return value

    def _one_of(self, name: str, choices: tuple[str, ...], default: str | None = None) -> str:
        value = self._members.get(name, default)
        if value not in choices:
            self._fail(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        return str(value)

    def _seconds(self, name: str, default: int) -> int:
        value = self._members.get(name, default)
        if not isinstance(value, int) or not 1 <= value <= _SECONDS_MAX:
            self._fail(f"{name} must be a whole number from 1 to {_SECONDS_MAX}, got {value!r}")
        return value

    def _fail(self, problem: str) -> NoReturn:
        raise SettingError(f"{self._where}: {problem}")

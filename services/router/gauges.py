"""What a worker is at the moment, for its metrics. Counters of what happened are in `metrics`."""

import time
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from prometheus_client import Gauge

from services.router.routing.health import Health


class Counted(Protocol):
    """Whatever knows how many there are."""

    @property
    def count(self) -> int: ...


class Remembering(Protocol):
    """A directory's cache."""

    @property
    def size(self) -> int: ...
    @property
    def silence_seconds(self) -> float: ...
    @property
    def is_watching(self) -> bool: ...


class Stored(Protocol):
    """A store with an end."""

    @property
    def size_bytes(self) -> int: ...


RUNNING = Gauge("tollgate_router_running", "Model calls being answered, streams included.")
KEYS = Gauge("tollgate_router_directory_keys", "Keys the directory remembers.")
SILENCE_SECONDS = Gauge(
    "tollgate_router_directory_silence_seconds", "How long the ledger has left questions about keys unanswered."
)
WATCHED = Gauge("tollgate_router_directory_watched", "1 while the ledger says what changes; else it is asked again.")
CACHE_BYTES = Gauge("tollgate_router_cache_bytes", "What the response cache holds.")
WELL = Gauge("tollgate_router_provider_well", "1 unless the provider cools down after failures.", ("provider",))
FAILURE_SHARE = Gauge("tollgate_router_provider_failure_share", "Failures among its calls lately.", ("provider",))


def show(running: Counted, directory: Remembering, cache: Stored) -> None:
    """Puts them on the metrics page, read when it is."""
    RUNNING.set_function(lambda: running.count)
    KEYS.set_function(lambda: directory.size)
    SILENCE_SECONDS.set_function(lambda: directory.silence_seconds)
    WATCHED.set_function(lambda: float(directory.is_watching))
    CACHE_BYTES.set_function(lambda: cache.size_bytes)


def show_providers(providers: Iterable[str], health: Health) -> None:
    """Puts the health of each provider on the metrics page."""
    for provider in providers:
        WELL.labels(provider).set_function(partial(_wellness, health, provider))
        FAILURE_SHARE.labels(provider).set_function(partial(health.failure_share, provider))


def _wellness(health: Health, provider: str) -> float:
    return float(health.is_well(provider, time.monotonic()))

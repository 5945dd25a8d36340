"""Which providers to try for a model, with whose key, in which order. Pure: no clock, no network."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from services.router.errors import (
    InsufficientCreditsError,
    ModelNotFoundError,
    OwnKeyMissingError,
    ProvidersThrottledError,
)

# The name of whichever of the configured models is cheapest, or fastest, at the moment.
AUTO = "auto"
ATTEMPTS_MAX = 32
_KEY_REFUSED = frozenset({401, 402, 403})
_WORTH_ANOTHER_TRY = frozenset({408, 409, 429})
_THROTTLED = 429


class Mode(IntEnum):
    """How a project pays. The numbers are those of `tollgate.ledger.v1.ProjectMode`."""

    CREDITS = 1
    OWN_KEYS = 2
    HYBRID = 3


class Funding(IntEnum):
    """Who pays the provider for an attempt. The numbers are those of `tollgate.ledger.v1.Funding`."""

    CREDITS = 1
    OWN_KEY = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that offers the model that was asked for."""

    provider: str
    # The canonical id, without the provider.
    model: str
    # The model as this provider names it.
    upstream_model: str
    # None when not configured: an estimate is then not capped.
    output_tokens_max: int | None = None
    # The endpoints that it can be asked on, by name.
    endpoints: frozenset[str] = frozenset({"chat_completions"})
    # Its share of the calls among equals. None when not configured.
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a candidate has done lately."""

    # Most calls failed: to be tried only when nothing else is left.
    is_cooling: bool = False
    # Many did.
    is_degraded: bool = False
    # Until the head of an answer. None when none came lately.
    latency_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """For how long a key of a provider is better left alone."""

    seconds: float
    # True when the provider said so. False when it is only unlikely to work.
    is_binding: bool


@dataclass(frozen=True, slots=True)
class PlannedAttempt:
    """One try, if it comes to that."""

    candidate: Candidate
    funding: Funding
    # True for credits behind an own key: pointless where the key was fine and the provider was not.
    only_after_refused_key: bool = False
    # Tells own keys of a provider apart. Empty for the platform's.
    key: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt did not answer."""

    error_type: str
    # The status the provider answered; 0 when no answer came.
    status: int = 0

    @property
    def is_refused_key(self) -> bool:
        """The provider does not serve this key, or not now."""
        return self.status in _KEY_REFUSED or self.status == _THROTTLED


class RoutingTable:
    """All configured models with their candidates, in the order of configuration."""

    def __init__(self, candidates: Iterable[Candidate], auto_models: Iterable[str] = ()) -> None:
        """`auto_models` are those that the name `auto` chooses from. Raises ModelNotFoundError for an unknown one."""
        self._by_name: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            self._by_name.setdefault(candidate.model, []).append(candidate)
        for candidate in [each for offers in self._by_name.values() for each in offers]:
            # A canonical id that looks like a pinned name keeps its own meaning.
            self._by_name.setdefault(f"{candidate.provider}/{candidate.model}", [candidate])
        offers = [candidate for model in auto_models for candidate in self.candidates(model)]
        if offers:
            self._by_name.setdefault(AUTO, offers)

    def candidates(self, requested_model: str) -> tuple[Candidate, ...]:
        """Who offers a model named plainly (`gpt-4o`), pinned (`openai/gpt-4o`) or `auto`.

        Raises ModelNotFoundError.
        """
        offers = self._by_name.get(requested_model)
        if offers is None:
            raise ModelNotFoundError(requested_model)
        return tuple(offers)


def plan(
    candidates: Sequence[Candidate],
    mode: Mode,
    own_keys: Mapping[str, str],
    *,
    credit_available: bool,
    wait_of: Callable[[PlannedAttempt], Wait | None],
) -> tuple[PlannedAttempt, ...]:
    """The tries in order; at least one. `own_keys` are the names of own keys, by provider.

    Own keys come first, on every candidate, and credits after them. A provider that said when to come back is left out
    until then; a key that is only unlikely to work is tried last.

    Raises OwnKeyMissingError where only own keys may be used and none fits, InsufficientCreditsError where only credits
    would do and there are none, and ProvidersThrottledError when every provider said to come back later.
    """
    own = [
        PlannedAttempt(each, Funding.OWN_KEY, key=own_keys[each.provider])
        for each in candidates
        if mode is not Mode.CREDITS and each.provider in own_keys
    ]
    usable = {attempt.candidate for attempt in own if wait_of(attempt) is None}
    credit = [
        PlannedAttempt(each, Funding.CREDITS, only_after_refused_key=bool(usable) and each in usable)
        for each in candidates
        if mode is not Mode.OWN_KEYS and credit_available
    ]
    if own or credit:
        return _without_waits([*own, *credit], wait_of)[:ATTEMPTS_MAX]
    if mode is Mode.OWN_KEYS:
        raise OwnKeyMissingError(candidates[0].model, " or ".join(each.provider for each in candidates))
    raise InsufficientCreditsError


def _without_waits(
    attempts: Sequence[PlannedAttempt], wait_of: Callable[[PlannedAttempt], Wait | None]
) -> tuple[PlannedAttempt, ...]:
    waits = [(attempt, wait_of(attempt)) for attempt in attempts]
    ready = [attempt for attempt, wait in waits if wait is None]
    unlikely = [attempt for attempt, wait in waits if wait is not None and not wait.is_binding]
    if ready or unlikely:
        return (*ready, *unlikely)
    providers = " and ".join(dict.fromkeys(attempt.candidate.provider for attempt in attempts))
    raise ProvidersThrottledError(providers, min(wait.seconds for _, wait in waits if wait is not None))


def is_worth_another_try(failure: Failure) -> bool:
    """Whether somebody else may do better: always when no answer came, and by status otherwise.

    A refused key is: the client cannot mend the platform's, and behind an own one there may be credits. Any other 4xx
    says that the request itself is wrong, wherever it is sent.
    """
    status = failure.status
    return status < 400 or status >= 500 or status in _WORTH_ANOTHER_TRY or status in _KEY_REFUSED


def is_worth_trying(attempt: PlannedAttempt, refused_own_keys: Container[Candidate]) -> bool:
    """Whether a planned attempt still makes sense after what happened to those before it."""
    return not attempt.only_after_refused_key or attempt.candidate in refused_own_keys

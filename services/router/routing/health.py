"""How well providers, models and keys have done lately. Pure: the time is an argument, in seconds of any steady clock.

Failures and answers are counted with a half-life, per provider and per model of a provider. Where most calls fail, the
circuit cools down: it is tried last until the time is over, each time twice as long, and an answer ends it at once.
Keys are looked at apart: one that is throttled or refused says nothing about its provider.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from services.router.routing.routing import Candidate, Failure, PlannedAttempt, Standing, Wait

HALF_LIFE_SECONDS = 30.0
FAILURES_UNTIL_COOLDOWN = 3
# Of the calls lately.
FAILURE_SHARE_UNTIL_COOLDOWN = 0.5
FAILURE_SHARE_DEGRADED = 0.125
COOLDOWN_SECONDS_MAX = 60.0
# How long a key that was refused, or throttled without a word on when to come back, is avoided.
REFUSED_SECONDS = 10.0
THROTTLED_SECONDS = 1.0
# A provider that says "come back tomorrow" is asked again before.
WAIT_SECONDS_MAX = 300.0
# An older latency says nothing; the model is tried again to learn a new one.
LATENCY_SECONDS_MAX = 60.0
KEYS_MAX = 10_000
# After a failure, how long health is looked at for each call: longer than anything above lasts.
TROUBLE_SECONDS = 300.0
_NEWEST_LATENCY_SHARE = 0.2
_NOT_THE_PROVIDERS_DOING = frozenset({401, 402, 403, 409, 429})
_THROTTLED = 429


class Way(NamedTuple):
    """Where a call went: a model of a provider, with a key. The platform's keys are named by an empty text."""

    provider: str
    model: str
    key: str = ""

    @classmethod
    def of(cls, planned: PlannedAttempt) -> "Way":
        return cls(planned.candidate.provider, planned.candidate.model, planned.key)


class _Circuit:
    """Counts of one provider, or of one of its models."""

    __slots__ = ("answers", "cooldowns", "cooling_until", "counted_at", "failures", "latency", "latency_at")

    def __init__(self, now: float) -> None:
        self.answers = 0.0
        self.failures = 0.0
        self.counted_at = now
        self.cooling_until = -math.inf
        # How often in a row; each cooldown is twice as long as the one before it.
        self.cooldowns = 0
        self.latency: float | None = None
        self.latency_at = now

    @property
    def failure_share(self) -> float:
        return self.failures / (self.answers + self.failures) if self.failures else 0.0

    def is_failing(self, share: float) -> bool:
        # A little below the number, because the first of them have faded since.
        return self.failures >= FAILURES_UNTIL_COOLDOWN - 0.5 and self.failure_share >= share

    def note_answer(self, seconds: float | None, now: float) -> None:
        self._fade(now)
        self.answers += 1
        if self.cooldowns:
            self.cooldowns, self.failures, self.cooling_until = 0, 0.0, -math.inf
        if seconds is not None:
            is_known = self.latency is not None and now - self.latency_at < LATENCY_SECONDS_MAX
            known = self.latency if is_known and self.latency is not None else seconds
            self.latency = known + _NEWEST_LATENCY_SHARE * (seconds - known)
            self.latency_at = now

    def note_failure(self, cooldown_seconds: float, now: float) -> None:
        self._fade(now)
        self.failures += 1
        is_failing = self.is_failing(FAILURE_SHARE_UNTIL_COOLDOWN)
        # Calls that were under way when it began to cool do not make it cool longer.
        if cooldown_seconds and now >= self.cooling_until and (is_failing or self.cooldowns):
            longest = max(cooldown_seconds, COOLDOWN_SECONDS_MAX)
            self.cooling_until = now + min(cooldown_seconds * 2**self.cooldowns, longest)
            self.cooldowns = min(self.cooldowns + 1, 16)

    def _fade(self, now: float) -> None:
        rest = 0.5 ** (max(0.0, now - self.counted_at) / HALF_LIFE_SECONDS)
        self.answers *= rest
        self.failures *= rest
        self.counted_at = now


class Health:
    """What was seen of all providers. Lives as long as its worker; each worker sees for itself."""

    def __init__(self, cooldown_seconds: float = 5.0) -> None:
        """With 0 seconds nobody is avoided, but for those that said when to come back."""
        self._cooldown_seconds = cooldown_seconds
        self._circuits: dict[tuple[str, str], _Circuit] = {}
        # Until when, and whether the provider said so.
        self._waits: OrderedDict[Way, tuple[float, bool]] = OrderedDict()
        self._troubled_until = -math.inf

    def answered(self, way: Way, seconds: float | None, now: float) -> None:
        """The provider answered, after so long; None where that says nothing about its pace."""
        for circuit in self._circuits_of(way, now):
            circuit.note_answer(seconds, now)
        self._waits.pop(way, None)

    def failed(self, way: Way, failure: Failure, retry_after_seconds: int | None, now: float) -> None:
        """An attempt failed. A request that is wrong is no failure of the provider, but an answer."""
        self._troubled_until = max(self._troubled_until, now + TROUBLE_SECONDS)
        is_avoided = failure.status in _NOT_THE_PROVIDERS_DOING and self._cooldown_seconds > 0
        if is_avoided or retry_after_seconds is not None:
            self._wait(way, failure, retry_after_seconds, now)
        if failure.status in _NOT_THE_PROVIDERS_DOING:
            return
        if 400 <= failure.status < 500 and failure.status != 408:
            self.answered(way, None, now)
            return
        for circuit in self._circuits_of(way, now):
            circuit.note_failure(self._cooldown_seconds, now)

    def is_untroubled(self, now: float) -> bool:
        """True while no failure, wait or cooldown is in sight, so that health decides nothing."""
        return now >= self._troubled_until

    def wait(self, way: Way, now: float) -> Wait | None:
        """For how long this key is not to be used there; None when it may be."""
        until, is_binding = self._waits.get(way, (now, False))
        return Wait(until - now, is_binding) if until > now else None

    def standing(self, candidate: Candidate, now: float) -> Standing:
        """How a candidate stands among others."""
        circuit = self._circuits.get((candidate.provider, ""))
        of_model = self._circuits.get((candidate.provider, candidate.model))
        circuits = [each for each in (circuit, of_model) if each is not None]
        is_latency_known = of_model is not None and now - of_model.latency_at < LATENCY_SECONDS_MAX
        return Standing(
            is_cooling=any(each.cooling_until > now for each in circuits),
            is_degraded=self._cooldown_seconds > 0
            and any(each.is_failing(FAILURE_SHARE_DEGRADED) for each in circuits),
            latency_seconds=of_model.latency if of_model is not None and is_latency_known else None,
        )

    def is_well(self, provider: str, now: float) -> bool:
        """False while the provider cools down."""
        circuit = self._circuits.get((provider, ""))
        return circuit is None or circuit.cooling_until <= now

    def failing_models(self, provider: str, now: float) -> list[str]:
        """Those of the provider's models that cool down."""
        return [
            model
            for (name, model), circuit in self._circuits.items()
            if name == provider and model and circuit.cooling_until > now
        ]

    def failure_share(self, provider: str) -> float:
        """Failures among the provider's calls lately, from 0 to 1."""
        circuit = self._circuits.get((provider, ""))
        return circuit.failure_share if circuit is not None else 0.0

    def _wait(self, way: Way, failure: Failure, retry_after_seconds: int | None, now: float) -> None:
        seconds = THROTTLED_SECONDS if failure.status in (409, _THROTTLED) else REFUSED_SECONDS
        if retry_after_seconds is not None:
            seconds = min(retry_after_seconds, WAIT_SECONDS_MAX)
        self._waits[way] = (now + seconds, retry_after_seconds is not None)
        self._waits.move_to_end(way)
        if len(self._waits) > KEYS_MAX:
            self._waits.popitem(last=False)

    def _circuits_of(self, way: Way, now: float) -> Iterator[_Circuit]:
        # Providers and models are those of the configuration, so there is an end to them.
        for name in ((way.provider, ""), (way.provider, way.model)):
            circuit = self._circuits.get(name)
            if circuit is None:
                circuit = self._circuits[name] = _Circuit(now)
            yield circuit

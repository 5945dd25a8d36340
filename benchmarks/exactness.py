"""Compares what we charge with what genai-prices computes, for random usages over its whole catalogue.

    python -m benchmarks.exactness [calls] [seed]

Prints how many of the calls came out the same, and every kind of difference with its explanation. Ends with 1 when a
difference has none. The usage of each call is random and consistent; the moment is between 2023 and 2027, and every
third call names a service tier.
"""

import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import genai_prices
from genai_prices.data import providers
from genai_prices.types import ModelInfo, Provider

from benchmarks.figures import report
from services.ledger.prices.catalogue import Catalogue, canonical_model, read_catalogue
from services.ledger.prices.price_book import PriceBook
from services.ledger.pricing import Funding, Outcome, PricedCall, Usage, price_call

CALLS = 100_000
SEED = 20_260_501
FIRST_MOMENT = datetime(2023, 1, 1, tzinfo=UTC)
MOMENT_SECONDS = 4 * 365 * 86_400
SERVICE_TIERS = ("flex", "priority", "batch", "fast", "default")
TOKENS_MAX = 1_200_000
SAME = "the same"


@dataclass(frozen=True, slots=True)
class Case:
    """One call to be priced twice."""

    provider: Provider
    model: ModelInfo
    usage: Usage
    service_tier: str
    start_time: datetime


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the two results of a case relate, in words; `explained` is False where nobody knows why they differ."""

    case: Case
    result: str
    explained: bool = True


class Comparer:
    """Prices cases both ways, and finds out why they differ where they do."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._book = PriceBook(catalogue.versions, (), canonical_model)
        self._left_out: dict[tuple[str, str], list[str]] = {}
        for each in catalogue.not_carried:
            self._left_out.setdefault((each.provider, each.model), []).append(each.what)

    def compare(self, case: Case) -> Comparison:
        ours = self._ours(case)
        try:
            theirs = _theirs(case)
        except ValueError as error:
            return Comparison(case, f"genai-prices cannot say: {str(error).partition(':')[0]}")
        if ours.unpriced:
            return self._explain(case, "ours is unpriced", "everything: ")
        if _exact(ours) == theirs:
            return Comparison(case, SAME)
        if abs(_exact(ours) - theirs) < Fraction(1, 10**12):
            return self._explain(case, "less than a pico-dollar apart", "decimals of ")
        return Comparison(case, f"ours is {float(_exact(ours)):.12f}, theirs {float(theirs):.12f}", explained=False)

    def _ours(self, case: Case) -> PricedCall:
        version = self._book.version_at(case.provider.id, case.model.id, case.start_time)
        return price_call(
            case.usage,
            outcome=Outcome.SUCCESS,
            funding=Funding.CREDITS,
            cache_hit=False,
            payload_retained=False,
            service_tier=case.service_tier,
            start_time=case.start_time,
            prices=None if version is None else version.prices,
            discount=Decimal(0),
        )

    def _explain(self, case: Case, result: str, reason: str) -> Comparison:
        """Explained only where the catalogue said, when it was read, what it leaves out of this very model."""
        reasons = [
            what for what in self._left_out.get((case.provider.id, case.model.id), ()) if what.startswith(reason)
        ]
        return Comparison(case, f"{result} ({reasons[0]})" if reasons else result, bool(reasons))


def _exact(call: PricedCall) -> Fraction:
    """The sum of the lines before any rounding. That rounding is right, the oracle of the unit tests shows."""
    return sum((line.quantity * Fraction(line.unit_price) for line in call.lines), Fraction(0))


def _theirs(case: Case) -> Fraction:
    context = {"service_tier": case.service_tier} if case.service_tier else None
    if case.service_tier == "batch":
        context = {"processing": "batch"}
    usage = case.usage
    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        input_audio_tokens=usage.input_audio_tokens,
        cache_audio_read_tokens=usage.cached_input_audio_tokens,
        input_image_tokens=usage.input_image_tokens,
        cache_image_read_tokens=usage.cached_input_image_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
        output_image_tokens=usage.output_image_tokens,
        output_audio_tokens=usage.output_audio_tokens,
        web_searches=usage.web_searches,
    )
    price = case.model.calc_price(
        counted, case.provider, genai_request_timestamp=case.start_time, price_context=context
    )
    return Fraction(price.total_price)


def random_cases(count: int, seed: int = SEED) -> Iterator[Case]:
    """As many cases, over all models alike. The same seed makes the same cases."""
    chance = random.Random(seed)
    models = [(provider, model) for provider in providers for model in provider.models]
    for number in range(count):
        provider, model = models[number % len(models)] if count >= len(models) else chance.choice(models)
        yield Case(
            provider,
            model,
            _random_usage(chance),
            chance.choice(SERVICE_TIERS) if number % 3 == 0 else "",
            FIRST_MOMENT + timedelta(seconds=chance.randrange(MOMENT_SECONDS)),
        )


def _random_usage(chance: random.Random) -> Usage:
    """Parts that fit into their wholes one by one and together, each absent half of the time."""
    whole = _some(chance, TOKENS_MAX)
    cached, written, audio, images = _parts(chance, whole, 4)
    cached_audio, cached_images, _ = _parts(chance, cached, 3)
    output = _some(chance, TOKENS_MAX // 10)
    reasoning, output_images, output_audio = _parts(chance, output, 3)
    return Usage(
        input_tokens=whole,
        output_tokens=output,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=_some(chance, written),
        input_audio_tokens=audio + cached_audio,
        cached_input_audio_tokens=cached_audio,
        input_image_tokens=images + cached_images,
        cached_input_image_tokens=cached_images,
        reasoning_tokens=reasoning,
        output_image_tokens=output_images,
        output_audio_tokens=output_audio,
        web_searches=_some(chance, 5),
    )


def _parts(chance: random.Random, whole: int, count: int) -> list[int]:
    parts = []
    for _ in range(count):
        parts.append(_some(chance, whole))
        whole -= parts[-1]
    return parts


def _some(chance: random.Random, most: int) -> int:
    """0 half of the time, else any number up to the most, small ones as likely as large."""
    if chance.random() < 0.5 or most == 0:
        return 0
    return chance.randrange(min(most, 10 ** chance.randint(1, 7))) + 1


def main(arguments: list[str]) -> int:
    count = int(arguments[0]) if arguments else CALLS
    seed = int(arguments[1]) if len(arguments) > 1 else SEED
    comparer = Comparer(read_catalogue())
    results: Counter[tuple[str, bool]] = Counter()
    unexplained: list[Comparison] = []
    for case in random_cases(count, seed):
        comparison = comparer.compare(case)
        if comparison.explained:
            results[comparison.result, True] += 1
        else:
            results["DIFFERENT", False] += 1
            unexplained.append(comparison)
    for (result, _), times in results.most_common():
        print(f"{times:8}  {result}")
    same = results[SAME, True]
    what = f"{count:,} random usages against genai-prices {genai_prices.__version__}"
    report(f"{what}, the same to the pico-dollar", same, "calls")
    report(f"{what}, different, and we know why", count - same - len(unexplained), "calls")
    report(f"{what}, different without an explanation", len(unexplained), "calls", at_most=0)
    for comparison in unexplained[:20]:
        print(
            f"{comparison.case.provider.id} {comparison.case.model.id}: {comparison.result}\n  {comparison.case.usage}"
        )
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

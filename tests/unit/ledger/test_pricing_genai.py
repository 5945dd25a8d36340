"""What we charge is what genai-prices computes, over its whole catalogue."""

from collections import Counter

from benchmarks.exactness import SAME, Comparer, random_cases
from services.ledger.prices.catalogue import read_catalogue


def test_random_calls_over_the_whole_catalogue_cost_what_genai_prices_says() -> None:
    comparer = Comparer(read_catalogue())

    comparisons = [comparer.compare(case) for case in random_cases(3000)]

    assert [comparison for comparison in comparisons if not comparison.explained] == []
    results = Counter(comparison.result == SAME for comparison in comparisons)
    assert results[True] > 0.97 * len(comparisons)

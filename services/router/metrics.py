"""What the router counts."""

from functools import lru_cache

from prometheus_client import Counter, Histogram

from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.usage_pb2 import Outcome, UsageRecord

_OVERHEAD_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)
# Providers are few, whatever clients send; this only bounds a mistake.
_CHILDREN_MAX = 1_000

CALLS = Counter("tollgate_router_calls", "Calls recorded, by who answered and how it ended.", ("provider", "outcome"))
ATTEMPTS = Counter(
    "tollgate_router_attempts", "Tries at providers, by what went wrong; empty when nothing.", ("provider", "error")
)
TOKENS = Counter("tollgate_router_tokens", "Tokens used.", ("provider", "direction"))
SECONDS = Histogram("tollgate_router_seconds", "From arrival to the last byte of the answer.", ("provider",))
OVERHEAD = Histogram(
    "tollgate_router_overhead_seconds", "The part of a plain call that no provider spent.", buckets=_OVERHEAD_BUCKETS
)
LEASE_REQUESTS = Counter("tollgate_router_leases", "Leases of credit asked for, by what became of it.", ("outcome",))
CREDIT_REFUSALS = Counter("tollgate_router_credit_refusals", "Calls that found no credit, by why.", ("why",))

_OUTCOMES = {number: name.removeprefix("OUTCOME_").lower() for name, number in Outcome.items()}

# Finding a child by its labels costs more than counting.
_calls = lru_cache(_CHILDREN_MAX)(CALLS.labels)
_attempts = lru_cache(_CHILDREN_MAX)(ATTEMPTS.labels)
_tokens = lru_cache(_CHILDREN_MAX)(TOKENS.labels)
_seconds = lru_cache(_CHILDREN_MAX)(SECONDS.labels)


def count_attempt(provider: str, error_type: str) -> None:
    """One try at a provider is over."""
    _attempts(provider, error_type).inc()


def count_call(record: UsageRecord) -> None:
    """One call is over."""
    _calls(record.provider, _OUTCOMES[record.outcome]).inc()
    if not record.attempts:
        return
    _seconds(record.provider).observe(record.latency_ms / 1000)
    if not record.streamed:
        OVERHEAD.observe((record.latency_ms - sum(attempt.latency_ms for attempt in record.attempts)) / 1000)
    if record.usage_source != usage_pb2.USAGE_SOURCE_UNSPECIFIED:
        _tokens(record.provider, "input").inc(record.usage.input_tokens)
        _tokens(record.provider, "output").inc(record.usage.output_tokens)

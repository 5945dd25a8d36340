"""What the router counts."""

from prometheus_client import Counter, Histogram

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5)

CALLS = Counter(
    "tollgate_router_calls_total", "Calls recorded, by who answered and how it ended.", ("provider", "outcome")
)
ATTEMPTS = Counter(
    "tollgate_router_attempts_total",
    "Tries at providers, by what went wrong; empty when nothing.",
    ("provider", "error"),
)
TOKENS = Counter("tollgate_router_tokens_total", "Tokens used.", ("provider", "direction"))
LATENCY = Histogram("tollgate_router_seconds", "From arrival to the last byte of the answer.", ("provider",))
OVERHEAD = Histogram(
    "tollgate_router_overhead_seconds", "The part of a plain call that no provider spent.", buckets=_SECONDS
)

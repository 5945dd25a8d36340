"""What a worker takes from those who call it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceLimits:
    """Of one worker."""

    # More calls at the same time get 503.
    calls_max: int
    body_seconds_max: int
    # Of all calls together, from their first byte to the end of their answer. More get 503.
    bodies_bytes_max: int
    # How many proxies in front of us add to `x-forwarded-for`. With 0 the peer is the client.
    trusted_proxy_count: int

"""What can go wrong with a model call, as meaning."""

import math

from services.common.errors import DomainError, ErrorKind, TooLargeError


class ModelNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    reason = "MODEL_NOT_FOUND"

    def __init__(self, model: str) -> None:
        super().__init__(f"No provider offers the model '{model}'; GET /v1/models lists those there are.", model=model)


class InsufficientCreditsError(DomainError):
    kind = ErrorKind.EXHAUSTED
    reason = "INSUFFICIENT_CREDITS"

    def __init__(self) -> None:
        super().__init__("No credit is left; add credits or use an own provider key.")


class CreditTooLowError(InsufficientCreditsError):
    """There is less credit than the call can cost."""

    def __init__(self, needed: str, available: str) -> None:
        DomainError.__init__(
            self,
            f"This call can cost up to {needed} USD and {available} USD of credit is free; "
            "add credits, or allow it fewer tokens.",
            needed=needed,
            available=available,
        )


class SpendingLimitReachedError(InsufficientCreditsError):
    """A spending limit leaves less than the call can cost: that of the key, or of its organization."""

    def __init__(self, whose: str, needed: str, available: str) -> None:
        DomainError.__init__(
            self,
            f"This call can cost up to {needed} USD and the spending limit of this {whose} leaves {available} USD; "
            "raise the limit, or allow it fewer tokens.",
            limit=whose,
            needed=needed,
            available=available,
        )


class OwnKeyMissingError(DomainError):
    kind = ErrorKind.NOT_READY
    reason = "OWN_KEY_MISSING"

    def __init__(self, model: str, providers: str) -> None:
        super().__init__(
            f"This project uses own provider keys only, and has none for {model}; add one for {providers}.",
            model=model,
            providers=providers,
        )


class ProvidersThrottledError(DomainError):
    """Every provider that could answer said when to come back, and it is not yet that time."""

    kind = ErrorKind.EXHAUSTED
    reason = "RATE_LIMITED"

    def __init__(self, providers: str, wait_seconds: float) -> None:
        seconds = max(1, math.ceil(wait_seconds))
        super().__init__(
            f"{providers} cannot take more calls for now; try again in {seconds} s.", retry_after_seconds=str(seconds)
        )
        self.retry_after_seconds = seconds


class IdempotencyKeyReusedError(DomainError):
    kind = ErrorKind.INVALID
    reason = "IDEMPOTENCY_KEY_REUSED"

    def __init__(self) -> None:
        super().__init__("idempotency-key was used for another request; choose a new one.")


class ProviderFailedError(DomainError):
    """Every provider that could answer failed. `retry_after_seconds` is what the last one asked for, if it did."""

    kind = ErrorKind.UNAVAILABLE
    reason = "PROVIDER_FAILED"

    def __init__(self, problem: str, provider: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(f"{problem}; no other provider could answer.", provider=provider)
        self.retry_after_seconds = retry_after_seconds


class BodyTooLargeError(TooLargeError):
    """The request's body is above the limit."""


class ClientGoneError(Exception):
    """The client is not there any more. Raised by what sends to it."""

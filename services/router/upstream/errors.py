"""What goes wrong between us and a provider."""

from services.router.routing.routing import Failure


class UpstreamError(Exception):
    """The provider could not be reached, did not answer in time, or broke off."""

    # When the provider wants to be asked again, where it said so.
    retry_after_seconds: int | None = None

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure

"""What a caller of the spool can act on."""

from services.common.errors import DomainError, ErrorKind


class SpoolFullError(DomainError):
    """The call must not be made: what it uses could not be recorded. Nothing was done."""

    kind = ErrorKind.UNAVAILABLE
    reason = "SERVICE_UNAVAILABLE"
    retry_after_seconds = 5

    def __init__(self, why: str) -> None:
        super().__init__(f"Calls cannot be recorded now ({why}), so none is made; try again later.")


class SpoolFailedError(DomainError):
    """The record is not durable: the disk failed. The spool keeps it in memory and goes on trying.

    The client must not be told that its call succeeded. The record may become durable later.
    """

    kind = ErrorKind.UNAVAILABLE
    reason = "SERVICE_UNAVAILABLE"
    retry_after_seconds = 5

    def __init__(self, why: str) -> None:
        super().__init__(f"The call's usage could not be recorded ({why}); try again later.")

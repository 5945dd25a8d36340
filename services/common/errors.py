"""What can go wrong, as meaning. No wire, no status codes: `grpc_status` has the one table that translates."""

from enum import Enum


class ErrorKind(Enum):
    """What a caller can do about an error."""

    UNAUTHENTICATED = "send a valid key"
    FORBIDDEN = "use another key"
    INVALID = "correct the request"
    NOT_FOUND = "name something else"
    ALREADY_EXISTS = "choose another id"
    NOT_READY = "change the state first"
    EXHAUSTED = "wait, or buy more"
    UNAVAILABLE = "try again later"


class DomainError(Exception):
    """Something a caller can act on. Anything else that escapes is a bug.

    `reason` is a name of `tollgate.errors.v1.ErrorReason` without its prefix; whatever varies in the message is in
    `metadata` too.
    """

    kind: ErrorKind
    reason: str
    retry_after_seconds: int | None = None

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata


class InvalidApiKeyError(DomainError):
    kind = ErrorKind.UNAUTHENTICATED
    reason = "INVALID_API_KEY"

    def __init__(self) -> None:
        super().__init__("This needs a valid API key; send it as 'Authorization: Bearer <key>'.")


class ForbiddenError(DomainError):
    kind = ErrorKind.FORBIDDEN
    reason = "PERMISSION_DENIED"


class ReadOnlyKeyError(DomainError):
    kind = ErrorKind.FORBIDDEN
    reason = "READ_ONLY_KEY"

    def __init__(self) -> None:
        super().__init__("This key is read-only; use one that may write.")


class InvalidRequestError(DomainError):
    """A field or parameter is missing or wrong. `problem` completes the sentence that begins with its name."""

    kind = ErrorKind.INVALID
    reason = "INVALID_REQUEST"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}", field=field)


class TooLargeError(DomainError):
    kind = ErrorKind.INVALID
    reason = "TOO_LARGE"

    def __init__(self, field: str, maximum: int) -> None:
        super().__init__(f"{field} may hold at most {maximum}; send less at once.", field=field, maximum=str(maximum))


class NotFoundError(DomainError):
    """`thing` names kind and id: it must read the same whether the thing is missing or somebody else's."""

    kind = ErrorKind.NOT_FOUND
    reason = "NOT_FOUND"

    def __init__(self, thing: str) -> None:
        super().__init__(f"There is no {thing}.", thing=thing)


class AlreadyExistsError(DomainError):
    kind = ErrorKind.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class UnavailableError(DomainError):
    kind = ErrorKind.UNAVAILABLE
    reason = "SERVICE_UNAVAILABLE"
    retry_after_seconds = 1

import importlib
import pkgutil

from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

import services
from services.common.errors import DomainError, ErrorKind, InvalidRequestError, UnavailableError
from services.common.grpc_status import CODE_BY_KIND, status_of
from tollgate.errors.v1 import error_reason_pb2

PREFIX = "ERROR_REASON_"
REASONS = {name.removeprefix(PREFIX) for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name}


UNIMPORTABLE = ("services.gen", "services.ledger.storage.migrations")


def every_error() -> list[type[DomainError]]:
    for module in pkgutil.walk_packages(services.__path__, "services."):
        if not module.name.startswith(UNIMPORTABLE) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[DomainError]] = []
    pending = [DomainError]
    while pending:
        found += (children := pending.pop().__subclasses__())
        pending += children
    return found


def test_every_error_has_a_kind_and_a_reason_from_the_closed_list() -> None:
    for error in every_error():
        assert isinstance(error.kind, ErrorKind), error
        assert error.reason in REASONS, error


def test_every_kind_has_a_status() -> None:
    assert set(CODE_BY_KIND) == set(ErrorKind)


def test_a_status_carries_reason_and_metadata() -> None:
    status = status_of(InvalidRequestError("days", "must be a whole number from 1 to 365, got 'abc'"))

    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert status.message == "days must be a whole number from 1 to 365, got 'abc'"
    assert (info.reason, info.domain, dict(info.metadata)) == ("INVALID_REQUEST", "tollgate", {"field": "days"})


def test_an_error_that_waiting_helps_says_how_long() -> None:
    status = status_of(UnavailableError("The books are closed for a moment."))

    retry = RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 1

"""Spending limits, wire ↔ domain."""

from services.common.money import usd_from_pico
from services.ledger.accounts.spending_limits import SpendingLimit, SpendingPeriod
from services.ledger.convert_values import named_choice
from tollgate.ledger.v1 import account_service_pb2, directory_service_pb2

_Limiting = (
    account_service_pb2.CreateOrganizationRequest
    | account_service_pb2.UpdateOrganizationRequest
    | account_service_pb2.CreateApiKeyRequest
    | account_service_pb2.UpdateApiKeyRequest
)


def named_limit(request: _Limiting) -> SpendingLimit | None:
    """The limit that a request names. Raises InvalidRequestError for one that is none."""
    return spending_limit_from_proto(request.spending_limit) if request.HasField("spending_limit") else None


def spending_limit_from_proto(limit: directory_service_pb2.SpendingLimit) -> SpendingLimit:
    return SpendingLimit.of(limit.amount, named_choice("spending_limit.period", SpendingPeriod, limit.period))


def spending_limit_to_proto(limit: SpendingLimit | None) -> directory_service_pb2.SpendingLimit | None:
    if limit is None:
        return None
    period = directory_service_pb2.SpendingPeriod.Value(f"SPENDING_PERIOD_{limit.period.name}")
    return directory_service_pb2.SpendingLimit(amount=usd_from_pico(limit.amount_pico), period=period)

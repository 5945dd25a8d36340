"""Billing on the wire ↔ values of the ledger."""

from services.common.authentication import Caller
from services.common.errors import InvalidRequestError
from services.common.money import pico_from_usd, usd_from_pico
from services.ledger.billing import NewGrant
from services.ledger.journal import Account, spendable
from services.ledger.storage.books import CreditGrant, Standing
from tollgate.ledger.v1 import billing_service_pb2 as wire

_ACCOUNTS = {
    wire.CREDIT_KIND_UNSPECIFIED: Account.PREPAID,
    wire.CREDIT_KIND_PREPAID: Account.PREPAID,
    wire.CREDIT_KIND_PROMOTIONAL: Account.PROMOTIONAL,
}
_KINDS = {Account.PREPAID: wire.CREDIT_KIND_PREPAID, Account.PROMOTIONAL: wire.CREDIT_KIND_PROMOTIONAL}


def new_grant_from_proto(request: wire.GrantCreditsRequest, caller: Caller) -> NewGrant:
    account = _ACCOUNTS.get(request.kind)
    if account is None:
        raise InvalidRequestError("kind", f"has no value {request.kind}")
    try:
        amount_pico = pico_from_usd(request.amount)
    except ValueError as error:
        raise InvalidRequestError("amount", str(error)) from None
    return NewGrant(caller.one_organization(request.organization_id), request.grant_id, account, amount_pico)


def grant_to_proto(grant: CreditGrant) -> wire.GrantCreditsResponse:
    response = wire.GrantCreditsResponse(
        organization_id=grant.organization_id,
        grant_id=grant.grant_id,
        amount=usd_from_pico(grant.amount_pico),
        kind=_KINDS[grant.account],
        balance=usd_from_pico(grant.balance_pico),
    )
    response.create_time.FromDatetime(grant.create_time)
    return response


def standing_to_proto(organization_id: str, standing: Standing) -> wire.GetBalanceResponse:
    balances = standing.balances
    return wire.GetBalanceResponse(
        organization_id=organization_id,
        balance=usd_from_pico(spendable(balances)),
        prepaid=usd_from_pico(balances.get(Account.PREPAID, 0)),
        promotional=usd_from_pico(balances.get(Account.PROMOTIONAL, 0)),
        receivable=usd_from_pico(-balances.get(Account.RECEIVABLE, 0)),
        sequence=str(standing.sequence),
    )

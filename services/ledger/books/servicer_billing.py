"""Speaks the wire for billing."""

from typing import Any

from services.common.grpc_calls import current_caller
from services.common.parameters import whole_number
from services.ledger.accounts.reach import one_organization, organization_or_all
from services.ledger.books.billing import Billing
from services.ledger.books.book_reading import BookReader
from services.ledger.books.convert_billing import (
    grant_to_proto,
    new_grant_from_proto,
    new_refund_from_proto,
    refund_to_proto,
    remaining_grant_to_proto,
    standing_to_proto,
)
from services.ledger.books.convert_books import (
    ENTRIES_DEFAULT,
    ENTRIES_MAX,
    entries_to_proto,
    findings_to_proto,
    period_from_proto,
    sequence_from_text,
    statement_to_proto,
)
from services.ledger.books.verifying import BookVerifier
from services.ledger.paging import BY_NUMBER, page_request
from tollgate.ledger.v1 import billing_service_pb2 as wire
from tollgate.ledger.v1.billing_service_pb2_grpc import BillingServiceServicer


class BillingServicer(BillingServiceServicer):
    """`BillingService`."""

    def __init__(self, billing: Billing, books: BookReader, verifier: BookVerifier) -> None:
        self._billing = billing
        self._books = books
        self._verifier = verifier

    async def GrantCredits(self, request: wire.GrantCreditsRequest, context: Any) -> wire.GrantCreditsResponse:
        return grant_to_proto(await self._billing.grant(new_grant_from_proto(request, current_caller())))

    async def RefundCredits(self, request: wire.RefundCreditsRequest, context: Any) -> wire.RefundCreditsResponse:
        return refund_to_proto(await self._billing.refund(new_refund_from_proto(request, current_caller())))

    async def GetBalance(self, request: wire.GetBalanceRequest, context: Any) -> wire.GetBalanceResponse:
        organization_id = str(one_organization(current_caller(), request.organization_id))
        return standing_to_proto(organization_id, await self._billing.standing(organization_id))

    async def ListCreditGrants(
        self, request: wire.ListCreditGrantsRequest, context: Any
    ) -> wire.ListCreditGrantsResponse:
        organization_id = one_organization(current_caller(), request.organization_id)
        asked = page_request(
            BY_NUMBER, limit=request.limit, page_token=request.page_token, filters=[str(organization_id)]
        )
        page = await self._books.grants(organization_id, asked)
        return wire.ListCreditGrantsResponse(
            credit_grants=map(remaining_grant_to_proto, page.items), next_page_token=page.next_page_token
        )

    async def ListLedgerEntries(
        self, request: wire.ListLedgerEntriesRequest, context: Any
    ) -> wire.ListLedgerEntriesResponse:
        organization_id = one_organization(current_caller(), request.organization_id)
        after = sequence_from_text("after", request.after)
        limit = whole_number("limit", request.limit, default=ENTRIES_DEFAULT, least=1, most=ENTRIES_MAX)
        return entries_to_proto(await self._books.entries(organization_id, after, limit), after)

    async def GetStatement(self, request: wire.GetStatementRequest, context: Any) -> wire.GetStatementResponse:
        organization_id = one_organization(current_caller(), request.organization_id)
        return statement_to_proto(await self._books.statement(organization_id, period_from_proto(request)))

    async def VerifyBooks(self, request: wire.VerifyBooksRequest, context: Any) -> wire.VerifyBooksResponse:
        organization_id = organization_or_all(current_caller(), request.organization_id)
        return findings_to_proto(await self._verifier.verify(organization_id))

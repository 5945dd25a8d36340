"""Speaks the wire for retention."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import NotFoundError
from services.common.grpc_calls import current_caller
from services.ledger.accounts.reach import one_organization
from services.ledger.paging import page_request
from services.ledger.retention.convert_retention import expiry_to_proto, problem_to_proto
from services.ledger.storage.accounts.accounts import AccountStore
from services.ledger.storage.retention.expiry_reading import BySpot, list_expiries, list_problems
from services.ledger.storage.transactions import transaction
from tollgate.ledger.v1 import retention_service_pb2 as wire
from tollgate.ledger.v1.retention_service_pb2_grpc import RetentionServiceServicer


class RetentionServicer(RetentionServiceServicer):
    """`RetentionService`."""

    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def ListExpiries(self, request: wire.ListExpiriesRequest, context: Any) -> wire.ListExpiriesResponse:
        organization_id = one_organization(current_caller(), request.organization_id)
        filters = [organization_id]
        asked = page_request(BySpot(), limit=request.limit, page_token=request.page_token, filters=filters)
        async with transaction(self._database) as connection:
            if not await AccountStore(connection).has_organization(organization_id):
                raise NotFoundError(f"organization {organization_id}")
            expiries = await list_expiries(connection, organization_id, asked)
        page = asked.page(expiries, lambda expiry: expiry.spot)
        return wire.ListExpiriesResponse(
            expiries=map(expiry_to_proto, page.items), next_page_token=page.next_page_token
        )

    async def ListRetentionProblems(
        self, request: wire.ListRetentionProblemsRequest, context: Any
    ) -> wire.ListRetentionProblemsResponse:
        asked = page_request(BySpot(), limit=request.limit, page_token=request.page_token, filters=[])
        async with transaction(self._database) as connection:
            problems = await list_problems(connection, asked)
        page = asked.page(problems, lambda problem: problem.spot)
        return wire.ListRetentionProblemsResponse(
            problems=map(problem_to_proto, page.items), next_page_token=page.next_page_token
        )

"""Speaks the wire for imports."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from services.common.grpc_calls import current_caller
from services.ledger.accounts.reach import one_organization
from services.ledger.usage.convert_import import imported_from_proto, results_to_proto
from services.ledger.usage.importing import Importer
from tollgate.ledger.v1.import_service_pb2 import ImportRecordsRequest, ImportRecordsResponse
from tollgate.ledger.v1.import_service_pb2_grpc import ImportServiceServicer


class ImportServicer(ImportServiceServicer):
    """`ImportService`."""

    def __init__(self, importer: Importer, *, clock: Callable[[], datetime]) -> None:
        self._importer = importer
        self._clock = clock

    async def ImportRecords(self, request: ImportRecordsRequest, context: Any) -> ImportRecordsResponse:
        organization_id = one_organization(current_caller(), request.organization_id)
        calls = imported_from_proto(request, organization_id, self._clock())
        return results_to_proto(await self._importer.import_records(organization_id, calls))

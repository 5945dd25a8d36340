"""Speaks the wire for the directory."""

from collections.abc import AsyncIterator
from typing import Any

from services.ledger.accounts.convert_keys import bearer_to_proto
from services.ledger.accounts.directory import Directory
from services.ledger.accounts.directory_changes import DirectoryChanges
from tollgate.ledger.v1.directory_service_pb2 import (
    ResolveKeyRequest,
    ResolveKeyResponse,
    WatchDirectoryRequest,
    WatchDirectoryResponse,
)
from tollgate.ledger.v1.directory_service_pb2_grpc import DirectoryServiceServicer


class DirectoryServicer(DirectoryServiceServicer):
    """`DirectoryService`."""

    def __init__(self, directory: Directory, changes: DirectoryChanges) -> None:
        self._directory = directory
        self._changes = changes

    async def ResolveKey(self, request: ResolveKeyRequest, context: Any) -> ResolveKeyResponse:
        return bearer_to_proto(await self._directory.resolve(request.key_hash, request.project_id))

    async def WatchDirectory(
        self, request: WatchDirectoryRequest, context: Any
    ) -> AsyncIterator[WatchDirectoryResponse]:
        async for changed in self._changes.listen():
            yield WatchDirectoryResponse(organization_ids=map(str, changed))

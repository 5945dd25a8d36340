"""Speaks the wire for the directory."""

from typing import Any

from services.ledger.convert_keys import bearer_to_proto
from services.ledger.directory import Directory
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyRequest, ResolveKeyResponse
from tollgate.ledger.v1.directory_service_pb2_grpc import DirectoryServiceServicer


class DirectoryServicer(DirectoryServiceServicer):
    """`DirectoryService`."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def ResolveKey(self, request: ResolveKeyRequest, context: Any) -> ResolveKeyResponse:
        return bearer_to_proto(await self._directory.resolve(request.key_hash, request.project_id))

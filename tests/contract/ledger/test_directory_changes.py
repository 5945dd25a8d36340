"""What is changed in one ledger is told by every ledger to whoever listens."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from services.ledger.accounts import directory_changes
from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, Ledger, bearer, refusal_of, running_ledger
from tollgate.ledger.v1.account_service_pb2 import (
    CreateProjectRequest,
    DeleteProviderKeyRequest,
    RevokeApiKeyRequest,
    SetProviderKeyRequest,
    UpdateApiKeyRequest,
    UpdateOrganizationRequest,
    UpdateProjectRequest,
)
from tollgate.ledger.v1.directory_service_pb2 import ProjectSettings, RateLimit, WatchDirectoryRequest
from tollgate.ledger.v1.directory_service_pb2_grpc import DirectoryServiceStub

# Nothing is told later than that, on a machine that is busy with other tests.
TOLD_SECONDS = 20


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


@pytest.fixture(scope="module")
async def other_ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


class Listener:
    """Somebody who listens, from the first message on."""

    def __init__(self, directory: Any) -> None:
        self._stream = directory.WatchDirectory(WatchDirectoryRequest(), metadata=INSIDE)
        self._messages = aiter(self._stream)

    async def next(self) -> set[str]:
        async with asyncio.timeout(TOLD_SECONDS):
            return set((await anext(self._messages)).organization_ids)

    async def hears(self, organization_id: str) -> None:
        while organization_id not in await self.next():
            pass

    def close(self) -> None:
        self._stream.cancel()


@pytest.fixture
async def listener(ledger: Ledger) -> AsyncIterator[Listener]:
    listener = Listener(ledger.directory)
    await listener.next()
    yield listener
    listener.close()


async def test_messages_come_though_nothing_changes_and_name_nobody_then(ledger: Ledger, listener: Listener) -> None:
    await ledger.organization()
    # What was changed just before somebody listens may be told as well.
    said = [await listener.next() for _ in range(8)]

    assert set() in said


async def provider_key(ledger: Ledger, acme: str, key_id: str) -> None:
    request = SetProviderKeyRequest(organization_id=acme, provider="openai", secret="sk")
    await ledger.accounts.SetProviderKey(request, metadata=OPERATOR)


async def no_provider_key(ledger: Ledger, acme: str, key_id: str) -> None:
    await provider_key(ledger, acme, key_id)
    request = DeleteProviderKeyRequest(organization_id=acme, provider="openai")
    await ledger.accounts.DeleteProviderKey(request, metadata=OPERATOR)


async def revoked_key(ledger: Ledger, acme: str, key_id: str) -> None:
    await ledger.accounts.RevokeApiKey(RevokeApiKeyRequest(api_key_id=key_id), metadata=OPERATOR)


async def limited_key(ledger: Ledger, acme: str, key_id: str) -> None:
    request = UpdateApiKeyRequest(api_key_id=key_id, rate_limit=RateLimit(requests_per_minute=1))
    await ledger.accounts.UpdateApiKey(request, metadata=OPERATOR)


async def project(ledger: Ledger, acme: str, key_id: str) -> None:
    request = CreateProjectRequest(organization_id=acme, project_id="lab")
    await ledger.accounts.CreateProject(request, metadata=OPERATOR)


async def settings_of_project(ledger: Ledger, acme: str, key_id: str) -> None:
    settings = ProjectSettings(cache_seconds=9)
    request = UpdateProjectRequest(organization_id=acme, project_id="web", settings=settings)
    await ledger.accounts.UpdateProject(request, metadata=OPERATOR)


async def payloads(ledger: Ledger, acme: str, key_id: str) -> None:
    request = UpdateOrganizationRequest(organization_id=acme, payload_retained=True)
    await ledger.accounts.UpdateOrganization(request, metadata=OPERATOR)


@pytest.mark.parametrize(
    "change",
    [provider_key, no_provider_key, revoked_key, limited_key, project, settings_of_project, payloads],
    ids=lambda change: change.__name__,
)
async def test_every_change_that_a_call_may_notice_is_told_by_every_ledger(
    ledger: Ledger,
    other_ledger: Ledger,
    listener: Listener,
    change: Callable[[Ledger, str, str], Coroutine[Any, Any, None]],
) -> None:
    acme = await ledger.organization()
    await ledger.project(acme)
    key_id = (await ledger.key(acme, project_id="web")).api_key.api_key_id
    # By then what made it has been told.
    await ledger.organization()
    while await listener.next():
        pass

    await change(other_ledger, acme, key_id)

    await listener.hears(acme)


@pytest.mark.parametrize(("limit", "value"), [("LOOK_SECONDS_MAX", 0.0), ("CHANGES_MAX", 1)])
async def test_what_was_seen_too_slowly_or_not_whole_is_not_told(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    await ledger.organization()
    monkeypatch.setattr(directory_changes, limit, value)
    listener = Listener(ledger.directory)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await listener.next()
    listener.close()


async def test_everybody_who_listens_is_told(ledger: Ledger, listener: Listener) -> None:
    second = Listener(ledger.directory)
    await second.next()
    acme = await ledger.organization()

    await listener.hears(acme)
    await second.hears(acme)
    second.close()


async def test_only_services_may_listen(ledger: Ledger) -> None:
    own = bearer((await ledger.key(await ledger.organization())).secret)
    for metadata in (OPERATOR, own):
        call = anext(aiter(ledger.directory.WatchDirectory(WatchDirectoryRequest(), metadata=metadata)))
        assert (await refusal_of(call)).code == grpc.StatusCode.PERMISSION_DENIED


async def test_a_ledger_that_stops_does_not_wait_for_those_who_listen(database: Database) -> None:
    async with AsyncExitStack() as running:
        ledger = await running.enter_async_context(running_ledger(database, drain_seconds=10 * TOLD_SECONDS))
        async with grpc.aio.insecure_channel(ledger.address) as channel:
            listener = Listener(DirectoryServiceStub(channel))
            await listener.next()
            listening = asyncio.create_task(_until_the_end(listener))
            await running.aclose()

            await asyncio.wait_for(listening, TOLD_SECONDS)


async def _until_the_end(listener: Listener) -> None:
    """Fails when the stream is cut off."""
    with pytest.raises(StopAsyncIteration):
        while True:
            await listener.next()

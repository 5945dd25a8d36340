"""What the ledger said about a key is believed for a second; for five minutes while the ledger is away."""

import asyncio
from collections.abc import Callable

import pytest

from services.common.errors import DomainError, InvalidApiKeyError, UnavailableError
from services.router.directory import ENTRIES_MAX, Directory
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyRequest, ResolveKeyResponse

KEY = b"k" * 32
AWAY = UnavailableError("The ledger is away.")


class Ledger:
    """Answers what it is told to, and counts how often it is asked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.answer: Callable[[ResolveKeyRequest], ResolveKeyResponse | DomainError] = lambda request: (
            ResolveKeyResponse(api_key_id="key", organization_id="organization", project_id=request.project_id)
        )
        self.asked = 0

    async def resolve(self, request: ResolveKeyRequest) -> ResolveKeyResponse:
        self.asked += 1
        await asyncio.sleep(0)
        answer = self.answer(request)
        if isinstance(answer, DomainError):
            raise answer
        return answer

    def says(self, answer: ResolveKeyResponse | DomainError) -> None:
        self.answer = lambda _: answer

    def clock(self) -> float:
        return self.now


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def directory(ledger: Ledger) -> Directory:
    return Directory(ledger.resolve, ledger.clock)


async def test_a_busy_key_asks_the_ledger_once(ledger: Ledger, directory: Directory) -> None:
    await asyncio.gather(*(directory.resolve(KEY, "web") for _ in range(100)))
    await directory.resolve(KEY, "web")

    assert ledger.asked == 1


async def test_projects_of_one_key_are_kept_apart(ledger: Ledger, directory: Directory) -> None:
    assert (await directory.resolve(KEY, "web")).project_id == "web"
    assert (await directory.resolve(KEY, "lab")).project_id == "lab"


async def test_a_revoked_key_stops_within_one_second(ledger: Ledger, directory: Directory) -> None:
    await directory.resolve(KEY)
    ledger.says(InvalidApiKeyError())
    ledger.now += 1.0

    with pytest.raises(InvalidApiKeyError):
        await directory.resolve(KEY)


async def test_a_key_in_use_is_renewed_before_anybody_has_to_wait(ledger: Ledger, directory: Directory) -> None:
    await directory.resolve(KEY)
    ledger.now += 0.6
    await directory.resolve(KEY)
    await asyncio.sleep(0.01)
    ledger.now += 0.6

    asked = ledger.asked
    await directory.resolve(KEY)
    assert (asked, ledger.now) == (2, 1001.2)


async def test_an_unknown_key_is_refused_without_asking_each_time(ledger: Ledger, directory: Directory) -> None:
    ledger.says(InvalidApiKeyError())
    for _ in range(10):
        with pytest.raises(InvalidApiKeyError):
            await directory.resolve(KEY)

    assert ledger.asked == 1


async def test_a_known_key_lives_on_for_five_minutes_while_the_ledger_is_away(
    ledger: Ledger, directory: Directory
) -> None:
    await directory.resolve(KEY)
    ledger.says(AWAY)

    ledger.now += 299
    assert (await directory.resolve(KEY)).api_key_id == "key"
    ledger.now += 1
    with pytest.raises(UnavailableError):
        await directory.resolve(KEY)


async def test_a_ledger_that_is_away_is_not_asked_by_every_call(ledger: Ledger, directory: Directory) -> None:
    await directory.resolve(KEY)
    ledger.says(AWAY)
    ledger.now += 10
    for _ in range(50):
        await directory.resolve(KEY)

    assert ledger.asked == 2


async def test_an_unknown_key_is_our_fault_while_the_ledger_is_away(ledger: Ledger, directory: Directory) -> None:
    ledger.says(InvalidApiKeyError())
    with pytest.raises(InvalidApiKeyError):
        await directory.resolve(KEY)
    ledger.says(AWAY)
    ledger.now += 2

    with pytest.raises(UnavailableError):
        await directory.resolve(KEY)


async def test_a_key_that_expires_is_refused_at_that_moment(ledger: Ledger, directory: Directory) -> None:
    expired = ResolveKeyResponse(api_key_id="key")
    expired.expire_time.FromSeconds(1_000_000)
    ledger.says(expired)

    with pytest.raises(InvalidApiKeyError):
        await directory.resolve(KEY)


async def test_strangers_cannot_fill_the_memory(ledger: Ledger, directory: Directory) -> None:
    ledger.says(InvalidApiKeyError())
    for number in range(ENTRIES_MAX + 10):
        with pytest.raises(InvalidApiKeyError):
            await directory.resolve(number.to_bytes(32, "big"))

    assert directory.size == ENTRIES_MAX

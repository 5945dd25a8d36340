"""What the ledger said about a key is believed for a second; for five minutes while the ledger is away."""

import asyncio
from collections.abc import Callable

import pytest

from services.common.errors import DomainError, InvalidApiKeyError, UnavailableError
from services.router.keys.directory import ENTRIES_MAX, SILENCE_SECONDS_MAX, WATCHED_SECONDS_MAX, Directory
from tollgate.ledger.v1.directory_service_pb2 import PROJECT_MODE_OWN_KEYS, ResolveKeyRequest, ResolveKeyResponse

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


ACME, GLOBEX = frozenset({"acme"}), frozenset({"globex"})
NOTHING: frozenset[str] = frozenset()
IN_CREDIT = ResolveKeyResponse(api_key_id="key", organization_id="acme", credit_available=True)
ON_OWN_KEYS = ResolveKeyResponse(api_key_id="key", organization_id="acme", project_mode=PROJECT_MODE_OWN_KEYS)


class Watched:
    """A directory that is told what changes, and its ledger."""

    def __init__(self, ledger: Ledger, directory: Directory) -> None:
        self.ledger = ledger
        self.directory = directory
        directory.begin_watch()
        directory.hear(NOTHING)

    def hear_nothing_for(self, seconds: float) -> None:
        """Time goes by, and the ledger says four times a second that nothing has changed."""
        for _ in range(int(seconds * 4)):
            self.ledger.now += 0.25
            self.directory.hear(NOTHING)

    async def asks(self) -> bool:
        """Whether the next call has the ledger asked, at once or behind its back."""
        before = self.ledger.asked
        await self.directory.resolve(KEY)
        await asyncio.sleep(0.001)
        return self.ledger.asked > before


@pytest.fixture
def watched(ledger: Ledger, directory: Directory) -> Watched:
    ledger.says(IN_CREDIT)
    return Watched(ledger, directory)


@pytest.mark.parametrize("grant", [IN_CREDIT, ON_OWN_KEYS], ids=["in credit", "on own keys"])
async def test_while_the_ledger_says_that_nothing_changed_it_is_not_asked_again(
    watched: Watched, grant: ResolveKeyResponse
) -> None:
    watched.ledger.says(grant)
    assert await watched.asks()
    for _ in range(4):
        watched.hear_nothing_for(1)
        assert not await watched.asks()


async def test_an_answer_grows_old_all_the_same_in_case_that_something_was_missed(watched: Watched) -> None:
    await watched.asks()
    watched.hear_nothing_for(WATCHED_SECONDS_MAX / 2 + 1)
    assert await watched.asks()

    watched.ledger.says(InvalidApiKeyError())
    watched.hear_nothing_for(WATCHED_SECONDS_MAX)
    with pytest.raises(InvalidApiKeyError):
        await watched.directory.resolve(KEY)


async def test_a_change_counts_from_the_moment_it_is_told_and_for_nobody_else(watched: Watched) -> None:
    await watched.asks()
    watched.directory.hear(GLOBEX)
    assert not await watched.asks()

    watched.ledger.says(InvalidApiKeyError())
    watched.directory.hear(ACME)
    with pytest.raises(InvalidApiKeyError):
        await watched.directory.resolve(KEY)


async def test_what_was_being_asked_when_a_change_was_told_is_asked_again_within_a_second(watched: Watched) -> None:
    asking = asyncio.create_task(watched.directory.resolve(KEY))
    await asyncio.sleep(0)
    watched.directory.hear(ACME)
    await asking

    watched.hear_nothing_for(1)
    assert await watched.asks()


async def test_what_was_asked_before_the_first_message_is_asked_again_within_a_second(watched: Watched) -> None:
    await watched.asks()
    watched.ledger.now += 0.1
    watched.directory.begin_watch()
    watched.ledger.now += 0.1
    watched.directory.hear(NOTHING)

    watched.hear_nothing_for(1)
    assert await watched.asks()
    watched.hear_nothing_for(1)
    assert not await watched.asks()


@pytest.mark.parametrize("is_new_stream", [False, True], ids=["silent", "broken"])
async def test_without_messages_a_revoked_key_stops_within_one_second(watched: Watched, is_new_stream: bool) -> None:
    await watched.asks()
    watched.hear_nothing_for(3)
    watched.ledger.says(InvalidApiKeyError())
    if is_new_stream:
        watched.directory.begin_watch()
    watched.ledger.now += SILENCE_SECONDS_MAX

    assert not watched.directory.is_watching
    with pytest.raises(InvalidApiKeyError):
        await watched.directory.resolve(KEY)


@pytest.mark.parametrize(
    "grant",
    [
        pytest.param(ResolveKeyResponse(api_key_id="key", organization_id="acme"), id="new credit"),
        pytest.param(ResolveKeyResponse(api_key_id="key", credit_available=True), id="operators"),
    ],
)
async def test_what_the_ledger_does_not_tell_is_asked_as_ever(watched: Watched, grant: ResolveKeyResponse) -> None:
    watched.ledger.says(grant)
    await watched.asks()
    watched.hear_nothing_for(1)

    assert await watched.asks()


async def test_a_changed_key_lives_on_while_the_ledger_is_away(watched: Watched) -> None:
    await watched.asks()
    watched.directory.hear(ACME)
    watched.ledger.says(AWAY)

    assert (await watched.directory.resolve(KEY)).api_key_id == "key"

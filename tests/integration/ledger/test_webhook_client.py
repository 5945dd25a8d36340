"""What webhooks are called at, and what is a success: with real connections."""

from datetime import timedelta

import pytest

from services.ledger.alerts.webhook_client import WebhookClient, WebhookFailedError
from services.ledger.alerts.webhook_urls import WebhookPolicy
from tests.webhook_receiver import HANG, a_receiver

OPEN = WebhookPolicy(http_allowed=True, private_allowed=True)
PUBLIC_ONLY = WebhookPolicy(http_allowed=True)
TIMEOUT = timedelta(seconds=5)


class Names:
    """Resolves every name to what the test says, and counts how often it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, name: str, port: int) -> list[str]:
        self.asked.append((name, port))
        return self.addresses


async def failure_of(client: WebhookClient, url: str) -> str:
    with pytest.raises(WebhookFailedError) as failed:
        await client.post(url, {}, b"{}")
    return str(failed.value)


async def test_what_is_sent_arrives_as_it_is() -> None:
    with a_receiver() as receiver:
        await WebhookClient(OPEN, TIMEOUT).post(receiver.url + "?a=b", {"webhook-id": "1"}, b'{"a":1}')
        (received,) = receiver.received

    assert (received.path, received.id, received.body) == ("/alerts?a=b", "1", b'{"a":1}')
    assert "referer" not in received.headers


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_every_2xx_is_a_success(status: int) -> None:
    with a_receiver(status) as receiver:
        await WebhookClient(OPEN, TIMEOUT).post(receiver.url, {}, b"{}")


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_any_other_status_is_a_failure_that_says_so(status: int) -> None:
    with a_receiver(status) as receiver:
        assert await failure_of(WebhookClient(OPEN, TIMEOUT), receiver.url) == f"the answer was {status}"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    with a_receiver() as elsewhere, a_receiver(status, location=elsewhere.url) as receiver:
        assert await failure_of(WebhookClient(OPEN, TIMEOUT), receiver.url) == f"the answer was {status}"
        assert elsewhere.received == []


async def test_a_receiver_that_does_not_answer_is_waited_for_no_longer_than_its_time() -> None:
    with a_receiver(HANG) as receiver:
        message = await failure_of(WebhookClient(OPEN, timedelta(seconds=0.3)), receiver.url)

    assert message == "there was no answer in time"


async def test_nobody_there_is_a_failure_that_does_not_tell_the_url() -> None:
    with a_receiver() as receiver:
        url = receiver.url
    message = await failure_of(WebhookClient(OPEN, TIMEOUT), url)

    assert message == "the connection failed"


async def test_a_name_is_resolved_once_and_the_address_that_was_looked_at_is_the_one_that_is_called() -> None:
    names = Names("127.0.0.1")
    with a_receiver() as receiver:
        # Nobody else could resolve this name.
        url = receiver.url.replace("127.0.0.1", "hooks.invalid")
        await WebhookClient(OPEN, TIMEOUT, resolve=names).post(url, {}, b"{}")
        (received,) = receiver.received

    assert [name for name, _ in names.asked] == ["hooks.invalid"]
    assert received.headers["host"].startswith("hooks.invalid:")


@pytest.mark.parametrize(
    "addresses",
    [("127.0.0.1",), ("10.0.0.1",), ("169.254.169.254",), ("::1",), ("93.184.215.14", "127.0.0.1"), ("::ffff:7f00:1",)],
)
async def test_a_name_with_an_address_that_is_not_public_is_not_called(addresses: tuple[str, ...]) -> None:
    with a_receiver() as receiver:
        client = WebhookClient(PUBLIC_ONLY, TIMEOUT, resolve=Names(*addresses))
        message = await failure_of(client, receiver.url.replace("127.0.0.1", "hooks.example.com"))

        assert message == "the host's address is not public"
        assert receiver.received == []


async def test_what_an_operator_no_longer_allows_is_not_called() -> None:
    with a_receiver() as receiver:
        private = await failure_of(WebhookClient(PUBLIC_ONLY, TIMEOUT), receiver.url)
        plain = await failure_of(WebhookClient(WebhookPolicy(private_allowed=True), TIMEOUT), receiver.url)

        assert "public" in private
        assert "https" in plain
        assert receiver.received == []


async def test_a_name_without_an_address_is_a_failure() -> None:
    async def unknown(name: str, port: int) -> list[str]:
        raise OSError("no such name")

    client = WebhookClient(OPEN, TIMEOUT, resolve=unknown)

    assert await failure_of(client, "http://hooks.invalid/") == "the host has no address"
    assert await failure_of(WebhookClient(OPEN, TIMEOUT, resolve=Names()), "http://hooks.invalid/")

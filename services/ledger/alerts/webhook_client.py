"""Calls webhooks: one request, to an address that was looked at before, and nothing of the answer but its status."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from services.common.errors import InvalidRequestError
from services.ledger.alerts.webhook_urls import WebhookPolicy, WebhookUrl, is_public

# The addresses of a name.
Resolve = Callable[[str, int], Awaitable[list[str]]]


class WebhookFailedError(Exception):
    """Why a delivery did not get there, for people. Tells nothing that is secret."""


async def addresses_of(name: str, port: int) -> list[str]:
    """As the machine resolves it. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class WebhookClient:
    """Lives as long as the service."""

    def __init__(self, policy: WebhookPolicy, timeout: timedelta, *, resolve: Resolve = addresses_of) -> None:
        self._policy = policy
        self._timeout = timeout
        self._resolve = resolve

    async def post(self, text: str, headers: Mapping[str, str], body: bytes) -> None:
        """Returns when the answer is a 2xx. Raises WebhookFailedError otherwise, also when all took too long."""
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                status = await self._status_of(WebhookUrl.of(text), headers, body)
        except TimeoutError as error:
            raise WebhookFailedError("there was no answer in time") from error
        except InvalidRequestError as error:
            raise WebhookFailedError(error.message) from error
        except PyreqwestError as error:
            raise WebhookFailedError("the connection failed") from error
        if not 200 <= status < 300:
            raise WebhookFailedError(f"the answer was {status}")

    async def _status_of(self, url: WebhookUrl, headers: Mapping[str, str], body: bytes) -> int:
        # What an operator allows may have changed since the rule was made.
        url.require_allowed(self._policy)
        builder = ClientBuilder().no_proxy().follow_redirects(False).referer(False).user_agent("tollgate")
        builder = builder.timeout(self._timeout).default_headers(dict(headers))
        if url.is_name:
            # Whatever the name resolves to a moment later.
            builder = builder.resolve(url.host, await self._address_of(url), url.port)
        # It reads the certificates of the machine.
        client = await asyncio.to_thread(builder.build)
        async with client, client.post(url.text).body_bytes(body).build_streamed() as response:
            return response.status

    async def _address_of(self, url: WebhookUrl) -> str:
        try:
            addresses = await self._resolve(url.host, url.port)
        except (OSError, UnicodeError) as error:
            raise WebhookFailedError("the host has no address") from error
        if not addresses:
            raise WebhookFailedError("the host has no address")
        if not (self._policy.private_allowed or all(map(is_public, addresses))):
            raise WebhookFailedError("the host's address is not public")
        return addresses[0]

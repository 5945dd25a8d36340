"""An answer of a provider while it comes."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from services.router.routing.routing import Failure
from services.router.upstream.connection import Connection
from services.router.upstream.errors import UpstreamError
from services.router.upstream.pool import Pool

# Nothing a chat completion answers is larger; a provider that sends more is broken.
ANSWER_BYTES_MAX = 64 * 1024 * 1024
_RETRY_AFTER_SECONDS_MAX = 3600


class UpstreamAnswer:
    """An answer whose head is there and whose body is still coming. Has to be closed."""

    def __init__(self, pool: Pool, connection: Connection) -> None:
        """Raises UpstreamError for a body that we did not ask for."""
        self._pool = pool
        self._connection = connection
        self.status = connection.status
        self.content_type = self._header(b"content-type")
        if self._header(b"content-encoding") not in ("", "identity"):
            raise UpstreamError(Failure("bad_answer", self.status), "answered compressed, and was asked not to")

    @property
    def retry_after_seconds(self) -> int | None:
        """When the provider wants to be asked again; None when it does not say."""
        return _seconds_until(self._header(b"retry-after"))

    async def read_chunk(self) -> bytes | None:
        """The next bytes as they come; None at the end. Raises UpstreamError."""
        return await self._connection.read()

    async def read_whole(self) -> bytes:
        """The whole body. Raises UpstreamError."""
        chunks: list[bytes] = []
        size = 0
        while (chunk := await self._connection.read()) is not None:
            chunks.append(chunk)
            size += len(chunk)
            if size > ANSWER_BYTES_MAX:
                raise UpstreamError(Failure("bad_answer", self.status), f"sent more than {ANSWER_BYTES_MAX} bytes")
        return b"".join(chunks)

    def close(self) -> None:
        """Gives the connection back, or cuts it when the body is not read to its end."""
        self._pool.give_back(self._connection)

    def _header(self, name: bytes) -> str:
        return self._connection.headers.get(name, b"").decode("latin-1")


def _seconds_until(retry_after: str) -> int | None:
    """Both forms of the header: seconds, and a date."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(int(retry_after), _RETRY_AFTER_SECONDS_MAX)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    # A date whose zone is not told is meant in UTC, as the format has it.
    seconds = math.ceil((until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return min(max(seconds, 0), _RETRY_AFTER_SECONDS_MAX)

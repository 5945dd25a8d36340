"""How providers are reached: over TLS, and through the proxy of the environment."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.settings import SettingError
from services.common.tls import CERTIFICATE_SETTING, PRIVATE_KEY_SETTING
from services.router.upstream import Upstream, client_context
from tests.certificates import Authority
from tests.integration.router.conftest import Run
from tests.integration.router.raw_provider import ask, configured, failure_of, raw_provider, upstream_at, whole

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

pytestmark = pytest.mark.usefixtures("no_proxies")


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The one that this process believes."""
    authority = Authority.make(tmp_path, "ours")
    monkeypatch.setenv("SSL_CERT_FILE", authority.path)
    return authority


def server_context(authority: Authority) -> ssl.SSLContext:
    files = authority.sign("provider")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files[CERTIFICATE_SETTING], files[PRIVATE_KEY_SETTING])
    return context


async def test_a_provider_with_a_good_certificate_is_believed(run: Run, tmp_path: Path, authority: Authority) -> None:
    async def work() -> None:
        async with raw_provider([CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"], context=server_context(authority)) as provider:
            upstream = upstream_at(tmp_path, f"https://127.0.0.1:{provider.port}/v1")
            assert [await ask(upstream), await ask(upstream)] == [b"hello", b"hello"]
            upstream.close()
        assert provider.connection_count == 1

    await run(work())


async def test_a_provider_with_a_strangers_certificate_is_not(run: Run, tmp_path: Path, authority: Authority) -> None:
    async def work() -> None:
        strangers = server_context(Authority.make(tmp_path, "strange"))
        async with raw_provider([whole(b"one")], context=strangers) as provider:
            upstream = upstream_at(tmp_path, f"https://127.0.0.1:{provider.port}/v1")
            assert await failure_of(ask(upstream)) == ("connect_error", 0)
        assert provider.requests == []

    await run(work())


@asynccontextmanager
async def a_proxy(to_port: int, status: int = 200) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Connects whoever asks with the provider, whatever its name. Its port, and what it was asked."""
    asked: list[bytes] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 %d Whatever\r\n\r\n" % status)
        if status == 200:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to_port)
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], asked
    server.close()


async def test_tls_goes_through_the_proxy_of_the_environment(
    run: Run, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with (
            raw_provider([whole(b"one")], context=server_context(authority)) as provider,
            a_proxy(provider.port) as (port, asked),
        ):
            monkeypatch.setenv("HTTPS_PROXY", f"http://user:p%40ss@127.0.0.1:{port}")
            upstream = upstream_at(tmp_path, "https://provider.test/v1")
            assert [await ask(upstream), await ask(upstream)] == [b"one", b"one"]
            upstream.close()
        assert asked == [
            b"CONNECT provider.test:443 HTTP/1.1\r\nhost: provider.test:443\r\n"
            b"proxy-authorization: Basic dXNlcjpwQHNz\r\n\r\n"
        ]
        assert provider.requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert b"proxy-authorization" not in provider.requests[0]

    await run(work())


async def test_a_proxy_may_be_given_longer_than_the_provider_behind_it(
    run: Run, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with (
            raw_provider([], context=server_context(authority)) as provider,
            a_proxy(provider.port) as (port, _),
        ):
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
            patient = replace(configured(tmp_path, "https://provider.test/v1"), connect_timeout_seconds=4)
            start = time.monotonic()
            assert await failure_of(ask(Upstream(patient, client_context()))) == ("timeout", 0)
            assert time.monotonic() - start < 3

    await run(work())


async def test_a_proxy_that_refuses_is_a_provider_that_cannot_be_reached(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with a_proxy(0, status=407) as (port, _):
            monkeypatch.setenv("https_proxy", f"127.0.0.1:{port}")
            assert await failure_of(ask(upstream_at(tmp_path, "https://provider.test/v1"))) == (
                "connect_error",
                0,
            )

    await run(work())


async def test_without_tls_the_proxy_is_asked_for_the_whole_url(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with raw_provider([whole(b"one")]) as proxy:
            monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
            assert await ask(upstream_at(tmp_path, "http://provider.test/v1")) == b"one"
        assert proxy.requests[0].startswith(b"POST http://provider.test/v1/chat/completions HTTP/1.1\r\n")
        assert b"host: provider.test\r\n" in proxy.requests[0]
        assert b"proxy-authorization: Basic dXNlcjpwYXNz\r\n" in proxy.requests[0]

    await run(work())


async def test_who_is_not_to_go_through_the_proxy_does_not(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with raw_provider([whole(b"one")]) as provider, raw_provider([whole(b"no")]) as proxy:
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
            assert await ask(upstream_at(tmp_path, f"http://127.0.0.1:{provider.port}/v1")) == b"one"
            monkeypatch.setenv("no_proxy", ".test")
            assert await failure_of(ask(upstream_at(tmp_path, "http://provider.test/v1"))) == (
                "connect_error",
                0,
            )
        assert proxy.requests == []

    await run(work())


def test_a_proxy_that_speaks_something_else_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1080")

    with pytest.raises(SettingError, match="https_proxy must be the http:// URL of a proxy"):
        upstream_at(tmp_path, "https://provider.test/v1")

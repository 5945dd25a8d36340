"""TLS between our services, over real connections and with certificates made here."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from development.addresses import Addresses
from services.common.authentication import Caller
from services.common.grpc_client import open_channel
from services.common.grpc_server import GrpcServer, ServerSettings
from services.common.settings import Environment, SettingError
from services.common.tls import (
    CERTIFICATE_SETTING,
    CLIENT_CA_SETTING,
    NO_TLS,
    PRIVATE_KEY_SETTING,
    SERVER_CA_SETTING,
    Tls,
)
from tests.certificates import Authority, Settings


class NoKeys:
    async def find(self, key_hash: bytes) -> Caller | None:
        return None


@asynccontextmanager
async def serving(tls: Tls) -> AsyncIterator[str]:
    address = Addresses.free().ledger
    settings = ServerSettings(
        listen_address=address, service_token="inside", reflection=False, drain_seconds=0, tls=tls
    )
    server = GrpcServer(settings, NoKeys(), [])
    await server.start()
    try:
        yield address
    finally:
        await server.stop()


async def is_healthy(address: str, tls: Tls) -> bool:
    """Whether a client with these certificates gets an answer."""
    async with open_channel(address, tls) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def tls_of(**settings: str) -> Tls:
    return Tls.read(Environment(settings))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("theirs"), "theirs")


async def test_a_server_with_a_certificate_is_believed_by_clients_that_know_its_authority(
    ours: Authority, theirs: Authority
) -> None:
    async with serving(tls_of(**ours.sign("ledger"))) as address:
        assert await is_healthy(address, tls_of(**{SERVER_CA_SETTING: ours.path}))
        assert not await is_healthy(address, tls_of(**{SERVER_CA_SETTING: theirs.path}))


async def test_a_server_with_a_certificate_does_not_talk_without_tls(ours: Authority) -> None:
    async with serving(tls_of(**ours.sign("ledger"))) as address:
        assert not await is_healthy(address, NO_TLS)


async def test_with_an_authority_for_clients_only_those_with_its_certificate_get_in(
    ours: Authority, theirs: Authority
) -> None:
    ledger = tls_of(**ours.sign("ledger"), **{CLIENT_CA_SETTING: ours.path})
    knows_server = {SERVER_CA_SETTING: ours.path}
    async with serving(ledger) as address:
        assert await is_healthy(address, tls_of(**ours.sign("router"), **knows_server))
        assert not await is_healthy(address, tls_of(**theirs.sign("stranger"), **knows_server))
        assert not await is_healthy(address, tls_of(**knows_server))


async def test_nothing_older_than_tls_1_2_is_spoken(ours: Authority) -> None:
    async with serving(tls_of(**ours.sign("ledger"))) as address:
        host, _, port = address.rpartition(":")
        with pytest.warns(DeprecationWarning):
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.maximum_version = ssl.TLSVersion.TLSv1_1
            old.minimum_version = ssl.TLSVersion.TLSv1
        old.load_verify_locations(ours.path)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(host, int(port), ssl=old)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({PRIVATE_KEY_SETTING: ""}, f"{PRIVATE_KEY_SETTING} is not set", id="no key"),
        pytest.param({CERTIFICATE_SETTING: ""}, f"{CERTIFICATE_SETTING} is not set", id="no certificate"),
        pytest.param({CERTIFICATE_SETTING: "/nowhere.pem"}, "cannot read /nowhere.pem", id="no such file"),
        pytest.param({CERTIFICATE_SETTING: "{key}"}, "must hold certificates in PEM", id="a key as certificate"),
        pytest.param({PRIVATE_KEY_SETTING: "{ca}"}, "must hold a private key in PEM", id="a certificate as key"),
        pytest.param({PRIVATE_KEY_SETTING: "{other}"}, "is not the key of", id="the key of another"),
        pytest.param(
            {CERTIFICATE_SETTING: "", PRIVATE_KEY_SETTING: "", CLIENT_CA_SETTING: "{ca}"},
            f"{CLIENT_CA_SETTING} needs {CERTIFICATE_SETTING}",
            id="clients to prove themselves to a server without TLS",
        ),
    ],
)
def test_files_that_do_not_fit_stop_the_start_by_name(ours: Authority, change: Settings, said: str) -> None:
    settings = ours.sign("ledger")
    paths = {"key": settings[PRIVATE_KEY_SETTING], "ca": ours.path, "other": ours.sign("other")[PRIVATE_KEY_SETTING]}
    with pytest.raises(SettingError) as raised:
        tls_of(**settings | {name: value.format(**paths) for name, value in change.items()})

    assert said in str(raised.value)


def test_a_private_key_is_not_shown(ours: Authority) -> None:
    assert "PRIVATE KEY" not in repr(tls_of(**ours.sign("ledger")))

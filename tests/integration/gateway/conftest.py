"""Front doors: with everything behind them, with nothing, with little patience, and open to a browser."""

from collections.abc import AsyncIterator

import pytest

from development.addresses import Addresses
from development.gateway import CONFIGURATION, render
from tests.integration.gateway.front_door import FrontDoor, envoy
from tests.integration.gateway.upstreams import Activity, services_behind


@pytest.fixture(scope="session")
async def front_door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FrontDoor]:
    """Envoy with everything behind it up."""
    addresses = Addresses.free()
    configuration = render(CONFIGURATION, addresses)
    directory = tmp_path_factory.mktemp("envoy")
    async with services_behind(addresses) as asked, envoy(configuration, addresses, directory):
        yield FrontDoor(addresses, asked)


@pytest.fixture(scope="session")
async def hasty_front_door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FrontDoor]:
    """The same with a tenth of a second's patience."""
    addresses = Addresses.free()
    configuration = render(CONFIGURATION, addresses).replace("timeout: 10s", "timeout: 0.1s")
    directory = tmp_path_factory.mktemp("hasty")
    async with services_behind(addresses) as asked, envoy(configuration, addresses, directory):
        yield FrontDoor(addresses, asked)


@pytest.fixture(scope="session")
async def open_front_door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FrontDoor]:
    """One that lets a browser's page at https://dashboard.example in."""
    addresses = Addresses.free()
    configuration = render(CONFIGURATION, addresses).replace(
        "allow_origin_string_match: []", 'allow_origin_string_match: [ { exact: "https://dashboard.example" } ]'
    )
    directory = tmp_path_factory.mktemp("open")
    async with services_behind(addresses) as asked, envoy(configuration, addresses, directory):
        yield FrontDoor(addresses, asked)


@pytest.fixture(scope="session")
async def lonely_front_door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FrontDoor]:
    """Envoy with nothing behind it."""
    addresses = Addresses.free()
    async with envoy(render(CONFIGURATION, addresses), addresses, tmp_path_factory.mktemp("lonely")):
        yield FrontDoor(addresses, Activity())  # type: ignore[abstract]  # it answers what the tests ask

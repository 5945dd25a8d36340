"""One reporting service and one set of books per module."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.conftest import Database
from tests.contract.reporting.books import NOW, Books, open_books
from tests.contract.reporting.reporting_server import Reporting, running_reporting


@pytest.fixture(scope="module")
def books(database: Database) -> Iterator[Books]:
    with open_books(database) as opened:
        yield opened


@pytest.fixture(scope="module")
async def service(database: Database) -> AsyncIterator[Reporting]:
    async with running_reporting(database) as running:
        yield running


@pytest.fixture
def reporting(service: Reporting) -> Reporting:
    """The service, on the day that tests begin with."""
    service.clock.time = NOW
    return service

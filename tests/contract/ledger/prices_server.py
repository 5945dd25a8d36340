"""A ledger with nothing but prices and accounts, on a real channel over a real database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from sqlalchemy.ext.asyncio import AsyncEngine

from development.addresses import Addresses
from services.common.database import open_database
from services.common.grpc_server import GrpcServer, ServerSettings, Service
from services.common.key_store import DatabaseKeyDirectory
from services.common.uuid7 import new_uuid7
from services.ledger.prices.price_keeping import CurrentPrices, PriceKeeper
from services.ledger.prices.servicer_prices import PriceServicer
from tests.conftest import Database
from tests.contract.ledger.accounts_server import SERVICE_TOKEN, now_in_utc
from tollgate.ledger.v1 import price_service_pb2, price_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class PriceLedger:
    """Its stub, and the database beneath it."""

    prices: Any
    engine: AsyncEngine


@asynccontextmanager
async def running_prices(database: Database) -> AsyncIterator[PriceLedger]:
    engine = open_database(database.ledger_url)
    current = CurrentPrices(engine)
    await current.refresh()
    keeper = PriceKeeper(engine, current, clock=now_in_utc, new_id=new_uuid7)
    settings = ServerSettings(
        listen_address=Addresses.free().ledger, service_token=SERVICE_TOKEN, reflection=False, drain_seconds=0
    )
    server = GrpcServer(
        settings,
        DatabaseKeyDirectory(engine),
        [
            Service(
                price_service_pb2.DESCRIPTOR.services_by_name["PriceService"],
                price_service_pb2_grpc.add_PriceServiceServicer_to_server,
                PriceServicer(engine, keeper, current, clock=now_in_utc),
            )
        ],
    )
    await server.start()
    try:
        async with grpc.aio.insecure_channel(settings.listen_address) as channel:
            yield PriceLedger(price_service_pb2_grpc.PriceServiceStub(channel), engine)
    finally:
        await server.stop()
        await engine.dispose()

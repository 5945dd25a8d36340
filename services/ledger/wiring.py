"""Joins the parts of the ledger. The only module that knows them all."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.database import check_database, open_database
from services.common.errors import UnavailableError
from services.common.grpc_server import GrpcServer, Service, stop_signal
from services.common.key_store import DatabaseKeyDirectory
from services.common.metrics import serve_metrics
from services.common.settings import SettingError
from services.common.uuid7 import new_uuid7
from services.ledger.accounts.account_keeping import AccountKeeper
from services.ledger.accounts.account_reading import AccountReader
from services.ledger.accounts.directory import Directory
from services.ledger.accounts.directory_changes import DirectoryChanges
from services.ledger.accounts.key_keeping import KeyKeeper
from services.ledger.accounts.keys import new_api_key_secret
from services.ledger.accounts.servicer_accounts import AccountServicer
from services.ledger.accounts.servicer_directory import DirectoryServicer
from services.ledger.alerts.alert_evaluating import AlertEvaluator
from services.ledger.alerts.alert_keeping import AlertKeeper
from services.ledger.alerts.alert_reading import AlertReader
from services.ledger.alerts.servicer_alerts import AlertServicer
from services.ledger.alerts.webhook_client import WebhookClient
from services.ledger.alerts.webhook_secrets import WebhookSecrets
from services.ledger.alerts.webhook_sending import WebhookSender
from services.ledger.books.billing import Billing
from services.ledger.books.book_reading import BookReader
from services.ledger.books.credit_ending import CreditEnder
from services.ledger.books.servicer_billing import BillingServicer
from services.ledger.books.verifying import BookVerifier
from services.ledger.leases.credit import Credit
from services.ledger.leases.servicer_credit import CreditServicer
from services.ledger.prices.catalogue_loading import load_catalogue
from services.ledger.prices.price_bounds import PriceBounds
from services.ledger.prices.price_keeping import CurrentPrices, PriceKeeper
from services.ledger.prices.servicer_prices import PriceServicer
from services.ledger.retention.expiring import Expirer
from services.ledger.retention.servicer_retention import RetentionServicer
from services.ledger.settings import Settings
from services.ledger.storage.alerts import alert_figures
from services.ledger.storage.books.books import credit_available
from services.ledger.storage.retention import expiry
from services.ledger.storage.usage.batch_writer import BatchWriter
from services.ledger.storage.usage.ingest import Ingest
from services.ledger.storage.usage.usage import prepare_session
from services.ledger.storage.writer import DatabaseWriter
from services.ledger.usage.importing import Importer
from services.ledger.usage.late_pricing import LatePricer
from services.ledger.usage.recording import UsageRecorder
from services.ledger.usage.servicer_import import ImportServicer
from services.ledger.usage.servicer_usage import UsageServicer
from tollgate.ledger.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    alert_service_pb2,
    alert_service_pb2_grpc,
    billing_service_pb2,
    billing_service_pb2_grpc,
    credit_service_pb2,
    credit_service_pb2_grpc,
    directory_service_pb2,
    directory_service_pb2_grpc,
    import_service_pb2,
    import_service_pb2_grpc,
    price_service_pb2,
    price_service_pb2_grpc,
    retention_service_pb2,
    retention_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)

# Objects that outlive their birth by so many others are looked at; a batch makes some ten thousand.
COLLECTOR_THRESHOLDS = (50_000, 20, 50)
# Leases are granted in a thread that waits for the interpreter after each statement, while records are priced.
SWITCH_SECONDS = 0.0002
PARTITION_SECONDS = 3_600.0

log = logging.getLogger("tollgate.ledger")


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what was begun. Raises SettingError when it cannot start."""
    stopped = stop_signal()
    database = open_database(settings.database_url)
    try:
        await check_database(database)
        await _check_schema(database)
        async with running_services(settings, database) as services:
            server = GrpcServer(settings.server, DatabaseKeyDirectory(database), services)
            _spare_the_collector()
            sys.setswitchinterval(SWITCH_SECONDS)
            await server.start()
            serve_metrics(settings.metrics_address)
            log.info("serving", extra={"address": settings.server.listen_address})
            await stopped.wait()
            # Running calls end with their batches; after that nobody waits for one.
            await server.stop()
    finally:
        await database.dispose()


@asynccontextmanager
async def running_services(settings: Settings, database: AsyncEngine) -> AsyncIterator[list[Service]]:
    """Every service that the ledger offers, over a migrated database, while what works behind them is running."""
    writer = DatabaseWriter(settings.database_url, prepare_session)
    ingest = Ingest()
    prices = CurrentPrices(database)
    batch_writer = BatchWriter(settings.database_url, settings.log_level)
    recorder = UsageRecorder(batch_writer.write, lambda: prices.book, clock=_now)
    expirer = Expirer(DatabaseWriter(settings.database_url, expiry.prepare_session), clock=_now, holder=new_uuid7())
    ender = CreditEnder(writer, clock=_now)
    # Routers wait for leases, so these do not wait for batches of records.
    credit_writer = DatabaseWriter(settings.database_url)
    credit = Credit(credit_writer, clock=_now, grace=settings.lease_grace)
    # On a connection of its own: finished calls do not wait for old ones.
    late_writer = DatabaseWriter(settings.database_url, prepare_session)
    late_pricer = LatePricer(late_writer, lambda: prices.book, clock=_now)
    changes = DirectoryChanges(database, clock=_now)
    accounts = AccountKeeper(database, clock=_now, new_id=new_uuid7)
    keys = KeyKeeper(
        database,
        settings.provider_key_public,
        clock=_now,
        new_id=new_uuid7,
        new_secret=new_api_key_secret,
    )
    webhook_secrets = None if settings.webhook_key is None else WebhookSecrets(settings.webhook_key)
    alerts = AlertKeeper(database, webhook_secrets, settings.webhook_policy, clock=_now, new_id=new_uuid7)
    # On a connection of its own: nothing waits for windows to be added up.
    alert_writer = DatabaseWriter(settings.database_url, alert_figures.prepare_session)
    sender = WebhookSender(
        DatabaseWriter(settings.database_url),
        WebhookClient(settings.webhook_policy, settings.webhook_timeout),
        webhook_secrets,
        clock=_now,
        timeout=settings.webhook_timeout,
    )
    evaluator = AlertEvaluator(alert_writer, clock=_now, new_id=new_uuid7, interval=settings.alert_interval)
    try:
        await batch_writer.start()
        await load_catalogue(database)
        await prices.refresh()
        await writer.run(lambda connection: ingest.prepare_days(connection, _now().date()))
        if settings.operator_key is not None:
            await keys.seed_operator_key(settings.operator_key)
        recorder.start()
        async with _in_background(
            prices.follow(),
            _keep_partitions(writer, ingest),
            expirer.follow(),
            ender.follow(),
            credit.follow(),
            late_pricer.follow(),
            evaluator.follow(),
            sender.follow(),
            changes.follow(),
        ):
            yield [
                Service(
                    usage_service_pb2.DESCRIPTOR.services_by_name["UsageService"],
                    usage_service_pb2_grpc.add_UsageServiceServicer_to_server,
                    UsageServicer(recorder, clock=_now),
                ),
                Service(
                    billing_service_pb2.DESCRIPTOR.services_by_name["BillingService"],
                    billing_service_pb2_grpc.add_BillingServiceServicer_to_server,
                    BillingServicer(
                        Billing(database, writer, clock=_now),
                        BookReader(database, clock=_now),
                        BookVerifier(database, clock=_now),
                    ),
                ),
                Service(
                    import_service_pb2.DESCRIPTOR.services_by_name["ImportService"],
                    import_service_pb2_grpc.add_ImportServiceServicer_to_server,
                    ImportServicer(Importer(database, writer, ingest, recorder, clock=_now), clock=_now),
                ),
                Service(
                    account_service_pb2.DESCRIPTOR.services_by_name["AccountService"],
                    account_service_pb2_grpc.add_AccountServiceServicer_to_server,
                    AccountServicer(accounts, keys, AccountReader(database)),
                ),
                Service(
                    alert_service_pb2.DESCRIPTOR.services_by_name["AlertService"],
                    alert_service_pb2_grpc.add_AlertServiceServicer_to_server,
                    AlertServicer(alerts, AlertReader(database, clock=_now)),
                ),
                Service(
                    directory_service_pb2.DESCRIPTOR.services_by_name["DirectoryService"],
                    directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server,
                    DirectoryServicer(Directory(database, credit_available, clock=_now), changes),
                    end_streams=changes.end,
                ),
                Service(
                    credit_service_pb2.DESCRIPTOR.services_by_name["CreditService"],
                    credit_service_pb2_grpc.add_CreditServiceServicer_to_server,
                    CreditServicer(credit, PriceBounds(lambda: prices.book, clock=_now)),
                ),
                Service(
                    price_service_pb2.DESCRIPTOR.services_by_name["PriceService"],
                    price_service_pb2_grpc.add_PriceServiceServicer_to_server,
                    PriceServicer(
                        database,
                        PriceKeeper(database, prices, clock=_now, new_id=new_uuid7),
                        prices,
                        clock=_now,
                    ),
                ),
                Service(
                    retention_service_pb2.DESCRIPTOR.services_by_name["RetentionService"],
                    retention_service_pb2_grpc.add_RetentionServiceServicer_to_server,
                    RetentionServicer(database),
                ),
            ]
    finally:
        await expirer.close()
        await recorder.close()
        await batch_writer.close()
        await sender.close()
        credit_writer.close()
        late_writer.close()
        alert_writer.close()
        writer.close()


def _spare_the_collector() -> None:
    """What is there at the start stays, and records leave no cycles: looking for some took a tenth of the CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


async def _check_schema(database: AsyncEngine) -> None:
    """Raises SettingError unless the database has what this program writes to."""
    async with database.connect() as connection:
        found = (await connection.execute(text("SELECT to_regclass('ledger.alert_delivery')"))).scalar_one()
    if found is None:
        raise SettingError(
            "TOLLGATE_DATABASE_URL: the schema is missing or old; run 'python -m services.ledger.storage.migrate'"
        )


async def _keep_partitions(writer: DatabaseWriter, ingest: Ingest) -> None:
    """Makes tomorrow's partitions in time, for ever. Records that come first make their own."""
    while True:
        await asyncio.sleep(PARTITION_SECONDS)
        try:
            await writer.run(lambda connection: ingest.prepare_days(connection, _now().date()))
        except UnavailableError as error:
            log.warning("partitions were not prepared: %s", error.message)


@asynccontextmanager
async def _in_background(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs work that never ends, until the block does."""
    tasks = [asyncio.create_task(one) for one in work]
    for task in tasks:
        task.add_done_callback(_end_when_broken)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _end_when_broken(task: asyncio.Task[None]) -> None:
    """A ledger whose prices or partitions stand still is worse than one that is started anew."""
    if not task.cancelled() and task.exception() is not None:
        log.critical("background work broke; ending", exc_info=task.exception())
        signal.raise_signal(signal.SIGTERM)


def _now() -> datetime:
    return datetime.now(UTC)

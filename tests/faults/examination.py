"""Holds the books of one customer to the model, and to themselves."""

import asyncio
import time
from dataclasses import dataclass
from decimal import Decimal

import grpc

from tests.faults.books_model import Booked, Comparison, Model
from tests.faults.load import TAG_KEY
from tests.faults.system import GRANT_USD, Customer, NotSettledError, System
from tollgate.ledger.v1.billing_service_pb2 import VerifyBooksRequest
from tollgate.ledger.v1.billing_service_pb2_grpc import BillingServiceStub

_PICO_PER_USD = 10**12
_VERIFY_SECONDS = 60.0
_VISIBLE_SECONDS = 10.0
_ESTIMATED = 2

_RECORDS = f"""
    SELECT metadata ->> '{TAG_KEY}', request_id, input_tokens, output_tokens, cost_pico, charged_pico, usage_source
    FROM reporting.usage_record WHERE organization_id = %s
"""
# Each is a sum of the same charges, kept apart from the others.
_CHARGED_PICO = {
    "records": "SELECT sum(charged_pico) FROM reporting.usage_record WHERE organization_id = %s",
    "cost lines": "SELECT sum(cost_pico) FROM reporting.cost_line WHERE charged AND organization_id = %s",
    "hours": "SELECT sum(charged_pico) FROM reporting.usage_hour WHERE organization_id = %s",
}
_OVERDRAWN = (
    "SELECT count(*) FROM ledger.balance WHERE organization_id = %s AND account IN (1, 2, 4) AND amount_pico < 0"
)


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found after one run. `problems` are sentences; none when every promise was kept."""

    comparison: Comparison
    problems: list[str]


async def examine(system: System, customer: Customer, model: Model) -> Examination:
    """Looks once everything has settled. Raises NotSettledError when it does not."""
    await system.settle()
    comparison = await _compare(system, customer, model)
    problems = [*_named(comparison), *await _disagreements(system, customer), *await _differences(system, customer)]
    return Examination(comparison, problems)


def _named(comparison: Comparison) -> list[str]:
    found = {
        "lost": comparison.lost,
        "recorded twice": comparison.doubled,
        "recorded and never made": comparison.invented,
        "charged wrongly": comparison.misbilled,
    }
    return [f"{len(tags)} calls {what}: {', '.join(tags[:3])}" for what, tags in found.items() if tags]


async def _compare(system: System, customer: Customer, model: Model) -> Comparison:
    with system.connect() as connection:
        rows = connection.execute(_RECORDS, (customer.organization_id,)).fetchall()
    return model.compare(
        Booked(tag or "", str(request_id), input_tokens, output_tokens, cost, charged, source == _ESTIMATED)
        for tag, request_id, input_tokens, output_tokens, cost, charged, source in rows
    )


async def _disagreements(system: System, customer: Customer) -> list[str]:
    """What lines, figures, activity and balance say of the same money."""
    with system.connect() as connection:
        own = (customer.organization_id,)
        charged = {
            what: Decimal(connection.execute(query, own).fetchone()[0] or 0) / _PICO_PER_USD  # type: ignore[index]
            for what, query in _CHARGED_PICO.items()
        }
        (overdrawn,) = connection.execute(_OVERDRAWN, own).fetchone() or (0,)
    charged["activity"] = await _activity_usd(system, customer, charged["records"])
    balance = await system.get("/v1/balance", customer.api_key)
    # What leases hold is the organization's still.
    charged["balance"] = GRANT_USD - Decimal(balance["balance"])
    problems = []
    if len(set(charged.values())) > 1:
        problems.append("these differ: " + ", ".join(f"{what} {usd}" for what, usd in charged.items()))
    if overdrawn or Decimal(balance["balance"]) < 0 or Decimal(balance["receivable"]) != 0:
        problems.append(f"a balance is below zero: {balance}")
    return problems


async def _activity_usd(system: System, customer: Customer, expected: Decimal) -> Decimal:
    """What the public summary says was charged; it may lag by seconds."""
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while True:
        answer = await system.get("/activity?days=2", customer.api_key)
        usd = sum((Decimal(day["chargedExact"]) for day in answer["activity"]), Decimal(0))
        if usd == expected or time.monotonic() > deadline:
            return usd
        await asyncio.sleep(0.2)


async def _differences(system: System, customer: Customer) -> list[str]:
    """What the ledger finds when it recomputes its books."""
    metadata = (("authorization", f"Bearer {customer.api_key}"),)
    async with grpc.aio.insecure_channel(system.stack.addresses.front_door) as channel:
        answer = await BillingServiceStub(channel).VerifyBooks(
            VerifyBooksRequest(), metadata=metadata, timeout=_VERIFY_SECONDS
        )
    if answer.agree:
        return []
    return [f"VerifyBooks: {found.check} of {found.place}: {found.figure}" for found in answer.differences[:3]]


__all__ = ["Examination", "NotSettledError", "examine"]

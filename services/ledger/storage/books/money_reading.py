"""What calls of a period cost, from what is kept for ever. Works inside its caller's transaction."""

from datetime import date
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ledger.books.statement import Amounts, StatementLine
from services.ledger.pricing import Funding, Line

_LINES = text("""
    SELECT provider, model, funding, line, sum(quantity) AS quantity, sum(list_cost_pico) AS gross_pico,
           sum(cost_pico) AS net_pico, COALESCE(sum(cost_pico) FILTER (WHERE charged), 0) AS charged_pico
      FROM ledger.money_day
     WHERE organization_id = :organization_id AND day BETWEEN :first AND :last
     GROUP BY provider, model, funding, line
     ORDER BY provider, model, funding, line
""")
_UNPRICED = text("""
    SELECT COALESCE(sum(unpriced_count), 0)
      FROM ledger.record_day WHERE organization_id = :organization_id AND day BETWEEN :first AND :last
""")


async def lines_of(connection: AsyncConnection, organization_id: UUID, first: date, last: date) -> list[StatementLine]:
    """By provider, model, funding and line."""
    values = {"organization_id": organization_id, "first": first, "last": last}
    return [
        StatementLine(
            provider=row.provider,
            model=row.model,
            funding=Funding(row.funding),
            line=Line(row.line),
            quantity=int(row.quantity),
            amounts=Amounts(int(row.gross_pico), int(row.net_pico), int(row.charged_pico)),
        )
        for row in (await connection.execute(_LINES, values)).all()
    ]


async def unpriced_count(connection: AsyncConnection, organization_id: UUID, first: date, last: date) -> int:
    values = {"organization_id": organization_id, "first": first, "last": last}
    return int((await connection.execute(_UNPRICED, values)).scalar_one())

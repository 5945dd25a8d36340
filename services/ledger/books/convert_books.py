"""Entries, statements and findings on the wire ↔ values of the ledger."""

import re

from services.common.errors import InvalidRequestError
from services.common.money import usd_from_pico
from services.ledger.books.book_reading import Statement
from services.ledger.books.statement import Amounts, Period, StatementLine, period_from_text, rounded_to_cents
from services.ledger.books.verifying import Findings
from services.ledger.convert_values import time_to_proto
from services.ledger.storage.books.journal_reading import BookedEntry
from services.ledger.storage.books.verification import Difference
from tollgate.ledger.v1 import billing_service_pb2 as wire
from tollgate.ledger.v1 import usage_pb2

ENTRIES_DEFAULT = 100
ENTRIES_MAX = 1_000
_SEQUENCE = re.compile(r"\d{1,18}", re.ASCII)


def sequence_from_text(field: str, text: str) -> int:
    """0 where nothing is said."""
    if text and not _SEQUENCE.fullmatch(text):
        raise InvalidRequestError(field, f"must be the sequence of an entry, got '{text[:64]}'")
    return int(text or "0")


def entries_to_proto(entries: list[BookedEntry], after: int) -> wire.ListLedgerEntriesResponse:
    return wire.ListLedgerEntriesResponse(
        entries=map(_entry_to_proto, entries), last_sequence=str(entries[-1].sequence if entries else after)
    )


def period_from_proto(request: wire.GetStatementRequest) -> Period:
    # `from` is a keyword of Python, and only there.
    return period_from_text(period=request.period, first=getattr(request, "from"), last=request.to)


def statement_to_proto(statement: Statement) -> wire.GetStatementResponse:
    charged_pico = statement.total.charged_pico
    rounded_pico = rounded_to_cents(charged_pico)
    first_day = {"from": str(statement.period.first)}
    return wire.GetStatementResponse(
        organization_id=str(statement.organization_id),
        **first_day,
        to=str(statement.period.last),
        create_time=time_to_proto(statement.create_time),
        lines=map(_line_to_proto, statement.lines),
        total=_amounts_to_proto(statement.total),
        charged_rounded=usd_from_pico(rounded_pico),
        rounding_residual=usd_from_pico(charged_pico - rounded_pico),
        unpriced_count=str(statement.unpriced_count),
        balance=_balance_to_proto(statement),
        movements=map(_entry_to_proto, statement.movements),
    )


def findings_to_proto(findings: Findings) -> wire.VerifyBooksResponse:
    counts = {name: str(count) for name, count in findings.counts._asdict().items()}
    return wire.VerifyBooksResponse(
        agree=not findings.differences,
        verify_time=time_to_proto(findings.verify_time),
        verified=wire.VerifiedCounts(**counts),
        differences=map(_difference_to_proto, findings.differences),
        truncated=findings.truncated,
    )


def _entry_to_proto(entry: BookedEntry) -> wire.LedgerEntry:
    return wire.LedgerEntry(
        sequence=str(entry.sequence),
        create_time=time_to_proto(entry.create_time),
        kind=int(entry.kind),  # type: ignore[arg-type]
        reference=entry.reference,
        postings=[
            wire.Posting(account=int(account), amount=usd_from_pico(amount_pico))  # type: ignore[arg-type]
            for account, amount_pico in entry.postings.items()
        ],
        balance=usd_from_pico(entry.balance_pico),
    )


def _line_to_proto(line: StatementLine) -> wire.StatementLine:
    return wire.StatementLine(
        provider=line.provider,
        model=line.model,
        funding=usage_pb2.Funding.Value(f"FUNDING_{line.funding.name}"),
        line=line.line.name,
        quantity=str(line.quantity),
        amounts=_amounts_to_proto(line.amounts),
    )


def _amounts_to_proto(amounts: Amounts) -> wire.StatementAmounts:
    return wire.StatementAmounts(
        gross=usd_from_pico(amounts.gross_pico),
        discount=usd_from_pico(amounts.discount_pico),
        net=usd_from_pico(amounts.net_pico),
        charged=usd_from_pico(amounts.charged_pico),
    )


def _balance_to_proto(statement: Statement) -> wire.StatementBalance:
    balance = statement.balance
    return wire.StatementBalance(
        opening=usd_from_pico(balance.opening_pico),
        granted_prepaid=usd_from_pico(balance.granted_prepaid_pico),
        granted_promotional=usd_from_pico(balance.granted_promotional_pico),
        corrected=usd_from_pico(balance.corrected_pico),
        refunded=usd_from_pico(balance.refunded_pico),
        expired=usd_from_pico(balance.expired_pico),
        usage=usd_from_pico(balance.usage_pico),
        closing=usd_from_pico(balance.closing_pico),
        timing_difference=usd_from_pico(balance.usage_pico - statement.total.charged_pico),
        first_sequence=str(statement.first_sequence),
        last_sequence=str(statement.last_sequence),
    )


def _difference_to_proto(one: Difference) -> wire.BookDifference:
    return wire.BookDifference(
        organization_id=str(one.organization_id),
        check=one.check,
        place=one.place,
        figure=one.figure,
        expected=one.expected or "",
        found=one.found or "",
        difference=_less(one.found, one.expected),
    )


def _less(found: str | None, expected: str | None) -> str:
    """Empty where they are not both whole numbers."""
    try:
        return str(int(found or "") - int(expected or ""))
    except ValueError:
        return ""

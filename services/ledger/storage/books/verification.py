"""What must agree in the books, each as a query for what does not. Works inside its caller's snapshot.

PostgreSQL does the sums, so what comes out is differences only. Every query yields `organization_id`, `place`,
`figure`, `expected` and `found`, the last two as text, NULL where there should be or is nothing.
"""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ledger.books.journal import CHARGES, OWN, Account, EntryKind
from services.ledger.pricing import Line, Outcome
from services.ledger.retention.retention import Kept
from services.ledger.usage.daily import MONEY, NO_PRICE_VERSION, RECORDS, MoneyKey
from services.ledger.usage.rollups import FIGURES, TOKENS, HourKey

# All of one check is read at once, so there may only be so many.
DIFFERENCES_MAX = 1_000


class Difference(NamedTuple):
    """Two places that should say the same and do not."""

    check: str
    organization_id: UUID
    place: str
    figure: str
    # None where nothing should be there, or nothing is.
    expected: str | None
    found: str | None


class Counts(NamedTuple):
    """How much was held against each other."""

    organizations: int
    records: int
    cost_lines: int
    hours: int
    money_days: int
    ledger_entries: int


def _held_against(expected: str, found: str, key: tuple[str, ...], place: str, figures: tuple[str, ...]) -> str:
    """Two relations of one key, each figure of each row. A row that is missing counts as zeros."""
    pairs = ", ".join(
        f"('{figure}', COALESCE(expected.{figure}, 0), COALESCE(found.{figure}, 0))" for figure in figures
    )
    return f"""
        SELECT organization_id, {place} AS place, figure, pair.expected::text AS expected, pair.found::text AS found
          FROM ({expected}) AS expected FULL JOIN ({found}) AS found USING ({", ".join(key)})
         CROSS JOIN LATERAL (VALUES {pairs}) AS pair (figure, expected, found)
         WHERE pair.expected <> pair.found
    """  # noqa: S608 columns of ours


# The day in UTC, which is the session's zone, of an hour; and days all of whose detail and hours are there.
_DAY_OF_HOUR = "(hour AT TIME ZONE 'UTC')::date"
_DETAIL_IS_WHOLE = f"""
    NOT EXISTS (
        SELECT FROM ledger.expiry
         WHERE expiry.organization_id = {{table}}.organization_id AND expiry.day = {{day}}
           AND expiry.kind IN ({int(Kept.DETAIL)}, {int(Kept.HOURS)})
    )
"""
_RECORD_IS_WHOLE = _DETAIL_IS_WHOLE.format(table="usage_record", day="usage_record.request_day")
_HOUR_IS_WHOLE = _DETAIL_IS_WHOLE.format(table="usage_hour", day=_DAY_OF_HOUR)
_MONEY_IS_WHOLE = _DETAIL_IS_WHOLE.format(table="money_day", day="money_day.day")

_HALF_EVEN = "CASE WHEN {0} - floor({0}) = 0.5 THEN 2 * div(floor({0}) + 1, 2) ELSE round({0}) END"
_LINES = f"""
    SELECT organization_id, request_id || ' line ' || line_number AS place, figure,
           trim_scale(exact.pico)::text AS expected, exact.found::text AS found
      FROM ledger.usage_record
     CROSS JOIN LATERAL unnest(line_quantity, line_unit_price, line_discount, line_cost_pico, line_list_cost_pico)
           WITH ORDINALITY AS each_line (quantity, unit_price, discount, cost_pico, list_cost_pico, line_number)
     CROSS JOIN LATERAL (
           SELECT quantity * unit_price * 1e12::numeric AS list_pico,
                  quantity * unit_price * 1e12::numeric * (1 - each_line.discount) AS pico
           ) AS before_rounding
     CROSS JOIN LATERAL (VALUES
           ('list_cost_pico', {_HALF_EVEN.format("list_pico")}, each_line.list_cost_pico),
           ('cost_pico', {_HALF_EVEN.format("before_rounding.pico")}, each_line.cost_pico)
           ) AS exact (figure, pico, found)
     WHERE exact.pico <> exact.found AND {{own}}
"""  # noqa: S608 columns of ours
_RECORDS = """
    SELECT organization_id, request_id::text AS place, figure, pair.expected::text AS expected,
           pair.found::text AS found
      FROM ledger.usage_record
     CROSS JOIN LATERAL (
           SELECT COALESCE(sum(cost), 0) AS cost, COALESCE(sum(list_cost), 0) AS list_cost,
                  COALESCE(sum(cost) FILTER (WHERE is_charged), 0) AS charged
             FROM unnest(line_cost_pico, line_list_cost_pico, line_charged) AS each_line (cost, list_cost, is_charged)
           ) AS lines
     CROSS JOIN LATERAL (VALUES
           ('cost_pico', lines.cost, COALESCE(cost_pico, lines.cost)),
           ('saved_pico', lines.list_cost - lines.cost, saved_pico),
           ('charged_pico', lines.charged, charged_pico)
           ) AS pair (figure, expected, found)
     WHERE pair.expected <> pair.found AND {own}
"""

_SUMS = ", ".join(f"sum({name}) AS {name}" for name in RECORDS)
_DETAIL_DAYS = """
    SELECT organization_id, request_day AS day, count(*) AS record_count,
           count(*) FILTER (WHERE unpriced) AS unpriced_count,
           sum(COALESCE(cost_pico, ledger.sum_of(line_cost_pico::numeric[]), 0)) AS cost_pico,
           sum(saved_pico) AS saved_pico, sum(charged_pico) AS charged_pico
      FROM ledger.usage_record WHERE {own} GROUP BY organization_id, request_day
"""
_HOUR_DAYS = f"""
    SELECT organization_id, {_DAY_OF_HOUR} AS day, sum(request_count) AS record_count,
           sum(unpriced_count) AS unpriced_count, sum(cost_pico) AS cost_pico, sum(saved_pico) AS saved_pico,
           sum(charged_pico) AS charged_pico
      FROM ledger.usage_hour WHERE {{own}} GROUP BY organization_id, {_DAY_OF_HOUR}
"""  # noqa: S608 columns of ours


def _with_expired(there: str, kind: Kept) -> str:
    """What there is of each day, and what has expired of it."""
    return f"""
        SELECT organization_id, day, {_SUMS}
          FROM ({there} UNION ALL
                SELECT organization_id, day, {", ".join(RECORDS)}
                  FROM ledger.expiry WHERE kind = {int(kind)} AND {{own}}) AS part
         GROUP BY organization_id, day
    """  # noqa: S608 columns of ours


_RECORDED_DAYS = f"SELECT organization_id, day, {', '.join(RECORDS)} FROM ledger.record_day WHERE {{own}}"  # noqa: S608
_MONEY_DAYS = """
    SELECT organization_id, day, sum(cost_pico) AS cost_pico, sum(list_cost_pico - cost_pico) AS saved_pico,
           COALESCE(sum(cost_pico) FILTER (WHERE charged), 0) AS charged_pico
      FROM ledger.money_day WHERE {own} GROUP BY organization_id, day
"""

_LINE_SUMS = ", ".join(f"COALESCE(sum(lines.{line.name.lower()}), 0) AS {line.name.lower()}_cost_pico" for line in Line)
_BY_LINE = ", ".join(f"sum(cost) FILTER (WHERE line = {int(line)}) AS {line.name.lower()}" for line in Line)
_HOURS_OF_RECORDS = f"""
    SELECT {", ".join(("organization_id", "date_trunc('hour', start_time) AS hour", *HourKey._fields[2:]))},
           count(*) AS request_count,
           count(*) FILTER (WHERE status BETWEEN 200 AND 299) AS success_count,
           count(*) FILTER (WHERE status BETWEEN 400 AND 499) AS client_error_count,
           count(*) FILTER (WHERE outcome = {int(Outcome.REFUSED)}) AS refused_count,
           count(*) FILTER (WHERE cache_hit) AS cache_count,
           count(*) FILTER (WHERE streamed) AS streamed_count,
           count(*) FILTER (WHERE unpriced) AS unpriced_count,
           {", ".join(f"COALESCE(sum({name}), 0) AS {name}" for name in TOKENS)},
           {_LINE_SUMS},
           COALESCE(sum(lines.every), 0) AS cost_pico, sum(saved_pico) AS saved_pico,
           sum(charged_pico) AS charged_pico, sum(latency_ms) AS latency_ms_sum
      FROM ledger.usage_record
     CROSS JOIN LATERAL (
           SELECT sum(cost) AS every, {_BY_LINE}
             FROM unnest(usage_record.line, line_cost_pico) AS each_line (line, cost)
           ) AS lines
     WHERE {_RECORD_IS_WHOLE} AND {{own}}
     GROUP BY organization_id, date_trunc('hour', start_time), {", ".join(HourKey._fields[2:])}
"""  # noqa: S608 columns of ours
_HOURS = f"""
    SELECT {", ".join(HourKey._fields)}, {", ".join(FIGURES)}
      FROM ledger.usage_hour WHERE {_HOUR_IS_WHOLE} AND {{own}}
"""  # noqa: S608 columns of ours
_DAY_FIGURES_KEY = (HourKey._fields[0], "day", *HourKey._fields[2:])
_DAYS_OF_HOURS = f"""
    SELECT organization_id, {_DAY_OF_HOUR} AS day, {", ".join(HourKey._fields[2:])},
           {", ".join(f"sum({name}) AS {name}" for name in FIGURES)}
      FROM ledger.usage_hour WHERE {{own}}
     GROUP BY organization_id, {_DAY_OF_HOUR}, {", ".join(HourKey._fields[2:])}
"""  # noqa: S608 columns of ours
_DAY_FIGURES = f"SELECT {', '.join(_DAY_FIGURES_KEY)}, {', '.join(FIGURES)} FROM ledger.usage_day WHERE {{own}}"  # noqa: S608
_MONEY_OF_LINES = f"""
    SELECT organization_id, request_day AS day, provider, model, funding, each_line.line, each_line.charged,
           CASE WHEN each_line.line = {int(Line.DATA_STORAGE)} THEN {NO_PRICE_VERSION}
                ELSE COALESCE(price_version_id, {NO_PRICE_VERSION}) END AS price_version_id,
           each_line.discount, count(*) AS line_count, sum(each_line.quantity) AS quantity,
           sum(each_line.list_cost_pico) AS list_cost_pico, sum(each_line.cost_pico) AS cost_pico
      FROM ledger.usage_record
     CROSS JOIN LATERAL unnest(
           line, line_quantity, line_discount, line_cost_pico, line_list_cost_pico, line_charged
           ) AS each_line (line, quantity, discount, cost_pico, list_cost_pico, charged)
     WHERE {_RECORD_IS_WHOLE} AND {{own}}
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
"""  # noqa: S608 columns of ours
_MONEY = f"""
    SELECT {", ".join(MoneyKey._fields)}, {", ".join(MONEY)}
      FROM ledger.money_day WHERE {_MONEY_IS_WHOLE} AND {{own}}
"""  # noqa: S608 columns of ours

_POSTINGS = """
    SELECT organization_id, account, sum(amount) AS amount_pico
      FROM ledger.journal_entry, unnest(accounts, amounts) AS posting (account, amount)
     WHERE {own} GROUP BY organization_id, account
"""
_BALANCES = "SELECT organization_id, account, amount_pico FROM ledger.balance WHERE {own}"
_CHARGE_KINDS = ", ".join(str(int(kind)) for kind in CHARGES)
_CHARGED_LINES = """
    SELECT organization_id, sum(list_cost_pico) AS revenue_pico, sum(cost_pico - list_cost_pico) AS discount_pico
      FROM ledger.money_day WHERE charged AND {own} GROUP BY organization_id
"""
_CHARGES = f"""
    SELECT organization_id,
           COALESCE(sum(amount) FILTER (WHERE account = {int(Account.REVENUE)}), 0) AS revenue_pico,
           COALESCE(sum(amount) FILTER (WHERE account = {int(Account.DISCOUNT)}), 0) AS discount_pico
      FROM ledger.journal_entry, unnest(accounts, amounts) AS posting (account, amount)
     WHERE kind IN ({_CHARGE_KINDS}) AND {{own}} GROUP BY organization_id
"""  # noqa: S608 numbers of ours
_OWN_ACCOUNTS = ", ".join(str(int(account)) for account in OWN)
# In order: what comes before each entry, and what each adds.
_JOURNAL = f"""
    SELECT organization_id, sequence, create_time, balance_pico, total_pico,
           lag(sequence, 1, 0::bigint) OVER journal AS sequence_before,
           lag(create_time) OVER journal AS time_before,
           sum(own_pico) OVER journal AS running_pico
      FROM (
           SELECT organization_id, sequence, create_time, balance_pico, ledger.sum_of(amounts) AS total_pico,
                  (SELECT COALESCE(sum(amount), 0) FROM unnest(accounts, amounts) AS posting (account, amount)
                    WHERE account IN ({_OWN_ACCOUNTS})) AS own_pico
             FROM ledger.journal_entry WHERE {{own}}
           ) AS entry
    WINDOW journal AS (PARTITION BY organization_id ORDER BY sequence)
"""  # noqa: S608 numbers of ours
_ENTRIES = f"""
    SELECT organization_id, 'entry ' || sequence AS place, figure, pair.expected, pair.found
      FROM ({_JOURNAL}) AS entry
     CROSS JOIN LATERAL (VALUES
           ('sequence', (sequence_before + 1)::text, sequence::text),
           ('sum_of_postings', '0', trim_scale(total_pico)::text),
           ('balance_pico', running_pico::text, balance_pico::text),
           ('create_time', GREATEST(time_before, create_time)::text, create_time::text)
           ) AS pair (figure, expected, found)
     WHERE pair.expected <> pair.found
"""  # noqa: S608 columns of ours
_LAST_ENTRIES = """
    SELECT organization_id, 'book' AS place, 'sequence' AS figure, last.sequence::text AS expected,
           book.sequence::text AS found
      FROM (SELECT organization_id, sequence FROM ledger.book WHERE {own}) AS book
      FULL JOIN (SELECT organization_id, max(sequence) AS sequence FROM ledger.journal_entry WHERE {own}
                  GROUP BY organization_id) AS last USING (organization_id)
     WHERE last.sequence IS DISTINCT FROM book.sequence
"""


def _of_entries(kinds: str, accounts: str, sign: int) -> str:
    return f"""
        SELECT organization_id, sequence, {sign} * sum(amount) AS amount_pico
          FROM ledger.journal_entry, unnest(accounts, amounts) AS posting (account, amount)
         WHERE kind IN ({kinds}) AND account IN ({accounts}) AND {{own}}
         GROUP BY organization_id, sequence
    """  # noqa: S608 numbers of ours


_GRANT_ENTRIES = _of_entries(
    f"{int(EntryKind.GRANT)}, {int(EntryKind.CORRECTION)}",
    f"{int(Account.PAYMENT)}, {int(Account.PROMOTION)}, {int(Account.ADJUSTMENT)}",
    -1,
)
_REFUND_ENTRIES = f"""
    SELECT organization_id, sequence, abs(amount_pico) AS amount_pico
      FROM ({
    _of_entries(
        f"{int(EntryKind.REFUND)}, {int(EntryKind.CORRECTION)}", f"{int(Account.PAYMENT)}, {int(Account.ADJUSTMENT)}", 1
    )
}) AS entry
"""  # noqa: S608 columns of ours
_GRANTS = "SELECT organization_id, sequence, amount_pico FROM ledger.credit_grant WHERE {own}"
_REFUNDS = "SELECT organization_id, sequence, amount_pico FROM ledger.credit_refund WHERE {own}"
# What remained when credits were last settled covers the balance: since then it can only have been spent.
_CREDIT = f"""
    SELECT organization_id, 'account ' || account AS place, 'amount_pico' AS figure,
           'at most ' || COALESCE(remaining_pico, 0) AS expected, amount_pico::text AS found
      FROM (SELECT organization_id, account, amount_pico FROM ledger.balance
             WHERE account IN ({int(Account.PREPAID)}, {int(Account.PROMOTIONAL)}) AND {{own}}) AS balance
      LEFT JOIN (SELECT organization_id, kind AS account, sum(remaining_pico) AS remaining_pico
                   FROM ledger.credit_grant WHERE {{own}} GROUP BY organization_id, kind) AS remaining
           USING (organization_id, account)
     WHERE amount_pico > COALESCE(remaining_pico, 0) OR amount_pico < 0
"""  # noqa: S608 numbers of ours

_DAY = ("organization_id", "day")
_HOUR_PLACE = "concat_ws(' ', hour, project_id, api_key_id, provider, model, funding, workflow)"
_MONEY_PLACE = (
    "concat_ws(' ', day, provider, model, 'funding', funding, 'line', line, 'charged', charged, 'version', "
    "price_version_id, 'discount', discount)"
)
CHECKS = {
    "lines_are_exact": _LINES,
    "records_are_their_lines": _RECORDS,
    "days_are_their_records": _held_against(
        _with_expired(_DETAIL_DAYS, Kept.DETAIL), _RECORDED_DAYS, _DAY, "day::text", RECORDS
    ),
    "days_are_their_hours": _held_against(
        _with_expired(_HOUR_DAYS, Kept.HOURS), _RECORDED_DAYS, _DAY, "day::text", RECORDS
    ),
    "days_are_their_money": _held_against(
        _MONEY_DAYS, _RECORDED_DAYS, _DAY, "day::text", ("cost_pico", "saved_pico", "charged_pico")
    ),
    "hours_are_their_records": _held_against(_HOURS_OF_RECORDS, _HOURS, HourKey._fields, _HOUR_PLACE, FIGURES),
    "day_figures_are_their_hours": _held_against(
        _DAYS_OF_HOURS, _DAY_FIGURES, _DAY_FIGURES_KEY, _HOUR_PLACE.replace("hour", "day"), FIGURES
    ),
    "money_is_its_lines": _held_against(_MONEY_OF_LINES, _MONEY, MoneyKey._fields, _MONEY_PLACE, MONEY),
    "charges_are_booked": _held_against(
        _CHARGED_LINES, _CHARGES, ("organization_id",), "'journal'", ("revenue_pico", "discount_pico")
    ),
    "balances_are_their_postings": _held_against(
        _POSTINGS, _BALANCES, ("organization_id", "account"), "'account ' || account", ("amount_pico",)
    ),
    "entries_follow_each_other": _ENTRIES,
    "the_last_entry_is_known": _LAST_ENTRIES,
    "grants_are_booked": _held_against(
        _GRANT_ENTRIES, _GRANTS, ("organization_id", "sequence"), "'entry ' || sequence", ("amount_pico",)
    ),
    "refunds_are_booked": _held_against(
        _REFUND_ENTRIES, _REFUNDS, ("organization_id", "sequence"), "'entry ' || sequence", ("amount_pico",)
    ),
    "credit_was_granted": _CREDIT,
}
_COUNTS = """
    SELECT (SELECT count(*) FROM (SELECT organization_id FROM ledger.book WHERE {own}
                                   UNION SELECT organization_id FROM ledger.record_day WHERE {own}) AS known),
           records.record_count, records.line_count,
           (SELECT count(*) FROM ledger.usage_hour WHERE {own}),
           (SELECT count(*) FROM ledger.money_day WHERE {own}),
           (SELECT count(*) FROM ledger.journal_entry WHERE {own})
      FROM (SELECT count(*) AS record_count, COALESCE(sum(cardinality(line)), 0) AS line_count
              FROM ledger.usage_record WHERE {own}) AS records
"""


class Verification:
    """Of one organization, or of all. Lives as long as its snapshot."""

    def __init__(self, connection: AsyncConnection, organization_id: UUID | None) -> None:
        self._connection = connection
        self._organization_id = organization_id

    async def give_time(self, seconds: int) -> None:
        """Lets each statement take so long."""
        await self._connection.execute(text(f"SET LOCAL statement_timeout = '{seconds}s'"))

    async def differences(self) -> AsyncIterator[Difference]:
        """Check by check, at most `DIFFERENCES_MAX` and one more of each."""
        for name, query in CHECKS.items():
            for row in await self._rows(f"{query} LIMIT {DIFFERENCES_MAX + 1}"):
                yield Difference(name, *row)

    async def counts(self) -> Counts:
        (row,) = await self._rows(_COUNTS)
        return Counts(*map(int, row))

    async def _rows(self, query: str) -> list[Any]:
        own = "TRUE" if self._organization_id is None else "organization_id = :organization_id"
        values = {} if self._organization_id is None else {"organization_id": self._organization_id}
        return list((await self._connection.execute(text(query.replace("{own}", own)), values)).all())

"""The schema holds to the rules that let it run on one machine or sharded by organization, and keep tenants apart.

Each rule is a query that names what breaks it; beside it stands a schema that does, so that no rule is blind.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import psycopg
import pytest

from services.ledger.storage.tables import TABLES, Kind
from tests.conftest import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    says: str
    # Names what breaks the rule. %(tenant)s and %(listed)s are names of tables: those of this kind, and all.
    query: str
    broken_by: str
    # Kinds of the tables that `broken_by` makes, all tenant tables unless said.
    kinds: Mapping[str, Kind] = field(default_factory=dict)


# Tables and partitioned tables of ours, without the partitions.
OURS = """(
    SELECT * FROM pg_class WHERE relnamespace = 'ledger'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
)"""

RULES = [
    Rule(
        says="every table is listed with its kind",
        query=f"SELECT relname FROM {OURS} t WHERE relname <> ALL (%(listed)s)",
        broken_by="CREATE TABLE ledger.unlisted (organization_id UUID PRIMARY KEY)",
    ),
    Rule(
        says="no table is listed that does not exist",
        query=f"SELECT name FROM unnest(%(listed)s::text[]) name WHERE name NOT IN (SELECT relname FROM {OURS} t)",
        broken_by="SELECT",
        kinds={"imagined": Kind.SERVICE},
    ),
    Rule(
        says="every table has a primary key",
        query=f"""
            SELECT relname FROM {OURS} t
             WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = t.oid AND contype = 'p')
        """,
        broken_by="CREATE TABLE ledger.bad (organization_id UUID NOT NULL)",
    ),
    Rule(
        says="a tenant table has an organization_id of type uuid that is never null",
        query=f"""
            SELECT relname FROM {OURS} t
             WHERE relname = ANY (%(tenant)s)
               AND NOT EXISTS (SELECT FROM pg_attribute
                                WHERE attrelid = t.oid AND attname = 'organization_id'
                                  AND attnotnull AND atttypid = 'uuid'::regtype)
        """,
        broken_by="CREATE TABLE ledger.bad (organization_id TEXT PRIMARY KEY)",
    ),
    Rule(
        says="organization_id has one type wherever it is",
        query=f"""
            SELECT relname FROM {OURS} t JOIN pg_attribute ON attrelid = t.oid
             WHERE attname = 'organization_id' AND atttypid <> 'uuid'::regtype
        """,
        broken_by="CREATE TABLE ledger.bad (id INT PRIMARY KEY, organization_id TEXT)",
        kinds={"bad": Kind.SHARED},
    ),
    Rule(
        says="organization_id is in every primary key, unique constraint and unique index of a tenant table",
        query=f"""
            SELECT i.indexrelid::regclass::text FROM {OURS} t JOIN pg_index i ON i.indrelid = t.oid
             WHERE relname = ANY (%(tenant)s) AND (i.indisunique OR i.indisexclusion)
               AND NOT EXISTS (SELECT FROM pg_attribute
                                WHERE attrelid = t.oid AND attname = 'organization_id'
                                  AND attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
        """,
        broken_by="CREATE TABLE ledger.bad (organization_id UUID PRIMARY KEY, request_id UUID UNIQUE)",
    ),
    Rule(
        says="organization_id is in every foreign key of a tenant table",
        query=f"""
            SELECT conname FROM {OURS} t JOIN pg_constraint ON conrelid = t.oid AND contype = 'f'
             WHERE relname = ANY (%(tenant)s)
               AND NOT EXISTS (SELECT FROM pg_attribute
                                WHERE attrelid = t.oid AND attname = 'organization_id' AND attnum = ANY (conkey))
        """,
        broken_by="""
            CREATE TABLE ledger.bad (
                organization_id UUID PRIMARY KEY, key_hash BYTEA NOT NULL REFERENCES ledger.api_key
            )
        """,
    ),
    Rule(
        says="a foreign key between tenant tables joins organization_id to organization_id",
        query=f"""
            SELECT conname FROM {OURS} t JOIN pg_constraint c ON conrelid = t.oid AND contype = 'f'
              JOIN pg_class target ON target.oid = confrelid
             WHERE t.relname = ANY (%(tenant)s) AND target.relname = ANY (%(tenant)s)
               AND NOT EXISTS (SELECT FROM unnest(conkey, confkey) AS pair (near, far)
                                 JOIN pg_attribute n ON n.attrelid = conrelid AND n.attnum = near
                                 JOIN pg_attribute f ON f.attrelid = confrelid AND f.attnum = far
                                WHERE n.attname = 'organization_id' AND f.attname = 'organization_id')
        """,
        broken_by="""
            CREATE TABLE ledger.bad (
                organization_id UUID PRIMARY KEY, parent UUID NOT NULL REFERENCES ledger.organization
            )
        """,
    ),
    Rule(
        says="no foreign key leads from a shared or service table to a tenant table",
        query=f"""
            SELECT conname FROM {OURS} t JOIN pg_constraint ON conrelid = t.oid AND contype = 'f'
              JOIN pg_class target ON target.oid = confrelid
             WHERE t.relname <> ALL (%(tenant)s) AND target.relname = ANY (%(tenant)s)
        """,
        broken_by="CREATE TABLE ledger.bad (organization_id UUID PRIMARY KEY REFERENCES ledger.organization)",
        kinds={"bad": Kind.SHARED},
    ),
    Rule(
        says="no foreign key sets to null what it referred to",
        query="SELECT conname FROM pg_constraint WHERE contype = 'f' AND (confdeltype = 'n' OR confupdtype = 'n')",
        broken_by="""
            CREATE TABLE ledger.bad (
                organization_id UUID PRIMARY KEY REFERENCES ledger.organization ON DELETE SET NULL
            )
        """,
    ),
    Rule(
        says="no foreign key points into partitioned tables",
        query="""
            SELECT conname FROM pg_constraint JOIN pg_class target ON target.oid = confrelid
             WHERE contype = 'f' AND (target.relkind = 'p' OR target.relispartition)
        """,
        broken_by="""
            CREATE TABLE ledger.detail (organization_id UUID PRIMARY KEY) PARTITION BY RANGE (organization_id);
            CREATE TABLE ledger.bad (organization_id UUID PRIMARY KEY REFERENCES ledger.detail);
        """,
    ),
    Rule(
        says="partitions have one level",
        query="SELECT relname FROM pg_class WHERE relkind = 'p' AND relispartition",
        broken_by="""
            CREATE TABLE ledger.detail (organization_id UUID PRIMARY KEY) PARTITION BY RANGE (organization_id);
            CREATE TABLE ledger.bad PARTITION OF ledger.detail DEFAULT PARTITION BY RANGE (organization_id);
        """,
    ),
    Rule(
        says="there are no triggers",
        query="SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
        broken_by="""
            CREATE TRIGGER bad BEFORE UPDATE ON ledger.organization
               FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()
        """,
    ),
    Rule(
        says="there are no rules",
        query=f"SELECT rulename FROM pg_rewrite JOIN {OURS} t ON ev_class = t.oid",
        broken_by="CREATE RULE bad AS ON DELETE TO ledger.organization DO INSTEAD NOTHING",
    ),
    Rule(
        says="no constraint is deferrable",
        query="SELECT conname FROM pg_constraint WHERE condeferrable",
        broken_by="CREATE TABLE ledger.bad (organization_id UUID PRIMARY KEY DEFERRABLE)",
    ),
    Rule(
        says="identity columns and sequences are bigint",
        query="""
            SELECT seqrelid::regclass::text FROM pg_sequence WHERE seqtypid <> 'bigint'::regtype
             UNION ALL
            SELECT attrelid::regclass::text FROM pg_attribute
             WHERE attidentity <> '' AND atttypid <> 'bigint'::regtype
        """,
        broken_by="CREATE TABLE ledger.bad (organization_id UUID PRIMARY KEY, n INT GENERATED ALWAYS AS IDENTITY)",
    ),
    Rule(
        says="every time has a time zone, and no money is a float",
        query=f"""
            SELECT relname || '.' || attname FROM {OURS} t JOIN pg_attribute ON attrelid = t.oid
             WHERE attnum > 0
               AND (atttypid IN ('timestamp'::regtype, 'money'::regtype)
                    OR attname ~ '(_pico|_price|_cost)$' AND atttypid IN ('float4'::regtype, 'float8'::regtype))
        """,
        broken_by="CREATE TABLE ledger.bad (organization_id UUID PRIMARY KEY, cost_pico FLOAT8)",
    ),
    Rule(
        says="every tenant table has row-level security",
        query=f"SELECT relname FROM {OURS} t WHERE relname = ANY (%(tenant)s) AND NOT relrowsecurity",
        broken_by="CREATE TABLE ledger.bad (organization_id UUID PRIMARY KEY)",
    ),
    Rule(
        says="only the operator role and the ledger see the rows of every organization",
        query="""
            SELECT polrelid::regclass::text FROM pg_policy
             WHERE pg_get_expr(polqual, polrelid) = 'true'
               AND NOT polroles <@ ARRAY['tollgate_ledger'::regrole::oid, 'tollgate_reporting_operator'::regrole::oid]
        """,
        broken_by="CREATE POLICY bad ON ledger.project TO tollgate_reporting USING (true)",
    ),
    Rule(
        says="readers may read tenant tables only through a policy, and never a partition by its own name",
        query="""
            SELECT relname FROM pg_class t, unnest(ARRAY['tollgate_reporting', 'tollgate_reporting_operator']) reader
             WHERE relnamespace = 'ledger'::regnamespace AND relkind IN ('r', 'p')
               AND has_any_column_privilege(reader, t.oid, 'SELECT')
               AND (relispartition OR relname = ANY (%(tenant)s)
                    AND NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = t.oid AND reader::regrole = ANY (polroles)))
        """,
        broken_by="GRANT SELECT ON ledger.provider_key TO tollgate_reporting",
    ),
    Rule(
        says="readers may do nothing but read",
        query="""
            SELECT relname FROM pg_class t, unnest(ARRAY['tollgate_reporting', 'tollgate_reporting_operator']) reader
             WHERE relnamespace IN ('ledger'::regnamespace, 'reporting'::regnamespace) AND relkind IN ('r', 'p', 'v')
               AND (has_table_privilege(reader, t.oid, 'DELETE, TRUNCATE, TRIGGER')
                    OR has_any_column_privilege(reader, t.oid, 'INSERT, UPDATE, REFERENCES'))
        """,
        broken_by="GRANT UPDATE (display_name) ON ledger.organization TO tollgate_reporting",
    ),
    Rule(
        says="views show what their reader may see",
        query="""
            SELECT relname FROM pg_class
             WHERE relnamespace = 'reporting'::regnamespace AND relkind IN ('v', 'm')
               AND NOT COALESCE(reloptions @> ARRAY['security_invoker=true'], false)
        """,
        broken_by="CREATE VIEW reporting.bad AS SELECT organization_id FROM ledger.organization",
    ),
    Rule(
        says="the schema reporting holds nothing but views",
        query="SELECT relname FROM pg_class WHERE relnamespace = 'reporting'::regnamespace AND relkind <> 'v'",
        broken_by="CREATE TABLE reporting.bad (organization_id UUID)",
    ),
]


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection]:
    """What a test does to the schema is undone."""
    with psycopg.connect(database.admin_url) as opened:
        yield opened
        opened.rollback()


def offenders(connection: psycopg.Connection, rule: Rule, tables: Mapping[str, Kind]) -> list[str]:
    names = {
        "tenant": [name for name, kind in tables.items() if kind is Kind.TENANT],
        "listed": list(tables),
    }
    rows = connection.execute(rule.query.encode(), names).fetchall()
    return sorted(row[0] for row in rows)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.says)
def test_the_schema_holds_that(rule: Rule, connection: psycopg.Connection) -> None:
    assert offenders(connection, rule, TABLES) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.says)
def test_the_lint_notices_when_it_does_not_hold_that(rule: Rule, connection: psycopg.Connection) -> None:
    connection.execute(rule.broken_by.encode())
    made = {"bad": Kind.TENANT, "detail": Kind.TENANT}

    assert offenders(connection, rule, {**TABLES, **made, **rule.kinds}) != []

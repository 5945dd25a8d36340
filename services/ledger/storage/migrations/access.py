"""Who may do what with a new table. Every migration that makes a table or a view ends with one of these.

Migrations that have shipped call these functions too, so they may grow new ones but must not change what they grant.

    from services.ledger.storage.migrations.access import protect_tenant_table, publish_view

    def upgrade() -> None:
        op.execute("CREATE TABLE ledger.usage_hour (…)")
        protect_tenant_table(op, "usage_hour")
        publish_view(op, "usage_hour", "SELECT organization_id, … FROM ledger.usage_hour")
"""

from types import ModuleType

# The operations of Alembic, as `from alembic import op` gives them: a module that stands for the running migration.
Operations = ModuleType

LEDGER = "tollgate_ledger"
REPORTING = "tollgate_reporting"
REPORTING_OPERATOR = "tollgate_reporting_operator"

# Without the variable, or with it emptied, no row is seen.
OWN_ORGANIZATION = "organization_id = NULLIF(current_setting('tollgate.organization_id', true), '')::uuid"


def protect_tenant_table(
    op: Operations, table: str, *, append_only: bool = False, reported: bool = True, owned_by_ledger: bool = False
) -> None:
    """Row-level security for the tenant table `ledger.<table>`, and grants on it.

    The ledger sees every row. Where `reported`, reporting sees the rows of the organization it has set, and its
    operator role all rows. `append_only` leaves the ledger SELECT and INSERT. `owned_by_ledger` is for partitioned
    tables, so that the ledger may create partitions; readers have no rights on a partition by its own name.
    """
    name = f"ledger.{table}"
    op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY ledger ON {name} TO {LEDGER} USING (true) WITH CHECK (true)")
    _grant_to_ledger(op, name, append_only=append_only)
    if reported:
        op.execute(f"CREATE POLICY reporting ON {name} FOR SELECT TO {REPORTING} USING ({OWN_ORGANIZATION})")
        op.execute(f"CREATE POLICY reporting_operator ON {name} FOR SELECT TO {REPORTING_OPERATOR} USING (true)")
        op.execute(f"GRANT SELECT ON {name} TO {REPORTING}, {REPORTING_OPERATOR}")
    if owned_by_ledger:
        if append_only:
            raise ValueError(f"{name} cannot be append-only for the role that owns it")
        op.execute(f"ALTER TABLE {name} OWNER TO {LEDGER}")


def open_table(op: Operations, table: str, *, append_only: bool = False, reported: bool = False) -> None:
    """Grants on the shared or service table `ledger.<table>`. Whoever may read it sees all of it."""
    name = f"ledger.{table}"
    _grant_to_ledger(op, name, append_only=append_only)
    if reported:
        op.execute(f"GRANT SELECT ON {name} TO {REPORTING}, {REPORTING_OPERATOR}")


def publish_view(op: Operations, view: str, select: str) -> None:
    """Creates `reporting.<view>`, which shows its reader what they may see of the tables beneath.

    Columns are listed, never `*`.
    """
    name = f"reporting.{view}"
    op.execute(f"CREATE VIEW {name} WITH (security_invoker = true) AS {select}")
    op.execute(f"GRANT SELECT ON {name} TO {LEDGER}, {REPORTING}, {REPORTING_OPERATOR}")


def extend_view(op: Operations, view: str, select: str) -> None:
    """Gives `reporting.<view>` more columns, after those that it has."""
    op.execute(f"CREATE OR REPLACE VIEW reporting.{view} WITH (security_invoker = true) AS {select}")


def _grant_to_ledger(op: Operations, name: str, *, append_only: bool) -> None:
    rights = "SELECT, INSERT" if append_only else "SELECT, INSERT, UPDATE, DELETE"
    op.execute(f"GRANT {rights} ON {name} TO {LEDGER}")

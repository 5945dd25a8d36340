"""Organizations, projects and keys, and the roles that may see them.

Everything else in the schema belongs to an organization, so this comes first.
"""

from alembic import op

from services.ledger.storage.migrations.access import open_table, protect_tenant_table, publish_view

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_roles()
    _create_organization()
    _create_project()
    _create_api_key()
    _create_provider_key()
    _create_audit_logs()


def _create_roles() -> None:
    # Roles belong to the whole cluster: another database may have made them, or be making them right now, and an
    # administrator may have made them beforehand with passwords. Passwords are theirs to set, never ours.
    for role, options in (
        ("tollgate_ledger", "LOGIN"),
        ("tollgate_reporting", "LOGIN NOINHERIT"),
        ("tollgate_reporting_operator", "NOLOGIN"),
    ):
        op.execute(f"""
            DO $$
            BEGIN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
                    CREATE ROLE {role} {options};
                END IF;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another database's migration was quicker
            END
            $$
        """)
    op.execute("""
        DO $$
        BEGIN
            IF NOT pg_has_role('tollgate_reporting', 'tollgate_reporting_operator', 'MEMBER') THEN
                GRANT tollgate_reporting_operator TO tollgate_reporting;
            END IF;
        EXCEPTION WHEN unique_violation OR internal_error THEN
            NULL;  -- another database's migration was quicker
        END
        $$
    """)
    # Were the membership inherited, the policy that shows operators all rows would hold for every reader.
    op.execute("""
        DO $$
        BEGIN
            IF pg_has_role('tollgate_reporting', 'tollgate_reporting_operator', 'USAGE') THEN
                RAISE EXCEPTION 'tollgate_reporting must be NOINHERIT; drop the role, or make its membership of '
                    'tollgate_reporting_operator one without INHERIT';
            END IF;
        END
        $$
    """)
    # An administrator who is no superuser may hand tables only to a role of which they are a member.
    op.execute("""
        DO $$
        BEGIN
            IF NOT pg_has_role('tollgate_ledger', 'MEMBER') THEN
                EXECUTE format('GRANT tollgate_ledger TO %I', current_user);
            END IF;
        EXCEPTION WHEN unique_violation OR internal_error THEN
            NULL;
        END
        $$
    """)
    op.execute("CREATE SCHEMA IF NOT EXISTS reporting")
    # The ledger creates partitions of the tables it owns.
    op.execute("GRANT USAGE, CREATE ON SCHEMA ledger TO tollgate_ledger")
    op.execute("GRANT USAGE ON SCHEMA ledger TO tollgate_reporting, tollgate_reporting_operator")
    op.execute("GRANT USAGE ON SCHEMA reporting TO tollgate_ledger, tollgate_reporting, tollgate_reporting_operator")


def _create_organization() -> None:
    op.execute("""
        -- A customer. The root of everything that is split by organization.
        CREATE TABLE ledger.organization (
            organization_id  UUID PRIMARY KEY,
            display_name     TEXT NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 128),
            -- tollgate.ledger.v1.Plan
            plan             SMALLINT NOT NULL CHECK (plan BETWEEN 1 AND 3),
            -- Beside the plan, because an Enterprise customer's is agreed on.
            retention_days   INTEGER NOT NULL CHECK (retention_days BETWEEN 1 AND 365),
            payload_retained BOOLEAN NOT NULL,
            create_time      TIMESTAMPTZ NOT NULL
        )
    """)
    protect_tenant_table(op, "organization")
    publish_view(
        op,
        "organization",
        "SELECT organization_id, display_name, plan, retention_days, payload_retained FROM ledger.organization",
    )


def _create_project() -> None:
    op.execute("""
        -- A part of an organization that calls models and is billed apart.
        CREATE TABLE ledger.project (
            organization_id UUID NOT NULL REFERENCES ledger.organization,
            project_id      TEXT NOT NULL CHECK (project_id ~ '^[A-Za-z0-9._:-]{1,64}$'),
            -- tollgate.ledger.v1.ProjectMode
            mode            SMALLINT NOT NULL CHECK (mode BETWEEN 1 AND 3),
            create_time     TIMESTAMPTZ NOT NULL,
            PRIMARY KEY (organization_id, project_id)
        )
    """)
    protect_tenant_table(op, "project")
    publish_view(op, "project", "SELECT organization_id, project_id, mode, create_time FROM ledger.project")


def _create_api_key() -> None:
    op.execute("""
        -- Every key there is, by hash, on every node: it is looked up before the organization is known. For the same
        -- reason nothing here refers to tenant tables.
        CREATE TABLE ledger.api_key (
            key_hash        BYTEA PRIMARY KEY CHECK (octet_length(key_hash) = 32),
            api_key_id      UUID NOT NULL UNIQUE,
            -- tollgate.access.v1.Scope: 2 operator, 3 organization, 4 project. Services have no keys.
            scope           SMALLINT NOT NULL CHECK (scope BETWEEN 2 AND 4),
            organization_id UUID,
            project_id      TEXT,
            read_only       BOOLEAN NOT NULL,
            display_name    TEXT NOT NULL CHECK (char_length(display_name) <= 128),
            create_time     TIMESTAMPTZ NOT NULL,
            expire_time     TIMESTAMPTZ CHECK (expire_time > create_time),
            revoke_time     TIMESTAMPTZ CHECK (revoke_time >= create_time),

            -- A key can never reach further than its scope says.
            CONSTRAINT api_key_organization_by_scope CHECK ((scope = 2) = (organization_id IS NULL)),
            CONSTRAINT api_key_project_by_scope CHECK ((scope = 4) = (project_id IS NOT NULL))
        )
    """)
    op.execute("CREATE INDEX api_key_by_organization ON ledger.api_key (organization_id, create_time)")
    open_table(op, "api_key", append_only=True, reported=True)
    # What a key may do is settled when it is made; afterwards it can only end.
    op.execute("GRANT UPDATE (revoke_time) ON ledger.api_key TO tollgate_ledger")
    publish_view(
        op,
        "api_key",
        """
        SELECT key_hash, api_key_id, scope, organization_id, project_id, read_only, expire_time, revoke_time
          FROM ledger.api_key
        """,
    )


def _create_provider_key() -> None:
    op.execute("""
        -- An organization's own keys for providers, sealed so that only the router can open them.
        CREATE TABLE ledger.provider_key (
            organization_id UUID NOT NULL REFERENCES ledger.organization,
            provider        TEXT NOT NULL CHECK (provider ~ '^[A-Za-z0-9._:-]{1,64}$'),
            sealed_secret   BYTEA NOT NULL,
            update_time     TIMESTAMPTZ NOT NULL,
            PRIMARY KEY (organization_id, provider)
        )
    """)
    protect_tenant_table(op, "provider_key", reported=False)


def _create_audit_logs() -> None:
    # What an operator does to an organization is in that organization's log. What belongs to no organization, which is
    # the making and ending of operator keys, has a log of its own: a tenant table has no row without an organization.
    columns = """
            audit_id         UUID NOT NULL,
            create_time      TIMESTAMPTZ NOT NULL,
            -- tollgate.access.v1.Scope of whoever did it.
            actor_scope      SMALLINT NOT NULL CHECK (actor_scope BETWEEN 1 AND 4),
            -- NULL when one of our services did it, as at a start.
            actor_api_key_id UUID,
            action           TEXT NOT NULL CHECK (action ~ '^[a-z_]+[.][a-z_]+$'),
            -- What it was done to, by id.
            subject          TEXT NOT NULL,
            -- The values set, never a secret.
            details          JSONB NOT NULL,
    """
    op.execute(f"""
        -- Who changed what of an organization, and when. Only ever added to.
        CREATE TABLE ledger.audit_log (
            organization_id  UUID NOT NULL,
            {columns}
            PRIMARY KEY (organization_id, audit_id)
        )
    """)
    op.execute(f"""
        -- The same for what belongs to no organization.
        CREATE TABLE ledger.operator_audit_log (
            {columns}
            PRIMARY KEY (audit_id)
        )
    """)
    protect_tenant_table(op, "audit_log", append_only=True, reported=False)
    open_table(op, "operator_audit_log", append_only=True)


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")

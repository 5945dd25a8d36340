"""Alert rules, each change of their state, and what of that is still to be delivered.

An alert and its delivery are written in the transaction that changes the state, so neither is lost nor made up. Windows
begin and end within hours: the calls at their edges are found by when they started.
"""

from alembic import op

from services.ledger.storage.migrations.access import LEDGER, protect_tenant_table

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TERMS = """
    -- services.ledger.alerts.alert_rules.AlertMetric; the threshold is in its unit.
    metric            SMALLINT NOT NULL CHECK (metric BETWEEN 1 AND 5),
    percentile        SMALLINT CHECK (percentile BETWEEN 1 AND 99),
    -- services.ledger.alerts.alert_states.AlertComparison
    comparison        SMALLINT NOT NULL CHECK (comparison IN (1, 2)),
    threshold         NUMERIC(27,12) NOT NULL CHECK (threshold >= 0),
    window_minutes    INTEGER NOT NULL CHECK (window_minutes > 0),
    request_count_min INTEGER NOT NULL CHECK (request_count_min >= 0),
    CHECK ((metric = 2) = (percentile IS NOT NULL))
"""


def upgrade() -> None:
    _create_alert_rule()
    _create_alert()
    _create_alert_delivery()
    op.execute("CREATE INDEX usage_record_by_start ON ledger.usage_record (organization_id, start_time)")


def _create_alert_rule() -> None:
    op.execute(f"""
        -- A condition on figures, and how it stands. Evaluated by whichever ledger locks the row first once it is due.
        CREATE TABLE ledger.alert_rule (
            organization_id       UUID NOT NULL REFERENCES ledger.organization,
            -- UUIDv7
            alert_rule_id         UUID NOT NULL,
            -- NULL for the calls of the whole organization.
            project_id            TEXT,
            display_name          TEXT NOT NULL,
            paused                BOOLEAN NOT NULL,
            webhook_url           TEXT,
            -- What deliveries are signed with: services.ledger.alerts.webhook_secrets
            sealed_webhook_secret BYTEA,
            create_time           TIMESTAMPTZ NOT NULL,
            update_time           TIMESTAMPTZ NOT NULL,
            -- services.ledger.alerts.alert_states.AlertState
            state                 SMALLINT NOT NULL CHECK (state IN (1, 2, 3)),
            state_time            TIMESTAMPTZ NOT NULL,
            -- NULL where nothing was measured.
            value                 NUMERIC(50,12),
            evaluate_time         TIMESTAMPTZ,
            -- Empty when the last evaluation did not fail.
            evaluation_error      TEXT NOT NULL,
            due_time              TIMESTAMPTZ NOT NULL,
            {_TERMS},
            PRIMARY KEY (organization_id, alert_rule_id),
            CHECK ((webhook_url IS NULL) = (sealed_webhook_secret IS NULL)),
            FOREIGN KEY (organization_id, project_id) REFERENCES ledger.project
        ) WITH (fillfactor = 50)
    """)
    protect_tenant_table(op, "alert_rule", reported=False)
    op.execute("CREATE INDEX alert_rule_due ON ledger.alert_rule (due_time) WHERE NOT paused")
    op.execute("CREATE INDEX alert_rule_newest ON ledger.alert_rule (alert_rule_id)")


def _create_alert() -> None:
    op.execute(f"""
        -- One change of a rule's state, with the rule as it was. Never changed; deleted when nobody sees it any more.
        CREATE TABLE ledger.alert (
            organization_id   UUID NOT NULL,
            -- UUIDv7
            alert_id          UUID NOT NULL,
            -- May be deleted.
            alert_rule_id     UUID NOT NULL,
            project_id        TEXT,
            display_name      TEXT NOT NULL,
            state             SMALLINT NOT NULL CHECK (state IN (2, 3)),
            value             NUMERIC(50,12) NOT NULL,
            request_count     BIGINT NOT NULL CHECK (request_count >= 0),
            window_start_time TIMESTAMPTZ NOT NULL,
            window_end_time   TIMESTAMPTZ NOT NULL,
            create_time       TIMESTAMPTZ NOT NULL,
            {_TERMS},
            PRIMARY KEY (organization_id, alert_id)
        )
    """)
    protect_tenant_table(op, "alert", append_only=True, reported=False)
    op.execute(f"GRANT DELETE ON ledger.alert TO {LEDGER}")
    op.execute("CREATE INDEX alert_newest ON ledger.alert (alert_id)")
    op.execute("CREATE INDEX alert_of_rule ON ledger.alert (organization_id, alert_rule_id, alert_id)")
    op.execute("CREATE INDEX alert_oldest ON ledger.alert (organization_id, create_time)")


def _create_alert_delivery() -> None:
    op.execute("""
        -- Alerts on their way to a webhook, and those that got there or were given up. Goes with its alert.
        CREATE TABLE ledger.alert_delivery (
            organization_id   UUID NOT NULL,
            alert_id          UUID NOT NULL,
            alert_rule_id     UUID NOT NULL,
            -- services.ledger.alerts.alert_rules.AlertDeliveryState
            state             SMALLINT NOT NULL CHECK (state IN (1, 2, 3)),
            attempt_count     INTEGER NOT NULL CHECK (attempt_count >= 0),
            attempt_time      TIMESTAMPTZ,
            -- While a try is under way, when another ledger may take it for lost.
            next_attempt_time TIMESTAMPTZ,
            error             TEXT NOT NULL,
            PRIMARY KEY (organization_id, alert_id),
            FOREIGN KEY (organization_id, alert_id) REFERENCES ledger.alert ON DELETE CASCADE,
            CHECK ((state = 1) = (next_attempt_time IS NOT NULL))
        ) WITH (fillfactor = 50)
    """)
    protect_tenant_table(op, "alert_delivery", reported=False)
    op.execute("CREATE INDEX alert_delivery_due ON ledger.alert_delivery (next_attempt_time) WHERE state = 1")
    op.execute(
        "CREATE INDEX alert_delivery_of_rule ON ledger.alert_delivery (organization_id, alert_rule_id) WHERE state = 1"
    )


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")

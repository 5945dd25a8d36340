"""What the ledger counts."""

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter("tollgate_ledger_records_total", "Records delivered, by what became of them.", ("status",))
BATCH_RECORDS = Histogram(
    "tollgate_ledger_batch_records",
    "Records written in one transaction.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000),
)
BATCH_SECONDS = Histogram("tollgate_ledger_batch_seconds", "How long one batch took, its turn and retries included.")
WAITING_RECORDS = Gauge("tollgate_ledger_waiting_records", "Records that wait to be written.")
EXPIRED_ROWS = Counter("tollgate_ledger_expired_rows_total", "Rows that expired and left the disk.", ("kind",))
RETENTION_LEADER = Gauge("tollgate_ledger_retention_leader", "1 in the ledger that lets things expire.")
RETENTION_FAILURES = Counter("tollgate_ledger_retention_failures_total", "Passes of retention that broke off.")
RETENTION_PROBLEMS = Gauge(
    "tollgate_ledger_retention_problems",
    "Days of organizations that must not expire, because they are not what was recorded.",
)
RETENTION_OVERDUE_SECONDS = Gauge(
    "tollgate_ledger_retention_overdue_seconds",
    "How long the oldest detail has been on disk beyond its time; 0 while everything goes in time.",
)
PRICED_LATER = Counter("tollgate_ledger_priced_later_total", "Records that got a price after they were recorded.")
LEASES = Counter(
    "tollgate_ledger_leases_total", "Leases of credit that were asked for, by what became of it.", ("outcome",)
)
LAPSED_LEASES = Counter(
    "tollgate_ledger_leases_lapsed_total",
    "Leases that were freed: drained when all records of a log had come, abandoned when the grace was over.",
    ("why",),
)
OVERDUE_LEASES = Gauge(
    "tollgate_ledger_leases_overdue", "Leases that hold credit beyond their time, for records to come."
)
ALERT_EVALUATIONS = Counter(
    "tollgate_ledger_alert_evaluations_total", "Evaluations of alert rules, by what became of it.", ("outcome",)
)
ALERTS = Counter("tollgate_ledger_alerts_total", "Changes of alert rules' states, by the new one.", ("state",))
ALERT_LAG_SECONDS = Gauge(
    "tollgate_ledger_alert_lag_seconds", "How long the alert rule that waits longest has been due; 0 when none is."
)
WEBHOOK_DELIVERIES = Counter(
    "tollgate_ledger_webhook_deliveries_total",
    "Tries to deliver an alert to its webhook: delivered, failed and to be tried again, given up.",
    ("outcome",),
)
WEBHOOKS_WAITING = Gauge("tollgate_ledger_webhooks_waiting", "Alerts that are not delivered yet, of all ledgers.")
WEBHOOK_LAG_SECONDS = Gauge(
    "tollgate_ledger_webhook_lag_seconds", "How long the delivery that waits longest has been due; 0 when none is."
)
OVERDUE_USD = Gauge("tollgate_ledger_leases_overdue_usd", "What they hold.")

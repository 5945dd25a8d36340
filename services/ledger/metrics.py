"""What the ledger counts."""

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter("tollgate_ledger_records_total", "Records delivered, by what became of them.", ("status",))
BATCH_RECORDS = Histogram(
    "tollgate_ledger_batch_records",
    "Records written in one transaction.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000),
)
BATCH_SECONDS = Histogram("tollgate_ledger_batch_seconds", "How long writing one batch took, retries included.")
WAITING_RECORDS = Gauge("tollgate_ledger_waiting_records", "Records that wait to be written.")

"""What operators see of the spool."""

from prometheus_client import Counter, Gauge, Histogram

DEPTH = Gauge("tollgate_spool_records", "Finished records that the ledger has not committed yet.")
OPEN_CALLS = Gauge("tollgate_spool_open_calls", "Calls that have begun and not finished.")
OLDEST_SECONDS = Gauge("tollgate_spool_oldest_seconds", "How long the oldest uncommitted record has waited.")
BYTES = Gauge("tollgate_spool_bytes", "Disk the spool takes.")
SYNC_SECONDS = Histogram(
    "tollgate_spool_sync_seconds",
    "How long one sync took.",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
FAILURES = Counter("tollgate_spool_failures_total", "Writes and syncs that failed.")
REFUSALS = Counter("tollgate_spool_refusals_total", "Calls refused because they could not have been recorded.")
PAYLOADS_DROPPED = Counter(
    "tollgate_spool_payloads_dropped_total",
    "Retained payloads left out of records, because there was no room to spare.",
)
RECOVERED = Counter("tollgate_spool_recovered_total", "Calls found begun and not finished when the spool was opened.")
DAMAGE = Counter("tollgate_spool_damage_total", "Stretches of damaged bytes found in segments.")
GAPS = Counter("tollgate_spool_gaps_total", "Sequences that broke off, so that what follows got new numbers.")

"""How alerts are signed for whoever receives them, and when they are tried again. Pure.

Signatures are those of Standard Webhooks, so that receivers find a library that checks them.
"""

import base64
import hashlib
import hmac
from datetime import datetime, timedelta

from services.ledger.alerts.webhook_secrets import SECRET_PREFIX

FIRST_RETRY = timedelta(seconds=5)
RETRY_MAX = timedelta(hours=1)
AGE_MAX = timedelta(days=1)
# Twice this often, the longest wait is long reached.
_DOUBLINGS_MAX = 10


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature` for a try in this second since 1970."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = b".".join((webhook_id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def next_attempt_time(attempt_count: int, now: datetime, create_time: datetime) -> datetime | None:
    """When a delivery that failed so often is tried again; None when it would be too old by then."""
    wait = min(FIRST_RETRY * 2 ** min(attempt_count - 1, _DOUBLINGS_MAX), RETRY_MAX)
    again = now + wait
    return again if again - create_time <= AGE_MAX else None

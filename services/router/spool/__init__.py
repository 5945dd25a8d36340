"""Why a usage record is never lost: an append-only log on disk, from a call's begin to the ledger's commit."""

from services.router.spool.errors import SpoolFailedError, SpoolFullError
from services.router.spool.outbox import Batch, Outbox
from services.router.spool.settings import SpoolSettings
from services.router.spool.spool import Spool

__all__ = ["Batch", "Outbox", "Spool", "SpoolFailedError", "SpoolFullError", "SpoolSettings"]

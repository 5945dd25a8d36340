"""Everything that the ledger reads from its environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from services.common.grpc_server import ServerSettings
from services.common.sealed_secrets import read_public_key
from services.common.settings import Environment
from services.ledger.accounts.key_keeping import SEED_SETTING
from services.ledger.alerts.webhook_secrets import read_webhook_key
from services.ledger.alerts.webhook_urls import WebhookPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    server: ServerSettings
    database_url: str
    metrics_address: str
    log_level: str
    # None when no operator key is to be seeded.
    operator_key: str | None
    provider_key_public: X25519PublicKey
    # How long after its end a lease of credit holds on for a router's log that does not come back.
    lease_grace: timedelta = timedelta(days=1)
    # How often each alert rule is evaluated.
    alert_interval: timedelta = timedelta(minutes=1)
    # None when there are no webhooks.
    webhook_key: bytes | None = None
    webhook_policy: WebhookPolicy = field(default_factory=WebhookPolicy)
    # How long a webhook may take to answer.
    webhook_timeout: timedelta = timedelta(seconds=10)

    @classmethod
    def from_environ(cls, variables: Mapping[str, str]) -> "Settings":
        """Raises SettingError, naming what is missing or wrong."""
        environment = Environment(variables)
        return cls(
            server=ServerSettings.read(environment, "TOLLGATE_LEDGER_ADDRESS", "127.0.0.1:8090"),
            database_url=environment.text("TOLLGATE_DATABASE_URL"),
            metrics_address=environment.address("TOLLGATE_LEDGER_METRICS_ADDRESS", "127.0.0.1:9190"),
            log_level=environment.text("TOLLGATE_LOG_LEVEL", "INFO"),
            operator_key=environment.optional_text(SEED_SETTING),
            provider_key_public=read_public_key(environment),
            lease_grace=timedelta(
                seconds=environment.integer("TOLLGATE_LEASE_GRACE_SECONDS", 86_400, least=600, most=31_536_000)
            ),
            alert_interval=timedelta(
                seconds=environment.integer("TOLLGATE_ALERT_INTERVAL_SECONDS", 60, least=1, most=3_600)
            ),
            webhook_key=read_webhook_key(environment),
            webhook_policy=WebhookPolicy(
                http_allowed=environment.flag("TOLLGATE_WEBHOOK_HTTP_ALLOWED"),
                private_allowed=environment.flag("TOLLGATE_WEBHOOK_PRIVATE_ALLOWED"),
            ),
            webhook_timeout=timedelta(
                seconds=environment.integer("TOLLGATE_WEBHOOK_TIMEOUT_SECONDS", 10, least=1, most=60)
            ),
        )

"""What webhooks are signed with, made here and stored so that only a ledger with the key can read it: AES-256-GCM.

A seal is bound to the rule it was made for, so that moved to another row it does not open.
"""

import base64
import binascii
import secrets
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.common.settings import Environment, SettingError

KEY_SETTING = "TOLLGATE_WEBHOOK_KEY"
KEY_BYTES = 32
SECRET_PREFIX = "whsec_"  # noqa: S105 how every secret begins
SECRET_BYTES = 32
_NONCE_BYTES = 12
_PURPOSE = "tollgate webhook secret 1"


class SecretSealedOtherwiseError(Exception):
    """The secret was sealed with another key or for another rule, or has been altered."""


def new_webhook_secret() -> str:
    """A secret nobody has: `whsec_` and the base64 of 256 random bits."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


class WebhookSecrets:
    """Seals and opens secrets with one key. Lives as long as the service."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, secret: str, *, organization_id: UUID, alert_rule_id: UUID) -> bytes:
        """The same secret gives another seal each time."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), _bound_to(organization_id, alert_rule_id))

    def open(self, sealed: bytes, *, organization_id: UUID, alert_rule_id: UUID) -> str:
        """Raises SecretSealedOtherwiseError when it was not sealed for just this."""
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, text, _bound_to(organization_id, alert_rule_id)).decode()
        except (InvalidTag, ValueError) as error:
            raise SecretSealedOtherwiseError(f"the secret of alert rule {alert_rule_id} does not open") from error


def read_webhook_key(environment: Environment) -> bytes | None:
    """None when there is none: then there are no webhooks. Raises SettingError for one that is no key."""
    text = environment.optional_text(KEY_SETTING)
    if text is None:
        return None
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        # The value is not shown: it may be the key with a letter missing.
        raise SettingError(f"{KEY_SETTING} must be {KEY_BYTES} bytes in base64; `openssl rand -base64 32` makes some")
    return key


def _bound_to(organization_id: UUID, alert_rule_id: UUID) -> bytes:
    return b"\0".join((_PURPOSE.encode(), organization_id.bytes, alert_rule_id.bytes))

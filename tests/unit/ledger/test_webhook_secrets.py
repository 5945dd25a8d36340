import base64

import pytest

from services.common.settings import Environment, SettingError
from services.common.uuid7 import new_uuid7
from services.ledger.alerts.webhook_secrets import (
    KEY_SETTING,
    SecretSealedOtherwiseError,
    WebhookSecrets,
    new_webhook_secret,
    read_webhook_key,
)

ACME, RULE, OTHER_RULE = new_uuid7(), new_uuid7(), new_uuid7()
SECRETS = WebhookSecrets(bytes(32))


def test_a_secret_is_32_random_bytes_as_standard_webhooks_writes_them() -> None:
    secret = new_webhook_secret()

    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != new_webhook_secret()


def test_a_sealed_secret_opens_for_its_rule_and_shows_nothing() -> None:
    sealed = SECRETS.seal("whsec_private", organization_id=ACME, alert_rule_id=RULE)

    assert b"private" not in sealed
    assert sealed != SECRETS.seal("whsec_private", organization_id=ACME, alert_rule_id=RULE)
    assert SECRETS.open(sealed, organization_id=ACME, alert_rule_id=RULE) == "whsec_private"


def test_a_sealed_secret_opens_neither_for_another_rule_nor_altered_nor_with_another_key() -> None:
    sealed = SECRETS.seal("whsec_private", organization_id=ACME, alert_rule_id=RULE)
    altered = sealed[:-1] + bytes([sealed[-1] ^ 1])

    for secrets, text, rule in (
        (SECRETS, sealed, OTHER_RULE),
        (SECRETS, altered, RULE),
        (SECRETS, b"", RULE),
        (WebhookSecrets(bytes([1]) * 32), sealed, RULE),
    ):
        with pytest.raises(SecretSealedOtherwiseError):
            secrets.open(text, organization_id=ACME, alert_rule_id=rule)


def test_without_a_key_there_are_no_webhooks() -> None:
    assert read_webhook_key(Environment({})) is None


@pytest.mark.parametrize("value", ["secret", "c2hvcnQ=", base64.b64encode(bytes(31)).decode()])
def test_a_key_of_another_length_stops_the_start_and_is_not_shown(value: str) -> None:
    with pytest.raises(SettingError) as stopped:
        read_webhook_key(Environment({KEY_SETTING: value}))

    assert KEY_SETTING in str(stopped.value)
    assert value not in str(stopped.value)

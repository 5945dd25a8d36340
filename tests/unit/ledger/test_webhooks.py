from datetime import UTC, datetime, timedelta

import pytest

from services.ledger.alerts.webhooks import next_attempt_time, signature

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_signature_is_the_one_that_standard_webhooks_has_for_its_example() -> None:
    signed = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )

    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(("webhook_id", "timestamp", "body"), [("b", 1, b"{}"), ("a", 2, b"{}"), ("a", 1, b"{} ")])
def test_another_id_time_or_body_has_another_signature(webhook_id: str, timestamp: int, body: bytes) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

    assert signature(secret, webhook_id, timestamp, body) != signature(secret, "a", 1, b"{}")


def test_each_wait_is_twice_as_long_up_to_an_hour() -> None:
    waits = []
    for attempt_count in range(1, 13):
        again = next_attempt_time(attempt_count, NOW, NOW)
        assert again is not None
        waits.append((again - NOW).total_seconds())

    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600]


def test_an_alert_that_would_be_older_than_a_day_is_given_up() -> None:
    create_time = NOW - timedelta(days=1) + timedelta(seconds=5)

    assert next_attempt_time(1, NOW, create_time) == NOW + timedelta(seconds=5)
    assert next_attempt_time(2, NOW, create_time) is None


def test_however_often_it_failed_the_wait_is_an_hour() -> None:
    assert next_attempt_time(1_000_000, NOW, NOW) == NOW + timedelta(hours=1)

from datetime import UTC, date, datetime, time, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.ledger.alerts.alert_windows import Days, Span, WindowParts, next_due, window_parts

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_window_within_an_hour_is_read_from_its_calls() -> None:
    window = Span(at("2026-03-01T10:05"), at("2026-03-01T10:20"))

    assert window_parts(window) == WindowParts(None, (), (window,))


def test_a_window_of_hours_is_read_from_whole_hours_and_the_calls_before_and_after() -> None:
    window = Span(at("2026-03-01T10:17"), at("2026-03-01T14:17"))

    assert window_parts(window) == WindowParts(
        None,
        (Span(at("2026-03-01T11:00"), at("2026-03-01T14:00")),),
        (Span(window.start, at("2026-03-01T11:00")), Span(at("2026-03-01T14:00"), window.end)),
    )


def test_a_window_of_days_is_read_from_whole_days_with_hours_and_calls_around_them() -> None:
    window = Span(at("2026-03-01T22:30"), at("2026-03-04T01:00"))

    assert window_parts(window) == WindowParts(
        Days(date(2026, 3, 2), date(2026, 3, 4)),
        (
            Span(at("2026-03-01T23:00"), at("2026-03-02T00:00")),
            Span(at("2026-03-04T00:00"), at("2026-03-04T01:00")),
        ),
        (Span(window.start, at("2026-03-01T23:00")),),
    )


def test_a_window_that_retention_leaves_nothing_of_has_no_parts() -> None:
    now = at("2026-03-01T10:17")

    assert window_parts(Span(now, now)) == WindowParts(None, (), ())


moments = st.datetimes(datetime(2026, 1, 1), datetime(2026, 3, 1), timezones=st.just(UTC))  # noqa: DTZ001 bounds


@given(moments, moments)
def test_every_moment_of_a_window_is_in_exactly_one_part(first: datetime, second: datetime) -> None:
    window = Span(min(first, second), max(first, second))
    parts = window_parts(window)

    spans = [*parts.hours, *parts.edges]
    if parts.days is not None:
        spans.append(Span(midnight(parts.days.first), midnight(parts.days.end)))
    spans.sort()
    joined = [window.start, *(span.end for span in spans)]
    assert [span.start for span in spans] == joined[: len(spans)]
    assert joined[-1] == window.end
    assert all(span.start < span.end for span in spans)
    assert all(is_whole(moment, HOUR) for span in parts.hours for moment in span)
    assert all(span.end - span.start < HOUR or window == span for span in parts.edges)


def test_a_rule_is_due_again_at_its_own_second_of_the_minute() -> None:
    minute = timedelta(minutes=1)

    assert next_due(at("2026-03-01T10:00:07"), at("2026-03-01T10:00:08"), minute) == at("2026-03-01T10:01:07")


def test_after_an_outage_a_rule_is_evaluated_once_for_the_present() -> None:
    minute = timedelta(minutes=1)

    assert next_due(at("2026-03-01T10:00:07"), at("2026-03-01T12:34:56"), minute) == at("2026-03-01T12:35:07")


@given(moments, st.timedeltas(timedelta(0), 10 * DAY), st.integers(1, 3_600))
def test_a_rule_is_never_due_in_the_past_nor_later_than_an_interval_from_now(
    due: datetime, late: timedelta, seconds: int
) -> None:
    now, interval = due + late, timedelta(seconds=seconds)
    again = next_due(due, now, interval)

    assert now < again <= now + interval
    assert (again - due) % interval == timedelta(0)


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def is_whole(moment: datetime, unit: timedelta) -> bool:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) % unit == timedelta(0)

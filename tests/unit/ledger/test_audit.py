from datetime import UTC, datetime
from uuid import UUID

from services.common.authentication import Caller, Scope
from services.ledger.accounts.audit import AuditEntry, Settings, audit_entry, in_words

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = "0199a000-0000-7000-8000-000000000001"


def an_entry(before: Settings | None = None, after: Settings | None = None, caller: Caller | None = None) -> AuditEntry:
    return audit_entry(
        caller or Caller(scope=Scope.OPERATOR, api_key_id=KEY),
        "project.update",
        "web",
        audit_id=UUID(int=1),
        create_time=NOW,
        organization_id=UUID(int=2),
        before=before,
        after=after,
    )


def test_only_what_became_different_is_told() -> None:
    entry = an_entry({"mode": "CREDITS", "name": "a"}, {"mode": "HYBRID", "name": "a"})

    assert (entry.before, entry.after) == ({"mode": "CREDITS"}, {"mode": "HYBRID"})


def test_of_something_new_all_that_was_given_is_told() -> None:
    entry = an_entry(after={"name": "", "read_only": False, "expire_time": None})

    assert (entry.before, entry.after) == ({}, {"name": "", "read_only": False})


def test_of_something_gone_all_that_it_was_is_told() -> None:
    entry = an_entry(before={"name": "a", "expire_time": None})

    assert (entry.before, entry.after) == ({"name": "a"}, {})


def test_a_setting_that_was_none_is_told_as_none() -> None:
    entry = an_entry({"expire_time": None}, {"expire_time": "2026-03-01T12:00:00Z"})

    assert entry.before == {"expire_time": None}


def test_who_made_it_is_a_key_or_one_of_our_services() -> None:
    made_by_service = an_entry(caller=Caller(scope=Scope.SERVICE))

    assert (an_entry().actor_scope, an_entry().actor_api_key_id) == (Scope.OPERATOR, UUID(KEY))
    assert (made_by_service.actor_scope, made_by_service.actor_api_key_id) == (Scope.SERVICE, None)


def test_times_are_written_as_rfc_3339_does() -> None:
    assert in_words(NOW) == "2026-03-01T12:00:00Z"
    assert in_words(None) is None

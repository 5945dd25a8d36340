"""When everything that earlier lives of a log wrote has been shipped, and who has to say so."""

from pathlib import Path

from services.router.spool import Spool
from services.router.spool.register import Epoch
from tests.integration.router.spool_records import SMALL, a_begun, a_finished


async def ship_all(spool: Spool) -> None:
    while (batch := await spool.outbox.read()) is not None:
        spool.outbox.commit(batch, batch.last_sequence)


async def test_a_new_log_has_no_past(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)

    assert spool.outbox.has_settled_past
    spool.close()


async def test_a_record_that_was_not_shipped_is_the_past_of_the_next_life(tmp_path: Path) -> None:
    first = Spool.open(tmp_path, SMALL)
    await first.finish(a_finished())
    first.close()
    second = Spool.open(tmp_path, SMALL)
    before = second.outbox.has_settled_past
    await ship_all(second)

    assert (before, second.outbox.has_settled_past) == (False, True)
    second.close()


async def test_a_call_that_was_not_finished_is_the_past_until_its_record_is_shipped(tmp_path: Path) -> None:
    first = Spool.open(tmp_path, SMALL)
    first.begin(a_begun(), credit_funded=True)
    await first.finish(a_finished())
    first.close()
    second = Spool.open(tmp_path, SMALL)
    settled = [second.outbox.has_settled_past]
    while (batch := await second.outbox.read()) is not None:
        settled.append(second.outbox.has_settled_past)
        second.outbox.commit(batch, batch.last_sequence)
    settled.append(second.outbox.has_settled_past)

    # The first batch is of the first life, the second of what it had begun.
    assert settled == [False, False, False, True]
    second.close()


async def test_what_is_written_meanwhile_does_not_hold_up_the_past(tmp_path: Path) -> None:
    first = Spool.open(tmp_path, SMALL)
    await first.finish(a_finished())
    first.close()
    second = Spool.open(tmp_path, SMALL)
    await second.finish(a_finished())
    batch = await second.outbox.read()
    assert batch is not None
    second.outbox.commit(batch, batch.last_sequence)
    await second.outbox.read()

    assert second.outbox.has_settled_past
    second.close()


async def test_a_slot_is_taken_up_until_the_ledger_was_told_that_its_lives_are_over(tmp_path: Path) -> None:
    Spool.open(tmp_path, SMALL).close()
    found = Spool.open_abandoned(tmp_path, SMALL)
    assert found is not None
    found.note_settled(Epoch(found.epoch.producer_id, found.epoch.number + 1))
    found.close()

    assert Spool.open_abandoned(tmp_path, SMALL) is None

"""A stream that is not taken to its end does not end like one that was."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.router.calls import relay
from services.router.calls.answers import AnswerFormat
from services.router.calls.relay import StreamRelay
from services.router.errors import ClientGoneError
from services.router.formats.registry import CHAT_COMPLETIONS
from tollgate.ledger.v1 import usage_pb2

PIECE = b'data: {"choices":[]}\n\n'


class Record:
    """Of a call whose answer has begun."""

    outcome: int | None = None

    async def keep_response(self, body: bytes, content_type: str) -> None: ...

    def keep_piece(self, piece: bytes) -> None: ...

    def end_attempt(self, *_: object) -> None: ...

    def end(self, outcome: int, *_: object) -> object:
        self.outcome = outcome
        return object()


class Answer:
    """One that never ends, of a provider."""

    status, content_type = 200, "text/event-stream"

    async def read_chunk(self) -> bytes:
        await asyncio.sleep(0)
        return PIECE

    def close(self) -> None: ...


def a_relay(monkeypatch: pytest.MonkeyPatch, record: Record, *, seconds: float) -> StreamRelay:
    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr(relay, "STALLED_SECONDS_MAX", 0)
    monkeypatch.setattr(relay, "take_usage", nothing)
    candidate = SimpleNamespace(provider="slow")
    events = SimpleNamespace(feed=lambda chunk: chunk, is_complete=False, failed=False, held=b"")
    stream = SimpleNamespace(
        answer=Answer(),
        events=events,
        first_piece=PIECE,
        planned=SimpleNamespace(candidate=candidate),
        upstream=SimpleNamespace(provider=SimpleNamespace(total_timeout_seconds=seconds, drains=False)),
    )
    call = SimpleNamespace(
        record=record, request=SimpleNamespace(endpoint=CHAT_COMPLETIONS), answer_format=AnswerFormat.RAW
    )
    recorder = SimpleNamespace(finish=nothing)
    return StreamRelay(
        cast("Any", call), cast("Any", stream), cast("Any", recorder), note_failure=lambda *_: None, copy=None
    )


async def test_a_client_that_takes_an_answer_too_slowly_can_tell_that_it_is_not_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record, sent = Record(), []

    async def send(piece: bytes) -> None:
        sent.append(piece)
        if len(sent) == 3:
            await asyncio.Event().wait()

    with pytest.raises(ClientGoneError):
        await a_relay(monkeypatch, record, seconds=0.05).run(send)

    assert sent == [PIECE] * 3
    assert record.outcome == usage_pb2.OUTCOME_CLIENT_GONE


async def test_a_client_that_is_gone_has_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record()

    async def send(_: bytes) -> None:
        raise ClientGoneError

    with pytest.raises(ClientGoneError):
        await a_relay(monkeypatch, record, seconds=5).run(send)

    assert record.outcome == usage_pb2.OUTCOME_CLIENT_GONE

"""What is added to an answer, and what never changes."""

import orjson
import pytest

from services.router.calls.answers import AnswerFormat, explained, explaining_event
from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.usage_pb2 import UsageRecord

RECORD = UsageRecord(request_id="0199", status=200, provider="openai", metadata={"order": "7"})
META, ENVELOPE, RAW = AnswerFormat.META, AnswerFormat.ENVELOPE, AnswerFormat.RAW


@pytest.mark.parametrize("body", [b'{"a": 1.0, "b":"\\u00e9"}', b'{"a":1}\n', b"{}", b"{ }"])
def test_the_provider_s_bytes_stay_as_they_are(body: bytes) -> None:
    whole = explained(body, META, RECORD)

    assert whole.startswith(body.rstrip().removesuffix(b"}").rstrip())
    assert {**orjson.loads(body), **orjson.loads(explained(b"{}", META, RECORD))} == orjson.loads(whole)
    assert explained(body, RAW, RECORD) == body


@pytest.mark.parametrize("body", [b"[1]", b"null", b"plain text", b""])
def test_what_is_no_object_gets_no_members_but_an_envelope(body: bytes) -> None:
    assert explained(body, META, RECORD) == body
    assert [*orjson.loads(explained(body, ENVELOPE, RECORD))] == ["data", "customer_data", "meta"]


def test_a_usage_that_is_not_known_is_null() -> None:
    assert orjson.loads(explained(b"{}", META, RECORD))["meta"]["usage"] is None


@pytest.mark.parametrize(
    ("endpoint", "beginning"),
    [
        (usage_pb2.ENDPOINT_CHAT_COMPLETIONS, b'data: {"id":"0199","object":"chat.completion.chunk"'),
        (usage_pb2.ENDPOINT_MESSAGES, b'event: tollgate.meta\ndata: {"type":"tollgate.meta"'),
        (usage_pb2.ENDPOINT_RESPONSES, b'event: tollgate.meta\ndata: {"type":"tollgate.meta"'),
    ],
)
def test_a_stream_says_it_in_an_event_of_its_own_format(
    endpoint: "usage_pb2.Endpoint.ValueType", beginning: bytes
) -> None:
    record = UsageRecord(request_id="0199", endpoint=endpoint)
    event = explaining_event(META, record)

    assert event.startswith(beginning) and event.endswith(b"\n\n")
    assert explaining_event(RAW, record) == b""

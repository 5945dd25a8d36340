"""Answers that explain themselves: what is added to a provider's answer where a project or a call asks for it."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import orjson

from services.common.errors import InvalidRequestError
from tollgate.ledger.v1.usage_pb2 import Endpoint, Funding, Usage, UsageRecord

ANSWER_HEADER = "x-tollgate-answer"
# In formats whose events have names.
EVENT_TYPE = "tollgate.meta"


class AnswerFormat(IntEnum):
    """What an answer says beside what the provider said. Numbered as `tollgate.ledger.v1.AnswerFormat`."""

    RAW = 1
    META = 2
    ENVELOPE = 3


def format_asked_for(headers: Mapping[str, str], default: AnswerFormat) -> AnswerFormat:
    """What the call itself asks for, else the default. Raises InvalidRequestError for a format there is not."""
    named = headers.get(ANSWER_HEADER)
    if named is None:
        return default
    try:
        return AnswerFormat[named.upper()]
    except KeyError as error:
        raise InvalidRequestError(ANSWER_HEADER, f"must be raw, meta or envelope, got '{named[:64]}'") from error


def explained(body: bytes, answer_format: AnswerFormat, record: UsageRecord) -> bytes:
    """The body as the client is to get it. What the provider wrote in it stays byte for byte."""
    if answer_format is AnswerFormat.RAW:
        return body
    additions = orjson.dumps(_additions(record))
    if answer_format is AnswerFormat.ENVELOPE:
        return b'{"data":' + _as_json(body) + b"," + additions[1:]
    inside = body.rstrip()
    if not (inside.startswith(b"{") and inside.endswith(b"}")):
        return body  # no object, so it has no members
    inside = inside[:-1].rstrip()
    return inside + (b"" if inside == b"{" else b",") + additions[1:]


def explaining_event(answer_format: AnswerFormat, record: UsageRecord) -> bytes:
    """What a stream says of itself, to be sent before its end marker; nothing in a raw one. An envelope has no stream
    form: it reads as `meta` does."""
    if answer_format is AnswerFormat.RAW:
        return b""
    if record.endpoint == Endpoint.ENDPOINT_CHAT_COMPLETIONS:
        # A chunk without choices, as the usage is reported: every client of the format passes over it.
        head = {
            "id": record.request_id,
            "object": "chat.completion.chunk",
            "created": record.start_time.seconds,
            "model": record.model,
            "choices": [],
        }
        return b"data: " + orjson.dumps({**head, **_additions(record)}) + b"\n\n"
    data = orjson.dumps({"type": EVENT_TYPE, **_additions(record)})
    return b"event: " + EVENT_TYPE.encode() + b"\ndata: " + data + b"\n\n"


def _additions(record: UsageRecord) -> Mapping[str, Any]:
    return {"customer_data": dict(record.metadata), "meta": _meta(record)}


def _as_json(body: bytes) -> bytes:
    """The body where it is JSON, else the text as a JSON string."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return orjson.dumps(body.decode(errors="replace"))
    return body


def _meta(record: UsageRecord) -> Mapping[str, Any]:
    return {
        "status": record.status,
        "request_id": record.request_id,
        "workflow": record.workflow,
        "used_provider": record.provider,
        "used_model": record.model,
        "duration_ms": record.latency_ms,
        "cached": record.cache_hit,
        "usage": _usage(record.usage) if record.HasField("usage") else None,
        "attempts": [
            {
                "order": number,
                "provider": attempt.provider,
                "model": attempt.upstream_model,
                "status": attempt.status,
                "error": attempt.error_type,
                "latency_ms": attempt.latency_ms,
                "funding": Funding.Name(attempt.funding).removeprefix("FUNDING_").lower(),
            }
            for number, attempt in enumerate(record.attempts, 1)
        ],
    }


def _usage(usage: Usage) -> Mapping[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }

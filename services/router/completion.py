"""What a whole chat completion used: as reported, else estimated from its text."""

import asyncio

from services.router.attempts import WholeCompletion
from services.router.chat_request import ChatRequest
from services.router.estimation import estimate_chat_usage, text_of_message
from services.router.records import CallRecord
from services.router.usage import service_tier_served, usage_from_openai


async def take_usage(record: CallRecord, request: ChatRequest, completion: WholeCompletion) -> None:
    """Puts the usage into the record."""
    report = completion.message.get("usage")
    reading = usage_from_openai(report) if isinstance(report, dict) else None
    if reading is not None:
        record.take_reported(reading, service_tier_served(completion.message))
        return
    candidate = completion.planned.candidate
    # Long texts take their time, and the first use of a tokenizer does: too long for the event loop.
    usage = await asyncio.to_thread(
        estimate_chat_usage, candidate.model, request.members, _text(completion), candidate.output_tokens_max
    )
    record.take_estimated(usage)


def _text(completion: WholeCompletion) -> str:
    choices = completion.message.get("choices")
    messages = (each.get("message") for each in choices if isinstance(each, dict)) if isinstance(choices, list) else ()
    return "".join(text_of_message(message) for message in messages)

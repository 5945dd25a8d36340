"""What an answer used: as reported, else estimated from its text."""

import asyncio
from typing import Protocol

from services.router.calls.records import CallRecord
from services.router.formats.endpoint import ModelRequest
from services.router.formats.estimation import tokenizer_for
from services.router.formats.usage import UsageReading
from services.router.routing.routing import Candidate
from tollgate.ledger.v1.usage_pb2 import Usage


class Said(Protocol):
    """An answer, whole or streamed, as far as billing is concerned."""

    @property
    def usage(self) -> UsageReading | None: ...
    @property
    def service_tier(self) -> str: ...
    @property
    def counted(self) -> Usage: ...
    @property
    def output_text(self) -> str: ...


async def take_usage(record: CallRecord, request: ModelRequest, candidate: Candidate, said: Said) -> None:
    """Puts the usage into the record."""
    if said.usage is not None:
        record.take_reported(said.usage, said.service_tier)
        return
    # Long texts take their time, and the first use of a tokenizer does: too long for the event loop.
    record.take_estimated(await asyncio.to_thread(estimated_usage, request, candidate, said))


def estimated_usage(request: ModelRequest, candidate: Candidate, said: Said) -> Usage:
    """Counts tokens. The output is never above the model's maximum."""
    tokenizer = tokenizer_for(candidate.model)
    output_tokens = tokenizer.count(said.output_text)
    if candidate.output_tokens_max is not None:
        output_tokens = min(output_tokens, candidate.output_tokens_max)
    usage = Usage(
        input_tokens=request.endpoint.count_input(request.members, tokenizer),
        output_tokens=output_tokens,
    )
    usage.MergeFrom(said.counted)
    return usage

"""What a call can cost at most: before anybody was asked, and when it is known what was used. Pure.

Every text token is at least one byte of the request, so a request has at most as many tokens as bytes, and some more
for what providers wrap around it, which is most where there are tools. Images come as URLs or as base64, whose bytes
say nothing; each counts as the most that a provider makes of one. What a request only refers to (a file elsewhere),
or has compressed (a PDF), can be as long as the context of a large model. Output is what the caller allows, or the
model's maximum, and may be speech or images where the model makes such; whether it does, no request has to say.
"""

import mimetypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

import orjson

from services.router.formats.endpoint import EndpointNumber, ModelRequest
from services.router.formats.members import objects
from services.router.routing.routing import Candidate
from tollgate.ledger.v1 import credit_service_pb2, usage_pb2
from tollgate.ledger.v1.usage_pb2 import Usage, UsageRecord

# Templates around messages. The format of each message has more bytes than its template has tokens.
WRAPPING_TOKENS_MAX = 200
# The hidden prompts that come with tools.
TOOL_TOKENS_MAX = 1_000
# Where neither the caller nor the providers file says how much a model writes.
OUTPUT_TOKENS_MAX = 131_072
IMAGE_TOKENS_MAX = 8_000
# One family charges its cheap tokens many times over.
IMAGE_TOKENS_MAX_OF = {"gpt-4o-mini": 50_000}
GENERATED_IMAGE_TOKENS_MAX = 20_000
REFERRED_TOKENS_MAX = 400_000
SEARCHES_MAX = 20
SEARCHED_TOKENS_MAX = 200_000
# Each of at most sixteen lines is rounded to whole pico-USD by itself.
ROUNDING_PICO = 16
_ATTO_PER_PICO = 10**6
# Everything else costs nothing.
_CHARGED = (usage_pb2.OUTCOME_SUCCESS, usage_pb2.OUTCOME_CLIENT_GONE, usage_pb2.OUTCOME_CONTENT_REJECTED)
# By another name than its endpoint has for it, a limit is one that providers may ignore.
_LIMITS = {
    EndpointNumber.CHAT_COMPLETIONS: ("max_tokens", "max_completion_tokens"),
    EndpointNumber.RESPONSES: ("max_output_tokens",),
    EndpointNumber.MESSAGES: ("max_tokens",),
}
_FILES = (
    *(b"file_url", b"file_data", b"fileUri", b'"type":"document"'),
    *(b'"type":"video_url"', b'"type":"input_video"', b'"type":"audio_url"'),
)
_IMAGES = ("image_url", "input_image", "image")
_IMAGE = "image/"
# Where images are: in these members of a request, and in these of what is in them.
_CONVERSATIONS = ("messages", "input")
_CONTENTS = ("content", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What one of each costs at most after the discount. In USD times 10^18."""

    input_token: int
    media_input_token: int
    # A token of whatever a model makes, text included.
    media_output_token: int
    output_image: int
    request: int
    web_search: int
    storage_token: int


def bound_from_proto(bound: credit_service_pb2.PriceBound) -> Bound:
    return Bound(
        input_token=_atto(bound.input_token),
        media_input_token=_atto(bound.media_input_token),
        media_output_token=_atto(bound.media_output_token),
        output_image=_atto(bound.output_image),
        request=_atto(bound.request),
        web_search=_atto(bound.web_search),
        storage_token=_atto(bound.storage_token),
    )


class Demand:
    """What a call asks for, whichever model answers it."""

    __slots__ = (
        *("answers", "fetches", "images", "input_tokens", "is_media", "is_text", "makes_images"),
        *("mentions_search", "output_tokens_asked", "predicted_tokens", "searches", "summarises"),
    )

    def __init__(self, request: ModelRequest) -> None:
        written, members, number = request.written, request.members, request.endpoint.number
        self.makes_images = number is EndpointNumber.IMAGE_GENERATIONS
        self.is_text = number in _LIMITS
        self.is_media = self.makes_images or _may_hold_media(written)
        self.images = list(_images(members)) if self.is_media else []
        # Whichever of the two is sent.
        self.input_tokens = max(len(request.body), len(written)) + WRAPPING_TOKENS_MAX
        if "tools" in members or "functions" in members:
            self.input_tokens += TOOL_TOKENS_MAX
        if self.is_media and any(word in written for word in _FILES):
            self.input_tokens += REFERRED_TOKENS_MAX
        self.mentions_search = b"search" in written
        self.searches = SEARCHES_MAX
        if "tools" in members or "max_tool_calls" in members:
            self.searches = _searches(members)
        self.fetches = _may_fetch(written)
        self.summarises = b"compact" in written and _may_summarise(members)
        # Of `best_of` answers all are written, and `n` are given.
        self.answers = 1
        if "n" in members or "best_of" in members:
            self.answers = max(_count(members.get("n")), _count(members.get("best_of")), 1)
        self.output_tokens_asked = 0
        for name in _LIMITS.get(number, ()):
            if name in members:
                self.output_tokens_asked = max(self.output_tokens_asked, _count(members[name]))
        # What was predicted and is rejected counts as written.
        self.predicted_tokens = len(orjson.dumps(members["prediction"])) if members.get("prediction") else 0


def worst_case_pico(
    demand: Demand, candidate: Candidate, bound: Bound, *, payload_retained: bool, credit_pays: bool = True
) -> int:
    """The most that a call can be charged, in pico-USD. 0 only where it is free.

    Where credit does not pay the provider, that is for what is retained.
    """
    input_tokens = demand.input_tokens
    if demand.images:
        image_tokens = _image_tokens_max(candidate.model)
        input_tokens += sum(_image_tokens(part, image_tokens, is_content) for part, is_content in demand.images)
    output_tokens, images = _output(demand, candidate)
    searches = demand.searches if demand.mentions_search or "search" in candidate.model else 0
    if searches or demand.fetches:
        input_tokens += SEARCHED_TOKENS_MAX
    if demand.summarises:
        input_tokens += input_tokens
        output_tokens += candidate.output_tokens_max or OUTPUT_TOKENS_MAX
    atto = 0
    if credit_pays:
        atto = (
            input_tokens * (bound.media_input_token if demand.is_media else bound.input_token)
            + output_tokens * bound.media_output_token
            + images * bound.output_image
            + bound.request
            + searches * bound.web_search
        )
    if payload_retained:
        atto += (input_tokens + output_tokens) * bound.storage_token
    return _rounded_up(atto)


def storage_pico(usage: Usage, bound: Bound) -> int:
    """The most that is charged for what is retained of an ended call, in pico-USD."""
    return _rounded_up(_storage_atto(usage, bound))


def cost_bound_pico(record: UsageRecord, candidate: Candidate, bound: Bound) -> int:
    """The most that an ended call can be charged, now that it is known what was used. In pico-USD.

    `candidate` is the one that was tried last. Where an own key paid for it, storage is charged all the same.
    """
    if record.outcome not in _CHARGED:
        return 0
    usage = record.usage
    atto = 0
    if record.funding == usage_pb2.FUNDING_CREDITS:
        input_tokens = max(
            usage.input_tokens,
            usage.cached_input_tokens
            + usage.cache_write_tokens
            + usage.input_audio_tokens
            + usage.input_image_tokens
            + (usage.input_images and usage.input_images * _image_tokens_max(candidate.model)),
        )
        output_tokens = max(
            usage.output_tokens, usage.reasoning_tokens + usage.output_image_tokens + usage.output_audio_tokens
        )
        atto = (
            input_tokens * bound.media_input_token
            + output_tokens * bound.media_output_token
            + (sum(images.count for images in usage.output_images) * bound.output_image if usage.output_images else 0)
            + usage.web_searches * bound.web_search
            + bound.request
        )
    if record.payload_retained:
        atto += _storage_atto(usage, bound)
    return _rounded_up(atto)


def _storage_atto(usage: Usage, bound: Bound) -> int:
    return (usage.input_tokens + usage.output_tokens) * bound.storage_token


def _rounded_up(atto: int) -> int:
    return -(-atto // _ATTO_PER_PICO) + ROUNDING_PICO if atto else 0


def _may_hold_media(body: bytes) -> bool:
    return b"image" in body or b"audio" in body or b"file" in body or b"document" in body or b"video" in body


def _may_fetch(body: bytes) -> bool:
    """Whether there are tools by which a provider reads what nobody sent."""
    return b'"type":"web_fetch' in body or b'"type":"mcp' in body


@lru_cache(1_000)
def _image_tokens_max(model: str) -> int:
    return next((most for family, most in IMAGE_TOKENS_MAX_OF.items() if model.startswith(family)), IMAGE_TOKENS_MAX)


def _images(members: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, Any], bool]]:
    """Whatever looks like an image, in whichever format, and whether it is where images are: elsewhere it is text."""
    rest: list[tuple[Any, bool]] = [(value, name in _CONVERSATIONS) for name, value in members.items()]
    while rest:
        value, is_content = rest.pop()
        if isinstance(value, list):
            rest += [(item, is_content) for item in value]
        elif isinstance(value, Mapping):
            if value.get("type") in _IMAGES:
                yield value, is_content
            else:
                rest += [(item, is_content and name in _CONTENTS) for name, item in value.items()]


def _image_tokens(part: Mapping[str, Any], tokens_max: int, is_content: bool) -> int:
    """What it adds to its bytes; its base64 says nothing. As an image some providers take films and documents too."""
    where = part.get("image_url", part.get("source"))
    if isinstance(where, Mapping) and isinstance(where.get("data"), str):
        base64_length, media_type = len(where["data"]), str(where.get("media_type", _IMAGE))
    else:
        url = where.get("url") if isinstance(where, Mapping) else where
        url = url if isinstance(url, str) else ""
        is_data = url.startswith("data:")
        base64_length = len(url) if is_data else 0
        path = url.partition("#")[0].partition("?")[0]
        media_type = url[5:] if is_data else mimetypes.guess_type(path)[0] or _IMAGE
    if not media_type.startswith(_IMAGE):
        return REFERRED_TOKENS_MAX
    return tokens_max - base64_length if is_content else tokens_max


def _output(demand: Demand, candidate: Candidate) -> tuple[int, int]:
    """Tokens and images."""
    if demand.makes_images:
        return demand.answers * GENERATED_IMAGE_TOKENS_MAX, demand.answers
    if not demand.is_text:
        return 0, 0
    asked = demand.output_tokens_asked
    most = candidate.output_tokens_max or asked or OUTPUT_TOKENS_MAX
    return demand.answers * (min(asked or most, most) + demand.predicted_tokens), 0


def _searches(members: Mapping[str, Any]) -> int:
    """As many as there usually are at most, or as the call allows beyond that."""
    uses = sum(_count(tool.get("max_uses")) for tool in objects(members.get("tools")))
    return max(SEARCHES_MAX, _count(members.get("max_tool_calls")), uses)


def _may_summarise(members: Mapping[str, Any]) -> bool:
    """Whether the model may be asked for a summary of the conversation before it is asked for its answer."""
    management = members.get("context_management")
    edits = management.get("edits") if isinstance(management, dict) else management
    return bool(members.get("compaction")) or any(
        str(edit.get("type")).startswith("compact") for edit in objects(edits)
    )


def _count(value: object) -> int:
    """0 for what is no number above 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _atto(usd: str) -> int:
    return int(Decimal(usd).scaleb(18)) if usd else 0

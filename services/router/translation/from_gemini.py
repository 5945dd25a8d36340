"""Content that Gemini generated, whole or streamed, as a chat completion."""

from collections.abc import Iterator, Mapping
from typing import Any

from services.router.formats.members import objects
from services.router.translation.chat_answer import assistant_message, choice, delta, error, tool_call

_FILTERED = frozenset(
    {
        *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR"),
        *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
    }
)


def is_answer(response: Mapping[str, Any]) -> bool:
    """Whether a response says anything: candidates, or why there are none."""
    return isinstance(response.get("candidates"), list) or is_blocked(response)


def is_blocked(response: Mapping[str, Any]) -> bool:
    """Whether the prompt was refused by the content filter."""
    feedback = response.get("promptFeedback")
    return isinstance(feedback, dict) and bool(feedback.get("blockReason"))


def choices_of(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One choice per candidate of a whole response."""
    if is_blocked(response):
        return [choice(0, assistant_message("", "", []), "content_filter")]
    return [_choice(number, candidate, response) for number, candidate in enumerate(_candidates(response))]


def searches_in(response: Mapping[str, Any]) -> int:
    """How often the web was searched."""
    grounding = (candidate.get("groundingMetadata") for candidate in _candidates(response))
    queries = (each.get("webSearchQueries") for each in grounding if isinstance(each, dict))
    return sum(len(each) for each in queries if isinstance(each, list))


def chat_error(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """An error of Google's as one of OpenAI's; None when it is none."""
    said = body.get("error")
    if not isinstance(said, dict):
        return None
    status = said.get("status")
    is_theirs = isinstance(said.get("code"), int) and said["code"] >= 500
    kind = "api_error" if is_theirs else "invalid_request_error"
    return error(said.get("message", "failed without a message"), kind, status)


class ContentDeltas:
    """Turns the responses of one stream into what each adds. Lives as long as the stream."""

    def __init__(self) -> None:
        self._call_count_by_choice: dict[int, int] = {}

    def take(self, response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The choices that a response adds to."""
        if is_blocked(response):
            yield delta(0, {"role": "assistant", "content": ""})
            yield delta(0, {}, "content_filter")
        for number, candidate in enumerate(_candidates(response)):
            index = _index(number, candidate)
            if index not in self._call_count_by_choice:
                self._call_count_by_choice[index] = 0
                yield delta(index, {"role": "assistant", "content": ""})
            for part in _parts(candidate):
                yield from self._said(index, part, response)
            if isinstance(candidate.get("finishReason"), str):
                has_calls = self._call_count_by_choice[index] > 0
                yield delta(index, {}, _finish_reason(candidate["finishReason"], has_calls=has_calls))

    def _said(self, index: int, part: Mapping[str, Any], response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if isinstance(part.get("functionCall"), dict):
            number = self._call_count_by_choice[index]
            self._call_count_by_choice[index] = number + 1
            call = _tool_call(part, f"{_answer_id(response)}_{index}_{number}")
            yield delta(index, {"tool_calls": [{"index": number, **call}]})
        elif isinstance(part.get("inlineData"), dict):
            yield delta(index, {"images": [_image(part["inlineData"])]})
        elif part.get("text"):
            yield delta(index, {"reasoning_content" if part.get("thought") else "content": str(part["text"])})


def _choice(number: int, candidate: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    parts, index = _parts(candidate), _index(number, candidate)
    calls = [part for part in parts if isinstance(part.get("functionCall"), dict)]
    said = assistant_message(
        "".join(str(part.get("text", "")) for part in parts if not part.get("thought")),
        "".join(str(part.get("text", "")) for part in parts if part.get("thought")),
        [_tool_call(part, f"{_answer_id(response)}_{index}_{number}") for number, part in enumerate(calls)],
    )
    if images := [_image(part["inlineData"]) for part in parts if isinstance(part.get("inlineData"), dict)]:
        said["images"] = images
    return choice(index, said, _finish_reason(candidate.get("finishReason"), has_calls=bool(calls)))


def _tool_call(part: Mapping[str, Any], own_id: str) -> dict[str, Any]:
    """Google seldom gives calls ids, so they get ours. A signed thought has to come back with its call."""
    call = part["functionCall"]
    made = tool_call(str(call.get("id") or f"call_{own_id}"), str(call.get("name", "")), call.get("args"))
    if part.get("thoughtSignature"):
        made["extra_content"] = {"google": {"thought_signature": part["thoughtSignature"]}}
    return made


def _image(inline: Mapping[str, Any]) -> dict[str, Any]:
    url = f"data:{inline.get('mimeType', 'image/png')};base64,{inline.get('data', '')}"
    return {"type": "image_url", "image_url": {"url": url}}


def _finish_reason(reason: object, *, has_calls: bool) -> str:
    if reason == "MAX_TOKENS":
        return "length"
    if str(reason) in _FILTERED:
        return "content_filter"
    return "tool_calls" if has_calls else "stop"


def _candidates(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    return objects(response.get("candidates"))


def _parts(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = candidate.get("content")
    return objects(content.get("parts")) if isinstance(content, dict) else []


def _index(number: int, candidate: Mapping[str, Any]) -> int:
    index = candidate.get("index")
    return index if isinstance(index, int) and not isinstance(index, bool) else number


def _answer_id(response: Mapping[str, Any]) -> str:
    return str(response.get("responseId", ""))

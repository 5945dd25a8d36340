"""What a chat completion request says, read the way both translations need it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from services.common.errors import InvalidRequestError
from services.router.formats.members import objects, optional_member

# How much thinking an effort is worth to models that take a budget, in tokens.
THINKING_TOKENS: Mapping[str, int] = {
    "none": 0,
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 32768,
}
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=-]+)*;base64,", re.ASCII)
_MEDIA_BY_AUDIO_FORMAT = {"wav": "audio/wav", "mp3": "audio/mpeg"}


class Media(NamedTuple):
    """An image, a sound or a file that is in the request itself."""

    # As in `image/png`.
    media_type: str
    # Base64.
    data: str


def parts_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The content of a message in parts; a text is one part. Empty texts are left out, as nobody takes them."""
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else objects(content)
    return [part for part in parts if part.get("type") != "text" or part.get("text")]


def text_of(message: Mapping[str, Any]) -> str:
    """The texts of a message, joined."""
    return "".join(str(part.get("text", "")) for part in parts_of(message) if part.get("type") == "text")


def instructions_of(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The parts of all system and developer messages, wherever they stand."""
    return [part for message in messages if is_instruction(message) for part in parts_of(message)]


def is_instruction(message: Mapping[str, Any]) -> bool:
    return message.get("role") in ("system", "developer")


def media_in_url(url: object) -> Media | None:
    """What a data URL carries; None for any other. Raises InvalidRequestError when there is no URL."""
    if not isinstance(url, str) or not url:
        raise InvalidRequestError("messages", "has an image without a url")
    match = _DATA_URL.match(url)
    return Media(match[1], url[match.end() :]) if match is not None else None


def image_url_of(part: Mapping[str, Any]) -> object:
    """The URL of an image part."""
    image = part.get("image_url")
    return image.get("url") if isinstance(image, dict) else image


def file_of(part: Mapping[str, Any]) -> Media:
    """The file of a file part. Raises InvalidRequestError where it is not in the request itself."""
    file = part.get("file")
    media = media_in_url(file.get("file_data")) if isinstance(file, dict) and file.get("file_data") else None
    if media is None:
        raise InvalidRequestError("messages", "has a file that is not in it as a data URL, which this model needs")
    return media


def audio_of(part: Mapping[str, Any]) -> Media:
    """The sound of an audio part. Raises InvalidRequestError."""
    audio = part.get("input_audio")
    audio = audio if isinstance(audio, dict) else {}
    media_type = _MEDIA_BY_AUDIO_FORMAT.get(str(audio.get("format")))
    if media_type is None or not isinstance(audio.get("data"), str):
        raise InvalidRequestError("messages", "has audio that is neither wav nor mp3")
    return Media(media_type, audio["data"])


class ToolCall(NamedTuple):
    """A call of a tool that the model made before."""

    call_id: str
    name: str
    arguments: Mapping[str, Any]
    # The whole member, for what only one format knows.
    member: Mapping[str, Any]


def tool_calls_of(message: Mapping[str, Any]) -> Iterator[ToolCall]:
    """Raises InvalidRequestError for arguments that are no JSON object."""
    for member in objects(message.get("tool_calls")):
        function = member.get("function")
        function = function if isinstance(function, dict) else {}
        yield ToolCall(
            str(member.get("id", "")), str(function.get("name", "")), _arguments(function.get("arguments")), member
        )


def _arguments(text: object) -> Mapping[str, Any]:
    if not text:
        return {}
    try:
        arguments = orjson.loads(str(text))
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequestError("messages", "has a tool call whose arguments are no JSON object")
    return arguments


def functions_of(members: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The functions among the tools. Raises InvalidRequestError for tools of another kind."""
    if members.get("functions"):
        raise InvalidRequestError("functions", "is not understood by this model; use tools")
    tools = objects(members.get("tools"))
    if any(tool.get("type") != "function" or not isinstance(tool.get("function"), dict) for tool in tools):
        raise InvalidRequestError("tools", "may only have functions with this model")
    return [tool["function"] for tool in tools]


class ToolChoice(NamedTuple):
    """Whether a tool is to be called: `auto`, `none`, `required`, or `function`, which is then named."""

    kind: str
    name: str = ""


def tool_choice_of(members: Mapping[str, Any]) -> ToolChoice | None:
    """None where nothing is said. Raises InvalidRequestError."""
    choice = members.get("tool_choice")
    if choice is None:
        return None
    if choice in ("auto", "none", "required"):
        return ToolChoice(str(choice))
    function = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return ToolChoice("function", function["name"])
    raise InvalidRequestError("tool_choice", "must be auto, none, required or a function with this model")


class JsonAnswer(NamedTuple):
    """That the answer has to be JSON, and how it has to look where that is said."""

    schema: Mapping[str, Any] | None


def json_answer_of(members: Mapping[str, Any]) -> JsonAnswer | None:
    """None where the answer may be any text. Raises InvalidRequestError."""
    wanted = optional_member(members, "response_format", dict, {})
    kind = wanted.get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return JsonAnswer(None)
    named = wanted.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        raise InvalidRequestError("response_format", "must be text, json_object, or a json_schema with its schema")
    return JsonAnswer(schema)


def effort_of(members: Mapping[str, Any]) -> str | None:
    """How much to think; None where nothing is said. Raises InvalidRequestError."""
    effort = optional_member(members, "reasoning_effort", str, "")
    if effort and effort not in THINKING_TOKENS:
        raise InvalidRequestError("reasoning_effort", f"must be one of {', '.join(THINKING_TOKENS)}")
    return effort or None


def output_limit_of(members: Mapping[str, Any]) -> int | None:
    """How many tokens the answer may have, thinking included. Raises InvalidRequestError."""
    for name in ("max_completion_tokens", "max_tokens"):
        limit = optional_member(members, name, int, 0)
        if limit < 0:
            raise InvalidRequestError(name, "must be a whole number from 1")
        if limit:
            return limit
    return None


def stops_of(members: Mapping[str, Any]) -> list[str]:
    """The texts to stop at. Raises InvalidRequestError."""
    stop = members.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        raise InvalidRequestError("stop", "must be a text or a list of texts")
    # No model stops at nothing.
    return [each for each in stops if each.strip()]


def number_of(members: Mapping[str, Any], name: str) -> float | None:
    """A number that may be absent. Raises InvalidRequestError."""
    value = members.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise InvalidRequestError(name, "must be a JSON number")
    return value


def refuse_what_nobody_else_does(members: Mapping[str, Any]) -> None:
    """Raises InvalidRequestError for what only providers of the format itself can answer."""
    if members.get("logprobs"):
        raise InvalidRequestError("logprobs", "is not possible with this model")
    if "audio" in (members.get("modalities") or ()):
        raise InvalidRequestError("modalities", "may not have audio with this model")

"""A chat completion request as a request to generate content with Gemini."""

import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from services.common.errors import InvalidRequestError
from services.router.formats.members import objects
from services.router.translation import chat_request as chat
from services.router.translation.chat_request import THINKING_TOKENS

_TOOL_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "function": "ANY"}
# Models that take a level cannot be kept from thinking at all.
_LEVELS = {"none": "MINIMAL", "xhigh": "HIGH"}


def content_request(
    members: Mapping[str, Any], output_tokens_max: int | None, *, thinks_by_budget: bool
) -> dict[str, Any]:
    """Raises InvalidRequestError for what Gemini's format cannot say. The model is named in the path."""
    chat.refuse_what_nobody_else_does(members)
    messages = objects(members.get("messages"))
    request: dict[str, Any] = {"contents": _contents(messages)}
    if system := [_part(part) for part in chat.instructions_of(messages)]:
        request["systemInstruction"] = {"parts": system}
    request |= _tools(members)
    if config := _generation_config(members, output_tokens_max, thinks_by_budget=thinks_by_budget):
        request["generationConfig"] = config
    return request


def _contents(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """User and model by turns. A result names its tool, so the names of calls are remembered."""
    contents: list[dict[str, Any]] = []
    name_by_call: dict[str, str] = {}
    for message in messages:
        if chat.is_instruction(message):
            continue
        role, parts = _said(message, name_by_call)
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    return contents


def _said(message: Mapping[str, Any], name_by_call: dict[str, str]) -> tuple[str, list[dict[str, Any]]]:
    match message.get("role"):
        case "user":
            return "user", [_part(part) for part in chat.parts_of(message)]
        case "assistant":
            return "model", list(_model_parts(message, name_by_call))
        case "tool":
            return "user", [_result(message, name_by_call)]
        case role:
            raise InvalidRequestError("messages", f"has the role {role!r}, which this model does not know")


def _model_parts(message: Mapping[str, Any], name_by_call: dict[str, str]) -> Iterator[dict[str, Any]]:
    for part in chat.parts_of(message):
        yield _part({"type": "text", "text": part["refusal"]} if part.get("type") == "refusal" else part)
    for call in chat.tool_calls_of(message):
        name_by_call[call.call_id] = call.name
        made: dict[str, Any] = {"functionCall": {"name": call.name, "args": dict(call.arguments)}}
        if signature := _thought_signature(call.member):
            made["thoughtSignature"] = signature
        yield made


def _thought_signature(call: Mapping[str, Any]) -> object:
    """As Google's own translation hands it out with a call, and wants it back."""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    return google.get("thought_signature") if isinstance(google, dict) else None


def _result(message: Mapping[str, Any], name_by_call: Mapping[str, str]) -> dict[str, Any]:
    name = name_by_call.get(str(message.get("tool_call_id")))
    if name is None:
        raise InvalidRequestError("messages", "has a tool's result for a call that no message before it makes")
    text = chat.text_of(message)
    try:
        response = orjson.loads(text)
    except orjson.JSONDecodeError:
        response = None
    return {
        "functionResponse": {"name": name, "response": response if isinstance(response, dict) else {"result": text}}
    }


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "text":
            return {"text": str(part.get("text", ""))}
        case "image_url":
            return _image(chat.image_url_of(part))
        case "input_audio":
            return _inline(chat.audio_of(part))
        case "file":
            return _inline(chat.file_of(part))
        case kind:
            raise InvalidRequestError("messages", f"has a part of the type {kind!r}, which this model does not take")


def _image(url: object) -> dict[str, Any]:
    media = chat.media_in_url(url)
    if media is not None:
        return _inline(media)
    try:
        media_type, _ = mimetypes.guess_type(urlsplit(str(url)).path)
    except ValueError as error:
        raise InvalidRequestError("messages", "has an image whose url is none") from error
    return {"fileData": {"fileUri": url, **({"mimeType": media_type} if media_type else {})}}


def _inline(media: chat.Media) -> dict[str, Any]:
    return {"inlineData": {"mimeType": media.media_type, "data": media.data}}


def _tools(members: Mapping[str, Any]) -> dict[str, Any]:
    tools: list[dict[str, Any]] = []
    if functions := chat.functions_of(members):
        tools.append({"functionDeclarations": [_declaration(function) for function in functions]})
    if isinstance(members.get("web_search_options"), dict):
        tools.append({"googleSearch": {}})
    choice = chat.tool_choice_of(members)
    if not tools:
        return {}
    if not functions or choice is None:
        return {"tools": tools}
    calling: dict[str, Any] = {"mode": _TOOL_MODES[choice.kind]}
    if choice.name:
        calling["allowedFunctionNames"] = [choice.name]
    return {"tools": tools, "toolConfig": {"functionCallingConfig": calling}}


def _declaration(function: Mapping[str, Any]) -> dict[str, Any]:
    declaration: dict[str, Any] = {"name": str(function.get("name", ""))}
    if isinstance(function.get("description"), str):
        declaration["description"] = function["description"]
    if isinstance(function.get("parameters"), dict):
        declaration["parametersJsonSchema"] = function["parameters"]
    return declaration


def _generation_config(
    members: Mapping[str, Any], output_tokens_max: int | None, *, thinks_by_budget: bool
) -> dict[str, Any]:
    limit = chat.output_limit_of(members)
    if limit is not None:
        limit = min(limit, output_tokens_max or limit)
    told: dict[str, Any] = {
        "temperature": chat.number_of(members, "temperature"),
        "topP": chat.number_of(members, "top_p"),
        "seed": chat.number_of(members, "seed"),
        "presencePenalty": chat.number_of(members, "presence_penalty"),
        "frequencyPenalty": chat.number_of(members, "frequency_penalty"),
        "candidateCount": chat.number_of(members, "n"),
        "maxOutputTokens": limit,
        "stopSequences": chat.stops_of(members) or None,
        "thinkingConfig": _thinking(chat.effort_of(members), thinks_by_budget=thinks_by_budget),
    }
    json_answer = chat.json_answer_of(members)
    if json_answer is not None:
        told["responseMimeType"] = "application/json"
        told["responseJsonSchema"] = json_answer.schema
    return {name: value for name, value in told.items() if value is not None}


def _thinking(effort: str | None, *, thinks_by_budget: bool) -> dict[str, Any] | None:
    if effort is None:
        return None
    shown = {"includeThoughts": True} if effort != "none" else {}
    if thinks_by_budget:
        return {"thinkingBudget": THINKING_TOKENS[effort], **shown}
    return {"thinkingLevel": _LEVELS.get(effort, effort.upper()), **shown}

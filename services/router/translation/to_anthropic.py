"""A chat completion request as a request for an Anthropic message."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from services.common.errors import InvalidRequestError
from services.router.formats.members import objects
from services.router.translation import chat_request as chat
from services.router.translation.chat_request import THINKING_TOKENS

# Where neither the request nor the configuration says how long an answer may be; this format has to be told.
OUTPUT_TOKENS_DEFAULT = 8192
# As many as credit is reserved for.
_SEARCHES_MAX = 20
# The least that a budget of thinking may be.
_THINKING_TOKENS_MIN = 1024
_JSON_INSTRUCTION = "Answer with one JSON object and nothing else."
_TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any", "function": "tool"}
_EFFORTS = {"minimal": "low"}
_SERVICE_TIERS = {"auto": "auto", "default": "standard_only"}


def message_request(
    members: Mapping[str, Any], upstream_model: str, output_tokens_max: int | None, *, thinks_by_budget: bool
) -> dict[str, Any]:
    """Raises InvalidRequestError for what Anthropic's format cannot say."""
    chat.refuse_what_nobody_else_does(members)
    if members.get("n") not in (None, 1):
        raise InvalidRequestError("n", "must be 1 with this model")
    messages = objects(members.get("messages"))
    json_answer = chat.json_answer_of(members)
    request: dict[str, Any] = {"model": upstream_model, "messages": _turns(messages)}
    system = [_text_block(part) for part in chat.instructions_of(messages)]
    if json_answer is not None and json_answer.schema is None:
        system.append({"type": "text", "text": _JSON_INSTRUCTION})
    if system:
        request["system"] = system
    if json_answer is not None and json_answer.schema is not None:
        request["output_config"] = {"format": {"type": "json_schema", "schema": json_answer.schema}}
    request |= _tools(members)
    _think(request, members, messages, thinks_by_budget=thinks_by_budget)
    request["max_tokens"] = _output_limit(request, members, output_tokens_max)
    _fit_budget(request)
    request |= _sampling(members, chooses_itself=not thinks_by_budget or "thinking" in request)
    request |= _about_the_call(members)
    return request


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """User and assistant by turns: what one of them says in a row, results of tools included, is one turn."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if chat.is_instruction(message):
            continue
        role, blocks = _said(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _said(message: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    match message.get("role"):
        case "user":
            return "user", [_block(part) for part in chat.parts_of(message)]
        case "assistant":
            return "assistant", list(_assistant_blocks(message))
        case "tool":
            content = [_block(part) for part in chat.parts_of(message)]
            result = {"type": "tool_result", "tool_use_id": str(message.get("tool_call_id", ""))}
            return "user", [{**result, "content": content} if content else result]
        case role:
            raise InvalidRequestError("messages", f"has the role {role!r}, which this model does not know")


def _assistant_blocks(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    # Thoughts are signed, and have to come back as they were given.
    yield from objects(message.get("thinking_blocks"))
    for part in chat.parts_of(message):
        yield _block({"type": "text", "text": part["refusal"]} if part.get("type") == "refusal" else part)
    for call in chat.tool_calls_of(message):
        yield {"type": "tool_use", "id": call.call_id, "name": call.name, "input": dict(call.arguments)}


def _block(part: Mapping[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "text":
            return _text_block(part)
        case "image_url":
            block = {"type": "image", "source": _image_source(chat.image_url_of(part))}
        case "file":
            media = chat.file_of(part)
            block = {"type": "document", "source": _base64_source(media)}
        case kind:
            raise InvalidRequestError("messages", f"has a part of the type {kind!r}, which this model does not take")
    return _with_cache_control(block, part)


def _text_block(part: Mapping[str, Any]) -> dict[str, Any]:
    return _with_cache_control({"type": "text", "text": str(part.get("text", ""))}, part)


def _with_cache_control(block: dict[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Clients that know whom they talk to may say what to cache, in Anthropic's own words."""
    if isinstance(part.get("cache_control"), dict):
        block["cache_control"] = part["cache_control"]
    return block


def _image_source(url: object) -> dict[str, Any]:
    media = chat.media_in_url(url)
    return {"type": "url", "url": url} if media is None else _base64_source(media)


def _base64_source(media: chat.Media) -> dict[str, Any]:
    return {"type": "base64", "media_type": media.media_type, "data": media.data}


def _tools(members: Mapping[str, Any]) -> dict[str, Any]:
    tools: list[dict[str, Any]] = [_tool(function) for function in chat.functions_of(members)]
    if isinstance(members.get("web_search_options"), dict):
        tools.append({"type": "web_search_20250305", "name": "web_search", "max_uses": _SEARCHES_MAX})
    if not tools:
        return {}
    choice = chat.tool_choice_of(members)
    one_at_a_time = members.get("parallel_tool_calls") is False
    if choice is None and not one_at_a_time:
        return {"tools": tools}
    chosen: dict[str, Any] = {"type": _TOOL_CHOICES[choice.kind if choice is not None else "auto"]}
    if choice is not None and choice.name:
        chosen["name"] = choice.name
    if one_at_a_time and chosen["type"] != "none":
        chosen["disable_parallel_tool_use"] = True
    return {"tools": tools, "tool_choice": chosen}


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    tool = {
        "name": str(function.get("name", "")),
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    if isinstance(function.get("description"), str):
        tool["description"] = function["description"]
    if function.get("strict") is True:
        tool["strict"] = True
    return tool


def _think(
    request: dict[str, Any],
    members: Mapping[str, Any],
    messages: Sequence[Mapping[str, Any]],
    *,
    thinks_by_budget: bool,
) -> None:
    """Says how much to think, where the format allows it: a tool that must be called leaves no room for thoughts."""
    is_forced = request.get("tool_choice", {}).get("type") in ("any", "tool")
    if isinstance(members.get("thinking"), dict):
        request["thinking"] = members["thinking"]
        return
    effort = chat.effort_of(members)
    if effort is None or is_forced:
        return
    if effort == "none":
        # Who takes a budget does not think unless told to.
        request |= {} if thinks_by_budget else {"thinking": {"type": "disabled"}}
    elif not thinks_by_budget:
        request["thinking"] = {"type": "adaptive"}
        request["output_config"] = {**request.get("output_config", {}), "effort": _EFFORTS.get(effort, effort)}
    elif not _has_lost_thoughts(messages):
        request["thinking"] = {"type": "enabled", "budget_tokens": THINKING_TOKENS[effort]}


def _has_lost_thoughts(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether tools were called after thinking, and the client did not keep the thoughts, which have to come back."""
    said = [message for message in messages if message.get("role") == "assistant"]
    return bool(said) and bool(said[-1].get("tool_calls")) and not said[-1].get("thinking_blocks")


def _output_limit(request: Mapping[str, Any], members: Mapping[str, Any], output_tokens_max: int | None) -> int:
    asked_for = chat.output_limit_of(members)
    if asked_for is not None:
        return min(asked_for, output_tokens_max or asked_for)
    return output_tokens_max or OUTPUT_TOKENS_DEFAULT + int(request.get("thinking", {}).get("budget_tokens", 0))


def _fit_budget(request: dict[str, Any]) -> None:
    """The budget is inside the limit here, and below it."""
    thinking = request.get("thinking", {})
    if thinking.get("type") != "enabled":
        return
    budget = min(int(thinking.get("budget_tokens", 0)), request["max_tokens"] - 1)
    if budget < _THINKING_TOKENS_MIN:
        del request["thinking"]
    else:
        request["thinking"] = {**thinking, "budget_tokens": budget}


def _sampling(members: Mapping[str, Any], *, chooses_itself: bool) -> dict[str, Any]:
    """Newer models, and older ones while they think, refuse to be told how to choose words; the rest take one way."""
    sampling: dict[str, Any] = {}
    temperature, top_p = chat.number_of(members, "temperature"), chat.number_of(members, "top_p")
    if temperature is not None and not chooses_itself:
        sampling["temperature"] = min(temperature, 1)
    elif top_p is not None and not chooses_itself:
        sampling["top_p"] = top_p
    if stops := chat.stops_of(members):
        sampling["stop_sequences"] = stops
    return sampling


def _about_the_call(members: Mapping[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {}
    user = members.get("safety_identifier") or members.get("user")
    if isinstance(user, str) and user:
        about["metadata"] = {"user_id": user}
    tier = _SERVICE_TIERS.get(str(members.get("service_tier")))
    if tier is not None:
        about["service_tier"] = tier
    if members.get("stream") is True:
        about["stream"] = True
    return about

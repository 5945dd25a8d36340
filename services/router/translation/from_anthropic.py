"""An Anthropic message, whole or streamed, as a chat completion."""

from collections.abc import Iterator, Mapping
from typing import Any

from services.router.formats.members import objects
from services.router.translation.chat_answer import assistant_message, choice, delta, error, tool_call

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_THOUGHTS = ("thinking", "redacted_thinking")


def choices_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The one choice of a whole message."""
    blocks = objects(message.get("content"))
    calls = [tool_call(*_tool_use(block), block.get("input")) for block in blocks if block.get("type") == "tool_use"]
    said = assistant_message(_joined(blocks, "text"), _joined(blocks, "thinking"), calls)
    # With their signatures: they have to come back with the results of tools.
    if thoughts := [block for block in blocks if block.get("type") in _THOUGHTS]:
        said["thinking_blocks"] = thoughts
    return [choice(0, said, finish_reason(message.get("stop_reason")))]


def finish_reason(stop_reason: object) -> str:
    """In OpenAI's words. What we do not know is a stop like any other."""
    return _FINISH_REASONS.get(str(stop_reason), "stop")


def chat_error(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """An error of Anthropic's as one of OpenAI's; None when it is none."""
    said = body.get("error")
    if not isinstance(said, dict):
        return None
    return error(said.get("message", "failed without a message"), said.get("type", "api_error"))


class MessageDeltas:
    """Turns the events of one streamed message into what each adds. Lives as long as the stream."""

    def __init__(self) -> None:
        # Blocks of Anthropic's are numbered together, calls of tools for themselves.
        self._call_index_by_block: dict[object, int] = {}
        self._thoughts_by_block: dict[object, dict[str, Any]] = {}

    def take(self, event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The choices that an event adds to; often none."""
        block, index = event.get("content_block"), event.get("index")
        said = event.get("delta")
        match event.get("type"):
            case "message_start":
                yield delta(0, {"role": "assistant", "content": ""})
            case "content_block_start" if isinstance(block, dict):
                yield from self._start(str(index), block)
            case "content_block_delta" if isinstance(said, dict):
                yield from self._go_on(str(index), said)
            case "content_block_stop":
                yield from self._stop(str(index))
            case "message_delta" if isinstance(said, dict) and isinstance(said.get("stop_reason"), str):
                yield delta(0, {}, finish_reason(said["stop_reason"]))

    def _start(self, index: str, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if block.get("type") in _THOUGHTS:
            self._thoughts_by_block[index] = dict(block)
        if block.get("type") != "tool_use":
            return
        call_index = self._call_index_by_block[index] = len(self._call_index_by_block)
        yield delta(0, {"tool_calls": [{"index": call_index, **tool_call(*_tool_use(block), "")}]})

    def _go_on(self, index: str, said: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        text = next((said[name] for name in ("text", "thinking", "partial_json", "signature") if name in said), "")
        match said.get("type"):
            case "text_delta":
                yield delta(0, {"content": text})
            case "thinking_delta":
                self._add_to_thought(index, "thinking", text)
                yield delta(0, {"reasoning_content": text})
            case "signature_delta":
                self._add_to_thought(index, "signature", text)
            case "input_json_delta" if text and index in self._call_index_by_block:
                piece = {"index": self._call_index_by_block[index], "function": {"arguments": text}}
                yield delta(0, {"tool_calls": [piece]})

    def _stop(self, index: str) -> Iterator[dict[str, Any]]:
        thought = self._thoughts_by_block.pop(index, None)
        if thought is not None:
            yield delta(0, {"thinking_blocks": [thought]})

    def _add_to_thought(self, index: str, member: str, text: object) -> None:
        thought = self._thoughts_by_block.setdefault(index, {"type": "thinking", "thinking": ""})
        thought[member] = f"{thought.get(member) or ''}{text}"


def _joined(blocks: list[dict[str, Any]], kind: str) -> str:
    return "".join(str(block.get(kind, "")) for block in blocks if block.get("type") == kind)


def _tool_use(block: Mapping[str, Any]) -> tuple[str, str]:
    return str(block.get("id", "")), str(block.get("name", ""))

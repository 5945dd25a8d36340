"""What a provider keeps for whoever holds a key: responses, conversations, files, containers, prompts.

The platform's key is shared by all organizations, so nothing that is kept under it may be named in a request, nor put
there: ids are no secrets. An organization's own key reaches what is the organization's own.
"""

import re
from collections.abc import Mapping
from typing import Any

# They refer to something wherever they stand and whatever they hold.
_REFERENCES = frozenset(
    {
        *("previous_response_id", "comparison_response_id", "previous_message_id", "thread"),
        *("file_id", "file_ids", "vector_store_id", "vector_store_ids", "collection_ids", "data_sources"),
        *("container_id", "skill_id", "memory_store_id", "tunnel_id"),
        *("cached_content", "cachedcontent"),
    }
)
# They do where they are a text, or have an id.
_NAMED_OR_DESCRIBED = frozenset({"container", "conversation"})
# They do where they have an id.
_DESCRIBED = frozenset({"audio", "prompt", "voice"})
_STORE = "store"
_ADDRESSES = frozenset({"url", "image_url", "file_url", "audio_url", "video_url"})
# Where anybody can fetch things, or the thing itself.
_OPEN_ADDRESS = re.compile(r"(?:data:|https?://(?![^/?#]*generativelanguage\.googleapis\.com))", re.IGNORECASE)
# What is in them is the caller's own: schemas, arguments, labels.
_OPAQUE = frozenset({"parameters", "schema", "input_schema", "arguments", "metadata", "headers"})

_NAMES = frozenset({*_REFERENCES, *_NAMED_OR_DESCRIBED, *_DESCRIBED, *_ADDRESSES, _STORE})


def kept_member(members: Mapping[str, Any]) -> str:
    """The name of a member that is about something kept; empty when none is."""
    rest: list[Any] = [members]
    while rest:
        value = rest.pop()
        if isinstance(value, list):
            rest += [each for each in value if isinstance(each, (dict, list))]
            continue
        for name, member in value.items():
            # Some providers take members whatever their case.
            lowered = name.lower()
            if lowered in _NAMES and _is_kept(lowered, member):
                return str(name)
            if isinstance(member, (dict, list)) and not _is_opaque(lowered, member):
                rest.append(member)
    return ""


def _is_kept(name: str, member: Any) -> bool:
    if not member or name in _REFERENCES:
        return bool(member)
    if name in _NAMED_OR_DESCRIBED or name in _DESCRIBED:
        return bool(member.get("id")) if isinstance(member, dict) else name in _NAMED_OR_DESCRIBED
    if name in _ADDRESSES and isinstance(member, str):
        return _OPEN_ADDRESS.match(member) is None
    return name == _STORE and member is True


def _is_opaque(name: str, member: object) -> bool:
    # An `input` that is an object is a tool's; a list of items is the request itself.
    return name in _OPAQUE or (name == "input" and isinstance(member, dict))

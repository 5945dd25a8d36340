"""What changes the cost of a call beyond what its prices can say, or lets the provider answer with another model.

The bill is exact and the worst case is reserved before the provider is asked, so nothing of this goes out with the
platform's key. What an organization asks of a provider with a key of its own is between the two.
"""

from collections.abc import Callable, Mapping
from typing import Any

from services.common.errors import InvalidRequestError
from services.router.formats.members import objects

# As good as left out.
_NOTHING: tuple[object, ...] = (None, False, "", [])
# Tiers whose prices the price book can hold, by the name under which they are served.
_PRICED_TIERS = ("auto", "default", "standard", "standard_only", "on_demand", "flex", "priority", "fast", "scale")

IsPricedTool = Callable[[Mapping[str, Any], list[dict[str, Any]]], bool]


def _unless(*values: object) -> Callable[[object], bool]:
    return lambda value: value not in (*_NOTHING, *values)


def _has_long_cache(value: object) -> bool:
    return isinstance(value, dict) and value.get("ttl") not in (None, "30m")


_CHANGES_COST: Mapping[str, Callable[[object], bool]] = {
    # Another model may answer, or another company with prices of its own.
    **dict.fromkeys(("models", "fallbacks", "route", "provider", "preset"), _unless()),
    # A model of its own writes what the image model has drawn.
    "output_format": lambda value: value == "svg",
    # Charged by the page, by the source or by the search, of which the answer tells no number.
    **dict.fromkeys(("plugins", "search_parameters", "enable_search", "web_search_options"), _unless()),
    # A multiple of the prices, or a discount, or another payer.
    "speed": _unless("standard"),
    "inference_geo": _unless("global"),
    "service_tier": _unless(*_PRICED_TIERS),
    **dict.fromkeys(("fallback_credit_token", "billing_policy"), _unless()),
    # Counted apart from other writes, and there is one price for all of them.
    "prompt_cache_options": _has_long_cache,
}


def refuse_unpriced(members: Mapping[str, Any], is_priced_tool: IsPricedTool) -> None:
    """Raises InvalidRequestError for the first member that changes the cost beyond what prices can say."""
    for name, value in members.items():
        # Some providers take members whatever their case.
        lowered = name.lower()
        changes_cost = _CHANGES_COST.get(lowered)
        if changes_cost is not None and changes_cost(value):
            raise _unpriced(name)
        if lowered == "tools":
            _refuse_unpriced_tools(name, value, is_priced_tool)
        elif lowered == "input":
            for at, item in enumerate(objects(value)):
                # Tools may come later in a conversation. Those that a server has listed are descriptions only.
                if item.get("type") != "mcp_list_tools":
                    _refuse_unpriced_tools(f"{name}[{at}].tools", item.get("tools"), is_priced_tool)


def _refuse_unpriced_tools(name: str, value: object, is_priced_tool: IsPricedTool) -> None:
    tools = objects(value)
    for at, tool in enumerate(tools):
        if not is_priced_tool(tool, tools):
            raise _unpriced(f"{name}[{at}]")


def _unpriced(name: str) -> InvalidRequestError:
    return InvalidRequestError(
        name,
        "can change what the call costs, or which model answers, beyond what its prices say: "
        "leave it out, or use an own provider key",
    )


def kind_of(tool: Mapping[str, Any]) -> str:
    """The type of a tool. One that is only described is a function."""
    return str(tool.get("type") or ("function" if "function" in tool or "input_schema" in tool else ""))

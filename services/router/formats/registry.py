"""All endpoints, and who can answer them. A new endpoint is a module of its own and a line here."""

from collections.abc import Mapping

from services.router.formats.chat_completions import ChatCompletions
from services.router.formats.chat_on_anthropic import ChatOnAnthropic
from services.router.formats.chat_on_gemini import ChatOnGemini
from services.router.formats.embeddings import Embeddings
from services.router.formats.endpoint import Endpoint
from services.router.formats.exchange import Exchange
from services.router.formats.image_generations import ImageGenerations
from services.router.formats.messages import Messages
from services.router.formats.native import NativeExchange
from services.router.formats.responses import Responses

CHAT_COMPLETIONS = ChatCompletions()
RESPONSES = Responses()
EMBEDDINGS = Embeddings()
IMAGE_GENERATIONS = ImageGenerations()
MESSAGES = Messages()

ENDPOINTS: tuple[Endpoint, ...] = (CHAT_COMPLETIONS, RESPONSES, EMBEDDINGS, IMAGE_GENERATIONS, MESSAGES)
ENDPOINT_BY_PATH: Mapping[str, Endpoint] = {endpoint.path: endpoint for endpoint in ENDPOINTS}

_NATIVE = {(endpoint.name, endpoint.native_format): NativeExchange(endpoint) for endpoint in ENDPOINTS}
_EXCHANGES: Mapping[tuple[str, str], Exchange] = {
    **_NATIVE,
    (CHAT_COMPLETIONS.name, "anthropic"): ChatOnAnthropic(),
    (CHAT_COMPLETIONS.name, "gemini"): ChatOnGemini(),
}

# What a provider may speak.
PROVIDER_FORMATS = ("openai", "anthropic", "gemini")


def endpoints_of(provider_format: str) -> frozenset[str]:
    """The names of the endpoints that providers of a format can answer."""
    return frozenset(name for name, spoken in _EXCHANGES if spoken == provider_format)


def exchange_for(endpoint: Endpoint, provider_format: str) -> Exchange | None:
    """How providers of a format answer an endpoint; None when they cannot."""
    return _EXCHANGES.get((endpoint.name, provider_format))

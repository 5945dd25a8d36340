"""OpenAI embeddings: `POST /v1/embeddings`."""

from collections.abc import Mapping
from typing import Any

from services.common.errors import InvalidRequestError
from services.router.formats.endpoint import Answer, Endpoint, EndpointNumber, ModelRequest
from services.router.formats.estimation import Tokenizer
from services.router.formats.usage import usage_from_embeddings


class Embeddings(Endpoint):
    """Texts in, vectors out. Never streamed."""

    name = "embeddings"
    path = "/v1/embeddings"
    number = EndpointNumber.EMBEDDINGS
    upstream_path = "/embeddings"
    has_streams = False
    knows_kept_state = False

    def check(self, members: Mapping[str, Any]) -> None:
        value = members.get("input")
        if not isinstance(value, (str, list)) or not value:
            raise InvalidRequestError("input", "must be a text, or a list with at least one text or list of tokens")

    def count_input(self, members: Mapping[str, Any], tokenizer: Tokenizer) -> int:
        return _count(members.get("input"), tokenizer)

    def answer(self, request: ModelRequest, body: bytes, message: Mapping[str, Any]) -> Answer | None:
        if not isinstance(message.get("data"), list):
            return None
        report = message.get("usage")
        return Answer(body=body, usage=usage_from_embeddings(report) if isinstance(report, dict) else None)


def _count(value: object, tokenizer: Tokenizer) -> int:
    """Texts are counted; numbers are tokens already."""
    if isinstance(value, str):
        return tokenizer.count(value)
    if isinstance(value, list):
        return sum(_count(each, tokenizer) for each in value)
    return 1 if isinstance(value, int) else 0

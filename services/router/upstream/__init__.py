"""Speaks HTTP/1.1 to providers, on the event loop's own thread: one with threads of its own cost a third of a call."""

from services.router.upstream.answer import UpstreamAnswer
from services.router.upstream.errors import UpstreamError
from services.router.upstream.upstream import Upstream, client_context

__all__ = ["Upstream", "UpstreamAnswer", "UpstreamError", "client_context"]

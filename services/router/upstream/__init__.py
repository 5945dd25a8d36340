"""Speaks HTTP/1.1 to providers, on the event loop's own thread: one with threads of its own cost a third of a call."""

from services.router.upstream.answer import UpstreamAnswer
from services.router.upstream.errors import UpstreamError
from services.router.upstream.upstream import Upstream

__all__ = ["Upstream", "UpstreamAnswer", "UpstreamError"]

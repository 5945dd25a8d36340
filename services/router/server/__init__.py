"""HTTP/1.1 for clients, on the event loop's own thread."""

from services.router.server.request import Request
from services.router.server.server import HttpServer

__all__ = ["HttpServer", "Request"]

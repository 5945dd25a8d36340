"""Somebody who receives alerts: a real HTTP server, which answers as the test wants and checks what it gets."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Whatever is awaited comes within seconds; the machine may be busy.
AWAITED_SECONDS = 30
# Answers with nothing, until the receiver ends.
HANG = 0
# Answers 204, but not before it is released.
HOLD = 1


@dataclass(frozen=True, slots=True)
class Received:
    """One request."""

    path: str
    # By lower-case name.
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return json.loads(self.body)

    def is_signed_with(self, secret: str) -> bool:
        """As a receiver would check it that knows no code of ours."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        is_recent = abs(time.time() - int(self.headers["webhook-timestamp"])) < 300
        return is_recent and self.headers["webhook-signature"] == f"v1,{expected}"


@dataclass(slots=True)
class Receiver:
    """Answers with the next status of the script, then 204."""

    url: str = ""
    script: list[int] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, request: Received) -> int:
        """The status to answer with."""
        with self._changed:
            self.received.append(request)
            self._changed.notify_all()
            return self.script.pop(0) if self.script else 204

    def wait_for(self, count: int) -> list[Received]:
        """So many requests, once they have come. Fails the test when they do not."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.received) >= count, AWAITED_SECONDS)
        assert came, f"{len(self.received)} of {count} deliveries came"
        return self.received[:count]


@contextmanager
def a_receiver(*script: int, location: str = "") -> Iterator[Receiver]:
    """`location` is where answers 3xx point to."""
    receiver = Receiver(script=list(script))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = receiver.take(Received(self.path, headers, body))
            if status == HANG:
                receiver.ended.wait(AWAITED_SECONDS)
                return
            if status == HOLD:
                receiver.released.wait(AWAITED_SECONDS)
                status = 204
            self.send_response(status)
            if location:
                self.send_header("location", location)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Tests say what went wrong themselves."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/alerts"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()

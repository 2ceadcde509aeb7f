"""A place to send spans to, over OTLP/HTTP, that keeps their bytes.

Not `tests.fakes.otlp`: that one has a gRPC server, whose threads do not survive the forks by which tests here
start programs.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Spans:
    """What came in so far."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it; names and values of attributes are readable in it."""
        return b"\n".join(self.bodies).decode("latin-1")


@contextmanager
def spans() -> Iterator[Spans]:
    """Listens on a free port within."""
    received = Spans()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            zipped = self.headers.get("content-encoding") == "gzip"
            received.bodies.append(gzip.decompress(body) if zipped else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: a test's output is its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="spans")
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A server that speaks the part of the Hugging Face hub's HTTP API that a download needs.

    GET  /api/models/{repo}/revision/{revision}   commit and list of files with sizes
    GET  /api/models/{repo}/tree/{revision}       the same list, as a tree
    HEAD, GET /{repo}/resolve/{revision}/{file}   ETag, X-Repo-Commit, ranges

Gated, private and missing repositories answer as the hub does (status and X-Error-Code). A download
can be cut after some bytes, and every request is on record.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """Content of one repository at one commit."""

    files: dict[str, bytes]
    commit: str = "c" * 40
    branches: tuple[str, ...] = ("main",)
    gated: bool = False
    private: bool = False
    readers: tuple[str, ...] = ()
    """Tokens that may read it."""


@dataclass
class FakeHub:
    """`with FakeHub({"owner/name": Repository(...)}) as hub:` - then `hub.url` is an endpoint."""

    repositories: dict[str, Repository]
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """(method, path, headers) in their order."""
    cut: dict[str, int] = field(default_factory=dict)
    """File -> bytes after which its next download breaks, once."""
    down: bool = False
    """Answer 503 to everything."""
    address: str = "127.0.0.1"
    """Where it listens."""

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(_Handler):
            fake = hub

        self._server = ThreadingHTTPServer((self.address, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self._server.server_address[1]}"

    def downloads(self) -> list[str]:
        """Names of the files whose content was asked for."""
        paths = [path for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]
        return [path.split("/resolve/")[1].partition("/")[2] for path in paths]


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def _handle(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.fake.requests.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        if self.fake.down:
            self._reply(503, b"{}")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)/?", path):
            self._list(found[1], found[2], found[3])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(found[1], found[2], found[3])
        else:
            self._reply(404, b"{}")

    def _repository(self, name: str, revision: str) -> Repository | None:
        """The repository when the caller may read it; otherwise the hub's refusal is sent."""
        repository = self.fake.repositories.get(name)
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if repository is None or (repository.private and token not in repository.readers):
            self._reply(404 if token else 401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return None
        if repository.gated and token not in repository.readers:
            self._reply(403 if token else 401, b"{}", {"X-Error-Code": "GatedRepo"})
            return None
        if revision != repository.commit and revision not in repository.branches:
            self._reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository

    def _list(self, name: str, what: str, revision: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        files = [(path, len(content), _oid(content)) for path, content in repository.files.items()]
        answer: Any
        if what == "tree":
            answer = [{"type": "file", "path": path, "size": size, "oid": oid} for path, size, oid in files]
        else:
            siblings = [{"rfilename": path, "size": size, "blobId": oid} for path, size, oid in files]
            answer = {"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings}
        self._reply(200, json.dumps(answer).encode())

    def _file(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        content = repository.files.get(path)
        if content is None:
            self._reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.commit})
            return
        headers = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        status, start = 200, 0
        if ranged := re.fullmatch(r"bytes=(\d+)-", self.headers.get("range") or ""):
            status, start = 206, int(ranged[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        limit = self.fake.cut.pop(path, None) if self.command == "GET" else None
        self._reply(status, content[start:], headers, limit)

    def _reply(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, limit: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if limit is None else body[:limit])
        if limit is not None:
            self.wfile.flush()
            self.close_connection = True


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()

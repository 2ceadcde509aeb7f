"""The two scripts that the chart carries: what they ask, how long they wait and what they say."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import pytest

from tests.golden.chart.rendering import CHART

KEY = "canary-key-000000"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, CHART / "files" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PAUSE_S = 0.0  # type: ignore[attr-defined]
    return module


Answer = tuple[int, dict[str, Any]]


@contextmanager
def endpoint(answer: Callable[[dict[str, Any], str], Answer]) -> Iterator[str]:
    """A server on loopback that answers with what `answer` says to a body and an Authorization header."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answered = answer(body, self.headers.get("Authorization", ""))
            text = json.dumps(answered).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 3}}


def problem(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}


def environment(url: str, deadline: float = 5) -> dict[str, str]:
    return {"ENDPOINT": url, "MODEL": "chat", "API_KEY": KEY, "DEADLINE_SECONDS": str(deadline)}


def test_a_model_that_starts_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    answers = [(503, problem("no replica")), (503, problem("no replica")), (200, completion("Paris"))]

    def answer(body: dict[str, Any], authorization: str) -> Answer:
        assert body["model"] == "chat"
        assert authorization == f"Bearer {KEY}"
        return answers.pop(0)

    with endpoint(answer) as url:
        assert script("first_token").main(environment(url)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "waiting: status 503: no replica"
    assert said[1].startswith("OK: chat answered 'Paris' (3 tokens)")
    assert KEY not in "".join(said)


@pytest.mark.parametrize(
    ("status", "body", "deadline", "said"),
    [
        (422, problem("too many tokens"), 60.0, "FAILED: chat at {url}: status 422: too many tokens"),
        (
            401,
            problem("unknown key"),
            0.0,
            "FAILED: chat at {url} did not answer in 0 s: status 401: unknown",
        ),
        (200, {"hello": 1}, 60.0, "FAILED: chat at {url}: the answer is not a chat completion"),
    ],
)
def test_a_failure_says_why(
    capsys: pytest.CaptureFixture[str], status: int, body: dict[str, Any], deadline: float, said: str
) -> None:
    with endpoint(lambda *_: (status, body)) as url:
        assert script("first_token").main(environment(url, deadline)) == 1
    found = capsys.readouterr().out
    assert said.format(url=url) in found
    assert KEY not in found


def test_without_a_key_it_says_where_one_should_be(capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(lambda *_: (200, completion("Paris"))) as url:
        values = environment(url) | {"API_KEY": "", "KEY_IN": "Secret a, key b"}
        assert script("first_token").main(values) == 0
    assert capsys.readouterr().out.startswith("no key in Secret a, key b")

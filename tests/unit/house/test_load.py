"""What the end-to-end tests' load makes of a connection that ends without an answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.e2e import load
from tests.e2e.load import Load, nothing_lost


@pytest.fixture
def closing() -> Iterator[str]:
    """URL of a server that takes connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def close_each() -> None:
            server.settimeout(0.1)
            while not ended.is_set():
                try:
                    server.accept()[0].close()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=close_each)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        ended.set()
        thread.join()


def fate(url: str) -> Load:
    """A load of one request."""
    asked = Load(url, "key", rate=1_000.0)
    asked.start()
    while not asked.fates:
        time.sleep(0.01)
    asked.stop()
    return asked


def test_a_request_without_an_answer_is_lost(closing: str) -> None:
    asked = fate(closing)
    assert {each.what for each in asked.fates} == {"lost"}
    with pytest.raises(AssertionError, match="lost"):
        nothing_lost(asked)


def test_one_whose_caller_was_held_up_says_nothing(closing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "LATE_S", -1.0)
    asked = fate(closing)
    assert {each.what for each in asked.fates} == {"late"}
    with pytest.raises(AssertionError, match="late"):
        nothing_lost(asked)
    monkeypatch.setattr(load, "LATE_SHARE", 1.0)
    nothing_lost(asked)

"""What the gateway takes for a request, another parser takes for the same one, or for none.

The corpus holds one case per file: ordinary requests, and those with which other servers were led to see two
requests where there is one. Hypothesis joins, cuts and changes them. The other parser is h11, which shares no
code with llhttp. It may refuse what we take only where a list here says why.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.gateway.front.talking import Echo, refuse
from tradewind.gateway.front.connection import Connection
from tradewind.gateway.front.listener import Listener

CORPUS = {path.stem: path.read_bytes() for path in sorted(Path(__file__).parent.glob("corpus/*.http"))}
ORDINARY = {
    "get", "post", "chunked", "chunked-extension-trailer", "absolute", "star", "get-with-body", "upgrade-h2c",
    "leading-blank-lines", "expect", "te-tab", "serve-headers",
}  # fmt: skip
"""Requests that are served; of every other case in the corpus nothing is."""
Seen = list[tuple[bytes, bytes]]
"""Method and body of each request."""


class Wire(asyncio.Transport):
    """Takes what is written, and is closed when the connection wants it to be."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def abort(self) -> None:
        self.closed = True

    close = abort

    def write_eof(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0


def ours(data: bytes, size: int = 1 << 20) -> tuple[Seen, Wire]:
    """What the handler got, and the wire; the bytes come `size` at a time."""
    echo = Echo(checks=True)

    async def run() -> Wire:
        listener = Listener(echo.handle, refuse)
        connection = Connection(listener, asyncio.get_running_loop())
        wire = Wire()
        connection.connection_made(wire)
        for start in range(0, len(data), size):
            connection.data_received(data[start : start + size])
            for _ in range(6):
                await asyncio.sleep(0)
        for _ in range(60):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        await asyncio.sleep(0)
        assert listener.held == 0
        return wire

    wire = asyncio.run(run())
    return [(method, body) for method, _, body in echo.seen], wire


def theirs(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What h11 sees, as far as it goes. It takes no blank line before a request, which the standard asks
    servers to ignore, and it waits for the answer to an offer of another protocol.
    """
    while data:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(data.lstrip(b"\r\n"))
        request = _first(connection)
        if request is None:
            return
        yield request
        if connection.their_state is not h11.DONE:
            return
        data, _ = connection.trailing_data


def _first(connection: h11.Connection) -> tuple[bytes, bytes] | None:
    method, body = b"", b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return None
        if isinstance(event, h11.Request):
            method = event.method
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            return (method, body) if isinstance(event, h11.EndOfMessage) else None


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_a_case_of_the_corpus_is_one_request_or_none(name: str, size: int) -> None:
    seen, wire = ours(CORPUS[name], size)
    if name in ORDINARY:
        assert seen == list(theirs(CORPUS[name]))[:1] or name == "upgrade-h2c"
        assert len(seen) == 1
        assert not wire.closed
    else:
        assert seen == []
        assert wire.closed or wire.sent == b""
        assert wire.sent.count(b"HTTP/1.1 200") == 0


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """A few cases, one after another, with some bytes changed."""
    names = draw(st.lists(st.sampled_from(sorted(CORPUS)), min_size=1, max_size=4))
    data = bytearray(b"".join(CORPUS[name] for name in names))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("insert", "delete", "replace", "copy")))
        if kind == "insert":
            data[at:at] = draw(
                st.sampled_from((b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b";", b"0", b"\xff"))
            )
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 8))]
        elif kind == "copy":
            end = draw(st.integers(0, len(data)))
            data[at:at] = data[min(at, end) : max(at, end)]
        elif at < len(data):
            data[at] = draw(st.integers(0, 255))
    return bytes(data)


@settings(max_examples=150)
@given(conversations(), st.sampled_from((1, 3, 17, 1 << 20)))
def test_both_parsers_see_the_same_requests(data: bytes, size: int) -> None:
    seen, wire = ours(data, size)
    other = list(theirs(data))
    for mine, their in zip(seen, other, strict=False):
        assert mine == their
    if len(seen) > len(other):
        # h11 stopped where we went on: right only where it is stricter than the standard.
        assert _stricter(data), (seen, other, wire.sent)


_SPACES = re.compile(rb"^[A-Z]+(?:  +[^ ]+ +| +[^ ]+  +)HTTP", re.MULTILINE)
"""Around the target the standard lets a server take several."""


def _stricter(data: bytes) -> bool:
    lower = data.lower()
    return _SPACES.search(data) is not None or any(
        mark in lower
        for mark in (
            b"upgrade",  # h11 waits for the offer to be answered
            b"connection: close",
        )
    )


def test_the_other_parser_is_another_one() -> None:
    assert cast(Any, h11).__name__ == "h11"
    assert "httptools" not in vars(h11)

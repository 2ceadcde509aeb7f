"""However the network cuts a response, the same comes out: a connection fed by hand, without a socket."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.gateway.connection import Connection
from tradewind.gateway.http1 import ConnectionLimits, UpstreamError

OK = b"HTTP/1.1 200 OK\r\nx-empty:\r\ncontent-type: text/event-stream\r\n"
BODY = b"data: one\n\ndata: two\n\n"
WHOLE = OK + b"content-length: 22\r\n\r\n" + BODY
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
CHUNKS = CHUNKED + b"b\r\n" + BODY[:11] + b"\r\n0b;x=y\r\n" + BODY[11:] + b"\r\n0\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n" + CHUNKS
BAD = CHUNKED + b"b\r\n" + BODY[:11] + b"x\r\n0\r\n\r\n"


class FakeTransport:
    """Records what a connection does to its transport."""

    def __init__(self) -> None:
        self.aborted = False
        self.reading = True

    def get_extra_info(self, name: str) -> None:
        """No socket is behind it."""

    def write(self, data: bytes) -> None:
        """Requests go nowhere."""

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def outcome(raw: bytes, places: list[int]) -> tuple[int, bytes, bytes | None, bool]:
    """Status, content type, body (None when it failed) and whether the connection was kept."""
    loop = asyncio.new_event_loop()
    kept: list[Connection] = []
    transport = FakeTransport()
    connection = Connection(("h", 1), ConnectionLimits(), loop, kept.append, lambda _: None)
    connection.connection_made(cast(asyncio.Transport, transport))
    response = connection.begin(b"head", b"", math.inf, math.inf)
    marks = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    for start, end in pairwise(marks):
        if end > start and not transport.aborted:
            connection.data_received(raw[start:end])
    body: bytes | None = None
    try:
        loop.run_until_complete(response.started())
        body = loop.run_until_complete(response.read_all(1000))
    except UpstreamError:
        assert transport.aborted
    finally:
        loop.close()
    return response.status, response.content_type, body, bool(kept)


@pytest.mark.parametrize("raw", [WHOLE, CHUNKS, INTERIM], ids=["length", "chunks", "interim"])
@given(places=st.lists(st.integers(0, 1000), max_size=30))
def test_any_segmentation_gives_the_same_answer(raw: bytes, places: list[int]) -> None:
    assert outcome(raw, places) == (200, b"text/event-stream", BODY, True)


@pytest.mark.parametrize("raw", [WHOLE, CHUNKS, INTERIM], ids=["length", "chunks", "interim"])
def test_byte_by_byte(raw: bytes) -> None:
    assert outcome(raw, list(range(len(raw)))) == (200, b"text/event-stream", BODY, True)


@given(st.lists(st.integers(0, 1000), max_size=30))
def test_a_bad_chunk_fails_however_it_is_cut(places: list[int]) -> None:
    _, _, body, kept = outcome(BAD, places)
    assert body is None
    assert not kept


@given(st.binary(max_size=300), st.lists(st.integers(0, 1000), max_size=5))
def test_noise_is_a_failure_like_any_other(noise: bytes, places: list[int]) -> None:
    _, _, body, kept = outcome(CHUNKED + b"zz" + noise, places)
    assert body is None
    assert not kept

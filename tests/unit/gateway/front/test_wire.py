"""Framing, targets and response heads, without a connection."""

from __future__ import annotations

import pytest

from tradewind.gateway.front import wire
from tradewind.gateway.problems import Header, Refused


@pytest.mark.parametrize(
    ("headers", "version", "expected"),
    [
        ([], "1.1", wire.Framing(None, chunked=False)),
        ([(b"content-length", b"0")], "1.1", wire.Framing(0, chunked=False)),
        ([(b"content-length", b"12")], "1.0", wire.Framing(12, chunked=False)),
        ([(b"transfer-encoding", b"Chunked")], "1.1", wire.Framing(None, chunked=True)),
    ],
)
def test_a_body_ends_where_one_header_says(
    headers: list[Header], version: str, expected: wire.Framing
) -> None:
    assert wire.framing(headers, version) == expected


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ([(b"content-length", b"3"), (b"transfer-encoding", b"chunked")], "1.1"),
        ([(b"transfer-encoding", b"chunked"), (b"content-length", b"3")], "1.1"),
        ([(b"content-length", b"3"), (b"content-length", b"3")], "1.1"),
        ([(b"content-length", b"3, 3")], "1.1"),
        ([(b"content-length", b"+3")], "1.1"),
        ([(b"content-length", b"-1")], "1.1"),
        ([(b"content-length", b"0x3")], "1.1"),
        ([(b"content-length", b"3 ")], "1.1"),
        ([(b"content-length", b"")], "1.1"),
        ([(b"content-length", "٣".encode())], "1.1"),
        ([(b"content-length", b"1" * 19)], "1.1"),
        ([(b"transfer-encoding", b"gzip, chunked")], "1.1"),
        ([(b"transfer-encoding", b"chunked, chunked")], "1.1"),
        ([(b"transfer-encoding", b"identity")], "1.1"),
        ([(b"transfer-encoding", b"xchunked")], "1.1"),
        ([(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], "1.1"),
        ([(b"transfer-encoding", b"chunked")], "1.0"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_and_closes(headers: list[Header], version: str) -> None:
    with pytest.raises(Refused) as refused:
        wire.framing(headers, version)
    assert refused.value.close


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/v1/models", b"/v1/models"),
        (b"/v1/models?a=/b?c", b"/v1/models"),
        (b"//v1/models", b"//v1/models"),
        (b"/%2d/routes", b"/%2d/routes"),
        (b"http://gateway/v1/models?x", b"/v1/models"),
        (b"HTTPS://[::1]:8000", b"/"),
        (b"*", b"*"),
    ],
)
def test_the_path_is_what_was_sent(target: bytes, path: bytes) -> None:
    assert wire.path_of(target) == path


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"v1/models",
        b"gateway:80",
        b"ftp://gateway/",
        b"http://a b/",
        b"http://user@host/",
        b"/a#b",
        b"/\xff",
        b"/a b",
    ],
)
def test_what_is_no_path_and_no_url_is_refused(target: bytes) -> None:
    with pytest.raises(Refused):
        wire.path_of(target)


def test_a_response_head_says_where_its_body_ends() -> None:
    kind = [(b"content-type", b"text/plain")]
    whole = wire.response_head(200, kind, 3, chunked=False, close=False)
    assert whole == b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\n"
    stream = wire.response_head(200, kind, wire.NO_LENGTH, chunked=True, close=True)
    assert stream.endswith(b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n")
    assert b"content-length" not in wire.response_head(204, [], 0, chunked=False, close=False)


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\n", b"a\r", b"a\0", b"a\r\n\r\nbody"])
def test_a_header_can_not_make_a_head_of_its_own(value: bytes) -> None:
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        wire.response_head(200, [(b"x-tradewind-variant", value)], 0, chunked=False, close=False)

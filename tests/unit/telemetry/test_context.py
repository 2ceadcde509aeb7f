from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.telemetry.context import Parent, format_traceparent, parse_traceparent, parse_tracestate

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def test_valid_header_gives_ids_and_flag() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-01".encode()) == Parent(int(TRACE, 16), int(SPAN, 16), True)
    unsampled = parse_traceparent(f"00-{TRACE}-{SPAN}-00".encode())
    assert unsampled is not None
    assert not unsampled.sampled


def test_later_version_may_carry_more() -> None:
    assert parse_traceparent(f"01-{TRACE}-{SPAN}-03-what-ever".encode()) is not None


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\r\nx: y",
        f"01-{TRACE}-{SPAN}-01-" + "x" * 200,
    ],
)
def test_invalid_header_is_no_header(header: str) -> None:
    assert parse_traceparent(header.encode()) is None


@given(st.binary(max_size=80))
def test_no_bytes_make_it_raise(header: bytes) -> None:
    parse_traceparent(header)
    parse_tracestate(header)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_is_written_is_read_back(trace_id: int, span_id: int, sampled: bool) -> None:
    assert parse_traceparent(format_traceparent(trace_id, span_id, sampled)) == Parent(
        trace_id, span_id, sampled
    )


def test_tracestate_passes_when_bounded_and_printable() -> None:
    assert parse_tracestate(b"vendor=1,other@t=x y") == "vendor=1,other@t=x y"


@pytest.mark.parametrize(
    "header",
    [None, b"", b"a=" + b"x" * 600, b"a=1\r\nset-cookie: x", b"a=\xff", b",".join([b"a=1"] * 33), b",,"],
)
def test_other_tracestate_is_dropped(header: bytes | None) -> None:
    assert parse_tracestate(header) == ""

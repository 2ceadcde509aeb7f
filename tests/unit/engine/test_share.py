"""What each gateway may have of one engine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tradewind.engine.share import FORGET_S, Shares, room

WANTED = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 300), min_size=1)


def rooms(bound: int, wanted: dict[str, int], turn: int = 0) -> dict[str, int]:
    return {name: room(bound, wanted, name, turn) for name in wanted}


def test_who_is_alone_may_have_it_all() -> None:
    assert rooms(256, {"a": 3}) == {"a": 256}
    assert rooms(256, {"a": 900}) == {"a": 256}


def test_what_nobody_wants_is_open_to_everyone() -> None:
    assert rooms(256, {"a": 100, "b": 20}) == {"a": 236, "b": 156}


def test_who_wants_little_gets_it_and_the_others_share_the_rest() -> None:
    assert rooms(256, {"a": 256, "b": 10}) == {"a": 246, "b": 10}
    assert rooms(100, {"a": 500, "b": 300, "c": 20}) == {"a": 40, "b": 40, "c": 20}


def test_what_cannot_be_divided_goes_round() -> None:
    assert rooms(1, {"a": 5, "b": 5}, turn=0) == {"a": 1, "b": 0}
    assert rooms(1, {"a": 5, "b": 5}, turn=1) == {"a": 0, "b": 1}
    assert [room(5, {"a": 9, "b": 9, "c": 9}, "a", turn) for turn in range(3)] == [2, 2, 1]


@given(st.integers(1, 300), WANTED, st.integers(0, 10))
def test_where_it_is_short_all_of_it_is_given_and_no_more(
    bound: int, wanted: dict[str, int], turn: int
) -> None:
    given_out = rooms(bound, wanted, turn)
    if sum(wanted.values()) >= bound:
        assert sum(given_out.values()) == bound
        assert all(given_out[name] <= wanted[name] for name in wanted)
        hungry = [given_out[name] for name in wanted if given_out[name] < wanted[name]]
        assert not hungry or max(given_out.values()) - min(hungry) <= 1
    else:
        assert all(given_out[name] == bound - sum(wanted.values()) + wanted[name] for name in wanted)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_gateway_that_asks_no_more_is_forgotten() -> None:
    clock = Clock()
    shares = Shares(clock)
    assert shares.ask(b"a 256", 256) == 256
    assert shares.ask(b"b 256", 256) == 128
    assert shares.ask(b"a 256", 256) == 128
    clock.now += FORGET_S - 0.1
    assert shares.ask(b"a 256", 256) == 128
    clock.now += 0.1
    assert shares.ask(b"a 256", 256) == 256


def test_a_bound_that_changes_counts_at_once() -> None:
    shares = Shares(Clock())
    shares.ask(b"a 9", 256)
    assert shares.ask(b"b 9", 10) == 5


def test_who_says_nothing_of_use_is_told_nothing() -> None:
    shares = Shares(Clock())
    for word in (b"", b"a", b"a ", b"a x", b"a -1", b" 5", "a \u00b2".encode("latin-1"), b"a" * 500 + b" 1"):
        assert shares.ask(word, 256) is None
    assert shares.ask(b"b 1", 256) == 256

"""The retry budget: a share of the window's requests plus a floor, never more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.routing.retry import RetryBudget


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def granted(budget: RetryBudget, asked: int) -> int:
    return sum(budget.allow() for _ in range(asked))


def test_a_quiet_service_may_retry_a_little() -> None:
    assert granted(RetryBudget(10, Clock()), 50) == 3


def test_a_busy_service_may_retry_its_share_and_the_floor() -> None:
    budget = RetryBudget(10, Clock())
    for _ in range(200):
        budget.note_request()
    assert granted(budget, 200) == 23


def test_zero_percent_is_no_retries_at_all() -> None:
    assert granted(RetryBudget(0, Clock()), 5) == 0


def test_requests_and_retries_leave_with_the_window() -> None:
    clock = Clock()
    budget = RetryBudget(50, clock, floor=0)
    for _ in range(10):
        budget.note_request()
    clock.now += 9
    assert granted(budget, 10) == 5
    clock.now += 1
    assert granted(budget, 10) == 0  # the requests are ten seconds old, the retries are not
    clock.now += 9
    budget.note_request()
    budget.note_request()
    assert granted(budget, 10) == 1


def test_a_long_silence_empties_the_window() -> None:
    clock = Clock()
    budget = RetryBudget(10, clock)
    granted(budget, 3)
    clock.now += 1e6
    assert granted(budget, 50) == 3


def test_a_clock_that_goes_back_breaks_nothing() -> None:
    clock = Clock()
    budget = RetryBudget(10, clock)
    clock.now -= 500
    assert granted(budget, 50) == 3


def test_percent_follows_the_configuration() -> None:
    budget = RetryBudget(10, Clock(), floor=0)
    for _ in range(100):
        budget.note_request()
    assert granted(budget, 100) == 10
    budget.percent = 20.0
    assert granted(budget, 100) == 10


@pytest.mark.parametrize(
    "wrong", [{"percent": -1}, {"percent": 1, "floor": -1}, {"percent": 1, "window_s": 0}]
)
def test_meaningless_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        RetryBudget(**wrong)  # type: ignore[arg-type]


@settings(max_examples=100)
@given(
    percent=st.sampled_from([0.0, 1.0, 10.0, 33.3, 100.0]),
    floor=st.integers(0, 4),
    steps=st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=120),
)
def test_no_ten_seconds_hold_more_retries_than_their_requests_allow(
    percent: float, floor: int, steps: list[tuple[float, bool]]
) -> None:
    """Against a list of all events: at each grant, the last nine full seconds (the window's least
    length) hold no more retries than floor + percent of the last ten seconds' requests."""
    clock = Clock()
    budget = RetryBudget(percent, clock, floor=floor)
    requests: list[float] = []
    retries: list[float] = []
    for wait, is_request in steps:
        clock.now += wait
        if is_request:
            budget.note_request()
            requests.append(clock.now)
        elif budget.allow():
            retries.append(clock.now)
            recent = sum(at > clock.now - 9 for at in retries)
            assert recent <= floor + sum(at > clock.now - 10 for at in requests) * percent / 100

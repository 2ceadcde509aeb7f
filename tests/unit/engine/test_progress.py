"""Busy and stuck told apart, with a clock that stands still unless moved."""

from __future__ import annotations

from tradewind.engine.progress import StallProbe


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_idle_engine_never_stalls() -> None:
    clock = Clock()
    probe = StallProbe(clock)
    for _ in range(5):
        assert probe.stalled_s(unfinished=0, steps=7) == 0.0
        clock.now += 1000


def test_work_without_steps_is_counted_from_the_first_look() -> None:
    clock = Clock()
    probe = StallProbe(clock)
    assert probe.stalled_s(1, 7) == 0.0
    for seconds in range(2, 62, 2):
        clock.now += 2
        assert probe.stalled_s(1, 7) == seconds


def test_a_while_in_which_nobody_looked_does_not_count() -> None:
    clock = Clock()
    probe = StallProbe(clock)
    probe.stalled_s(1, 7)
    clock.now += 2
    assert probe.stalled_s(1, 7) == 2.0
    clock.now += 100  # this process was stopped itself
    assert probe.stalled_s(1, 7) == 0.0
    clock.now += 2
    assert probe.stalled_s(1, 7) == 2.0


def test_each_step_starts_the_count_anew_so_a_long_prefill_is_progress() -> None:
    clock = Clock()
    probe = StallProbe(clock)
    for steps in range(1, 20):
        assert probe.stalled_s(1, steps) == 0.0
        clock.now += 9
    assert probe.stalled_s(1, 19) == 9.0


def test_a_request_after_a_long_idle_time_is_not_stalled_at_once() -> None:
    clock = Clock()
    probe = StallProbe(clock)
    assert probe.stalled_s(0, 7) == 0.0
    clock.now += 3600
    assert probe.stalled_s(1, 7) == 0.0


def test_becoming_idle_forgives() -> None:
    clock = Clock()
    probe = StallProbe(clock)
    probe.stalled_s(1, 7)
    clock.now += 9
    assert probe.stalled_s(1, 7) == 9.0
    assert probe.stalled_s(0, 7) == 0.0
    assert probe.stalled_s(1, 7) == 0.0

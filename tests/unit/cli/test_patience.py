from __future__ import annotations

import io
import threading

import httpx
import pytest
from rich.console import Console

from tradewind.cli.errors import CommandFailed
from tradewind.cli.patience import Silence, ask, telling
from tradewind.rayapi.client import ControlError, ServeControl


class Busy:
    """A Ray whose API does not answer until `ready_at`; a clock that each call and pause moves on."""

    def __init__(self, ready_at: float, takes_s: float = 300.0, error: str = "ReadTimeout") -> None:
        self.now = 0.0
        self.tries = 0
        self._ready_at = ready_at
        self._takes_s = takes_s
        self._error = error
        transport = httpx.MockTransport(self._answer)
        self.control = ServeControl("http://127.0.0.1:1", "t0ken", transport=transport)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.tries += 1
        if self.now < self._ready_at:
            self.now += self._takes_s
            raise getattr(httpx, self._error)("late")
        return httpx.Response(200)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def apply(self, gone: str = "") -> None:
        silence = Silence(lambda: gone, lambda: self.now)
        ask(lambda: self.control.apply({}), silence, sleep=self.sleep)


def test_a_configuration_that_is_not_answered_in_time_is_sent_again() -> None:
    busy = Busy(ready_at=1_000.0)
    busy.apply()
    assert busy.tries == 5


def test_a_daemon_that_has_died_ends_it_at_once() -> None:
    busy = Busy(ready_at=1e9)
    with pytest.raises(CommandFailed, match=r"^raylet died$"):
        busy.apply(gone="raylet died")
    assert busy.tries == 1


def test_a_port_that_stays_closed_ends_it_within_a_minute() -> None:
    busy = Busy(ready_at=1e9, takes_s=0.0, error="ConnectError")
    with pytest.raises(CommandFailed, match="cannot be reached: ConnectError; nobody listens there"):
        busy.apply()
    assert 30 <= busy.now < 60


def test_half_an_hour_without_an_answer_is_enough() -> None:
    busy = Busy(ready_at=1e9)
    with pytest.raises(CommandFailed, match="ReadTimeout; without an answer for"):
        busy.apply()
    assert busy.now >= 1_800


def test_an_answer_in_between_starts_the_count_anew() -> None:
    now = [0.0]
    silence = Silence(clock=lambda: now[0])
    for _ in range(10):
        assert silence.bear(ControlError("503")) == 0.0
        now[0] += 1_000.0
        silence.answered()


def test_what_ray_refuses_is_not_asked_again() -> None:
    calls = []

    def refuse() -> None:
        calls.append(1)
        raise ControlError("Ray refused the configuration: no such app")

    with pytest.raises(ControlError, match="no such app"):
        ask(refuse, Silence())
    assert calls == [1]


def test_a_death_is_seen_while_an_answer_is_waited_for() -> None:
    asked, over, dead = threading.Event(), threading.Event(), [""]

    def call() -> None:
        asked.set()
        dead[0] = "raylet died"
        over.wait(30)

    with pytest.raises(CommandFailed, match=r"^raylet died$"):
        ask(call, Silence(lambda: dead[0]))
    assert asked.is_set()
    over.set()


def test_what_a_dying_ray_refuses_is_told_as_its_death() -> None:
    dead = [""]

    def call() -> None:
        dead[0] = "raylet died"
        raise ControlError("Ray refused the configuration: Failed to connect to Ray cluster")

    with pytest.raises(CommandFailed, match=r"^raylet died$"):
        ask(call, Silence(lambda: dead[0]))


def test_a_wait_is_told_with_its_time() -> None:
    screen, told = io.StringIO(), threading.Event()

    class Noting(Console):
        def print(self, *objects: object, **options: object) -> None:  # type: ignore[override]
            super().print(*objects, **options)  # type: ignore[arg-type]
            told.set()

    times = iter([100.0, 142.0])
    console = Noting(file=screen, width=100, _environ={})
    with telling(console, "Ray", every_s=0.001, clock=lambda: next(times, 142.0)):
        assert told.wait(5)
    assert "  still waiting for Ray (42 s)" in screen.getvalue()

from __future__ import annotations

import pytest

from tradewind.serve.starting import TRIES, StartFailed, start_patiently

LATE = "The current node timed out during startup.\nThis could happen because some of the raylet failed"


class Ray:
    """Starts at the try `works_at`; notes what was done in which order."""

    def __init__(self, works_at: int, error: Exception | None = None) -> None:
        self.done: list[str] = []
        self._works_at = works_at
        self._error = error or Exception(LATE)

    def start(self) -> str:
        self.done.append("start")
        if self.done.count("start") < self._works_at:
            raise self._error
        return "127.0.0.1:8265"

    def clear(self) -> None:
        self.done.append("clear")

    def run(self) -> str:
        return start_patiently(self.start, self.clear, lambda line: self.done.append(line))


def test_a_start_that_works_is_left_alone() -> None:
    ray = Ray(1)
    assert (ray.run(), ray.done) == ("127.0.0.1:8265", ["start"])


def test_a_start_that_was_too_slow_is_cleared_away_told_of_and_tried_again() -> None:
    ray = Ray(3)
    assert ray.run() == "127.0.0.1:8265"
    said = "Ray did not start in its own time (The current node timed out during startup.)"
    assert ray.done == [
        "start",
        "clear",
        f"{said}: try 2 of 5",
        "start",
        "clear",
        f"{said}: try 3 of 5",
        "start",
    ]


def test_the_last_failure_is_told() -> None:
    ray = Ray(100)
    with pytest.raises(StartFailed, match=r"^The current node timed out"):
        ray.run()
    assert ray.done.count("start") == ray.done.count("clear") == TRIES


def test_what_time_does_not_mend_fails_at_once() -> None:
    ray = Ray(100, ValueError("num_cpus must be an integer"))
    with pytest.raises(StartFailed, match="num_cpus must be an integer"):
        ray.run()
    assert ray.done == ["start", "clear"]

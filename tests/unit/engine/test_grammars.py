"""Constraints are tried off the loop, within a bound, once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from tradewind.api.refusals import GRAMMAR
from tradewind.engine.grammars import GrammarRefused, Grammars, GrammarsBusy, reason


class Library:
    """Takes anything but `bad`; `slow` takes until `end` is set."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.threads: set[int] = set()
        self.begun, self.end = threading.Event(), threading.Event()

    def __call__(self, constraint: str) -> None:
        self.tried.append(constraint)
        self.threads.add(threading.get_ident())
        self.begun.set()
        if constraint.startswith("slow"):
            self.end.wait(30)
        if constraint.startswith("bad"):
            raise RuntimeError(
                f"[00:43:01] /project/cpp/converter.cc:75: Cannot find field {constraint}\n{{forged"
            )


def grammars(library: Callable[[str], None], **options: float) -> Grammars:
    return Grammars(library, str, **options)  # type: ignore[arg-type]


async def test_what_the_library_takes_passes_and_is_tried_once_and_not_on_the_loop() -> None:
    library = Library()
    checks = grammars(library)
    for _ in range(3):
        await checks.check("good")
    await checks.check("other")
    assert library.tried == ["good", "other"]
    assert threading.get_ident() not in library.threads


async def test_what_it_refuses_is_refused_each_time_with_the_reason_in_one_line() -> None:
    library = Library()
    checks = grammars(library)
    for _ in range(2):
        with pytest.raises(GrammarRefused) as refused:
            await checks.check("bad\x1b[2J")
        assert str(refused.value) == GRAMMAR + r"Cannot find field bad\x1b[2J {forged"
    assert len(library.tried) == 2


async def test_one_that_takes_too_long_is_refused_while_the_loop_goes_on() -> None:
    library = Library()
    checks = grammars(library, bound_s=0.05)
    try:
        check = asyncio.create_task(checks.check("slow"))
        await asyncio.sleep(0)
        await checks.check("good")
        with pytest.raises(GrammarRefused, match=r"longer than 0.05 s"):
            await check
    finally:
        library.end.set()


async def test_places_taken_by_slow_ones_say_nothing_about_others_and_come_back() -> None:
    library = Library()
    checks = grammars(library, bound_s=0.02, wait_s=0.05, workers=2)
    try:
        for number in range(2):
            with pytest.raises(GrammarRefused):
                await checks.check(f"slow {number}")
        with pytest.raises(GrammarsBusy):
            await checks.check("good")
        assert "good" not in library.tried
    finally:
        library.end.set()
    async with asyncio.timeout(5):
        while True:
            try:
                return await checks.check("good")
            except GrammarsBusy:
                continue


async def test_a_caller_that_leaves_gives_the_place_back_when_the_library_is_done() -> None:
    library = Library()
    checks = grammars(library, workers=1, wait_s=5)
    check = asyncio.create_task(checks.check("slow"))
    await asyncio.to_thread(library.begun.wait, 10)
    check.cancel()
    library.end.set()
    await checks.check("good")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("", "the library says no more."),
        ("/project/cpp/a.cc:12: no", "no"),
        ("[10:00:00] <path>:12: no", "no"),
        ("\u202eno\n\n  more", r"\u202eno more"),
        ("x" * 400, "x" * 299 + "…"),
    ],
)
def test_a_reason_is_one_bounded_line(said: str, shown: str) -> None:
    assert reason(ValueError(said)) == shown

"""What the soak calls a leak, a lost request and a cut stream."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.fakes.engine import FakeEngine, Fault, Script
from tests.soak import callers
from tests.soak.__main__ import unsound
from tests.soak.callers import Callers, Cast, Kind
from tests.soak.watch import GROWTH_MIB, SLACK, Sample, growth_mib, leaks


def sample(*, rss: float = 200.0, files: int = 40, tasks: int = 10, active: int = 0) -> Sample:
    return Sample(0.0, rss, files, tasks, active)


def test_memory_that_grows_after_the_warm_up_is_a_leak() -> None:
    warm = [100.0, 150.0, 190.0]
    assert growth_mib([*warm, *[200.0] * 7]) == pytest.approx(0.0)
    assert growth_mib([*warm, *(200.0 + 2 * number for number in range(7))]) == pytest.approx(12.0)
    peak = [*warm, 200.0, 200.0, 200.0, 260.0, 200.0, 200.0, 200.0]
    assert growth_mib(peak) < GROWTH_MIB
    assert growth_mib([200.0, 300.0]) == 0.0


def test_what_is_left_open_is_a_leak() -> None:
    loaded = [sample(files=500, tasks=300, active=96)] * 10
    assert leaks(loaded, sample(), sample(files=40 + SLACK, tasks=10, active=0)) == []
    found = leaks(loaded, sample(), sample(files=90, tasks=60, active=20))
    assert [sentence.split(":")[0] for sentence in found] == ["open files", "tasks", "requests under way"]


def test_a_cut_or_lost_request_is_unsound_and_an_error_event_is_not() -> None:
    fine = {"stream answered": 9, "stream failed": 1, "leaves left": 3, "leaves answered": 1,
            "wrong refused 404": 2, "whole refused 503": 1}  # fmt: skip
    assert unsound(Counter(fine)) == []
    bad = ["stream cut", "whole lost", "wrong answered", "stream left", "slow late", "stream refused 401"]
    for what in bad:
        assert unsound(Counter({what: 1})) == [f"1 requests: {what}"]


def test_what_a_killed_process_had_in_hand_is_no_failure_and_more_is() -> None:
    told = Counter({"stream cut": 3, "whole lost": 1, "connection refused": 2, "stream answered": 90})
    assert unsound(told, losses=6) == []
    assert len(unsound(told, losses=5)) == 3
    assert unsound(Counter({"stream late": 1}), losses=6) == ["1 requests: stream late"]


@asynccontextmanager
async def asking(monkeypatch: pytest.MonkeyPatch, kind: Kind, script: Script) -> AsyncIterator[Counter[str]]:
    """What became of the requests of two callers until the first fate is known."""
    monkeypatch.setattr(callers, "SHARES", {kind: 1})
    async with FakeEngine(script) as engine:
        asked = Callers(Cast(engine.port, "key", 2, tokens=16))
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(asked.run())
            while not asked.told:  # noqa: ASYNC110 - a counter, which tells nobody
                await asyncio.sleep(0.001)
            asked.stop()
        yield asked.told


@pytest.mark.parametrize(
    ("kind", "script", "fate"),
    [
        (Kind.STREAM, Script(tokens=4), "stream answered"),
        (Kind.WHOLE, Script(tokens=4), "whole answered"),
        (Kind.STREAM, Script(fault=Fault.RESET_BEFORE_HEAD), "stream lost"),
        (Kind.STREAM, Script(fault=Fault.CLOSE_MID_STREAM), "stream cut"),
        (Kind.STREAM, Script(fault=Fault.UNAVAILABLE), "stream refused 503"),
        (Kind.SLOW, Script(tokens=40), "slow answered"),
    ],
)
async def test_a_caller_tells_what_became_of_its_request(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, script: Script, fate: str
) -> None:
    async with asking(monkeypatch, kind, script) as told:
        assert set(told) == {fate}


async def test_a_caller_that_leaves_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(monkeypatch, Kind.LEAVES, Script(tokens=400)) as told:
        assert set(told) <= {"leaves left", "leaves answered"}

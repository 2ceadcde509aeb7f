"""When a replica counts as failed: on a simulated clock first, then against real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest

from tests.fakes.engine import FakeEngine, Fault, Script, stats
from tradewind.gateway.prober import (
    EngineStats,
    FailureReason,
    Fetch,
    LoadProber,
    Pace,
    ProbeFailed,
    Target,
    stats_fetch,
)
from tradewind.gateway.upstream import Upstream

A = Target("10.0.0.1:30000", "10.0.0.1", 30000, "/engines/a")
B = Target("10.0.0.2:30000", "10.0.0.2", 30000, "/engines/b")
OTHER_JSON = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class World:
    """Time that moves only when the prober waits, and replicas that answer by table."""

    def __init__(self) -> None:
        self.now = 0.0
        self.answers: dict[str, Callable[[], FailureReason | None]] = {}
        self.log: list[tuple[float, str, str]] = []
        self.told: list[int] = []
        self.ended = asyncio.Event()
        self.until = 10.0

    async def fetch(self, target: Target, seconds: float, wanted: int) -> EngineStats:
        self.told.append(wanted)
        failure = self.answers.get(target.id, lambda: None)()
        if failure is FailureReason.TIMEOUT:
            self.now += seconds
        if failure is not None:
            raise ProbeFailed(failure)
        return EngineStats("m")

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now > self.until:
            self.ended.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    async def run(self, *targets: Target) -> list[tuple[float, str, str]]:
        prober = LoadProber(
            self.fetch,
            lambda replica, _: self.log.append((self.now, replica, "ok")),
            lambda replica, reason: self.log.append((self.now, replica, reason.value)),
            wanted=lambda replica: 7 if replica == A.id else 0,
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        prober.watch(targets)
        await self.ended.wait()
        await prober.stop()
        return self.log


async def test_answers_come_at_the_interval_give_or_take_a_fifth() -> None:
    world = World()
    log = await world.run(A)
    assert set(world.told) == {7}
    assert {entry[2] for entry in log} == {"ok"}
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(log)]
    assert all(0.4 <= gap <= 0.6 for gap in gaps)
    assert len(set(gaps)) > 1


async def test_refused_counts_at_once() -> None:
    world = World()
    world.answers[A.id] = lambda: FailureReason.REFUSED if world.now > 3 else None
    log = await world.run(A)
    first = next(entry for entry in log if entry[2] != "ok")
    assert first[2] == "refused"
    assert first[0] < 3.7


@pytest.mark.parametrize("since", [3.0, 3.2, 3.45, 3.6])
async def test_silence_counts_within_two_seconds(since: float) -> None:
    world = World()
    world.answers[A.id] = lambda: FailureReason.TIMEOUT if world.now > since else None
    log = await world.run(A)
    last_ok = max(entry[0] for entry in log if entry[2] == "ok")
    first = next(entry for entry in log if entry[2] != "ok")
    assert first[2] == "timeout"
    assert 1.5 < first[0] - last_ok <= 2.0


async def test_one_timeout_alone_does_not_count() -> None:
    world = World()
    once = iter([None, FailureReason.TIMEOUT])
    world.answers[A.id] = lambda: next(once, None)
    assert {entry[2] for entry in await world.run(A)} == {"ok"}


async def test_bad_answers_count_from_the_second_on_and_an_answer_brings_it_back() -> None:
    world = World()
    bad = FailureReason.BAD_ANSWER
    script = iter([None, bad, None, bad, bad, bad, None])
    world.answers[A.id] = lambda: next(script, None)
    log = [entry[2] for entry in await world.run(A)]
    assert log[:5] == ["ok", "ok", "bad_answer", "bad_answer", "ok"]


async def test_failures_that_take_no_time_are_not_asked_in_a_hot_loop() -> None:
    world = World()
    calls = 0

    def unreachable() -> FailureReason:
        nonlocal calls
        calls += 1
        return FailureReason.BAD_ANSWER

    world.answers[A.id] = unreachable
    await world.run(A)
    assert calls <= 26


async def test_what_keeps_this_side_from_asking_is_no_silence_of_the_replica() -> None:
    world = World()
    world.answers[A.id] = lambda: FailureReason.NOT_ASKED if world.now > 3 else None
    log = [entry[2] for entry in await world.run(A)]
    assert set(log) == {"ok", "not_asked"}


async def test_a_replica_that_is_silent_after_such_a_time_is_given_its_time_anew() -> None:
    world = World()
    kinds = [(3, None), (6, FailureReason.NOT_ASKED), (99, FailureReason.TIMEOUT)]
    world.answers[A.id] = lambda: next(kind for until, kind in kinds if world.now < until)
    log = await world.run(A)
    last = max(entry[0] for entry in log if entry[2] == "not_asked")
    first = next(entry for entry in log if entry[2] == "timeout")
    assert 1.5 < first[0] - last <= 2.0


async def test_a_process_that_was_stopped_itself_takes_nobody_out() -> None:
    world = World()

    def answer() -> FailureReason | None:
        if 3 < world.now < 10:
            world.now += 20  # and then its timers fire, late
            return FailureReason.TIMEOUT
        return None

    world.answers[A.id], world.until = answer, 30.0
    assert [entry[2] for entry in await world.run(A) if entry[2] != "ok"] == ["not_asked"]


class Recorder:
    """Callbacks that keep what they got; `until` waits for a condition over it."""

    def __init__(self) -> None:
        self.stats: list[tuple[str, EngineStats]] = []
        self.failures: list[tuple[str, FailureReason]] = []
        self._event = asyncio.Event()

    def on_stats(self, replica: str, stats: EngineStats) -> None:
        self.stats.append((replica, stats))
        self._event.set()

    def on_failure(self, replica: str, reason: FailureReason) -> None:
        self.failures.append((replica, reason))
        self._event.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self._event.clear()
                await self._event.wait()


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine(
        token="secret", prefix="/engines/a", stats=stats(waiting=3, kv_cache_use=0.5)
    ) as engine:
        yield engine


@pytest.fixture
async def fetch() -> AsyncIterator[Fetch]:
    upstream = Upstream(sweep_interval_s=0.02)
    yield stats_fetch(upstream, "secret")
    await upstream.close()


def target(engine: FakeEngine) -> Target:
    return Target(f"127.0.0.1:{engine.port}", "127.0.0.1", engine.port, engine.prefix)


async def test_stats_over_the_wire_on_one_kept_connection(engine: FakeEngine, fetch: Fetch) -> None:
    recorder = Recorder()
    prober = LoadProber(fetch, recorder.on_stats, recorder.on_failure, pace=Pace(interval_s=0.01))
    prober.watch([target(engine)])
    await recorder.until(lambda: len(recorder.stats) >= 5)
    await prober.stop()
    replica, read = recorder.stats[0]
    assert replica == target(engine).id
    assert read == EngineStats(
        "fake", "llama", "generate", 2048, waiting=3, kv_cache_use=0.5, version="0.32.0"
    )
    assert engine.connections == 1
    assert not recorder.failures
    names = {seen.headers["x-tradewind-wants"] for seen in engine.seen}
    (said,) = names
    assert said.partition(" ")[2] == "0"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Script(fault=Fault.NO_HEAD), FailureReason.TIMEOUT),
        (Script(fault=Fault.GARBAGE), FailureReason.BAD_ANSWER),
        (Script(fault=Fault.UNAVAILABLE), FailureReason.BAD_ANSWER),
        (Script(fault=Fault.RESET_BEFORE_HEAD), FailureReason.BAD_ANSWER),
        (
            Script(fault=Fault.RAW, raw=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
            FailureReason.BAD_ANSWER,
        ),
    ],
)
async def test_each_failure_is_told_apart(
    engine: FakeEngine, fetch: Fetch, script: Script, reason: FailureReason
) -> None:
    engine.script = script
    with pytest.raises(ProbeFailed) as caught:
        await fetch(target(engine), 0.1, 0)
    assert caught.value.reason is reason


async def test_wrong_token_is_a_bad_answer(engine: FakeEngine, fetch: Fetch) -> None:
    engine.token = "another"
    with pytest.raises(ProbeFailed, match="bad_answer"):
        await fetch(target(engine), 1.0, 0)


async def test_a_replica_that_goes_is_told_and_one_that_hangs_delays_no_other(
    engine: FakeEngine, fetch: Fetch
) -> None:
    recorder = Recorder()
    prober = LoadProber(fetch, recorder.on_stats, recorder.on_failure, pace=Pace(interval_s=0.01))
    async with FakeEngine(Script(fault=Fault.NO_HEAD)) as stuck:
        prober.watch([target(engine), target(stuck)])
        await recorder.until(lambda: len(recorder.stats) >= 10)
        assert {replica for replica, _ in recorder.stats} == {target(engine).id}
        await engine.refuse()
        for peer in tuple(engine.open):
            peer.abort()
        await recorder.until(lambda: (target(engine).id, FailureReason.REFUSED) in recorder.failures)
        await engine.listen()
        seen = len(recorder.stats)
        await recorder.until(lambda: len(recorder.stats) > seen)
        await prober.stop()


async def test_watch_ends_the_probes_of_replicas_that_left() -> None:
    asked: list[str] = []

    async def fetch(target: Target, _: float, __: int) -> EngineStats:
        asked.append(target.id)
        return EngineStats("m")

    async def sleep(_: float) -> None:
        await asyncio.sleep(0)

    recorder = Recorder()
    prober = LoadProber(fetch, recorder.on_stats, recorder.on_failure, sleep=sleep)
    prober.watch([A, B])
    await recorder.until(lambda: {A.id, B.id} <= set(asked))
    prober.watch([B])
    await asyncio.sleep(0)
    asked.clear()
    await recorder.until(lambda: len(asked) > 5)
    assert set(asked) == {B.id}
    await prober.stop()
    count = len(recorder.stats)
    await asyncio.sleep(0)
    assert len(recorder.stats) == count

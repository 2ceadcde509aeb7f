"""What an engine has made for each request, known by the gateway's id while it runs and for a while after."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from tradewind.engine.app import Receive, Scope, Send
from tradewind.engine.usage import CountedSequence, RequestUsage, UsageLog
from tradewind.engine.vllm_adapter import _tell_usage

ONE, TWO = "req_" + "1" * 32, "req_" + "2" * 32


@dataclass
class Made:
    """A sequence that a test moves on."""

    tokens: int = 0
    running: bool = True

    def counted(self, prompt: int = 7) -> CountedSequence:
        return CountedSequence(prompt, lambda: self.tokens, lambda: self.running)


@dataclass
class Engine:
    """An application whose requests each start the sequences they are told to, and end when told."""

    log: UsageLog
    starts: list[list[CountedSequence]] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def work() -> None:  # vLLM adds its sequences in tasks of their own
            for sequence in self.starts.pop(0):
                self.log.add(sequence)

        await asyncio.create_task(work())
        self.begun.set()
        await self.over.wait()
        if self.error is not None:
            raise self.error


def scope(request: str | bytes | None = ONE) -> Scope:
    value = request.encode() if isinstance(request, str) else request
    return {"type": "http", "headers": [] if value is None else [(b"x-request-id", value)]}


async def receive() -> Any:
    return {}


async def send(message: Any) -> None:
    pass


async def test_tokens_are_known_at_any_moment_and_after_the_end() -> None:
    log, made = UsageLog(), Made()
    engine = Engine(log, [[made.counted()]])
    task = asyncio.create_task(log.counting(engine)(scope(), receive, send))
    await engine.begun.wait()
    made.tokens = 3
    assert log.read(ONE) == RequestUsage(7, 3, running=True)
    made.tokens, made.running = 5, False
    engine.over.set()
    await task
    made.tokens = 99  # nobody asks it any more
    assert log.read(ONE) == RequestUsage(7, 5, running=False)
    assert log.read(TWO) is None


async def test_sequences_of_one_request_add_up_and_a_shared_prompt_counts_once() -> None:
    log = UsageLog()
    sequences = [Made(2, running=False).counted(7), Made(3, running=False).counted(0)]
    engine = Engine(log, [sequences])
    engine.over.set()
    await log.counting(engine)(scope(), receive, send)
    assert log.read(ONE) == RequestUsage(7, 5, running=False)


async def test_what_makes_no_tokens_has_none_and_what_never_began_is_unknown() -> None:
    log = UsageLog()
    pooled = CountedSequence(4, None, lambda: False)
    engine = Engine(log, [[pooled, pooled], []])
    engine.over.set()
    counted = log.counting(engine)
    await counted(scope(ONE), receive, send)
    await counted(scope(TWO), receive, send)
    assert log.read(ONE) == RequestUsage(8, None, running=False)
    assert log.read(TWO) == RequestUsage(None, None, running=False)


@pytest.mark.parametrize(
    "request_id", [None, b"", b"mine", b"req_" + b"g" * 32, b"req_" + b"1" * 33, b"\xff" * 36]
)
async def test_only_a_gateways_ids_are_kept(request_id: bytes | None) -> None:
    log = UsageLog()
    engine = Engine(log, [[Made().counted()]])
    engine.over.set()
    await log.counting(engine)(scope(request_id), receive, send)
    assert len(log) == 0


async def test_requests_at_the_same_time_are_kept_apart() -> None:
    log, first, second = UsageLog(), Made(1), Made(10)
    engine = Engine(log, [[first.counted(1)], [second.counted(2)]])
    counted = log.counting(engine)
    tasks = [asyncio.create_task(counted(scope(name), receive, send)) for name in (ONE, TWO)]
    await asyncio.sleep(0)
    await engine.begun.wait()
    await asyncio.sleep(0)
    assert log.read(ONE) == RequestUsage(1, 1, running=True)
    assert log.read(TWO) == RequestUsage(2, 10, running=True)
    engine.over.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_a_request_that_ends_badly_is_kept_as_well(how: str) -> None:
    log, made = UsageLog(), Made(4, running=False)
    engine = Engine(log, [[made.counted()]], error=RuntimeError("x"))
    task = asyncio.create_task(log.counting(engine)(scope(), receive, send))
    await engine.begun.wait()
    if how == "cancelled":
        task.cancel()
    else:
        engine.over.set()
    await asyncio.wait([task])
    assert log.read(ONE) == RequestUsage(7, 4, running=False)


async def test_a_sequence_that_outlives_its_request_runs_until_it_does_not() -> None:
    log, made = UsageLog(), Made(4)
    engine = Engine(log, [[made.counted()]])
    engine.over.set()
    await log.counting(engine)(scope(), receive, send)
    assert log.read(ONE) == RequestUsage(7, 4, running=True)
    made.tokens, made.running = 6, False
    assert log.read(ONE) == RequestUsage(7, 6, running=False)


async def test_the_second_of_two_requests_with_one_id_counts() -> None:
    """A request is sent again, under its id, when the pooled connection it went out on was dead."""
    log, first, second = UsageLog(), Made(1), Made(2)
    engine = Engine(log, [[first.counted()], [second.counted()]])
    counted = log.counting(engine)
    tasks = []
    for _ in range(2):
        engine.begun.clear()
        tasks.append(asyncio.create_task(counted(scope(), receive, send)))
        await engine.begun.wait()
    assert log.read(ONE) == RequestUsage(7, 2, running=True)
    tasks[1].cancel()
    await asyncio.wait(tasks[1:])
    tasks[0].cancel()
    await asyncio.wait(tasks)
    usage = log.read(ONE)
    assert usage is not None
    assert usage.output_tokens == 2
    assert len(log) == 1


async def test_memory_is_bounded_in_number_and_time() -> None:
    now = 0.0
    log = UsageLog(kept=3, kept_s=10.0, clock=lambda: now)
    engine = Engine(log, [[Made(number, running=False).counted()] for number in range(6)])
    engine.over.set()
    counted = log.counting(engine)
    ids = [f"req_{number:032x}" for number in range(6)]
    for name in ids[:5]:
        await counted(scope(name), receive, send)
    assert len(log) == 3
    assert [log.read(name) is not None for name in ids[:5]] == [False, False, True, True, True]
    now = 10.5
    assert log.read(ids[4]) is None
    await counted(scope(ids[5]), receive, send)
    assert len(log) == 1


async def test_who_asks_while_it_is_aborted_waits_for_the_end_but_not_for_ever() -> None:
    log, made = UsageLog(), Made(4)
    engine = Engine(log, [[made.counted()]])
    task = asyncio.create_task(log.counting(engine)(scope(), receive, send))
    await engine.begun.wait()
    assert await log.settled(ONE, within_s=0.03) == RequestUsage(7, 4, running=True)
    asked = asyncio.create_task(log.settled(ONE, within_s=5))
    await asyncio.sleep(0.02)
    assert not asked.done()
    made.tokens, made.running = 5, False
    engine.over.set()
    assert await asked == RequestUsage(7, 5, running=False)
    assert await log.settled(TWO) is None
    await task


class Processor:
    """vLLM's OutputProcessor, as far as it is used."""

    def __init__(self) -> None:
        self.request_states: dict[str, Any] = {}

    def has_request(self, request_id: str) -> bool:
        return request_id in self.request_states

    def add_request(
        self, request: Any, prompt: Any, parent_req: Any = None, request_index: int = 0, queue: Any = None
    ) -> None:
        self.request_states.setdefault(
            request.request_id,
            SimpleNamespace(
                prompt_len=9,
                request_index=request_index,
                detokenizer=request.detokenizer,
                stats=SimpleNamespace(num_generation_tokens=0),
            ),
        )


def request_of(name: str, detokenizer: object | None = "one") -> Any:
    return SimpleNamespace(request_id=name, detokenizer=detokenizer)


async def test_vllms_front_end_tells_of_each_sequence_once() -> None:
    log, processor = UsageLog(), Processor()
    _tell_usage(processor, log)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        processor.add_request(request_of("0_a"), None, "parent", 0, None)
        processor.add_request(request_of("1_a"), None, "parent", request_index=1)
        processor.add_request(request_of("0_a"), None)  # more input for the first
        for state in processor.request_states.values():
            state.stats.num_generation_tokens = 4
        assert log.read(ONE) == RequestUsage(9, 8, running=True)
        processor.request_states.clear()

    await log.counting(app)(scope(), receive, send)
    assert log.read(ONE) == RequestUsage(9, 8, running=False)


async def test_an_embedding_has_a_prompt_and_no_output() -> None:
    log, processor = UsageLog(), Processor()
    _tell_usage(processor, log)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        processor.add_request(request_of("a", detokenizer=None), None)
        processor.request_states.clear()

    await log.counting(app)(scope(), receive, send)
    assert log.read(ONE) == RequestUsage(9, None, running=False)


async def test_counting_a_request_costs_microseconds() -> None:
    """Per request, with one sequence. Per token it costs nothing: no code of ours runs."""
    log = UsageLog()
    sequence = Made(1, running=False).counted()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        log.add(sequence)

    counted = log.counting(app)
    request = scope()
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(100):
            await counted(request, receive, send)
        best = min(best, time.perf_counter() - began)
    assert best / 100 < 100e-6

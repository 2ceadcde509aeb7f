"""Admission: who gets in, in which order, and that no slot is ever lost or given twice."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tradewind.api.wire import DeploymentEntry
from tradewind.routing.admission import (
    Admission,
    AdmissionError,
    DeploymentLoad,
    NoReplica,
    QueueFull,
    Timeout,
)
from tradewind.routing.replica import AdapterReport, ReplicaAddress, ReplicaDirectory, ReplicaView


class Alarm:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Time:
    """A clock with timers that goes only when told."""

    def __init__(self) -> None:
        self.now = 0.0
        self._alarms: list[tuple[float, int, Alarm]] = []

    def clock(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Alarm:
        alarm = Alarm(callback)
        heapq.heappush(self._alarms, (self.now + seconds, len(self._alarms), alarm))
        return alarm

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        while self._alarms and self._alarms[0][0] <= self.now:
            alarm = heapq.heappop(self._alarms)[2]
            if alarm.callback is not None:
                alarm.callback()

    @property
    def armed(self) -> int:
        return sum(alarm.callback is not None for _, _, alarm in self._alarms)


def entry(capacity: int = 1, name: str = "small") -> DeploymentEntry:
    return DeploymentEntry(
        name=name, app=name, prefix=f"/engines/{name}", family="llama", max_ongoing_requests=capacity
    )


class Setup:
    """A directory and an admission on a stopped clock, with `replicas` of `capacity`."""

    def __init__(self, replicas: int = 1, capacity: int = 1, room: int = 100) -> None:
        self.time = Time()
        self.directory = ReplicaDirectory(self.time.clock)
        self.admission = Admission(
            self.directory, room=room, rng=Random(1), clock=self.time.clock, call_later=self.time.call_later
        )
        self.capacity = capacity
        self.scale(replicas)

    def scale(self, replicas: int) -> None:
        self.directory.update(entry(self.capacity), [ReplicaAddress("h", 1 + n) for n in range(replicas)])

    def waiting(
        self, exclude: tuple[str, ...] = (), wait_s: float = 10, adapter: str | None = None
    ) -> asyncio.Task[ReplicaView]:
        return asyncio.create_task(
            self.admission.acquire("small", wait_s=wait_s, exclude=exclude, adapter=adapter)
        )

    def report(self, number: int, **adapters: AdapterReport) -> None:
        """Replica `number` tells how it has its adapters."""
        view = self.directory.views("small")[number]
        self.directory.report(view, running=0, waiting=0, adapters=adapters)


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(4):
        await asyncio.sleep(0)


async def test_a_free_replica_is_taken_at_once_and_counted() -> None:
    setup = Setup(replicas=2)
    first = await setup.admission.acquire("small")
    second = await setup.admission.acquire("small")
    assert {first.id, second.id} == {"h:1", "h:2"}
    assert setup.admission.load("small") == DeploymentLoad(waiting=0, in_flight=2)
    setup.admission.release(first)
    setup.admission.release(second)
    assert first.outstanding == second.outstanding == 0
    assert setup.admission.loads() == {}


async def test_who_was_turned_away_comes_before_those_who_never_had_a_turn_and_in_their_order() -> None:
    setup = Setup(replicas=1, capacity=2, room=3)
    (view,) = setup.directory.views("small")
    for _ in range(2):
        await setup.admission.acquire("small")
    fresh = [setup.waiting() for _ in range(3)]
    await settle()
    back = []
    for _ in range(2):
        setup.directory.full(view)
        setup.admission.release(view)
        back.append(asyncio.create_task(setup.admission.acquire("small", wait_s=10, returned=True)))
        await settle()
    assert setup.admission.load("small") == DeploymentLoad(waiting=5, in_flight=0)
    setup.directory.report(view, running=0, waiting=0, room=2)
    await settle()
    assert [task.done() for task in (*back, *fresh)] == [True, True, False, False, False]
    setup.admission.release(view)
    await settle()
    assert [task.done() for task in fresh] == [True, False, False]
    setup.time.pass_by(10)
    for task in fresh[1:]:
        with pytest.raises(Timeout):
            await task
    assert setup.admission.load("small").waiting == 0


async def test_who_waits_for_an_adapter_gets_the_first_replica_that_has_it_and_holds_up_nobody() -> None:
    setup = Setup(replicas=2)
    first = setup.waiting(adapter="tone")
    await settle()
    plain = setup.waiting()
    await settle()
    assert plain.done()
    setup.admission.release(await plain)
    setup.report(1, tone=AdapterReport("loading"))
    await settle()
    assert not first.done()
    setup.report(1, tone=AdapterReport("ready"))
    assert (await first).id == "h:2"


async def test_nobody_waits_for_an_adapter_that_cannot_be_loaded() -> None:
    setup = Setup()
    early = setup.waiting(adapter="tone")
    await settle()
    setup.report(0, tone=AdapterReport("failed", "no such file"))
    for request in (early, setup.waiting(adapter="tone")):
        with pytest.raises(NoReplica, match="no replica can load the adapter tone"):
            await request
    assert setup.time.armed == 0
    assert (await setup.waiting()).id == "h:1"


async def test_an_adapter_that_takes_too_long_is_waited_for_within_bounds() -> None:
    setup = Setup()
    request = setup.waiting(adapter="tone", wait_s=5)
    await settle()
    setup.time.pass_by(5)
    with pytest.raises(Timeout) as late:
        await request
    assert not late.value.ready
    assert setup.admission.loads() == {}


async def test_admit_releases_however_the_block_ends() -> None:
    setup = Setup()
    seen: list[ReplicaView] = []

    async def request() -> None:
        async with setup.admission.admit("small") as view:
            assert view.outstanding == 1
            seen.append(view)
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await request()
    assert seen[0].outstanding == 0


async def test_without_waiting_the_error_tells_cold_from_busy() -> None:
    cold, busy = Setup(replicas=0), Setup()
    with pytest.raises(NoReplica, match="small: no replica is ready"):
        await cold.admission.acquire("small")
    view = await busy.admission.acquire("small")
    with pytest.raises(QueueFull, match="every replica is busy"):
        await busy.admission.acquire("small")
    with pytest.raises(NoReplica):  # a retry, and there is no other one
        await busy.admission.acquire("small", exclude={view.id})
    with pytest.raises(NoReplica):
        await busy.admission.acquire("unheard-of")


async def test_a_cold_start_is_waited_for_in_order() -> None:
    setup = Setup(replicas=0, capacity=2)
    tasks = [setup.waiting() for _ in range(3)]
    await settle()
    assert setup.admission.load("small") == DeploymentLoad(waiting=3, in_flight=0)
    setup.scale(1)
    await settle()
    assert [task.done() for task in tasks] == [True, True, False]
    setup.admission.release(tasks[0].result())
    await settle()
    assert tasks[2].result().id == "h:1"
    assert setup.time.armed == 0


async def test_a_deployment_that_discovery_has_not_told_of_yet_is_waited_for() -> None:
    setup = Setup()
    task = asyncio.create_task(setup.admission.acquire("large", wait_s=5))
    await settle()
    setup.directory.update(entry(name="large"), [ReplicaAddress("h", 9)])
    await settle()
    assert task.result().id == "h:9"


async def test_a_newcomer_does_not_overtake() -> None:
    """The slot is the waiter's from the moment it is free, before the waiter's task has run."""
    setup = Setup()
    held = await setup.admission.acquire("small")
    waiter = setup.waiting()
    await settle()
    setup.admission.release(held)
    assert setup.admission.try_acquire("small") is None
    assert (await waiter).outstanding == 1


async def test_a_waiter_that_cannot_use_the_free_replica_lets_others_pass_and_keeps_its_place() -> None:
    setup = Setup(replicas=2)
    views = [await setup.admission.acquire("small") for _ in range(2)]
    one, two = sorted(views, key=lambda view: view.id)
    picky, plain, late = setup.waiting(exclude=(one.id,)), setup.waiting(), setup.waiting()
    await settle()
    setup.admission.release(one)
    await settle()
    assert plain.result() is one
    setup.admission.release(two)
    await settle()
    assert picky.result() is two
    assert not late.done()
    late.cancel()
    await settle()


async def test_the_room_is_bounded() -> None:
    setup = Setup(replicas=0, room=2)
    tasks = [setup.waiting() for _ in range(2)]
    await settle()
    with pytest.raises(QueueFull, match="2 requests wait already"):
        await setup.admission.acquire("small", wait_s=10)
    setup.directory.retain(())
    await settle()
    for task in tasks:
        with pytest.raises(NoReplica, match="removed"):
            task.result()


@pytest.mark.parametrize(("replicas", "ready"), [(0, False), (1, True)])
async def test_the_deadline_ends_the_wait(replicas: int, ready: bool) -> None:
    setup = Setup(replicas)
    setup.admission.try_acquire("small")
    early, late = setup.waiting(wait_s=5), setup.waiting(wait_s=6)
    await settle()
    setup.time.pass_by(5)
    await settle()
    with pytest.raises(Timeout) as caught:
        early.result()
    assert caught.value.ready is ready
    assert caught.value.deployment == "small"
    assert not late.done()
    assert setup.admission.load("small").waiting == 1
    late.cancel()
    await settle()


async def test_the_running_loop_times_the_wait_unless_told_otherwise() -> None:
    with pytest.raises(Timeout):
        await Admission(ReplicaDirectory()).acquire("small", wait_s=0.001)


async def test_a_deadline_after_the_slot_is_given_takes_nothing_back() -> None:
    setup = Setup()
    held = await setup.admission.acquire("small")
    task = setup.waiting(wait_s=5)
    await settle()
    setup.admission.release(held)
    setup.time.pass_by(5)
    assert (await task).outstanding == 1


async def test_a_cancelled_waiter_leaves_its_place() -> None:
    setup = Setup()
    held = await setup.admission.acquire("small")
    first, second = setup.waiting(), setup.waiting()
    await settle()
    first.cancel()
    setup.admission.release(held)  # before the cancelled task has run
    await settle()
    assert first.cancelled()
    assert second.result().outstanding == 1
    assert setup.admission.load("small") == DeploymentLoad(0, 1)


async def test_a_waiter_cancelled_with_its_slot_on_the_way_hands_it_on() -> None:
    setup = Setup()
    held = await setup.admission.acquire("small")
    first, second = setup.waiting(), setup.waiting()
    await settle()
    setup.admission.release(held)
    first.cancel()
    await settle()
    assert first.cancelled()
    assert second.result().outstanding == 1
    assert setup.admission.load("small") == DeploymentLoad(0, 1)


async def test_a_waiter_cancelled_with_an_error_on_the_way_is_just_cancelled() -> None:
    setup = Setup(replicas=0)
    task = setup.waiting(wait_s=5)
    await settle()
    setup.time.pass_by(5)
    task.cancel()
    await settle()
    assert task.cancelled()
    assert setup.admission.loads() == {}


async def test_release_after_the_replica_has_gone_and_come_back_touches_only_the_old_one() -> None:
    setup = Setup()
    old = await setup.admission.acquire("small")
    setup.scale(0)
    setup.scale(1)
    new = await setup.admission.acquire("small")
    assert new is not old
    setup.admission.release(old)
    assert (old.outstanding, new.outstanding) == (0, 1)
    assert setup.admission.try_acquire("small") is None
    setup.admission.release(new)
    assert setup.admission.loads() == {}


async def test_a_replica_that_answers_again_or_grows_lets_waiters_in() -> None:
    setup = Setup()
    (view,) = setup.directory.views("small")
    setup.directory.mark_down(view)
    first, second = setup.waiting(), setup.waiting()
    await settle()
    setup.directory.report(view, running=0, waiting=0)
    await settle()
    assert (first.done(), second.done()) == (True, False)
    setup.capacity = 2
    setup.scale(1)
    await settle()
    assert second.done()


async def test_a_removed_deployment_still_counts_down() -> None:
    setup = Setup()
    view = await setup.admission.acquire("small")
    setup.directory.retain(())
    assert setup.admission.load("small").in_flight == 1
    setup.admission.release(view)
    assert setup.admission.loads() == {}


async def test_releasing_twice_is_a_bug_that_shows() -> None:
    setup = Setup()
    view = await setup.admission.acquire("small")
    setup.admission.release(view)
    with pytest.raises(AssertionError, match="more often"):
        setup.admission.release(view)


class Interleavings(RuleBasedStateMachine):
    """Any order of requests, releases, cancellations, deadlines and replicas that come, go, fail and
    grow; tasks run only in `run`, so that events pile up between two steps of a task."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.setup = Setup(replicas=1, capacity=2, room=6)
        self.tasks: list[asyncio.Task[ReplicaView]] = []
        self.excluding: dict[asyncio.Task[ReplicaView], tuple[str, ...]] = {}
        self.held: list[ReplicaView] = []
        self.settled = True

    def _settle(self) -> None:
        self.loop.run_until_complete(settle())
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                self.held.append(task.result())
            else:
                assert isinstance(error, AdmissionError)
        self.settled = True

    @rule(exclude=st.sampled_from([(), (), (), ("h:1",), ("h:1", "h:2")]), wait_s=st.sampled_from([0, 2, 30]))
    def request(self, exclude: tuple[str, ...], wait_s: float) -> None:
        task = self.loop.create_task(self.setup.admission.acquire("small", wait_s=wait_s, exclude=exclude))
        self.tasks.append(task)
        self.excluding[task] = exclude
        self.settled = False

    @rule()
    def run(self) -> None:
        self._settle()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.setup.admission.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))
        self.settled = False

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.tasks[data.draw(st.integers(0, len(self.tasks) - 1))].cancel()
        self.settled = False

    @rule(seconds=st.sampled_from([1, 2]))
    def time_passes(self, seconds: float) -> None:
        self.setup.time.pass_by(seconds)
        self.settled = False

    @rule(replicas=st.integers(0, 3))
    def scale(self, replicas: int) -> None:
        self.setup.scale(replicas)
        self.settled = False

    @rule(up=st.booleans())
    def flip(self, up: bool) -> None:
        for view in self.setup.directory.views("small")[:1]:
            (self.setup.directory.mark_up if up else self.setup.directory.mark_down)(view)
        self.settled = False

    @rule()
    def remove_deployment(self) -> None:
        self.setup.directory.retain(())
        self.settled = False

    @invariant()
    def capacity_holds(self) -> None:
        for view in self.setup.directory.views("small"):
            assert 0 <= view.outstanding <= view.capacity

    @invariant()
    def every_taken_slot_has_one_owner(self) -> None:
        if not self.settled:
            return
        assert self.setup.admission.load("small").in_flight == len(self.held)
        for view in self.setup.directory.views("small"):
            assert view.outstanding == sum(owned is view for owned in self.held)
        assert self.setup.admission.load("small").waiting == len(self.tasks) <= 6
        assert self.setup.time.armed == len(self.tasks)

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        if not self.settled:
            return
        for task in self.tasks:
            free = self.setup.admission.try_acquire("small", self.excluding[task])
            assert free is None

    def teardown(self) -> None:
        for task in self.tasks:
            task.cancel()
        self._settle()
        while self.held:
            self.setup.admission.release(self.held.pop())
        assert self.setup.admission.loads() == {}
        assert self.setup.time.armed == 0
        self.loop.close()


Interleavings.TestCase.settings = settings(max_examples=50, stateful_step_count=40, print_blob=False)
TestInterleavings = Interleavings.TestCase


@pytest.mark.parametrize("seed", range(5))
async def test_waiters_are_let_in_in_the_order_they_came(seed: int) -> None:
    """A random schedule of arrivals, releases and cancellations: the order in is the order of arrival."""
    rng = Random(seed)
    setup = Setup(replicas=2, capacity=2, room=1000)
    let_in: list[int] = []
    held: list[ReplicaView] = []

    async def request(number: int) -> None:
        view = await setup.admission.acquire("small", wait_s=1000)
        let_in.append(number)
        held.append(view)

    tasks: list[asyncio.Task[None]] = []
    for number in range(300):
        tasks.append(asyncio.create_task(request(number)))
        if rng.random() < 0.2:
            rng.choice(tasks).cancel()
        if rng.random() < 0.5:
            await settle()
        while held and rng.random() < 0.4:
            setup.admission.release(held.pop(rng.randrange(len(held))))
    while setup.admission.load("small").waiting or not all(task.done() for task in tasks):
        await settle()
        while held:
            setup.admission.release(held.pop())
    assert let_in == sorted(let_in)
    assert len(let_in) == sum(not task.cancelled() for task in tasks)
    assert len(let_in) > 150

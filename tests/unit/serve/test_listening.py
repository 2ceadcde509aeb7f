"""Listening goes on whatever the controller, Ray or a callback does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from typing import Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
    RaySystemError,
    TaskCancelledError,
)

from tradewind.serve.listening import Listener, Update

TOPIC = "replicas"


class Controller:
    """Answers as it is told, a poll at a time. Of a single update, about `TOPIC`."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[int] = asyncio.Queue()
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self.polls = 0
        self.numbers: dict[Hashable, int] = {}
        """Of the last poll."""

    async def ask(self, numbers: Mapping[Hashable, int]) -> Mapping[Hashable, Update]:
        self.polls += 1
        self.numbers = dict(numbers)
        self.asked.put_nowait(numbers[TOPIC])
        answer = await self._answers.get()
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, dict):
            return answer
        assert answer is None or isinstance(answer, Update)
        return {} if answer is None else {TOPIC: answer}

    async def answers(self, answer: Any) -> int:
        """Answers the next poll; returns the number that it asked with."""
        async with asyncio.timeout(5):
            number = await self.asked.get()
        self._answers.put_nowait(answer)
        return number

    async def asks(self) -> int:
        """Waits for a poll, which stays without an answer."""
        async with asyncio.timeout(5):
            return await self.asked.get()


class Scene:
    """A listener on a controller, and what it told."""

    def __init__(self, silence_s: float = 30.0) -> None:
        self.controller = Controller()
        self.told: list[Any] = []
        self.topics: list[Hashable] = [TOPIC]
        self.new = 0
        self.now = 0.0
        self.fail: Callable[[Any], None] = lambda _: None
        self.listener = Listener(
            self.controller.ask,
            lambda: self.topics,
            self._take,
            self._count,
            silence_s=silence_s,
            again_s=0.001,
            clock=lambda: self.now,
        )

    def _take(self, told: Mapping[Hashable, Any]) -> None:
        content = told[TOPIC] if list(told) == [TOPIC] else dict(told)
        self.fail(content)
        self.told.append(content)

    def _count(self) -> None:
        self.new += 1


@contextlib.asynccontextmanager
async def listening(silence_s: float = 30.0) -> AsyncIterator[Scene]:
    scene = Scene(silence_s)
    scene.listener.start()
    yield scene
    scene.listener.stop()
    await asyncio.sleep(0)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with listening() as scene:
        yield scene


async def test_each_poll_asks_for_what_is_newer_than_the_last_change(scene: Scene) -> None:
    numbers = [await scene.controller.answers(Update(number, f"at {number}")) for number in (500, 501, 510)]
    assert numbers == [-1, 500, 501]
    assert await scene.controller.asks() == 510
    assert (scene.told, scene.new) == (["at 500", "at 501", "at 510"], 0)


async def test_another_controller_is_told_by_the_number_of_its_change(scene: Scene) -> None:
    for number in (500, 7, 900_000):
        await scene.controller.answers(Update(number, number))
    assert await scene.controller.asks() == 900_000
    assert (scene.told, scene.new) == ([500, 7, 900_000], 2)


async def test_each_topic_has_a_number_of_its_own_and_an_update_may_add_to_them(scene: Scene) -> None:
    def add(content: Any) -> None:
        scene.topics = [TOPIC, *content]

    scene.fail = add
    await scene.controller.answers(Update(5, ["a", "b"]))
    await scene.controller.asks()
    assert scene.controller.numbers == {TOPIC: 5, "a": -1, "b": -1}
    scene.fail = lambda _: None
    scene.controller._answers.put_nowait({"a": Update(900, "x"), "b": Update(7, "y")})
    await scene.controller.asks()
    assert scene.controller.numbers == {TOPIC: 5, "a": 900, "b": 7}
    assert (scene.told, scene.new) == ([["a", "b"], {"a": "x", "b": "y"}], 0)
    scene.topics = [TOPIC, "a"]
    scene.controller._answers.put_nowait({"a": Update(3, "of another controller")})
    await scene.controller.asks()
    assert scene.controller.numbers == {TOPIC: 5, "a": 3}
    assert scene.new == 1


FAILURES: dict[str, BaseException] = {
    "away": ActorUnavailableError("away", None),
    "dead": ActorDiedError(),
    "an actor's": RayActorError(),
    "of Ray's": RaySystemError("raylet"),
    "lost": ObjectLostError("ab" * 28, "", ""),
    "late": GetTimeoutError(),
    "given up by Ray": TaskCancelledError(),
    "no connection": ConnectionError("away"),
    "of our own": KeyError("x"),
    "cancelled by Ray": asyncio.CancelledError(),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_it_asks_again_whatever_a_poll_ends_with(failure: str, scene: Scene) -> None:
    await scene.controller.answers(Update(1, "before"))
    for _ in range(3):
        assert await scene.controller.answers(FAILURES[failure]) == 1
    await scene.controller.answers(Update(2, "after"))
    assert await scene.controller.asks() == 2
    assert scene.told == ["before", "after"]


async def test_an_answer_of_another_form_ends_nothing(scene: Scene) -> None:
    await scene.controller.answers(Update(1, "before"))
    await scene.controller.asked.get()
    scene.controller._answers.put_nowait("no update")  # the fake asserts: an AssertionError
    await scene.controller.answers(Update(2, "after"))
    assert await scene.controller.asks() == 2


async def test_what_a_callback_raises_at_is_logged_once_and_told_again(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 3

    def fail(content: Any) -> None:
        nonlocal failures
        if content == "bad" and failures:
            failures -= 1
            raise ValueError("canary")

    scene.fail = fail
    with caplog.at_level(logging.INFO):
        await scene.controller.answers(Update(1, "good"))
        for _ in range(4):
            assert await scene.controller.answers(Update(2, "bad")) == 1
        assert await scene.controller.asks() == 2
    assert scene.told == ["good", "bad"]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        "Serve's controller is not heard: what it told was not taken in: ValueError"
    ]
    assert warnings[0].exc_info is not None
    assert "heard again" in caplog.text


async def test_a_controller_that_says_nothing_is_asked_anew() -> None:
    async with listening(silence_s=0.01) as scene:
        assert [await scene.controller.asks() for _ in range(3)] == [-1, -1, -1]
        await scene.controller.answers(Update(5, "there"))
        while scene.told != ["there"]:
            await scene.controller.asks()


async def test_age_is_the_time_since_it_was_heard(scene: Scene) -> None:
    await scene.controller.asks()
    scene.now = 10.0
    assert scene.listener.age() == 10.0
    scene.controller._answers.put_nowait(None)  # nothing changed: that is news of it too
    await scene.controller.asks()
    assert scene.listener.age() == 0.0
    scene.now = 15.0
    scene.controller._answers.put_nowait(ActorUnavailableError("away", None))
    await scene.controller.asks()
    assert scene.listener.age() == 5.0
    scene.fail = [].remove  # raises
    scene.controller._answers.put_nowait(Update(1, "not taken in"))
    await scene.controller.asks()
    assert scene.listener.age() == 5.0


async def test_a_controller_that_answers_nothing_at_once_is_not_asked_without_a_pause() -> None:
    scene = Scene()
    scene.listener._again_s = 30.0
    scene.listener.start()
    await scene.controller.answers(None)
    for _ in range(20):
        await asyncio.sleep(0)
    assert scene.controller.polls == 1
    scene.listener.stop()


async def test_it_comes_back_when_its_task_was_ended(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    await scene.controller.answers(Update(1, "before"))
    await scene.controller.asks()
    task = scene.listener._task
    assert task is not None
    task.cancel()
    assert await scene.controller.asks() == 1
    assert "ended by cancellation" in caplog.text
    await asyncio.sleep(0)


async def test_nothing_is_told_after_it_was_stopped(scene: Scene) -> None:
    await scene.controller.asks()
    scene.listener.stop()
    scene.controller._answers.put_nowait(Update(1, "late"))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert (scene.told, scene.controller.polls) == ([], 1)
    scene.listener.stop()

"""Engine processes that are stopped, go on, or end, and when the replica is given up for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tradewind.api.wire import EngineSettings, SourceSettings
from tradewind.engine.errors import EngineUnhealthyError
from tradewind.engine.liveness import ProcessWatch, Trouble
from tradewind.engine.runtime import VLLMEngine

QUICK_S = 0.01
PARENT = "import subprocess, sys; c = subprocess.Popen(['sleep', '61']); print(c.pid, flush=True); input()"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child of its own, whose id it has printed."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    )
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture
def watches() -> Iterator[list[ProcessWatch]]:
    made: list[ProcessWatch] = []
    yield made
    for watch in made:
        watch.stop()


def watch(watches: list[ProcessWatch], pid: int, clock: Clock | None = None) -> ProcessWatch:
    made = ProcessWatch([os.getpid(), pid], interval_s=QUICK_S, clock=clock or time.monotonic)
    watches.append(made)
    return made


def seen(watch: ProcessWatch, text: str | None) -> Trouble | None:
    """What the watch shows, once it shows `text`; fails after 5 s."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        trouble = watch.trouble
        if (trouble.text if trouble is not None else None) == text:
            return trouble
        time.sleep(QUICK_S / 10)
    raise AssertionError(f"wanted {text}, found {watch.trouble}")


def test_processes_that_run_are_no_trouble(
    child: subprocess.Popen[bytes], watches: list[ProcessWatch]
) -> None:
    assert watch(watches, child.pid).trouble is None


def test_a_stopped_process_is_one_until_it_goes_on(
    child: subprocess.Popen[bytes], watches: list[ProcessWatch]
) -> None:
    clock = Clock()
    it = watch(watches, child.pid, clock)
    child.send_signal(signal.SIGSTOP)
    first = seen(it, f"engine process {child.pid} is stopped")
    assert first is not None
    assert (first.since, first.final) == (100.0, False)
    clock.now = 103.0
    again = seen(it, first.text)
    assert again is not None
    assert again.since == 100.0
    child.send_signal(signal.SIGCONT)
    seen(it, None)


def test_so_is_a_stopped_child_of_it(child: subprocess.Popen[bytes], watches: list[ProcessWatch]) -> None:
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    it = watch(watches, child.pid)
    os.kill(grandchild, signal.SIGSTOP)
    seen(it, f"engine process {grandchild} is stopped")
    os.kill(grandchild, signal.SIGCONT)
    seen(it, None)


def test_a_dead_process_is_trouble_for_good(
    child: subprocess.Popen[bytes], watches: list[ProcessWatch]
) -> None:
    it = watch(watches, child.pid)
    child.kill()  # and nobody waits for it
    trouble = seen(it, f"engine process {child.pid} has ended")
    assert trouble is not None
    assert trouble.final


def test_a_process_that_is_gone_is_one_too() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    it = ProcessWatch([process.pid])
    it.stop()
    it.stop()
    assert it.trouble is not None
    assert it.trouble.text == f"engine process {process.pid} has ended"


def test_a_name_with_brackets_is_read_past(tmp_path: Path) -> None:
    program = tmp_path / "a) Z (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([program, "60"])
    try:
        it = ProcessWatch([process.pid])
        it.stop()
        assert it.trouble is None
    finally:
        process.kill()
        process.wait()


class Engine(VLLMEngine):
    """An engine as it is after its start, around one process that stands for vLLM's."""

    def __init__(self, home: Path, pid: int, clock: Clock) -> None:
        super().__init__(token="t", home=home, clock=clock)
        self.errored = False
        running: Any = SimpleNamespace(
            pids=(pid,), dead=lambda: self.errored, unfinished=lambda: 1, context_length=8,
            model_type="llama", version="0", lora=None,
        )  # fmt: skip
        self._running = running
        self._settings = EngineSettings(name="llama", source=SourceSettings(uri="file:///nowhere"))
        self._watch = ProcessWatch((pid,), interval_s=QUICK_S, clock=clock)

    def end(self) -> None:
        assert self._watch is not None
        self._watch.stop()

    def until(self, *, healthy: bool) -> None:
        end = time.monotonic() + 5
        while self.stats().healthy is not healthy:
            assert time.monotonic() < end
            time.sleep(QUICK_S / 10)


@pytest.fixture
def engine(tmp_path: Path, child: subprocess.Popen[bytes]) -> Iterator[Engine]:
    made = Engine(tmp_path, child.pid, Clock())
    yield made
    made.end()


async def test_a_freeze_takes_an_engine_out_of_use_and_not_its_replica(
    engine: Engine, child: subprocess.Popen[bytes]
) -> None:
    await engine.check_health()
    child.send_signal(signal.SIGSTOP)
    engine.until(healthy=False)
    clock = engine._clock
    assert isinstance(clock, Clock)
    for _ in range(10):  # Serve gives a replica up after three failures, two seconds apart
        clock.now += 2
        await engine.check_health()
    child.send_signal(signal.SIGCONT)
    engine.until(healthy=True)
    await engine.check_health()


async def test_one_that_does_not_end_costs_the_replica(
    engine: Engine, child: subprocess.Popen[bytes]
) -> None:
    child.send_signal(signal.SIGSTOP)
    engine.until(healthy=False)
    clock = engine._clock
    assert isinstance(clock, Clock)
    clock.now += 60
    with pytest.raises(EngineUnhealthyError, match="is stopped"):
        await engine.check_health()


async def test_a_dead_engine_costs_the_replica_at_once(engine: Engine) -> None:
    engine.errored = True
    assert not engine.stats().healthy
    with pytest.raises(EngineUnhealthyError, match="the engine has died"):
        await engine.check_health()


async def test_no_progress_for_long_costs_the_replica(engine: Engine) -> None:
    clock = engine._clock
    assert isinstance(clock, Clock)
    for _ in range(30):
        assert engine.stats().healthy
        clock.now += 2
    with pytest.raises(EngineUnhealthyError, match="no progress for 6"):
        await engine.check_health()


async def test_looking_costs_the_event_loop_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> list[psutil.Process]:
        raise AssertionError("the process table was read in the caller's thread")

    monkeypatch.setattr(psutil.Process, "children", never)
    monkeypatch.setattr(Path, "read_bytes", never)
    engine.end()
    assert engine.stats().healthy
    await engine.check_health()

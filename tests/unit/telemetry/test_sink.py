from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.telemetry.builders import Clock, request, telemetry
from tradewind.telemetry.record import RequestRecord
from tradewind.telemetry.sink import Item, QueueSettings, QueueSink


class Stuck:
    """A writer whose writes wait until they may go on."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.written: list[Item] = []
        self.closed = False

    def write(self, batch: Sequence[Item]) -> int:
        self.entered.set()
        self.go.wait(5)
        self.written.extend(batch)
        return 0

    def close(self) -> None:
        self.closed = True
        self.go.set()

    def after_fork(self) -> None:
        pass


class Failing(Stuck):
    def write(self, batch: Sequence[Item]) -> int:
        raise OSError("disk full")


def a_record() -> RequestRecord:
    clock = Clock()
    return request(telemetry(clock), clock)


def test_full_queue_drops_and_counts_without_waiting() -> None:
    writer = Stuck()
    sink = QueueSink(writer, QueueSettings(max_queue=4, batch=1, delay_s=0.001))
    sink.put(a_record())
    assert writer.entered.wait(2)
    for _ in range(10):
        sink.put(a_record())
    assert sink.dropped == 6
    writer.go.set()
    assert sink.flush(2)
    assert len(writer.written) == 5
    sink.shutdown()


def test_failed_write_is_counted_as_dropped() -> None:
    sink = QueueSink(Failing(), QueueSettings(batch=2))
    for _ in range(3):
        sink.put(a_record())
    sink.flush()
    assert sink.dropped == 3
    sink.shutdown()


def test_shutdown_writes_what_is_queued_and_takes_no_more() -> None:
    writer = Stuck()
    writer.go.set()
    sink = QueueSink(writer, QueueSettings(delay_s=60.0))
    records = [a_record() for _ in range(3)]
    for record in records:
        sink.put(record)
    sink.shutdown()
    assert writer.written == records
    assert writer.closed
    sink.put(a_record())
    assert sink.dropped == 1
    sink.shutdown()


def test_shutdown_does_not_wait_for_a_collector_that_hangs() -> None:
    writer = Stuck()
    sink = QueueSink(writer, QueueSettings(max_queue=8, batch=1, delay_s=0.001))
    sink.put(a_record())
    assert writer.entered.wait(2)
    sink.put(a_record())
    assert not sink.flush(timeout_s=0.01)
    sink.shutdown(timeout_s=0.01)
    assert writer.closed
    assert sink.dropped == 1


_FORK = """
import os, sys
from pathlib import Path
from tests.unit.telemetry.builders import Clock, request, telemetry
from tradewind.telemetry.localfile import LocalFile
from tradewind.telemetry.sink import QueueSettings, QueueSink
sink = QueueSink(LocalFile(Path(sys.argv[1]), "svc"), QueueSettings(delay_s=60.0))
clock = Clock()
sink.put(request(telemetry(clock), clock))
pid = os.fork()
sink.put(request(telemetry(clock), clock))
if pid == 0:
    sink.shutdown()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
sink.shutdown()
"""
_EXIT = """
import sys
from pathlib import Path
from tradewind.telemetry.setup import setup_tracing
with setup_tracing("svc", home=Path(sys.argv[1])).provider.get_tracer("t").start_as_current_span("work"):
    pass
"""


def run(script: str, directory: Path) -> None:
    root = Path(__file__).parents[3]
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    env["PYTHONPATH"] = f"{root / 'platform'}{os.pathsep}{root}"
    subprocess.run([sys.executable, "-c", script, str(directory)], check=True, env=env, timeout=20)


def test_fork_gives_the_child_a_file_of_its_own_and_doubles_nothing(tmp_path: Path) -> None:
    run(_FORK, tmp_path)
    counts = sorted(path.read_bytes().count(b"\n") for path in tmp_path.iterdir())
    assert counts == [1, 2]


def test_exit_of_the_interpreter_writes_what_is_queued(tmp_path: Path) -> None:
    run(_EXIT, tmp_path)
    (path,) = (tmp_path / "traces").iterdir()
    assert b'"work"' in path.read_bytes()


@pytest.mark.parametrize("settings", [QueueSettings(batch=1, delay_s=0.001), QueueSettings(delay_s=0.001)])
def test_many_threads_lose_nothing(settings: QueueSettings) -> None:
    writer = Stuck()
    writer.go.set()
    sink = QueueSink(writer, settings)
    record = a_record()

    def many() -> None:
        for _ in range(100):
            sink.put(record)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.shutdown()
    assert len(writer.written) + sink.dropped == 400
    assert sink.dropped == 0

"""Our own way to the fake engine: the one place that knows what the gateway's way in is made of.

The gateway listens itself, in a Serve replica that is started as `tradewind up` does it, with a key, a sticky
split, metrics and one trace of a hundred. Only where its replicas are it is told here instead of by Serve.
`python -m tests.bench.peers.ours PORT PORT` runs it for the engine on these ports until its stdin ends,
in a process of its own because the platform takes whatever its process starts for its own.
"""

from __future__ import annotations

import contextlib
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from tests.bench import stage
from tests.bench.peers.engine import DEPLOYMENTS
from tests.bench.peers.way import Way
from tradewind.compiler.compile import Compiled

NAME = "Tradewind"
WHAT = "Python; one gateway in a Serve replica; key, sticky split, metrics, 1 % of traces"
_TELEMETRY = "{samplingRatio: 0.01}"
_START_S = 300.0
_STOP_S = 60.0


def compiled(engines: tuple[int, int], port: int, metrics_port: int) -> Compiled:
    """The bench's resources without engine applications, and the gateway told where the engines are."""
    result = stage.resources(port, metrics_port, _TELEMETRY)
    apps = [app for app in result.serve_config["applications"] if app["name"] not in DEPLOYMENTS]
    for app in apps:
        app["import_path"] = "tests.bench.peers.replica:gateway"
        app["args"] = app["args"] | {"ports": dict(zip(DEPLOYMENTS, engines, strict=True))}
    result.serve_config["applications"] = apps
    return result


class Failed(Exception):
    """It did not come up; the message ends with what it said last."""


class Ours:
    """Our way, running in a process of its own."""

    def __init__(self, engines: tuple[int, int], log: Path) -> None:
        """Raises Failed."""
        command = [sys.executable, "-m", "tests.bench.peers.ours", *map(str, engines)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True
            )
        line = ""
        try:
            line = self._first_line()
        finally:
            if not line:
                self.close()
        if not line:
            raise Failed(f"it did not come up: {log.read_text(errors='replace')[-500:]}")
        self._front = msgspec.json.decode(line, type=stage.Gateway)

    def _first_line(self) -> str:
        """Empty when it ended, or is silent for longer than a slow machine explains."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _START_S)
        return self._process.stdout.readline() if ready else ""

    def way(self) -> Way:
        """The gateway's process."""
        front = self._front
        return Way(
            NAME,
            front.port,
            lambda: [front.gateway],
            [("authorization", f"Bearer {front.key}")],
        )

    def close(self) -> None:
        """End it, and what it started, also while it starts."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # Ray's daemons die with it
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    """Run it until stdin ends; the first line of stdout is a `stage.Gateway` as JSON."""
    first, second = map(int, sys.argv[1:])
    with (
        stage.scratch_state() as state,
        contextlib.redirect_stdout(sys.stderr),
        stage.serving(
            state, stage.ROOT, lambda port, metrics: compiled((first, second), port, metrics)
        ) as front,
    ):
        print(msgspec.json.encode(front).decode(), file=sys.__stdout__, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()


if __name__ == "__main__":
    main()

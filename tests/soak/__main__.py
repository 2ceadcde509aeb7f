"""`make soak`: two gateways at the machine's limit for minutes, with engines that die and freeze meanwhile.

Nothing may be lost: each stream is complete, or an error event ends it. And nothing may pile up: memory,
open files and tasks of the gateways are looked at throughout. Exit code 0 when all of that held.

`--break` says who dies and freezes instead. A gateway that is killed takes with it what it had in hand: that
is counted, and no failure up to what the callers could have had there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import msgspec
import psutil
from rich.console import Console

from tests.bench import stage
from tests.bench.stage import Scale, Stage
from tests.soak.callers import REFUSAL, Cast, Fate, Kind
from tests.soak.watch import Sample, Watch, leaks

_LOOK_S: Final = 5.0
_FAULT_S: Final = 45.0
"""From one fault to the next: a replica that was killed is back within a few seconds."""
_FROZEN_S: Final = 4.0
_QUIET_S: Final = 150.0
"""After the load, at most: connections between gateways and engines are kept for 90 s without a request."""


@dataclass(slots=True)
class Run:
    """What a run came to."""

    told: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    watches: list[Watch] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Crowd:
    """The callers' process."""

    def __init__(self, cast: Cast) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.callers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=stage.ROOT,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(cast).decode() + "\n")
        self._process.stdin.flush()

    def told(self) -> Counter[str]:
        """What became of all requests so far, a second ago at most. Raises EOFError when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("the callers' process ended")
        return Counter(json.loads(line))

    def finish(self) -> Counter[str]:
        """Let each caller end what it has begun; what became of all."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.stdout is not None
        return Counter(json.loads(list(self._process.stdout)[-1]))

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()


class Faults:
    """Processes that are killed and frozen, in turns."""

    def __init__(self, running: Stage, groups: list[str], done: Counter[str]) -> None:
        """`groups`: of `Gateway.now`, one after the other."""
        self._stage, self._groups, self._done = running, groups, done
        self._next = time.monotonic() + _FAULT_S
        self._frozen = 0
        self._until = 0.0

    def tick(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._frozen and now >= self._until:
            self._signal(self._frozen, signal.SIGCONT)
            self._frozen = 0
        if now < self._next:
            return
        self._next = now + _FAULT_S
        turn = self._done.total()
        group = self._groups[turn // 2 % len(self._groups)]
        if not (pids := self._stage.front.now()[group]):
            return
        pid = pids[turn % len(pids)]
        if turn % 2:
            self._signal(pid, signal.SIGSTOP)
            self._frozen, self._until = pid, now + _FROZEN_S
            self._done[f"{group} frozen"] += 1
        else:
            self._signal(pid, signal.SIGKILL)
            self._done[f"{group} killed"] += 1

    def end(self) -> None:
        """Leave nothing frozen."""
        if self._frozen:
            self._signal(self._frozen, signal.SIGCONT)

    @staticmethod
    def _signal(pid: int, number: signal.Signals) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def soak(running: Stage, minutes: float, callers: int, groups: list[str], console: Console) -> Run:
    """The load, the faults and the looking."""
    run, front = Run(), running.front
    ports = range(front.metrics_port, front.metrics_port + len(front.gateways))
    urls = {_owner(port): f"http://127.0.0.1:{port}/metrics" for port in ports}
    run.watches = [Watch(pid, urls[pid]) for pid in front.gateways]
    time.sleep(_LOOK_S)
    before = [watch.look() for watch in run.watches]
    faults = Faults(running, groups, run.faults)
    crowd = Crowd(Cast(front.port, front.key, callers))
    try:
        _go_on(run, crowd, faults, minutes * 60, console)
        run.told = crowd.finish()
    finally:
        faults.end()
        crowd.close()
    losses = run.faults["gateways killed"] * callers
    lasting = [(watch, first) for watch, first in zip(run.watches, before, strict=True) if watch.lives]
    run.wrong = [*unsound(run.told, losses), *_piled_up(lasting)]
    return run


def _piled_up(watches: list[tuple[Watch, Sample]]) -> list[str]:
    """What gateways hold that they did not before, once they hold no more or after `_QUIET_S`."""
    loaded = [watch.samples[1:] for watch, _ in watches]
    deadline = time.monotonic() + _QUIET_S
    while True:
        time.sleep(_LOOK_S)
        found = [
            f"gateway {watch.pid}: {sentence}"
            for (watch, before), samples in zip(watches, loaded, strict=True)
            for sentence in leaks(samples, before, watch.look())
        ]
        if not found or time.monotonic() > deadline:
            return found


def _go_on(run: Run, crowd: Crowd, faults: Faults, seconds: float, console: Console) -> None:
    began = looked = time.monotonic()
    with console.status("Soaking …") as status:
        while (now := time.monotonic()) - began < seconds:
            run.told = crowd.told()
            faults.tick()
            if now - looked >= _LOOK_S:
                looked = now
                last = [watch.look() for watch in run.watches if watch.lives]
                held = ", ".join(f"{sample.rss_mib:.0f} MiB" for sample in last)
                so_far = f"{now - began:.0f} of {seconds:.0f} s, {run.told.total()} requests"
                status.update(f"Soaking: {so_far}, {held}")


def _owner(port: int) -> int:
    """Process id of whoever listens on a port of this machine. Raises LookupError."""
    listening = (each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN)
    for connection in listening:
        if connection.pid and connection.laddr and connection.laddr.port == port:
            return int(connection.pid)
    raise LookupError(f"nobody listens on port {port}")


def unsound(told: Counter[str], losses: int = 0) -> list[str]:
    """Fates that no request may have, a sentence each.

    Args:
        losses: how many requests may be lost or cut, because the process that had them was killed.
    """
    gone = {what: count for what, count in told.items() if what.endswith((" lost", " cut", "refused"))}
    if gone and sum(gone.values()) <= losses:
        told = Counter({what: count for what, count in told.items() if what not in gone})
    found = []
    for what, count in sorted(told.items()):
        kind, _, fate = what.partition(" ")
        fine = {Fate.ANSWERED, Fate.FAILED} if kind != Kind.WRONG else {f"{Fate.REFUSED} {REFUSAL}"}
        # One that is to leave may have its answer first, and none can begin while engines are away.
        if kind == Kind.LEAVES:
            fine.add(Fate.LEFT)
        if fate not in fine and fate not in (f"{Fate.REFUSED} 502", f"{Fate.REFUSED} 503"):
            found.append(f"{count} requests: {what}")
    return found


def _show(run: Run, console: Console) -> None:
    for what, count in sorted(run.told.items()):
        console.print(f"{count:>8}  {what}")
    console.print(", ".join(f"{what} {count} times" for what, count in run.faults.items()) or "no faults")
    for watch in run.watches:
        first, last = watch.samples[0], watch.samples[-1]
        most = max(sample.rss_mib for sample in watch.samples)
        console.print(
            f"gateway {watch.pid}: {first.rss_mib:.0f} MiB before, {most:.0f} at most, "
            f"{last.rss_mib:.0f} after; "
            f"open files {first.files} and {last.files}, tasks {first.tasks} and {last.tasks}"
        )
    for sentence in run.wrong:
        console.print(f"[red]{sentence}[/]")


def main() -> int:
    """Soak, print, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of load (%(default)g)")
    parser.add_argument("--callers", type=int, default=96, help="who ask without a pause (%(default)d)")
    parser.add_argument(
        "--break",
        dest="groups",
        nargs="+",
        choices=("engines", "gateways", "controller"),
        default=["engines"],
        help="who dies and freezes, in turns (engines)",
    )
    parser.add_argument("--json", type=Path, help="where to write every sample")
    args = parser.parse_args()
    console = Console(stderr=True)
    scale = Scale(gateways=2, replicas=2)
    try:
        with stage.scratch_state() as state, stage.running(state, stage.ROOT, scale) as running:
            run = soak(running, args.minutes, args.callers, args.groups, console)
    except (stage.StageFailed, httpx.HTTPError, LookupError, EOFError) as error:
        console.print(f"[red]No valid result:[/] {error}")
        return 1
    _show(run, Console(soft_wrap=True))
    if args.json is not None:
        told = {"requests": run.told, "faults": run.faults, "wrong": run.wrong}
        args.json.write_text(
            json.dumps({**told, "gateways": [watch.summary() for watch in run.watches]}, indent=2)
        )
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

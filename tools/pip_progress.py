"""Run pip and show one moving line instead of its several hundred.

pip's raw progress ("Progress 1024 of 4096") and its "Collecting", "Downloading" and "Installing" lines are
read and drawn as a single line on a terminal, or as a line every ten seconds elsewhere. The end of what pip
said is kept, for when it fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field

COLLECTING = re.compile(r"^(?:Collecting|Requirement already satisfied:) ([A-Za-z0-9._-]+?)(?:\[|==| |$)")
DOWNLOADING = re.compile(r"^\s+Downloading (?:\S*/)?([A-Za-z0-9._]+?)-\d")
BYTES = re.compile(r"^Progress (\d+) of (\d+)")
KEPT_LINES = 60


@dataclass
class PipState:
    """Where a pip run is: packages seen of `total`, and the file or step it is busy with."""

    total: int
    seen: int = 0
    doing: str = "starting"
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    def read(self, line: str) -> None:
        """Take one line of pip's output."""
        if moved := BYTES.match(line):
            done, size = int(moved[1]), int(moved[2])
            self.doing = f"{self.doing.split(' · ')[0]} · {done / 1e6:.0f} of {size / 1e6:.0f} MB"
            return
        self.tail.append(line.rstrip())
        if collected := COLLECTING.match(line):
            self.seen += 1
            self.doing = collected[1]
        elif downloading := DOWNLOADING.match(line):
            self.doing = downloading[1]
        elif line.startswith("Installing collected packages"):
            self.seen = self.total
            self.doing = "unpacking"

    def describe(self) -> str:
        """One short line: count and step."""
        return f"{min(self.seen, self.total):>3}/{self.total} {self.doing}"


def draw(heading: str, state: PipState, stopped: threading.Event, started: float) -> None:
    """Redraw until `stopped`: five times a second on a terminal, every ten seconds elsewhere."""
    terminal = sys.stdout.isatty()
    while not stopped.wait(0.2 if terminal else 10):
        line = f"  {heading:<24} {state.describe()} · {time.monotonic() - started:.0f} s"
        print(f"\r\033[K{line[:110]}" if terminal else line, end="" if terminal else "\n", flush=True)
    if terminal:
        print("\r\033[K", end="")


def run_pip(command: list[str], heading: str, total: int, env: dict[str, str]) -> tuple[int, list[str]]:
    """Run `command`, a pip installation of `total` packages; its exit code and its last lines."""
    started = time.monotonic()
    state, stopped = PipState(total), threading.Event()
    drawer = threading.Thread(target=draw, args=(heading, state, stopped, started), daemon=True)
    drawer.start()
    try:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, errors="replace"
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                state.read(line)
    finally:
        stopped.set()
        drawer.join()
    if process.returncode == 0:
        print(f"  {heading:<24} {total} packages in {time.monotonic() - started:.0f} s", flush=True)
    return process.returncode, list(state.tail)

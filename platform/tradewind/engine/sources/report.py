"""How long steps tell how far they are: a callback, and a small file for other processes.

The engine runs in another process than the command line, so besides calling back, steps can write
`<home>/progress/<deployment>.json`, which `tradewind up` and `status` read.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Progress(Protocol):
    """Called often and from any thread; must return at once and not raise.

    Stages in their order: `download`, `convert`, `load` (the engine starts), `warmup`, `ready`, or
    `failed`. Counts are bytes; a total of 0 means unknown.
    """

    def __call__(self, stage: str, done_bytes: int = 0, total_bytes: int = 0) -> None: ...


def silent(stage: str, done_bytes: int = 0, total_bytes: int = 0) -> None:
    """A Progress that nobody watches."""


def both(first: Progress, second: Progress) -> Progress:
    """A Progress that tells two."""

    def tell(stage: str, done_bytes: int = 0, total_bytes: int = 0) -> None:
        first(stage, done_bytes, total_bytes)
        second(stage, done_bytes, total_bytes)

    return tell


def progress_file(home: Path, deployment: str) -> Path:
    """Where the progress of `deployment` (a resource name, so a safe file name) is published."""
    return home / "progress" / f"{deployment}.json"


class ProgressFile:
    """A Progress that publishes to `progress_file(...)`.

    Replaced atomically; at most one write per `interval_s`, but a new stage always. A disk that
    refuses costs the display, never the engine.
    """

    def __init__(
        self,
        path: Path,
        *,
        interval_s: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._interval = interval_s
        self._clock = clock
        self._now = now
        self._stage = ""
        self._written = float("-inf")

    def __call__(self, stage: str, done_bytes: int = 0, total_bytes: int = 0) -> None:
        moment = self._clock()
        if stage == self._stage and moment - self._written < self._interval:
            return
        self._stage = stage
        self._written = moment
        self._write(
            {
                "deployment": self._path.stem,
                "stage": stage,
                "done_bytes": done_bytes,
                "total_bytes": total_bytes,
                "updated": round(self._now(), 3),
            }
        )

    def failed(self, message: str) -> None:
        """The engine did not start; `message` is the cause."""
        self._stage = "failed"
        self._write(
            {
                "deployment": self._path.stem,
                "stage": "failed",
                "done_bytes": 0,
                "total_bytes": 0,
                "updated": round(self._now(), 3),
                "message": message,
            }
        )

    def _write(self, content: dict[str, object]) -> None:
        part = self._path.with_suffix(f".{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(content))
            part.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()

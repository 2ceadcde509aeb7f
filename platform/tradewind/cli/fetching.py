"""Fetches weights before anything else starts, and tells what a starting engine is busy with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from tradewind import home
from tradewind.api.wire import AdapterSettings, EngineSettings
from tradewind.cli.errors import CommandFailed
from tradewind.engine.errors import EngineError
from tradewind.engine.sources.report import progress_file
from tradewind.engine.sources.resolve import prefetch, prefetch_adapter

STAGES = {
    "download": "downloading weights",
    "convert": "converting weights",
    "load": "loading the engine",
    "warmup": "warming up",
}


def fetch_weights(
    engines: Mapping[str, EngineSettings],
    adapters: Mapping[str, Sequence[AdapterSettings]],
    console: Console,
) -> None:
    """Have every model and its adapters on disk, with a progress bar for each that is not there yet.

    Args:
        engines: by name.
        adapters: by the name of the model; it need not be one of `engines`.

    Raises:
        CommandFailed: a source cannot be had; the message is the source's own.
    """
    with Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bars:
        for name, settings in engines.items():
            with _told(bars, name) as progress:
                prefetch(settings, progress, home.cache_dir())
            progress_file(home.home_dir(), name).unlink(missing_ok=True)
            console.print(f"  {name}: weights ready")
        for model, listed in adapters.items():
            for adapter in listed:
                with _told(bars, f"{model}:{adapter.name}") as progress:
                    prefetch_adapter(adapter.source, progress, home.cache_dir())


@contextmanager
def _told(bars: Progress, name: str) -> Iterator[_Bar]:
    bar = bars.add_task(name, total=None, visible=False)
    try:
        yield _Bar(bars, bar, name)
    except EngineError as error:
        raise CommandFailed(f"{name}: {error}") from error


class _Bar:
    """One task of a rich progress display, fed by the sources. Without a terminal: a line per stage."""

    def __init__(self, bars: Progress, task: TaskID, name: str) -> None:
        self._bars = bars
        self._task = task
        self._name = name
        self._stage = ""

    def __call__(self, stage: str, done_bytes: int = 0, total_bytes: int = 0) -> None:
        words = f"{self._name}: {STAGES.get(stage, stage)}"
        if stage != self._stage:
            self._stage = stage
            if not self._bars.console.is_terminal:
                self._bars.console.print(f"  {words}")
        self._bars.update(
            self._task, description=words, completed=done_bytes, total=total_bytes or None, visible=True
        )


def stage_of(deployment: str) -> str:
    """What a starting engine is busy with, in words; empty when it has not said."""
    try:
        content = json.loads(progress_file(home.home_dir(), deployment).read_bytes())
        words = STAGES.get(content["stage"], "")
        done, total = int(content["done_bytes"]), int(content["total_bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f"{words} {min(done / total, 1.0):.0%}" if words and total > 0 else words

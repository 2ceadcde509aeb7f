"""Shows how the applications come up, and decides when they have, or cannot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from tradewind.cli.errors import CommandFailed
from tradewind.serve.control import AppStatus, ControlError

POLL_S = 0.3
UNREACHABLE_S = 30.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the display."""

    name: str
    state: str
    ready: bool


Stage = Callable[[str], str]
"""What a starting deployment is busy with, by its name; empty when unknown."""


def rows(names: Iterable[str], apps: dict[str, AppStatus], stage: Stage) -> list[Row]:
    """One row per awaited application.

    Raises:
        CommandFailed: an application failed; the message is the engine's own last error.
    """
    found = []
    for name in names:
        app = apps.get(name)
        if app is not None and (app.failed or app.message):
            raise CommandFailed(f"{name} did not start: {app.message or app.status}")
        if app is not None and app.ready:
            found.append(Row(name, "ready", True))
        else:
            found.append(Row(name, stage(name) or "starting", False))
    return found


class Waiting:
    """Polls until every application is ready. `clock` and `sleep` are the tests' to replace."""

    def __init__(
        self,
        poll: Callable[[], dict[str, AppStatus]],
        stage: Stage,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._poll = poll
        self._stage = stage
        self._console = console
        self._clock = clock
        self._sleep = sleep

    def until_ready(self, names: list[str], timeout_s: float) -> None:
        """Return when all of `names` are ready.

        Raises:
            CommandFailed: one failed, Ray went away, or `timeout_s` passed.
        """
        started = last_answer = self._clock()
        shown: dict[str, str] = {}
        with Live(console=self._console, transient=True, refresh_per_second=8) as live:
            while True:
                now = self._clock()
                try:
                    current = rows(names, self._poll(), self._stage)
                    last_answer = now
                except ControlError as error:
                    if now - last_answer > UNREACHABLE_S:
                        raise CommandFailed(str(error)) from error
                    current = [Row(name, "starting", False) for name in names]
                live.update(_table(current, now - started))
                self._print_changes(current, shown, now - started)
                if all(row.ready for row in current):
                    return
                if now - started > timeout_s:
                    late = ", ".join(f"{row.name} ({row.state})" for row in current if not row.ready)
                    raise CommandFailed(f"not ready after {timeout_s:.0f} s: {late}")
                self._sleep(POLL_S)

    def _print_changes(self, current: list[Row], shown: dict[str, str], elapsed: float) -> None:
        """Without a terminal there is no live table: print each change once. Always print `ready`."""
        for row in current:
            word = row.state.split(" ")[0]
            if shown.get(row.name) != word:
                shown[row.name] = word
                if row.ready or not self._console.is_terminal:
                    self._console.print(f"  {row.name}: {row.state} ({elapsed:.0f} s)")


def _table(current: list[Row], elapsed: float) -> Table:
    table = Table.grid(padding=(0, 1))
    for row in current:
        mark = "[green]✓[/]" if row.ready else Spinner("dots")
        table.add_row(mark, row.name, row.state, "" if row.ready else f"{elapsed:.0f} s")
    return table

"""Shows how the applications come up, and decides when they have, or cannot."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from tradewind.cli.console import plain
from tradewind.cli.errors import CommandFailed
from tradewind.cli.patience import TOLD_S, Gone, Silence, nothing_gone
from tradewind.rayapi.app_status import AppStatus
from tradewind.rayapi.client import ControlError

POLL_S: Final = 0.3
STALE_S: Final = 10.0
"""For this long, a failure that was there before the change is not taken for one of the change."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the display."""

    name: str
    state: str
    ready: bool
    failure: str = ""
    """Why it will not start: the engine's own last error."""
    trouble: str = ""
    """What it is being replaced for: an engine that died after it had started."""


Stage = Callable[[str], str]
"""What a starting deployment is busy with, by its name; empty when unknown."""


def rows(names: Iterable[str], apps: Mapping[str, AppStatus], stage: Stage) -> list[Row]:
    """One row per awaited application."""
    return [_row(name, apps.get(name), stage) for name in names]


def _row(name: str, app: AppStatus | None, stage: Stage) -> Row:
    if app is not None and app.failed:
        return Row(name, "failed", False, app.message or app.status)
    if app is not None and app.ready:
        return Row(name, "ready", True)
    if app is not None and app.message:
        return Row(name, f"being replaced: {app.message}", False, trouble=app.message)
    return Row(name, stage(name) or "starting", False)


def _raise_failure(current: list[Row], old: Mapping[str, Row], settled: bool) -> None:
    """CommandFailed for what will not start."""
    said = [
        f"{row.name} did not start: {row.failure}"
        for row in current
        if row.failure and (settled or row.failure != old[row.name].failure)
    ]
    if said:
        raise CommandFailed("; ".join(said))


def _unwell(current: list[Row], old: Mapping[str, Row], changed: Collection[str]) -> list[Row]:
    """What was being replaced before the change and still is: no change of ours, and nobody's to wait for.

    Args:
        changed: what the change replaces; its old trouble is told for a while after it went away.
    """
    return [
        row
        for row in current
        if row.trouble and row.trouble == old[row.name].trouble and row.name not in changed
    ]


class Waiting:
    """Polls until every application is ready. `clock` and `sleep` are the tests' to replace."""

    def __init__(
        self,
        poll: Callable[[], dict[str, AppStatus]],
        stage: Stage,
        console: Console,
        *,
        gone: Gone = nothing_gone,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._poll = poll
        self._stage = stage
        self._console = console
        self._clock = clock
        self._sleep = sleep
        self._silence = Silence(gone, clock)
        self._told_s = 0.0
        self._spinner = Spinner("dots")
        self._shown: dict[str, str] = {}

    def until_ready(
        self,
        names: list[str],
        timeout_s: float,
        before: Mapping[str, AppStatus] | None = None,
        changed: Collection[str] = (),
    ) -> list[Row]:
        """Return when all of `names` are ready, save those that were unwell before: they are returned.

        Args:
            before: how the applications were when they were asked to change. Serve goes on to tell an
                old failure for a while: it counts only when it stays.
            changed: those of `names` whose own configuration changes. The others are waited for only
                where they were well.

        Raises:
            CommandFailed: one failed, Ray went away, or `timeout_s` passed.
        """
        started = self._clock()
        old = {row.name: row for row in rows(names, before or {}, self._stage)}
        with Live(console=self._console, transient=True, refresh_per_second=8) as live:
            while True:
                current = self._look(names)
                elapsed = self._clock() - started
                live.update(self._table(current, elapsed))
                self._print_changes(current, elapsed)
                settled = elapsed >= STALE_S
                _raise_failure(current, old, settled)
                unwell = _unwell(current, old, () if settled else changed)
                if sum(row.ready for row in current) + len(unwell) == len(current):
                    return unwell
                if elapsed > timeout_s:
                    late = ", ".join(f"{row.name} ({row.state})" for row in current if not row.ready)
                    raise CommandFailed(f"not ready after {timeout_s:.0f} s: {late}")
                self._sleep(POLL_S)

    def _look(self, names: list[str]) -> list[Row]:
        """How they are; all of them unknown while Ray's API does not answer."""
        try:
            current = rows(names, self._poll(), self._stage)
        except ControlError as error:
            silent_s = self._silence.bear(error)
            if silent_s - self._told_s >= TOLD_S:
                self._told_s = silent_s
                self._console.print(plain(f"  still waiting for Ray's API ({silent_s:.0f} s)"))
            return [Row(name, "unknown: Ray's API does not answer", False) for name in names]
        self._silence.answered()
        self._told_s = 0.0
        return current

    def _print_changes(self, current: list[Row], elapsed: float) -> None:
        """Without a terminal there is no live table: print each change once. Always print `ready`."""
        for row in current:
            word = row.state.split(" ")[0]
            if self._shown.get(row.name) != word:
                self._shown[row.name] = word
                if row.ready or not self._console.is_terminal:
                    self._console.print(plain(f"  {row.name}: {row.state} ({elapsed:.0f} s)"))

    def _table(self, current: list[Row], elapsed: float) -> Table:
        table = Table.grid(padding=(0, 1))
        for row in current:
            mark = "[green]✓[/]" if row.ready else self._spinner
            table.add_row(mark, plain(row.name), plain(row.state), "" if row.ready else f"{elapsed:.0f} s")
        return table

"""The figures side by side: on the terminal, as JSON and as a page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date

from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench.gateway_cost import Series
from tests.bench.peers import measure
from tests.bench.peers.measure import Effort

COLUMNS = {
    measure.REQUEST: "CPU µs / request",
    measure.TOKEN: "CPU µs / token",
    measure.PER_CORE: "req/s / core",
    measure.ADDED_P50: "TTFT + p50 ms",
    measure.ADDED_P99: "TTFT + p99 ms",
    measure.WHOLE: "128 tokens ms",
    measure.IDLE_MEMORY: "idle MB",
    measure.STREAM_MEMORY: "KB / stream",
}
"""What the table shows, in order."""


_QUIET = 0.25
"""Load average per CPU up to which a machine counts as one that does nothing else."""
WIDTH = 132
"""Columns of a terminal that hold the table whole."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way's result."""

    name: str
    version: str
    what: str
    figures: Mapping[str, Series]
    failed: str = ""
    """Why there are no figures."""


def document(
    rows: Sequence[Row], effort: Effort, before: Mapping[str, object], seconds: float
) -> dict[str, object]:
    """JSON-able: all figures with their rounds."""
    return {
        "date": date.today().isoformat(),
        "machine": {**before, "load_average_after": os.getloadavg()},
        "effort": asdict(effort),
        "seconds": seconds,
        "ways": [
            {
                "name": row.name,
                "version": row.version,
                "what": row.what,
                "failed": row.failed or None,
                "figures": {name: series.summary() for name, series in row.figures.items()},
            }
            for row in rows
        ],
    }


def cells(row: Row) -> list[str]:
    """A row's numbers in the order of the columns; a dash where there is none."""
    return [
        number(row.figures[name].median) if name in row.figures and row.figures[name].values else "–"
        for name in COLUMNS
    ]


def number(value: float) -> str:
    """Three digits where there are as many."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table, and below it why a way is missing."""
    table = Table(title="Ways to one engine, medians", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("way", no_wrap=True)
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(f"{row.name} {row.version}".strip(), *cells(row))
    console.print(table)
    for row in rows:
        if row.failed:
            console.print(f"{row.name} {row.version}: not measured: {row.failed}", markup=False)


def page(rows: Sequence[Row], told: Mapping[str, object], plot: str) -> str:
    """The table in Markdown with what it was measured on. `told` is the document."""
    head = ["way", *COLUMNS.values()]
    lines = [
        "# Ways to one engine, side by side",
        "",
        "<!-- written by `make bench-peers` -->",
        "",
        f"Measured on {told['date']}; [what it means and how it is measured](README.md).",
        "",
        "| " + " | ".join(head) + " |",
        "|---" + "|--:" * (len(head) - 1) + "|",
    ]
    measured = [row for row in rows if not row.failed]
    lines += [
        "| " + " | ".join([f"{row.name} {row.version}".strip(), *cells(row)]) + " |" for row in measured
    ]
    lines += ["", f"![CPU time per request and per streamed token]({plot})", "", *_facts(told)]
    lines += [f"- {row.name} {row.version}".rstrip() + f": {row.what}" for row in measured]
    missing = [row for row in rows if row.failed]
    if missing:
        lines += ["", "Not measured:", ""]
        lines += [f"- {row.name} {row.version}".rstrip() + f": {row.failed}" for row in missing]
    return "\n".join(lines) + "\n"


def _facts(told: Mapping[str, object]) -> list[str]:
    """The machine and the effort, a line each."""
    machine, effort = told["machine"], told["effort"]
    assert isinstance(machine, Mapping)
    assert isinstance(effort, Mapping)
    load, after = machine["load_average"][0], machine["load_average_after"][0]
    facts = [
        f"{machine['cpus']} CPUs, Linux {machine['kernel']}, Python {machine['python']}; load average"
        f" {load:.1f} before and {after:.1f} after (the bench itself makes about 2).",
        f"Rounds: {effort['rounds']}, {effort['seconds']:g} s for each measurement; {effort['streams']}"
        f" streams with tokens {measure.INTERVAL_S * 1e3:.0f} ms apart.",
    ]
    if load > machine["cpus"] * _QUIET:
        facts.append("**The machine had other things to do: only ratios between lines mean something.**")
    return [*facts, ""]

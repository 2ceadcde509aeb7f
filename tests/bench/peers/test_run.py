"""The meter measures a real proxy: figures of the right size, in every round."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.peers import measure
from tests.bench.peers.engine import Engine
from tests.bench.peers.known import PEERS
from tests.bench.peers.measure import Effort, Meter
from tests.bench.peers.running import Running
from tests.bench.peers.way import Way

EFFORT = Effort(seconds=0.5, rounds=2, streams=8, held=16, idle_s=0.5)


@pytest.mark.engine
@pytest.mark.timeout(120)
def test_haproxy_is_measured_and_a_dead_way_is_left_out(tmp_path: Path) -> None:
    haproxy = PEERS[0]
    dead = Way("dead", 9, list)
    with Engine() as engine:
        running = Running(haproxy, Path(sys.prefix), tmp_path, engine.ports)  # Ray's own is the same wheel
        try:
            running.until_ready()
            meter = Meter(engine, Way("bare", engine.ports[1], list), [running.way(), dead], EFFORT)
            meter.prepare(lambda _: None)
            for turn in range(EFFORT.rounds):
                meter.round(turn, lambda _: None)
        finally:
            running.end()
    assert meter.failed.keys() == {"dead"}
    figures = meter.figures[haproxy.name]
    once = {measure.IDLE_MEMORY, measure.STREAM_MEMORY}
    assert {name: len(series.values) for name, series in figures.items()} == {
        name: 1 if name in once else EFFORT.rounds for name in measure.UNITS
    }
    assert 2 < figures[measure.REQUEST].median < 500
    assert 1 < figures[measure.TOKEN].median < 500
    assert 1 < figures[measure.IDLE_MEMORY].median < 500
    assert figures[measure.WHOLE].median > meter.figures["bare"][measure.WHOLE].median / 2

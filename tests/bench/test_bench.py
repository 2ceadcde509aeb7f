"""The bench itself runs and its figures are of the right size; bounds are wide, for other work goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.gateway_cost import REQUEST, STREAM, TOKEN
from tests.bench.report import TARGETS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_a_quick_bench_gives_figures_of_the_right_size(tmp_path: Path) -> None:
    result = tmp_path / "bench.json"
    paths = os.pathsep.join(filter(None, [str(ROOT / "platform"), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--json", str(result)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(result.read_text())["figures"]
    assert 50 < figures[REQUEST]["median"] < 3 * TARGETS[REQUEST]
    assert 5 < figures[TOKEN]["median"] < 3 * TARGETS[TOKEN]
    assert figures[STREAM]["median"] > 0

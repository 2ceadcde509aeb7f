"""However a test run was started, the programs that tests start can be interrupted."""

from __future__ import annotations

import json
import subprocess
import sys

CHILD = """
import json, signal
print(json.dumps([signal.getsignal(n) is signal.SIG_IGN for n in (signal.SIGINT, signal.SIGHUP)]))
"""
RUN = f"""
import os, signal, subprocess, sys
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if sys.argv[1] == "configured":
    from tests.conftest import pytest_configure
    pytest_configure()
for number in (signal.SIGINT, signal.SIGHUP):
    os.kill(os.getpid(), number)
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
"""


def ignored_by_children(mode: str) -> list[bool]:
    """Whether SIGINT and SIGHUP are ignored by what a run starts that was itself told to ignore them."""
    done = subprocess.run([sys.executable, "-c", RUN, mode], capture_output=True, text=True, check=True)
    found: list[bool] = json.loads(done.stdout)
    return found


def test_what_a_run_ignores_its_programs_do_not() -> None:
    assert ignored_by_children("configured") == [False, False]


def test_without_that_they_would() -> None:
    assert ignored_by_children("as it is") == [True, True]

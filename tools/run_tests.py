"""Run every test: those that need nothing in parallel, then those marked `cluster`, then `engine`.

Each process with tests marked `cluster` starts a Kubernetes API server once. What measures time or memory
there runs alone, the rest in two processes. Engines are started once per session and fill the machine, so
those marked `engine` run in one process. All runs happen even if one fails. Arguments are handed to pytest
in each. The last line counts all together; exit code 0 or 1. A stage that was skipped whole, as where
Kubernetes cannot be had, is told loudly before it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
NO_TESTS = 5
"""pytest's exit code when a selection is empty: fine for a run among others."""
KUBECONFIGS = ("KUBECONFIG", "TRADEWIND_TEST_KUBECONFIG")
TWO = ("-n", "2")
STAGES = {
    "without engines, in parallel": (
        "-m",
        "not engine and not cluster and not e2e",
        *TWO,
        "--dist=worksteal",
    ),
    # One API server for all of them; its first start on a machine builds it. Where that cannot be, it is
    # skipped, and with CI set it fails.
    "on a real Kubernetes API server, alone": (
        *("-m", "cluster and alone", "-o", "testpaths=tests/cluster"),
        *("--timeout", "300", "--durations", "5"),
    ),
    # An API server for each of two processes; a file's tests share what they set up. A cluster that was given
    # is one for all, and so are the definitions that tests put there and take away.
    "on a real Kubernetes API server": (
        *("-m", "cluster and not alone", "-o", "testpaths=tests/cluster"),
        *("--timeout", "300", "--durations", "15"),
        *(() if any(map(os.environ.get, KUBECONFIGS)) else TWO),
        *("--dist=loadfile", "--no-loadscope-reorder"),
    ),
    # An engine test's first fixture starts vLLM: minutes on two cores, where other tests get seconds.
    "with real engines": (
        *("-m", "engine", "-o", "testpaths=tests/integration tests/bench"),
        *("--timeout", "900", "--durations", "15"),
    ),
}
"""Arguments of pytest. Where all tests of a stage are in some folders, the others are not read for it."""


def counts(report: Path) -> Counter[str]:
    """Tests by outcome in a JUnit file; an error in a fixture counts as failed."""
    found: Counter[str] = Counter()
    if not report.exists():
        return found
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):  # noqa: S314 - pytest's own file
        total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        found += Counter(passed=total - skipped - bad, failed=bad, skipped=skipped)
    return found


def not_run(title: str, report: Path) -> str:
    """One loud line when every test of a stage was skipped, with the reason of the first; else nothing."""
    found = counts(report)
    if not found["skipped"] or found["passed"] or found["failed"]:
        return ""
    first = next(ElementTree.parse(report).getroot().iter("skipped"))  # noqa: S314 - pytest's own file
    said = [line for line in (first.get("message") or "no reason").splitlines() if line.strip()]
    return f"!!! NOT RUN: the {found['skipped']} tests {title}. {said[-1]}"


def main() -> int:
    """0 when something ran and nothing failed."""
    total: Counter[str] = Counter()
    loud: list[str] = []
    ok, started = True, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number, (title, selection) in enumerate(STAGES.items()):
            print(f"\n== tests {title}", flush=True)
            report = Path(folder) / f"{number}.xml"
            command = [sys.executable, "-m", "pytest", *selection, f"--junitxml={report}", *sys.argv[1:]]
            code = subprocess.run(command, cwd=ROOT, check=False).returncode
            ok = ok and code in (0, NO_TESTS)
            total += counts(report)
            loud += filter(None, [not_run(title, report)])
    ok = ok and total["passed"] > 0 and total["failed"] == 0
    print(f"\n{time.monotonic() - started:.0f} s in all")
    print("".join(f"{line}\n" for line in loud), end="")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped", flush=True)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())

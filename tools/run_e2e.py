"""Run the tests marked `e2e` on a real cluster.

It is a Kubernetes of several nodes that is started on this machine, or what `KUBECONFIG` names. Arguments are
handed to pytest. Exit code 0 when something ran and nothing failed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SELECTION = ("-m", "e2e", "--timeout", "900", "--durations", "15", "-o", "console_output_style=count", "-s")
"""What tests print is shown as it comes: half an hour of dots would hide what was measured."""


def main() -> int:
    """pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "tests/e2e", *SELECTION, *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

"""A cluster to keep between test runs:

python -m tests.e2e up            start one, with the images of this checkout
python -m tests.e2e down          end it, or what a dead run left of one
python -m tests.e2e status        its nodes and pods
python -m tests.e2e kubeconfig    where its kubeconfig is; with KUBECONFIG=$(…) any tool takes it
"""

from __future__ import annotations

import argparse
import sys

from tests.cluster.processes import ProgramEnded
from tests.e2e.bed import plan
from tests.e2e.bed.cluster import down, running, up
from tests.e2e.bed.machines import MachineError


def main() -> int:
    """0, or 1 with a reason."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["up", "down", "status", "kubeconfig"])
    command = parser.parse_args().command
    try:
        if command == "down":
            down()
        elif command == "up":
            up()
        elif (cluster := running()) is None:
            raise MachineError("No cluster runs: python -m tests.e2e up")
        elif command == "status":
            print(cluster.kubectl("get", "nodes,pods", "--all-namespaces", "--output=wide"))
        if command in ("up", "kubeconfig"):
            print(plan.home().admin)
    except (MachineError, ProgramEnded) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

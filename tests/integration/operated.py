"""A local Ray that stands for one of KubeRay's: takes the operator's Serve configuration as it is.

`python -m tests.integration.operated HOME CONFIG`, with the variables that the operator gives its pods.
Serves until its standard input ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from tradewind.compiler.ray_environment import Ports
from tradewind.serve.local import LocalOptions, LocalPlatform

LABELS = {"tradewind.dev/role": "gateway", "tradewind.dev/pool": "cpu"}
"""One machine is the gateways' group and the pool in one."""
PORTS = Ports(haproxy_metrics=19_101, haproxy_stats=18_404, replicas=32_500)


def main() -> None:
    home, config = map(Path, sys.argv[1:])
    options = LocalOptions(home=home, cpus=4, ports=PORTS, dashboard_port=18_365, labels=LABELS)
    with LocalPlatform(options) as platform:
        platform.start()
        platform.apply(yaml.safe_load(config.read_text(encoding="utf-8")))
        print(platform.dashboard_url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

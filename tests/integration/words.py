"""A platform whose engines do no work, in a process of its own. Ray, Serve and the gateway are real.

    python -m tests.integration.words HOME CONFIG.json

Prints the dashboard's URL and serves until it is told to end.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

from tradewind.serve.local import LocalOptions, LocalPlatform


def main() -> None:
    """Serve until SIGTERM."""
    home, config = map(Path, sys.argv[1:])
    ends = threading.Event()
    with LocalPlatform(LocalOptions(home, cpus=8)) as platform:
        platform.start(lambda line: print(line, file=sys.stderr))
        signal.signal(signal.SIGTERM, lambda *_: ends.set())
        platform.apply(json.loads(config.read_text()))
        print(platform.dashboard_url, flush=True)
        ends.wait()


if __name__ == "__main__":
    main()

"""`tradewind down`."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from tradewind import home
from tradewind.cli.console import err, out
from tradewind.cli.errors import CommandFailed
from tradewind.serve import runfile

POLL_S = 0.1


def down(timeout_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Stop the platform of this state directory and wait until it is gone. Nothing running is fine."""
    try:
        run = runfile.read(home.home_dir())
        process = psutil.Process(run.pid)
        process.terminate()
    except (runfile.NotRunning, psutil.NoSuchProcess):
        out.print("Nothing to stop: no platform is running.")
        return
    except psutil.AccessDenied as error:
        raise CommandFailed(f"process {run.pid} belongs to another user") from error
    deadline = time.monotonic() + timeout_s
    with err.status(f"Stopping process {run.pid} …"):
        while runfile.lives(process):
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"process {run.pid} is still stopping after {timeout_s:.0f} s",
                    hint=f"tradewind down --timeout waits longer, kill -9 {run.pid} does not wait",
                )
            sleep(POLL_S)
    out.print("Stopped.")

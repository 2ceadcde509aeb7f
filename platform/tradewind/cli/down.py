"""`tradewind down`."""

from __future__ import annotations

import psutil

from tradewind import home
from tradewind.cli.console import err, out
from tradewind.cli.errors import CommandFailed
from tradewind.serve import runfile


def down(timeout_s: float) -> None:
    """Stop the platform of this state directory and wait until it is gone. Nothing running is fine."""
    try:
        run = runfile.read(home.home_dir())
    except runfile.NotRunning as error:
        out.print(f"Nothing to stop: {error}.")
        return
    process = psutil.Process(run.pid)
    process.terminate()
    with err.status(f"Stopping process {run.pid} …"):
        try:
            process.wait(timeout=timeout_s)
        except psutil.TimeoutExpired as error:
            raise CommandFailed(f"process {run.pid} is still stopping after {timeout_s:.0f} s") from error
    out.print("Stopped.")

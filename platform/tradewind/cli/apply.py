"""`tradewind apply`: change a running platform to what the manifests say."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from tradewind import home
from tradewind.cli import manifests
from tradewind.cli.client import Client
from tradewind.cli.console import err, out
from tradewind.cli.errors import BAD_INPUT, CommandFailed
from tradewind.cli.fetching import fetch_weights, stage_of
from tradewind.cli.keys import first_key, prepare_keys
from tradewind.cli.waiting import Waiting
from tradewind.compiler.compile import Compiled
from tradewind.serve import runfile
from tradewind.serve.control import ControlError, ServeControl


def apply(files: list[Path], timeout_s: float) -> None:
    """Make the running platform what `files` say, all of it, and wait until that is in force.

    Raises:
        CommandFailed: wrong input (exit code 2) leaves the platform untouched.
    """
    state = home.home_dir()
    started = time.monotonic()
    run = running(state)
    compiled = manifests.load(files, manifests.Placement(run.host, run.port, urlsplit(run.metrics_url).port))
    prepare_keys(compiled.gateway)
    control = control_of(run, state)
    try:
        before = control.applications()
        changed = {name for name in compiled.engines if name not in before}
        fetch_weights(
            {name: compiled.engines[name] for name in changed}, err if changed else Console(quiet=True)
        )
        control.apply(compiled.serve_config)
        _wait(control, compiled, run, timeout_s)
    except ControlError as error:
        raise CommandFailed(str(error)) from error
    finally:
        control.close()
    resolved = [str(file.resolve()) for file in files]
    runfile.write(state, replace(run, anonymous=compiled.gateway.anonymous, files=resolved))
    gone = sorted(set(before) - {app["name"] for app in compiled.serve_config["applications"]})
    _report(sorted(changed), gone, time.monotonic() - started)


def running(state: Path) -> runfile.RunFile:
    """The platform of `state`, or CommandFailed."""
    try:
        return runfile.read(state)
    except runfile.NotRunning as error:
        raise CommandFailed(str(error), exit_code=BAD_INPUT, hint="tradewind up FILE starts one") from error


def control_of(run: runfile.RunFile, state: Path) -> ServeControl:
    return ServeControl(run.dashboard_url, (state / "ray-token").read_text(encoding="utf-8").strip())


def _wait(control: ServeControl, compiled: Compiled, run: runfile.RunFile, timeout_s: float) -> None:
    names = [app["name"] for app in compiled.serve_config["applications"]]
    Waiting(control.applications, stage_of, err).until_ready(names, timeout_s)
    client = Client(run.endpoint, first_key(compiled.gateway)[0])
    manifests.wait_until_in_force(client, compiled, timeout_s=60.0)
    client.close()


def _report(added: list[str], gone: list[str], seconds: float) -> None:
    for name in added:
        out.print(f"  {name}: added")
    for name in gone:
        out.print(f"  {name}: removed")
    out.print(f"In force after {seconds:.1f} s.")

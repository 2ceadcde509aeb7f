"""`tradewind apply`: change a running platform to what the manifests say."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from tradewind import home
from tradewind.api.wire import AdapterSettings, EngineSettings
from tradewind.cli import manifests
from tradewind.cli.client import Client
from tradewind.cli.console import err, out, plain
from tradewind.cli.errors import CommandFailed
from tradewind.cli.fetching import fetch_weights, stage_of
from tradewind.cli.keys import first_key, prepare_keys
from tradewind.cli.lock import sole
from tradewind.cli.patience import Silence, ask, telling
from tradewind.cli.waiting import Waiting
from tradewind.compiler.compile import Compiled
from tradewind.rayapi.app_status import AppStatus
from tradewind.rayapi.client import ControlError, ServeControl
from tradewind.serve import runfile

IN_FORCE_S = 900.0


@dataclass(frozen=True, slots=True)
class _Before:
    """The platform as it was, and the engines that are asked to become others."""

    applications: Mapping[str, AppStatus]
    changed: list[str]


@dataclass(frozen=True, slots=True)
class _Deployed:
    """What Serve was given before."""

    engines: Mapping[str, tuple[EngineSettings, tuple[AdapterSettings, ...]]]

    def changed(self, compiled: Compiled) -> list[str]:
        """Models for which new engines are needed."""
        return [name for name, settings in compiled.engines.items() if self._settings(name) != settings]

    def adapted(self, compiled: Compiled) -> list[str]:
        """Models whose running engines get other adapters, and nothing else."""
        return [
            name
            for name, adapters in compiled.adapters.items()
            if self._settings(name) == compiled.engines[name] and self.engines[name][1] != adapters
        ]

    def _settings(self, name: str) -> EngineSettings | None:
        return self.engines[name][0] if name in self.engines else None


def apply(files: list[Path], timeout_s: float) -> None:
    """Make the running platform what `files` say, all of it, and wait until that is in force.

    Raises:
        CommandFailed: wrong input (exit code 2) leaves the platform untouched. Exit code 1 with
            nothing changed (Ray refused), or with the change made but a model not ready.
    """
    state = home.home_dir()
    started = time.monotonic()
    run = running(state)
    compiled = manifests.load(files, manifests.Placement(run.host, run.port, urlsplit(run.metrics_url).port))
    with sole(state, "apply", "another tradewind apply is at work on this platform"):
        prepare_keys(compiled.gateway)
        control = control_of(run, state)
        silence = Silence(lambda: _gone(run))
        try:
            before = ask(control.applications, silence)
            old = _Deployed(ask(control.engines, silence))
            changed = old.changed(compiled)
            fetch_weights(
                {name: compiled.engines[name] for name in changed},
                {name: compiled.adapters[name] for name in (*changed, *old.adapted(compiled))},
                err,
            )
            with telling(err, "Ray's API"):
                ask(lambda: control.apply(compiled.serve_config), silence)
            # From here on the platform is another one, whether or not its models come up.
            facts = replace(run, anonymous=compiled.gateway.anonymous, files=manifests.named(files))
            runfile.write(state, facts)
            _wait(control, compiled, run, timeout_s, _Before(before, changed))
        except ControlError as error:
            raise CommandFailed(str(error)) from error
        finally:
            control.close()
    _report(old, compiled, time.monotonic() - started)
    if compiled.environment != run.environment:
        err.print("telemetry.otlpEndpoint and samplingRatio take effect when the platform starts again.")


def running(state: Path) -> runfile.RunFile:
    """The platform of `state`, or CommandFailed."""
    try:
        return runfile.read(state)
    except runfile.NotRunning as error:
        raise CommandFailed(
            str(error), hint="tradewind up FILE starts one; --home or TRADEWIND_HOME names another directory"
        ) from error


def control_of(run: runfile.RunFile, state: Path) -> ServeControl:
    """A client of the platform's Serve API. CommandFailed: its token cannot be read."""
    try:
        token = (state / "ray-token").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(
            f"{state / 'ray-token'} cannot be read", hint="tradewind down and up make it anew"
        ) from error
    return ServeControl(run.dashboard_url, token)


def _wait(
    control: ServeControl,
    compiled: Compiled,
    run: runfile.RunFile,
    timeout_s: float,
    before: _Before,
) -> None:
    names = [app["name"] for app in compiled.serve_config["applications"]]
    unwell = Waiting(control.applications, stage_of, err, gone=lambda: _gone(run)).until_ready(
        names, timeout_s, before.applications, before.changed
    )
    for row in unwell:
        err.print(plain(f"warning: {row.name} was not well before and still is not: {row.trouble}"))
    client = Client(run.endpoint, first_key(compiled.gateway)[0])
    try:
        with telling(err, "the gateway"):
            manifests.wait_until_in_force(
                client, compiled, IN_FORCE_S, cold=len(unwell), gone=lambda: _gone(run)
            )
    finally:
        client.close()


def _gone(run: runfile.RunFile) -> str:
    return "" if run.alive else f"the platform has ended (process {run.pid})"


def _report(old: _Deployed, compiled: Compiled, seconds: float) -> None:
    changed, adapted = old.changed(compiled), old.adapted(compiled)
    for name in compiled.engines:
        if name not in old.engines:
            out.print(f"  {name}: added")
        elif name in changed:
            out.print(f"  {name}: changed; its replicas were replaced")
        elif name in adapted:
            out.print(f"  {name}: its engines were given other adapters; tradewind status tells of each")
    for name in sorted(old.engines.keys() - compiled.engines.keys()):
        out.print(f"  {name}: removed; what it is answering it finishes")
    out.print(f"In force after {seconds:.1f} s.")

"""`tradewind up`: from manifests to a served endpoint on this machine, and back down."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tradewind import home
from tradewind.cli import manifests, selfcheck
from tradewind.cli.client import Client
from tradewind.cli.console import err, out, plain
from tradewind.cli.errors import CommandFailed
from tradewind.cli.examples import how_to_call
from tradewind.cli.fetching import fetch_weights, stage_of
from tradewind.cli.keys import first_key, prepare_keys
from tradewind.cli.lock import sole
from tradewind.cli.patience import Silence, ask, telling
from tradewind.cli.signals import interruptible, uninterrupted
from tradewind.cli.waiting import Waiting
from tradewind.compiler.compile import Compiled
from tradewind.rayapi.client import ControlError
from tradewind.serve import runfile
from tradewind.serve.local import LocalOptions, LocalPlatform, PortInUse, check_port, free_port

WATCH_S = 1.0
IN_FORCE_S = 1800.0
MIN_CPUS = 64
"""What Ray may hand out on a small machine: bookkeeping, so that models can be added."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the command line says."""

    files: list[Path]
    host: str | None = None
    port: int | None = None
    check: bool = False
    timeout_s: float = 3600.0


def up(options: UpOptions) -> None:
    """Serve until Ctrl-C or SIGTERM; with `check`, stop after the self-check.

    Raises:
        CommandFailed: wrong input (nothing was started), or something did not come up (and everything
            was stopped again).
        KeyboardInterrupt: before it served.
    """
    state = home.private_dir(home.home_dir())
    try:
        runfile.refuse_second(state)
    except runfile.AlreadyRunning as error:
        raise CommandFailed(str(error), hint="tradewind down stops it, tradewind apply changes it") from error
    with sole(state, "up", f"another tradewind up is starting with the state directory {state}"):
        compiled = _compile(options)
        prepare_keys(compiled.gateway)
        with interruptible():
            fetch_weights(compiled.engines, compiled.adapters, err)
            _Session(compiled, options, state).run()


class _Session:
    """One platform from its start to its end."""

    def __init__(self, compiled: Compiled, options: UpOptions, state: Path) -> None:
        self._compiled = compiled
        self._options = options
        self._state = state
        self._platform = LocalPlatform(LocalOptions(state, cpus=max(os.cpu_count() or 1, MIN_CPUS)))
        self._endpoint = manifests.endpoint(compiled)
        self._started = time.monotonic()
        self._serving = False

    def run(self) -> None:
        try:
            self._start()
            # Ray puts a SIGTERM handler of its own in place, which would end this process at once.
            with interruptible():
                self._bring_up()
                self._serve()
        except (ControlError, PortInUse) as error:
            raise CommandFailed(str(error)) from error
        except KeyboardInterrupt:
            if not self._serving:
                raise
        finally:
            with uninterrupted(), err.status("Stopping …"):
                self._platform.stop()
                runfile.remove(self._state)
        err.print("Stopped; no process is left.")

    def _start(self) -> None:
        for name, value in self._compiled.environment.items():
            os.environ.setdefault(name, value)
        with telling(err, "Ray"):
            self._platform.start(lambda line: err.print(plain(f"  {line}")))
        runfile.write(self._state, self._facts())
        err.print(f"  ray: ready ({self._elapsed():.0f} s)")

    def _bring_up(self) -> None:
        """Apply, wait, check; returns when every variant has answered."""
        with telling(err, "Ray's API"):
            ask(lambda: self._platform.apply(self._compiled.serve_config), Silence(self._gone))
        names = [app["name"] for app in self._compiled.serve_config["applications"]]
        waiting = Waiting(self._platform.control.applications, stage_of, err, gone=self._gone)
        waiting.until_ready(names, self._options.timeout_s)
        client = Client(self._endpoint, first_key(self._compiled.gateway)[0])
        try:
            with telling(err, "the gateway"):
                manifests.wait_until_in_force(client, self._compiled, IN_FORCE_S, gone=self._gone)
            selfcheck.run(client, self._compiled.gateway, self._state)
        finally:
            client.close()
        err.print(f"[green]Ready after {self._elapsed():.0f} s.[/]")

    def _serve(self) -> None:
        """Wait for Ctrl-C. CommandFailed when a part that everything rests on dies."""
        if self._options.check:
            return
        self._serving = True
        self._print_how_to()
        while not (dead := self._platform.dead()) or self._platform.heal():
            if dead:
                err.print(f"[yellow]{', '.join(dead)} died and was started again; nothing is lost.[/]")
            time.sleep(WATCH_S)
        raise CommandFailed(self._gone())

    def _gone(self) -> str:
        dead = self._platform.dead()
        return f"{', '.join(dead)} died; the platform cannot go on" if dead else ""

    def _print_how_to(self) -> None:
        config = self._compiled.gateway
        model = selfcheck.example_model(config)
        if model is not None:
            key_file = first_key(config)[1]
            out.print(how_to_call(self._endpoint, model, key_file), markup=False, soft_wrap=True)
        if config.anonymous:
            out.print("No Tenant is defined: anyone on this machine may call, and nobody else can.")
        out.print(f"\nServing {self._endpoint}/v1 until Ctrl-C.", style="bold")

    def _facts(self) -> runfile.RunFile:
        pid, process_started = runfile.this_process()
        there = self._compiled.endpoint
        return runfile.RunFile(
            pid=pid,
            process_started=process_started,
            dashboard_url=self._platform.dashboard_url,
            host=there.host,
            port=there.port,
            endpoint=self._endpoint,
            metrics_url=f"http://127.0.0.1:{self._compiled.gateway.metrics_port}",
            anonymous=self._compiled.gateway.anonymous,
            files=manifests.named(self._options.files),
            environment=self._compiled.environment,
        )

    def _elapsed(self) -> float:
        return time.monotonic() - self._started


def _compile(options: UpOptions) -> Compiled:
    """The manifests, with the metrics moved to a free port; the endpoint's own port must be free."""
    placement = manifests.Placement(options.host, options.port)
    located = manifests.read(options.files)
    compiled = manifests.compiled(located, placement)
    there = compiled.endpoint
    try:
        check_port(there.host, there.port)
        wanted = compiled.gateway.metrics_port
        free = free_port(wanted, taken=[there.port])
    except PortInUse as error:
        hint = "--port chooses another; tradewind down stops a platform"
        raise CommandFailed(str(error), hint=hint) from error
    if free == wanted:
        return compiled
    return manifests.compiled(located, replace(placement, metrics_port=free))

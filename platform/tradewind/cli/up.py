"""`tradewind up`: from manifests to a served endpoint on this machine, and back down."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tradewind import home
from tradewind.cli import manifests, selfcheck
from tradewind.cli.client import Client
from tradewind.cli.console import err, out
from tradewind.cli.errors import CommandFailed
from tradewind.cli.fetching import fetch_weights, stage_of
from tradewind.cli.keys import first_key, prepare_keys
from tradewind.cli.signals import interruptible, uninterrupted
from tradewind.cli.waiting import Waiting
from tradewind.compiler.compile import Compiled
from tradewind.serve import runfile
from tradewind.serve.local import LocalOptions, LocalPlatform, PortInUse, check_port, free_port

WATCH_S = 1.0


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
    """
    state = home.private_dir(home.home_dir())
    try:
        runfile.refuse_second(state)
    except runfile.AlreadyRunning as error:
        raise CommandFailed(str(error), hint="tradewind down stops it, tradewind apply changes it") from error
    compiled = _compile(options)
    prepare_keys(compiled.gateway)
    with interruptible():
        fetch_weights(compiled.engines, err)
        platform = LocalPlatform(_local_options(compiled, state))
        try:
            _serve(platform, compiled, options, state)
        except KeyboardInterrupt:
            if options.check:
                raise
        finally:
            with uninterrupted(), err.status("Stopping …"):
                platform.stop()
                runfile.remove(state)
    err.print("Stopped; no process is left.")


def _serve(platform: LocalPlatform, compiled: Compiled, options: UpOptions, state: Path) -> None:
    started = time.monotonic()
    with err.status("Starting Ray …"):
        os.environ.update(
            {name: value for name, value in compiled.environment.items() if name not in os.environ}
        )
        platform.start()
    # Ray puts a SIGTERM handler of its own in place, which would end this process at once.
    with interruptible():
        _bring_up(platform, compiled, options, state, started)


def _bring_up(
    platform: LocalPlatform, compiled: Compiled, options: UpOptions, state: Path, started: float
) -> None:
    err.print(f"  ray: ready ({time.monotonic() - started:.0f} s)")
    platform.apply(compiled.serve_config)
    names = [app["name"] for app in compiled.serve_config["applications"]]
    waiting = Waiting(platform.control.applications, stage_of, err)
    waiting.until_ready(names, options.timeout_s)
    endpoint = manifests.endpoint(compiled)
    key, key_file = first_key(compiled.gateway)
    client = Client(endpoint, key)
    manifests.wait_until_in_force(client, compiled, timeout_s=60.0)
    runfile.write(state, _run_file(platform, compiled, options, endpoint))
    selfcheck.run(client, compiled.gateway, state)
    client.close()
    err.print(f"[green]Ready after {time.monotonic() - started:.0f} s.[/]")
    if options.check:
        return
    _print_how_to(compiled, endpoint, key_file)
    _watch(platform)


def _watch(platform: LocalPlatform) -> None:
    """Wait for Ctrl-C. CommandFailed when a part that everything rests on dies."""
    while not (dead := platform.dead()):
        time.sleep(WATCH_S)
    raise CommandFailed(f"{', '.join(dead)} died; the platform cannot go on")


def _print_how_to(compiled: Compiled, endpoint: str, key_file: str | None) -> None:
    model = next(iter([route.model for route in compiled.gateway.routes]), None)
    model = model or compiled.gateway.deployments[0].name
    out.print(selfcheck.how_to_call(endpoint, model, key_file), markup=False, soft_wrap=True)
    if compiled.gateway.anonymous:
        out.print("No Tenant is defined: anyone on this machine may call, and nobody else can.")
    out.print(f"\nServing {endpoint}/v1 until Ctrl-C.", style="bold")


def _run_file(
    platform: LocalPlatform, compiled: Compiled, options: UpOptions, endpoint: str
) -> runfile.RunFile:
    pid, process_started = runfile.this_process()
    http = compiled.serve_config["http_options"]
    return runfile.RunFile(
        pid=pid,
        process_started=process_started,
        dashboard_url=platform.dashboard_url,
        host=http["host"],
        port=http["port"],
        endpoint=endpoint,
        metrics_url=f"http://127.0.0.1:{compiled.gateway.metrics_port}",
        anonymous=compiled.gateway.anonymous,
        files=[str(file.resolve()) for file in options.files],
    )


def _local_options(compiled: Compiled, state: Path) -> LocalOptions:
    gpus = sum(
        int(deployment.get("ray_actor_options", {}).get("num_gpus", 0))
        for app in compiled.serve_config["applications"]
        for deployment in app["deployments"]
    )
    return LocalOptions(
        home=state,
        # Ray's count of processors is a bookkeeping of requests, not a limit: leave room to add models.
        cpus=max(os.cpu_count() or 1, 64),
        gpus=gpus,
    )


def _compile(options: UpOptions) -> Compiled:
    """The manifests, with the metrics moved to a free port; the endpoint's own port must be free."""
    placement = manifests.Placement(options.host, options.port)
    located = manifests.read(options.files)
    compiled = manifests.compiled(located, placement)
    http = compiled.serve_config["http_options"]
    try:
        check_port(http["host"], http["port"])
        wanted = compiled.gateway.metrics_port
        free = free_port(wanted, taken=[http["port"]])
    except PortInUse as error:
        hint = "--port chooses another; tradewind down stops a platform"
        raise CommandFailed(str(error), hint=hint) from error
    if free == wanted:
        return compiled
    return manifests.compiled(located, replace(placement, metrics_port=free))

"""`tradewind status`: what runs, how fast, and how traffic is split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from tradewind import home
from tradewind.api.wire import GatewayConfig, RouteEntry
from tradewind.cli.apply import control_of, running
from tradewind.cli.client import Client
from tradewind.cli.console import err, out, plain
from tradewind.cli.errors import CommandFailed
from tradewind.cli.fetching import stage_of
from tradewind.cli.traffic import Labels, Traffic, read_traffic, scrape
from tradewind.rayapi.app_status import AppStatus
from tradewind.rayapi.client import ControlError

_NOTHING = "–"


def deployments_table(apps: Mapping[str, AppStatus], config: GatewayConfig) -> Table:
    """One row per ModelDeployment."""
    table = _table(("model", "family", "replicas", "state"), numbers_from=4)
    for entry in config.deployments:
        app = apps.get(entry.app)
        state, colour = _state(entry.name, app)
        replicas = f"{app.running}/{app.wanted}" if app is not None else "0/0"
        table.add_row(plain(entry.name), plain(entry.family), replicas, plain(state, colour))
    return table


def _state(name: str, app: AppStatus | None) -> tuple[str, str]:
    """In a word or two, and its colour."""
    if app is None:
        return "not deployed", "red"
    if app.ready:
        return "ready", "green"
    if app.failed:
        return "cannot start", "red"
    if app.message:
        return app.status.lower().replace("_", " "), "red"
    return stage_of(name) or app.status.lower(), "yellow"


def adapters_table(told: Mapping[str, Any]) -> Table | None:
    """One row per LoRA adapter, from a gateway's `/readyz`; None when there are none."""
    rows = _adapters(told)
    if not rows:
        return None
    table = _table(("adapter", "replicas", "state", "message"), numbers_from=4)
    for name, at in rows:
        state, colour = _adapter_state(at)
        replicas = f"{at['ready']}/{at['ready'] + at['loading'] + at['failed']}"
        table.add_row(plain(name), replicas, plain(state, colour), plain(at["message"]))
    return table


def _adapter_state(at: Mapping[str, Any]) -> tuple[str, str]:
    if at["failed"]:
        return "failed", "red"
    return ("ready", "green") if at["ready"] and not at["loading"] else ("loading", "yellow")


def failed_adapters(told: Mapping[str, Any]) -> list[str]:
    """LoRA adapters that a replica cannot load, each with its reason."""
    return [f"{name} ({at['message']})" for name, at in _adapters(told) if at["failed"]]


def not_taken(told: Mapping[str, Any]) -> list[str]:
    """What the gateway refuses or cannot read of its configuration, each with its reason."""
    configuration = told.get("configuration") or {}
    refused = configuration.get("refused")
    found = [f"configuration {refused['revision']} ({refused['why']})"] if refused else []
    left_out = configuration.get("left_out") or ()
    return found + [f"{entry['kind']} {entry['name']} ({entry['why']})" for entry in left_out]


def _adapters(told: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Each adapter as callers name it, with how many replicas have it."""
    return [
        (f"{model}:{name}", at)
        for model, entry in told.get("deployments", {}).items()
        for name, at in entry.get("adapters", {}).items()
    ]


def routes_table(config: GatewayConfig, traffic: Mapping[Labels, Traffic]) -> Table:
    """One row per variant of each route, and per deployment that was called by its own name.

    `split` is what was set, `seen` what came of it; a fallback to another deployment has its own row.
    """
    table = _table(
        ("route", "variant", "split", "seen", "requests", "errors", "TTFT p50", "p95", "tokens/s"),
        numbers_from=2,
    )
    shown: set[Labels] = set()
    for route in config.routes:
        shown |= _add_route(table, route, traffic)
    known = {entry.name for entry in config.deployments} | {route.model for route in config.routes}
    for (route_name, variant), seen in sorted(traffic.items()):
        if (route_name, variant) in shown or route_name not in known or not seen.requests:
            continue
        label = "direct" if route_name == variant else "fallback"
        table.add_row(plain(route_name), plain(variant), label, _NOTHING, *_numbers(seen))
    return table


def _add_route(table: Table, route: RouteEntry, traffic: Mapping[Labels, Traffic]) -> set[Labels]:
    weights = sum(variant.weight for variant in route.variants)
    requests = sum(seen.requests for (name, _), seen in traffic.items() if name == route.model)
    for variant in route.variants:
        seen = traffic.get((route.model, variant.name), Traffic())
        table.add_row(
            plain(route.model),
            plain(variant.name),
            f"{variant.weight / weights:.0%}" if weights else _NOTHING,
            f"{seen.requests / requests:.0%}" if requests else _NOTHING,
            *_numbers(seen),
        )
    return {(route.model, variant.name) for variant in route.variants}


def _table(columns: tuple[str, ...], *, numbers_from: int) -> Table:
    """A table that fits 80 columns; names are folded rather than cut where it does not fit."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for position, name in enumerate(columns):
        right = position >= numbers_from
        table.add_column(
            name, justify="right" if right else "left", overflow="fold", min_width=None if right else 5
        )
    return table


def _numbers(seen: Traffic) -> tuple[str, ...]:
    return (
        f"{seen.requests:.0f}",
        f"{seen.errors:.0f}",
        _milliseconds(seen.ttft_s(0.5)),
        _milliseconds(seen.ttft_s(0.95)),
        f"{seen.tokens_per_s:.1f}",
    )


def _milliseconds(seconds: float | None) -> str:
    return _NOTHING if seconds is None else f"{seconds * 1000:.0f} ms"


def status() -> None:
    """Print the tables.

    Raises:
        CommandFailed: exit code 1 when nothing runs, or something is not ready; the message says what
            and why.
    """
    state = home.home_dir()
    run = running(state)
    control = control_of(run, state)
    try:
        apps = control.applications()
        config = control.gateway_config()
    except ControlError as error:
        raise CommandFailed(
            str(error), hint=f"process {run.pid} runs; it may be starting or stopping"
        ) from error
    finally:
        control.close()
    gateways = max(apps["gateway"].wanted, 1) if "gateway" in apps else 1
    pages = scrape(run.metrics_url, gateways)
    out.print(
        f"Endpoint {run.endpoint}/v1 · process {run.pid} · configuration {config.revision}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    out.print()
    out.print(deployments_table(apps, config))
    out.print()
    told = _told(run.endpoint, state)
    if (adapters := adapters_table(told)) is not None:
        out.print(adapters)
        out.print()
    out.print(routes_table(config, read_traffic(pages)))
    if len(pages) < gateways:
        err.print(
            f"The numbers of {gateways - len(pages)} of {gateways} gateways are missing.", style="yellow"
        )
    if late := [*not_ready(apps, config), *failed_adapters(told), *not_taken(told)]:
        raise CommandFailed(f"not ready: {'; '.join(late)}")


def _told(endpoint: str, state: Path) -> dict[str, Any]:
    """What a gateway tells the platform itself; nothing where it cannot be asked."""
    try:
        token = (state / home.INTERNAL_TOKEN).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return {}
    client = Client(endpoint, token)
    try:
        return client.ready() or {}
    finally:
        client.close()


def not_ready(apps: Mapping[str, AppStatus], config: GatewayConfig) -> list[str]:
    """What should serve and does not, each with its reason. What is being removed is not asked for."""
    wanted = {"gateway": "gateway"} | {entry.app: entry.name for entry in config.deployments}
    late = []
    for app_name, name in wanted.items():
        app = apps.get(app_name)
        if app is None:
            late.append(f"{name} (not deployed)")
        elif not app.ready:
            late.append(f"{name} ({app.message or app.status.lower()})")
    return late

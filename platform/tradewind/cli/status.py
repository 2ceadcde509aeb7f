"""`tradewind status`: what runs, how fast, and how traffic is split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from tradewind import home
from tradewind.api.wire import GatewayConfig
from tradewind.cli.apply import control_of, running
from tradewind.cli.console import out
from tradewind.cli.errors import FAILED, CommandFailed
from tradewind.cli.fetching import stage_of
from tradewind.serve.control import AppStatus, ControlError
from tradewind.telemetry import names

Labels = tuple[str, str]
"""(route, variant)."""


@dataclass(slots=True)
class Traffic:
    """What the gateways have counted for one variant."""

    requests: float = 0
    errors: float = 0
    tokens_per_s: float = 0
    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))

    def ttft_s(self, quantile: float) -> float | None:
        """Quantile of the time to first token, interpolated in its histogram bucket; None without any."""
        bounds = sorted(self.buckets)
        total = self.buckets[bounds[-1]] if bounds else 0
        if not total:
            return None
        wanted, low, below = quantile * total, 0.0, 0.0
        for bound in bounds:
            count = self.buckets[bound]
            if count >= wanted:
                if bound == float("inf"):
                    return low
                return low + (bound - low) * (wanted - below) / max(count - below, 1e-9)
            low, below = bound, count
        return low


def read_traffic(texts: Iterable[str]) -> dict[Labels, Traffic]:
    """Sum of several gateways' Prometheus pages, by route and variant."""
    found: dict[Labels, Traffic] = defaultdict(Traffic)
    for text in texts:
        for family in text_string_to_metric_families(text):
            _read_family(family, found)
    return found


def _read_family(family: Metric, found: dict[Labels, Traffic]) -> None:
    for sample in family.samples:
        key = (sample.labels.get("tradewind_route", ""), sample.labels.get("tradewind_variant", ""))
        if sample.name == names.REQUESTS.prometheus_name + "_total":
            found[key].requests += sample.value
            if sample.labels.get("tradewind_outcome") != "ok":
                found[key].errors += sample.value
        elif sample.name == names.OUTPUT_TOKEN_RATE.prometheus_name:
            found[key].tokens_per_s += sample.value
        elif sample.name == names.TIME_TO_FIRST_TOKEN.prometheus_name + "_bucket":
            found[key].buckets[float(sample.labels["le"])] += sample.value


def deployments_table(apps: Mapping[str, AppStatus], config: GatewayConfig) -> Table:
    """One row per ModelDeployment."""
    table = Table("model", "family", "replicas", "state")
    for entry in config.deployments:
        app = apps.get(entry.app)
        if app is None:
            table.add_row(entry.name, entry.family, "0/0", "[red]not deployed[/]")
            continue
        colour = "green" if app.ready else "red" if app.failed else "yellow"
        state = "ready" if app.ready else app.message or stage_of(entry.name) or app.status.lower()
        table.add_row(entry.name, entry.family, f"{app.running}/{app.wanted}", f"[{colour}]{state}[/]")
    return table


def routes_table(config: GatewayConfig, traffic: Mapping[Labels, Traffic]) -> Table:
    """One row per variant of each route, and per deployment that was called by its own name."""
    table = Table(
        "route", "variant", "deployment", "split", "requests", "errors", "TTFT p50", "TTFT p95", "tokens/s"
    )
    for route in config.routes:
        total = sum(variant.weight for variant in route.variants)
        for variant in route.variants:
            seen = traffic.get((route.model, variant.name), Traffic())
            table.add_row(
                route.model,
                variant.name,
                variant.deployment,
                f"{variant.weight / total:.0%}",
                *_numbers(seen),
            )
    for entry in config.deployments:
        direct = traffic.get((entry.name, entry.name))
        if direct is not None and entry.name not in {route.model for route in config.routes}:
            table.add_row(entry.name, "", entry.name, "direct", *_numbers(direct))
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
    return "–" if seconds is None else f"{seconds * 1000:.0f} ms"


def scrape(metrics_url: str, gateways: int) -> list[str]:
    """Prometheus pages of the gateway replicas on this machine; one that is not there is left out."""
    base, port = metrics_url.rsplit(":", 1)
    pages = []
    for number in range(gateways):
        try:
            response = httpx.get(f"{base}:{int(port) + number}/metrics", timeout=5.0, trust_env=False)
        except httpx.HTTPError:
            continue
        if response.status_code == 200:
            pages.append(response.text)
    return pages


def status() -> None:
    """Print the tables. CommandFailed (exit code 1) when something is not ready."""
    state = home.home_dir()
    run = running(state)
    control = control_of(run, state)
    try:
        apps = control.applications()
        config = control.gateway_config()
    except ControlError as error:
        raise CommandFailed(str(error)) from error
    finally:
        control.close()
    gateways = apps["gateway"].wanted if "gateway" in apps else 1
    out.print(f"Endpoint {run.endpoint}/v1 · process {run.pid} · configuration {config.revision}")
    out.print(deployments_table(apps, config))
    out.print(routes_table(config, read_traffic(scrape(run.metrics_url, gateways))))
    late = [name for name, app in apps.items() if not app.ready]
    if late:
        raise CommandFailed(f"not ready: {', '.join(late)}", exit_code=FAILED)

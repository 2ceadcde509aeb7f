"""What the gateways have counted, read from their metrics pages: requests, errors, speed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tradewind.telemetry import names
from tradewind.telemetry.names import prometheus_label
from tradewind.telemetry.outcome import Outcome

Labels = tuple[str, str]
"""(route, variant)."""

SCRAPE_S: Final = 5.0
_ERRORS: Final = frozenset((Outcome.REJECTED, Outcome.UPSTREAM_ERROR, Outcome.TIMEOUT, Outcome.INTERNAL))
"""Outcomes that are the platform's; a wrong request and a caller that left are not."""


@dataclass(slots=True)
class Traffic:
    """What the gateways have counted for one variant."""

    requests: float = 0
    errors: float = 0
    tokens_per_s: float = 0
    buckets: dict[float, float] = field(default_factory=dict)
    """Time to the first token: requests up to each bound in seconds, cumulative."""

    def ttft_s(self, quantile: float) -> float | None:
        """Quantile of the time to first token, interpolated in its histogram bucket; None without any.

        Beyond the last finite bound it is that bound: no more is known.
        """
        bounds = sorted(self.buckets)
        total = self.buckets[bounds[-1]] if bounds else 0
        if not total:
            return None
        wanted, low, below = quantile * total, 0.0, 0.0
        for bound in bounds:
            count = self.buckets[bound]
            if count >= wanted and count > below:
                if bound == float("inf"):
                    return low
                return low + (bound - low) * max(wanted - below, 0.0) / (count - below)
            low, below = bound, count
        return low


def read_traffic(texts: Iterable[str]) -> dict[Labels, Traffic]:
    """Sum of several gateways' Prometheus pages, by route and variant. A page that is none is left out."""
    found: dict[Labels, Traffic] = defaultdict(Traffic)
    for text in texts:
        try:
            families = list(text_string_to_metric_families(text))
        except ValueError:
            continue
        for family in families:
            _read_family(family, found)
    return dict(found)


def _read_family(family: Metric, found: dict[Labels, Traffic]) -> None:
    for sample in family.samples:
        key = (
            sample.labels.get(prometheus_label(names.ROUTE), ""),
            sample.labels.get(prometheus_label(names.VARIANT), ""),
        )
        if sample.name == names.REQUESTS.prometheus_name + "_total":
            found[key].requests += sample.value
            if sample.labels.get(prometheus_label(names.OUTCOME)) in _ERRORS:
                found[key].errors += sample.value
        elif sample.name == names.OUTPUT_TOKEN_RATE.prometheus_name:
            found[key].tokens_per_s += sample.value
        elif sample.name == names.TIME_TO_FIRST_TOKEN.prometheus_name + "_bucket":
            bound = float(sample.labels["le"])
            found[key].buckets[bound] = found[key].buckets.get(bound, 0.0) + sample.value


def scrape(metrics_url: str, gateways: int) -> list[str]:
    """Prometheus pages of the gateway replicas on this machine; one that is not there is left out."""
    base, port = metrics_url.rsplit(":", 1)
    pages = []
    for number in range(gateways):
        try:
            response = httpx.get(f"{base}:{int(port) + number}/metrics", timeout=SCRAPE_S, trust_env=False)
        except httpx.HTTPError:
            continue
        if response.status_code == 200:
            pages.append(response.text)
    return pages

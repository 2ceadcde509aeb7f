"""What a process holds, sample by sample, and whether it holds ever more."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

_MIB: Final = 2**20
WARM: Final = 0.3
"""Share of the samples that warm it up: caches fill, the allocator takes what load needs."""
GROWTH_MIB: Final = 12.0
"""From the end of the warm-up to the end: more is taken for a leak. Requests differ, and so does what is
held at a moment."""
SLACK: Final = 8
"""Sockets and tasks that may come and go while nobody asks."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment."""

    at_s: float
    rss_mib: float
    files: int
    """Open file descriptors, sockets among them."""
    tasks: int
    """On its event loop, as its metrics tell."""
    active: int
    """Requests under way, as its metrics tell."""


class Watch:
    """Samples of one gateway."""

    def __init__(self, pid: int, metrics_url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._process = psutil.Process(pid)
        self._url = metrics_url
        self._clock = clock
        self._began = clock()
        self.pid = pid
        self.samples: list[Sample] = []

    @property
    def lives(self) -> bool:
        """Whether the process has not ended."""
        return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE

    def look(self) -> Sample:
        """Take a sample. Raises psutil.NoSuchProcess, httpx.HTTPError."""
        text = httpx.get(self._url, timeout=30.0, trust_env=False).raise_for_status().text
        told = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in ("tradewind_gateway_tasks", "tradewind_requests_active")
        }
        with self._process.oneshot():
            sample = Sample(
                self._clock() - self._began,
                self._process.memory_info().rss / _MIB,
                self._process.num_fds(),
                int(told["tradewind_gateway_tasks"]),
                int(told["tradewind_requests_active"]),
            )
        self.samples.append(sample)
        return sample

    def summary(self) -> dict[str, object]:
        """JSON-able."""
        return {"pid": self.pid, "samples": [asdict(sample) for sample in self.samples]}


def leaks(loaded: Sequence[Sample], before: Sample, after: Sample) -> list[str]:
    """What a process holds that it should not, a sentence each.

    Args:
        loaded: under load, in order.
        before: while nobody asked, before the load.
        after: when every request had ended.
    """
    found = []
    growth = growth_mib([sample.rss_mib for sample in loaded])
    if growth > GROWTH_MIB:
        found.append(f"memory grew by {growth:.1f} MiB after the warm-up; at most {GROWTH_MIB:g}")
    for what, was, now in (
        ("open files", before.files, after.files),
        ("tasks", before.tasks, after.tasks),
        ("requests under way", 0, after.active - SLACK),
    ):
        if now > was + SLACK:
            found.append(f"{what}: {now} after the load, {was} before it")
    return found


def growth_mib(rss: Sequence[float]) -> float:
    """MiB from the end of the warm-up to the end, along the line through the samples: peaks do not count."""
    warm = rss[int(len(rss) * WARM) :]
    if len(warm) < 3:
        return 0.0
    slope = statistics.linear_regression(range(len(warm)), warm).slope
    return slope * (len(warm) - 1)

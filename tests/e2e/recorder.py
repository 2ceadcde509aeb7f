"""What the status of Tradewind's resources said at every moment.

with recording(site, namespace) as record:
    ...
assert not record.silent_waits()
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client, config, watch

from tests.e2e.site import Data, Site

OURS = ("tradewind.dev", "v1alpha1")
KINDS = {
    "servingclusters": OURS,
    "modeldeployments": OURS,
    "modelroutes": OURS,
    "rayclusters": ("ray.io", "v1"),
}
"""Kind to its group and version."""


@dataclass(frozen=True)
class Moment:
    """One condition as it became, or the status of an object with none."""

    at: float
    """Seconds since the record began."""
    kind: str
    name: str
    condition: str
    status: str
    reason: str
    message: str

    def __str__(self) -> str:
        what = f"{self.condition}={self.status} {self.reason}: {self.message}"
        return f"{self.at:6.1f} s  {self.kind}/{self.name}  {what}"


@dataclass
class Record:
    """Every change of every condition, in order."""

    moments: list[Moment] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _known: dict[tuple[str, str, str], tuple[str, str, str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, kind: str, found: Data) -> None:
        """Note what is new in an object's status."""
        name = found["metadata"]["name"]
        for each in found.get("status", {}).get("conditions", []):
            said = (each["status"], each.get("reason", ""), each.get("message", ""))
            with self._lock:
                if self._known.get((kind, name, each["type"])) == said:
                    continue
                self._known[kind, name, each["type"]] = said
                at = time.monotonic() - self._started
                self.moments.append(Moment(at, kind, name, each["type"], *said))

    def of(self, kind: str, name: str, condition: str) -> list[Moment]:
        """One condition's way."""
        with self._lock:
            return [m for m in self.moments if (m.kind, m.name, m.condition) == (kind, name, condition)]

    def first_true(self, kind: str, name: str, condition: str = "Ready") -> float | None:
        """When it was first true; None where it never was."""
        return next((m.at for m in self.of(kind, name, condition) if m.status == "True"), None)

    def silent_s(self, kind: str, name: str, since: float) -> float:
        """Seconds from `since`, of the monotonic clock, until its status first had a condition Ready."""
        told = next((m.at for m in self.of(kind, name, "Ready")), float("inf"))
        return self._started + told - since

    def silent_waits(self) -> list[str]:
        """Conditions that were not true and gave no reason or no sentence."""
        with self._lock:
            waits = [m for m in self.moments if m.status != "True" and KINDS[m.kind] == OURS]
        return [str(m) for m in waits if not (m.reason and m.message)]

    def __str__(self) -> str:
        with self._lock:
            return "\n".join(map(str, self.moments))


@contextmanager
def recording(site: Site, namespace: str) -> Iterator[Record]:
    """A record of the namespace's resources while the context lasts."""
    record, ends = Record(), threading.Event()
    threads = [
        threading.Thread(target=_follow, args=(site, namespace, kind, record, ends), daemon=True)
        for kind in KINDS
    ]
    for thread in threads:
        thread.start()
    try:
        yield record
    finally:
        ends.set()
        for thread in threads:
            thread.join(10)


def _follow(site: Site, namespace: str, kind: str, record: Record, ends: threading.Event) -> None:
    """Watch one kind; begin again whenever the watch ends, as it does with the API server."""
    connection = config.new_client_from_config(str(site.kubectl.kubeconfig))
    api = client.CustomObjectsApi(connection)
    while not ends.is_set():
        try:
            stream: Any = watch.Watch().stream(
                api.list_namespaced_custom_object, *KINDS[kind], namespace, kind, timeout_seconds=3
            )
            for event in stream:
                if event["type"] != "DELETED":
                    record.see(kind, event["object"])
        except Exception:  # whatever the API server's end looks like: the next watch tells what is now
            ends.wait(0.2)
    # Closing the client leaves its sockets open, and a later test would be told of them.
    connection.rest_client.pool_manager.clear()
    connection.close()

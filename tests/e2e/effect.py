"""How long a change takes until every gateway acts by it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.e2e.models import API, applied
from tests.e2e.release import Release
from tests.e2e.site import Data

UNAUTHORIZED = 401
SOON_S = 3.0
"""How long a weight or a revoked key may take to be in force in every gateway."""


def weight_s(release: Release) -> float:
    """Seconds from a patch that gives all of `chat` to another variant until every gateway does."""
    control, other = {"name": "control", "deployment": "smollm2"}, f"v{secrets.token_hex(3)}"
    moved = {"name": other, "deployment": "smollm2", "weight": 1}
    urls = release.gateways()
    assert len(urls) == 2
    release.patch("mr/chat", {"spec": {"variants": [{**control, "weight": 0}, moved]}})
    took = time_until(lambda url: variant(release, url) == other, urls)
    release.patch("mr/chat", {"spec": {"variants": [control]}})
    time_until(lambda url: variant(release, url) == "control", urls)
    print(f"weight in force after {took:.2f} s")
    return took


def revoked_s(release: Release, **mistake: Any) -> float:
    """Seconds from a patch that takes a key out of a Tenant until no gateway takes it.

    Args:
        mistake: fields of its spec that the same patch makes wrong.
    """
    urls = release.gateways()
    with tenant(release) as team:
        release.patch(f"tn/{team.name}", {"spec": {"keys": team.references[:1], **mistake}})
        took = time_until(lambda url: status_of(release, url, team.key) == UNAUTHORIZED, urls)
        if mistake:
            assert release.condition(f"tn/{team.name}", "Accepted").status == "False"
        else:
            assert all(status_of(release, url, team.kept) == httpx.codes.OK for url in urls)
    print(f"key revoked after {took:.2f} s")
    return took


@dataclass(frozen=True)
class Team:
    """A Tenant with two keys, both of which open every gateway."""

    name: str
    kept: str
    key: str

    @property
    def references(self) -> list[Data]:
        """Of `kept` and `key`, in this order."""
        return [{"secret": {"name": self.name, "key": each}} for each in ("kept", "key")]

    def secret(self, key: str) -> Data:
        """Its Secret with this in place of `key`."""
        metadata = {"name": self.name}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "stringData": {"kept": self.kept, "key": key},
        }


@contextmanager
def tenant(release: Release) -> Iterator[Team]:
    """One that is there within."""
    urls = release.gateways()
    assert len(urls) == 2
    team = Team(f"t{secrets.token_hex(3)}", secrets.token_hex(32), secrets.token_hex(32))
    metadata = {"name": team.name}
    content = {"apiVersion": API, "kind": "Tenant", "metadata": metadata, "spec": {"keys": team.references}}
    with applied(release, team.secret(team.key), content):
        time_until(lambda url: status_of(release, url, team.key) == httpx.codes.OK, urls)
        yield team


def status_of(release: Release, url: str, key: str) -> int:
    """What a gateway says to a key."""
    return release.ask(url, key=key, tokens=1).status_code


def time_until(true: Callable[[str], bool], urls: list[str], timeout_s: float = 30.0) -> float:
    """Seconds until it is true of every URL. Raises AssertionError."""
    started = time.monotonic()
    for url in urls:
        while not true(url):
            assert time.monotonic() - started < timeout_s, f"not within {timeout_s:.0f} s at {url}"
    return time.monotonic() - started


def variant(release: Release, url: str) -> str:
    """The variant of `chat` that a gateway chooses.

    For a text's tokens, which takes milliseconds: an answer of the model's takes part of a second on a busy
    machine, and the change would seem to take as much longer.
    """
    body = {"model": "chat", "prompt": "Paris"}
    headers = {"authorization": f"Bearer {release.key}"}
    answer = httpx.post(f"{url}/tokenize", json=body, headers=headers, timeout=60, trust_env=False)
    return answer.headers.get("x-tradewind-variant", "")

"""A way to the engine: where requests are sent, and whose CPU time and memory it is that counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.bench.load import CHAT_PATH, Plan
from tests.bench.peers.peer import MODEL
from tests.bench.stage import bodies

USERS = [f"user-{number}" for number in range(199)]
_JSON = ("content-type", "application/json")


@dataclass(frozen=True, slots=True)
class Way:
    """One that runs."""

    name: str
    port: int
    pids: Callable[[], list[int]]
    """The processes of the way, which may come and go; none of the bare engine's."""
    headers: list[tuple[str, str]] = field(default_factory=list)
    model: str = MODEL

    def plan(self, *, tokens: int, stream: bool, **shape: Any) -> Plan:
        """The same requests for every way, but for the key and the model's name."""
        asked = bodies(tokens=tokens, stream=stream, users=USERS)
        if self.model != MODEL:
            asked = [json.dumps(json.loads(body) | {"model": self.model}) for body in asked]
        return Plan(self.port, CHAT_PATH, [_JSON, *self.headers], asked, USERS, **shape)

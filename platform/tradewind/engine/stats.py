"""Load and facts of one engine replica, and the cell that the engine writes its load into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What `GET <prefix>/tradewind/stats` answers."""

    model: str
    family: str
    task: str
    """generate, embed or score."""
    context_length: int
    """Tokens, prompt and answer together."""
    running: int
    waiting: int
    """Requests accepted but not yet being computed."""
    kv_cache_use: float
    """0 to 1."""
    tokens_generated: int
    """Since the start; only grows."""
    healthy: bool
    adapters: dict[str, dict[str, str]]
    """By name in the deployment: `state` (loading, ready, failed) and `message`."""
    version: str
    """Of vLLM."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Load:
    """One reading of a LoadMeter."""

    running: int
    waiting: int
    kv_cache_use: float
    tokens_generated: int
    steps: int
    """Scheduler iterations since the start: also grows while a long prompt is read."""


class LoadMeter:
    """Sums what the schedulers of one engine (one per data-parallel rank) report after each step.

    A scheduler says nothing when it has nothing left to do, so after an abort its last word can be
    stale; `unfinished`, which counts requests at the front, is therefore the upper bound.
    """

    __slots__ = ("_ranks", "_steps", "_tokens", "unfinished")

    def __init__(self, unfinished: Callable[[], int] | None = None) -> None:
        self._ranks: dict[int, tuple[int, int, float]] = {}
        self._steps = 0
        self._tokens = 0
        self.unfinished = unfinished

    def step(self, rank: int, running: int, waiting: int, kv_cache_use: float) -> None:
        """A scheduler of `rank` has finished one iteration."""
        self._ranks[rank] = (running, waiting, kv_cache_use)
        self._steps += 1

    def generated(self, tokens: int) -> None:
        self._tokens += tokens

    def read(self) -> Load:
        running = sum(rank[0] for rank in self._ranks.values())
        waiting = sum(rank[1] for rank in self._ranks.values())
        if self.unfinished is not None:
            known = self.unfinished()
            running = min(running, known)
            waiting = known - running
        use = max((rank[2] for rank in self._ranks.values()), default=0.0)
        return Load(running, waiting, min(max(use, 0.0), 1.0), self._tokens, self._steps)

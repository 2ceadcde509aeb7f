"""Which models are changed successor first: those for which there is room for one replica more.

A successor that finds no place waits, and the old replica goes on serving; it is then replaced in place
as soon as the configuration says so (`spec.update.surge: Never`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tradewind.api.deployment import ModelDeploymentSpec, Resources
from tradewind.api.nodes import Pool
from tradewind.compiler.pools import engine_cpus

ONE_AT_A_TIME: Final = 1
"""Per cent of the replicas that may be there beside them; Serve rounds up to whole replicas."""


@dataclass(slots=True)
class _Node:
    """What is left of a node."""

    gpus: int
    cpus: float
    memory: float

    def holds(self, wanted: Resources) -> int:
        """Replicas that still fit."""
        fits = self.cpus // engine_cpus(wanted) if engine_cpus(wanted) else 1_000
        if wanted.gpus:
            fits = min(fits, self.gpus // wanted.gpus)
        if wanted.memory:
            fits = min(fits, self.memory // float(wanted.memory))
        return max(0, int(fits))

    def take(self, wanted: Resources, replicas: int) -> None:
        self.gpus -= wanted.gpus * replicas
        self.cpus -= engine_cpus(wanted) * replicas
        self.memory -= float(wanted.memory or 0) * replicas


def surging(
    specs: Mapping[str, ModelDeploymentSpec], placed: Mapping[str, str], pools: Mapping[str, Pool] | None
) -> frozenset[str]:
    """Names of the models whose successor starts before the old replica stops.

    Args:
        placed: model → pool; one that is in no pool has no room.
        pools: None on one machine. CPUs are bookkeeping there, so models without GPUs have room; how many
            GPUs it has is not known here, so those with GPUs have none.
    """
    asked = {name for name, spec in specs.items() if spec.update.surge == "Always"}
    open_to = {name: spec for name, spec in specs.items() if spec.update.surge == "Auto"}
    if pools is None:
        return frozenset(asked | {name for name, spec in open_to.items() if not spec.resources.gpus})
    room = {
        name: _left(pool, (spec for model, spec in specs.items() if placed.get(model) == name))
        for name, pool in pools.items()
    }
    fitting = {
        name
        for name, spec in open_to.items()
        if any(node.holds(spec.resources) for node in room.get(placed.get(name, ""), ()))
    }
    return frozenset(asked | fitting)


def _left(pool: Pool, specs: Iterable[ModelDeploymentSpec]) -> list[_Node]:
    """What the pool's nodes have left beside each model's largest number of replicas; large ones first."""
    nodes = [_Node(pool.gpus, pool.cpus, float(pool.memory)) for _ in range(pool.max_nodes)]
    for spec in sorted(specs, key=_size, reverse=True):
        replicas = spec.autoscaling.max_replicas if spec.autoscaling else spec.replicas
        for node in nodes:
            fits = min(replicas, node.holds(spec.resources))
            node.take(spec.resources, fits)
            replicas -= fits
            if not replicas:
                break
    return nodes


def _size(spec: ModelDeploymentSpec) -> tuple[int, float, float]:
    wanted = spec.resources
    return wanted.gpus, engine_cpus(wanted), float(wanted.memory or 0)

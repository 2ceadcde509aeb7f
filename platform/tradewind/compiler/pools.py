"""Which pool of nodes a model goes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tradewind.api.accelerators import TPU_CHIPS
from tradewind.api.deployment import Resources
from tradewind.api.model import Fault
from tradewind.api.nodes import Pool

CPU_ENGINE_CPUS = 0.5
GPU_ENGINE_CPUS = 1.0


def engine_cpus(wanted: Resources) -> float:
    """CPUs that one replica reserves."""
    if wanted.cpus is not None:
        return float(wanted.cpus)
    return GPU_ENGINE_CPUS if wanted.gpus else CPU_ENGINE_CPUS


def pool_of(wanted: Resources, pools: Mapping[str, Pool]) -> str | None:
    """The pool that is asked for or, if none is, the smallest one on which a replica fits.

    The smallest, so that a model for one GPU does not come to lie on a node of eight.
    """
    if wanted.pool is not None:
        return wanted.pool if wanted.pool in pools else None
    fitting = [name for name, pool in pools.items() if not any(_lacks(wanted, pool))]
    return min(fitting, key=lambda name: (*_size(pools[name]), name), default=None)


def pool_faults(wanted: Resources, pools: Mapping[str, Pool]) -> Iterable[Fault]:
    """Why no pod of the pools can hold a replica; paths are relative to `spec.resources`."""
    pool = pool_of(wanted, pools)
    if pool is not None and wanted.pool is not None:
        if lacking := list(_lacks(wanted, pools[pool])):
            yield Fault(("pool",), f"found {pool!r}, whose pods {' and '.join(lacking)}")
    elif pool is None and wanted.pool is None:
        shapes = "; ".join(
            f"{name}: its pods {' and '.join(_lacks(wanted, pool))}" for name, pool in sorted(pools.items())
        )
        allowed = shapes or "none, because the ServingCluster has no pools"
        yield Fault((), f"found no pool that a replica fits on ({allowed})", "add one to spec.pools")


def _size(pool: Pool) -> tuple[int, float, int]:
    """GPUs first: they are what is scarce."""
    return pool.gpus, pool.cpus, pool.memory


def _lacks(wanted: Resources, pool: Pool) -> Iterable[str]:
    if wanted.gpus and not pool.gpus:
        yield "have no GPU"
    elif not wanted.gpus and pool.gpus:
        yield "are for models with GPUs"
    elif wanted.gpus > pool.gpus:
        yield f"have {pool.gpus} of {wanted.gpus} GPUs"
    elif wanted.gpus and pool.hardware.ray == "TPU" and wanted.gpus not in TPU_CHIPS:
        yield f"hand out 1, 2, 4 or 8 TPU chips and not {wanted.gpus}"
    if engine_cpus(wanted) > pool.cpus:
        yield f"have {pool.cpus:g} of {engine_cpus(wanted):g} CPUs"
    if wanted.memory is not None and wanted.memory > pool.memory:
        yield f"have {pool.memory} of {wanted.memory} memory"

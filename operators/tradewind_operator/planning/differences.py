"""What a second Ray cluster is needed for, in sentences for people, and what it takes. Pure."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tradewind.compiler.compile import POOL_LABEL
from tradewind_operator.desired.raycluster import without_tolerations
from tradewind_operator.desired.world import Manifest

_MAX_SENTENCES: Final = 20
_MAX_VALUE: Final = 120
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Demand:
    """What a Ray cluster takes when it starts, beside what runs already."""

    gpus: int = 0
    cpus: int = 0

    def __str__(self) -> str:
        gpus = "1 more GPU" if self.gpus == 1 else f"{self.gpus} more GPUs"
        return f"{gpus} and {self.cpus} more CPU{'' if self.cpus == 1 else 's'}"


def demand_of(wanted: Mapping[str, Any], serve_config: Mapping[str, Any]) -> Demand:
    """Per pool what its models ask for, or what its fewest pods have; head and gateways beside that."""
    asked = _asked(serve_config)
    gpus, cpus = 0.0, _cpus(wanted["spec"]["headGroupSpec"])
    for group in wanted["spec"]["workerGroupSpecs"]:
        pool = (group.get("labels") or {}).get(POOL_LABEL, "")
        least, wants = int(group["minReplicas"]), asked.get(pool, (0.0, 0.0))
        per_pod = _devices(group["rayStartParams"])
        gpus += max(per_pod * least, wants[0] if per_pod else 0)
        cpus += max(_cpus(group) * least, wants[1])
    return Demand(math.ceil(gpus), math.ceil(cpus))


def _asked(serve_config: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """GPUs and CPUs by pool."""
    found: dict[str, tuple[float, float]] = {}
    for app in serve_config["applications"]:
        for deployment in app["deployments"]:
            options = deployment.get("ray_actor_options") or {}
            pool = (options.get("label_selector") or {}).get(POOL_LABEL)
            scaling = deployment.get("autoscaling_config") or {}
            count = int(deployment.get("num_replicas") or scaling.get("min_replicas") or 0)
            if pool is not None:
                gpus, cpus = found.get(pool, (0.0, 0.0))
                devices = float(options.get("num_gpus", 0)) + sum((options.get("resources") or {}).values())
                more = float(options.get("num_cpus", 0))
                found[pool] = (gpus + devices * count, cpus + more * count)
    return found


def _devices(start: Mapping[str, str]) -> float:
    """Accelerators of one pod, whatever Ray calls them."""
    others: dict[str, float] = json.loads(start.get("resources", "'{}'").strip("'"))
    return int(start.get("num-gpus", 0)) + sum(others.values())


def _cpus(group: Mapping[str, Any]) -> float:
    """CPUs that one pod of a group requests."""
    requests = group["template"]["spec"]["containers"][0]["resources"]["requests"]
    text = str(requests["cpu"])
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def reasons_for(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences on what differs between two RayClusters, worker groups, sizes and tolerations aside."""
    before, after = _compared(there["spec"]), _compared(wanted["spec"])
    reasons = list(_differences("The Ray cluster", before, after))
    if len(reasons) > _MAX_SENTENCES:
        reasons[_MAX_SENTENCES:] = [f"{len(reasons) - _MAX_SENTENCES} more fields change."]
    return tuple(reasons) or ("Its definition was written anew.",)


def _compared(spec: Mapping[str, Any]) -> Manifest:
    result = copy.deepcopy({key: value for key, value in spec.items() if key != "workerGroupSpecs"})
    head = result["headGroupSpec"]
    head["template"] = without_tolerations(head["template"])
    return result


def _differences(where: str, old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Sentences on the leaves that differ. Values of variables are left out: they may be credentials."""
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _differences(where, old.get(key, _MISSING), new.get(key, _MISSING), (*path, key))
    elif named := _by_name(old, new):
        for name, (before, after) in named.items():
            if path[-1] == "env":
                if before != after:
                    yield f"{_subject(where, path)}: variable {name} changes."
            else:
                yield from _differences(where, before, after, (*path, name))
    else:
        yield f"{_subject(where, path)}: {_field(path)} {_change(old, new)}."


def _by_name(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Two lists of named things, such as containers or variables, side by side; empty for anything else."""
    if not (isinstance(old, Sequence) and isinstance(new, Sequence)) or isinstance(old, str):
        return {}
    if not all(isinstance(item, Mapping) and "name" in item for item in (*old, *new)):
        return {}
    before, after = ({item["name"]: item for item in items} for items in (old, new))
    if [name for name in before if name in after] != [name for name in after if name in before]:
        return {}
    every = dict.fromkeys((*before, *after))
    return {name: (before.get(name, _MISSING), after.get(name, _MISSING)) for name in every}


def _subject(where: str, path: tuple[str, ...]) -> str:
    return "The head" if path[:1] == ("headGroupSpec",) else where


def _field(path: tuple[str, ...]) -> str:
    """A path without the steps that every path has."""
    skipped = {"headGroupSpec", "template", "spec", "containers", "ray", "volumes", "metadata"}
    return ".".join(step for step in path if step not in skipped) or ".".join(path)


def _change(old: Any, new: Any) -> str:
    if old is _MISSING:
        return f"becomes {_short(new)}"
    if new is _MISSING:
        return "is no longer set"
    return f"changes from {_short(old)} to {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}…"

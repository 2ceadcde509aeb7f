"""What KubeRay makes of a new `rayClusterConfig`: the same cluster, changed in place, or a second one.

Mirrors KubeRay 1.7: it compares a hash of the whole configuration without the sizes of worker groups, the
pods to delete, tolerations, scheduling gates, `suspend` and the upgrade strategy; worker groups added at
the end are left out of the comparison. Everything else is a second cluster.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tradewind_operator.desired import names
from tradewind_operator.desired.world import Manifest

SIZES: Final = ("replicas", "minReplicas", "maxReplicas")
_MAX_SENTENCES: Final = 20
_MAX_VALUE: Final = 120
_MISSING: Final = object()


def groups(config: Mapping[str, Any]) -> list[Manifest]:
    """Worker groups of a `rayClusterConfig`."""
    return list(config.get("workerGroupSpecs") or ())


def with_groups_kept(config: Manifest, previous: Manifest) -> Manifest:
    """`config` with the groups in the order of `previous`, and those it no longer has in their places, empty.

    A group that is taken away or moved would be a second cluster; one without pods costs nothing.
    """
    wanted = {group["groupName"]: group for group in groups(config)}
    there = [group["groupName"] for group in groups(previous)]
    kept = [wanted.get(group["groupName"]) or emptied(group) for group in groups(previous)]
    added = [group for name, group in wanted.items() if name not in there]
    return {**config, "workerGroupSpecs": kept + added}


def with_only_sizes(config: Manifest, previous: Manifest) -> Manifest:
    """`previous` with what can be had of `config` in place: sizes, tolerations and groups at the end.

    No group is added for another version of Ray, which could not join the cluster.
    """
    result = copy.deepcopy(previous)
    _tolerate(result["headGroupSpec"], config["headGroupSpec"])
    merged = groups(with_groups_kept(config, previous))
    there = groups(result)
    for old, new in zip(there, merged, strict=False):
        old.update({key: new[key] for key in SIZES})
        _tolerate(old, new)
    same_ray = config.get("rayVersion") == previous.get("rayVersion")
    return {**result, "workerGroupSpecs": there + (merged[len(there) :] if same_ray else [])}


def emptied(group: Manifest) -> Manifest:
    """The group without pods."""
    return {**group, **dict.fromkeys(SIZES, 0)}


def second_cluster_reasons(previous: Manifest, config: Manifest) -> list[str]:
    """Sentences on what differs that KubeRay answers by a second cluster; empty: it changes in place.

    Args:
        config: as `with_groups_kept` returns it.
    """
    before, after = compared(previous), compared(config)
    old, new = before.pop("workerGroupSpecs"), after.pop("workerGroupSpecs")
    reasons = list(_differences("The Ray cluster", before, after))
    for was, is_now in zip(old, new, strict=False):
        reasons += _differences(where_is(was["groupName"]), was, is_now)
    if len(reasons) > _MAX_SENTENCES:
        reasons[_MAX_SENTENCES:] = [f"{len(reasons) - _MAX_SENTENCES} more fields change."]
    return reasons


def in_place_changes(previous: Manifest, config: Manifest) -> list[str]:
    """Sentences on groups that are added and on sizes."""
    there = {group["groupName"]: group for group in groups(previous)}
    sentences: list[str] = []
    for group in groups(config):
        name = group["groupName"]
        if name not in there:
            sentences.append(f"{where_is(name)} is added.")
        elif (was := _size(there[name])) != (now := _size(group)):
            sentences.append(f"{where_is(name)} goes from {was} to {now}.")
    return sentences


def images(config: Mapping[str, Any]) -> dict[str, str]:
    """Image by group; the head's is under an empty name."""
    found = {"": _image(config["headGroupSpec"])}
    return found | {group["groupName"]: _image(group) for group in groups(config)}


def config_format(config: Mapping[str, Any]) -> str | None:
    """The format of serveConfigV2 that the cluster's images read."""
    annotations = config["headGroupSpec"]["template"].get("metadata", {}).get("annotations") or {}
    found: str | None = annotations.get(names.CONFIG_FORMAT_ANNOTATION)
    return found


def compared(config: Mapping[str, Any]) -> Manifest:
    """What KubeRay takes the hash of, with the CRD's default values left out."""
    result: Manifest = copy.deepcopy(dict(config))
    for key in ("upgradeStrategy", "suspend"):
        result.pop(key, None)
    result["workerGroupSpecs"] = groups(result)
    for group in result["workerGroupSpecs"]:
        for key in SIZES:
            group.pop(key, None)
        if (strategy := group.get("scaleStrategy")) is not None:
            strategy.pop("workersToDelete", None)
        for key, default in (("scaleStrategy", {}), ("priority", 0)):
            if group.get(key) == default:
                del group[key]
    for group in (result["headGroupSpec"], *result["workerGroupSpecs"]):
        spec = group["template"]["spec"]
        for key in ("tolerations", "schedulingGates"):
            spec.pop(key, None)
    return result


def where_is(group: str) -> str:
    """A worker group in words that the ServingCluster's author knows."""
    if group == names.GATEWAY_GROUP:
        return "The gateway"
    return f"Pool {group.removeprefix(names.pool_group(''))!r}"


def _tolerate(old: Manifest, new: Manifest) -> None:
    old["template"]["spec"].pop("tolerations", None)
    if (found := new["template"]["spec"].get("tolerations")) is not None:
        old["template"]["spec"]["tolerations"] = found


def _size(group: Mapping[str, Any]) -> str:
    least, most = group.get("minReplicas", 0), group.get("maxReplicas", 0)
    return f"{most} pods" if least == most else f"{least} to {most} pods"


def _image(group: Mapping[str, Any]) -> str:
    return str(group["template"]["spec"]["containers"][0].get("image"))


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

"""What a platform team gives to pods (`spec.pod` and those of the roles), as Kubernetes takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tradewind.api.affinity import Affinity, TopologySpread
from tradewind.api.model import ApiModel
from tradewind.api.pod_volumes import PodVolume, VolumeItem
from tradewind.api.pods import PodSettings, PodVariable
from tradewind.api.values import camel
from tradewind_operator.desired import names
from tradewind_operator.desired.metadata import role_selector
from tradewind_operator.desired.volumes import READ_BY_GROUP, Volume
from tradewind_operator.desired.world import Manifest

_PREFIX: Final = "extra-"
"""Before the names of volumes, which so never meet one of the platform's own."""
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"


def variables(settings: PodSettings) -> list[Manifest]:
    """Entries of a container's `env`."""
    return [_variable(one) for one in settings.env]


def _variable(one: PodVariable) -> Manifest:
    if one.value_from is None:
        return {"name": one.name, "value": one.value or ""}
    return {"name": one.name, "valueFrom": written(one.value_from)}


def volumes(settings: PodSettings) -> tuple[Volume, ...]:
    """The volumes with their places."""
    return tuple(
        Volume(
            f"{_PREFIX}{one.name}",
            one.mount_path,
            _source(one),
            read_only=one.read_only or one.config_map is not None or one.secret is not None,
            sub_path=one.sub_path,
        )
        for one in settings.volumes
    )


def _source(one: PodVolume) -> Manifest:
    if one.config_map is not None:
        config_map: Manifest = {"name": one.config_map.name, "defaultMode": READ_BY_GROUP}
        return {"configMap": config_map | _items(one.config_map.items)}
    if one.secret is not None:
        secret: Manifest = {"secretName": one.secret.secret_name, "defaultMode": READ_BY_GROUP}
        return {"secret": secret | _items(one.secret.items)}
    if one.persistent_volume_claim is not None:
        return {"persistentVolumeClaim": {"claimName": one.persistent_volume_claim.claim_name}}
    assert one.empty_dir is not None
    return {"emptyDir": written(one.empty_dir)}


def _items(items: tuple[VolumeItem, ...]) -> Manifest:
    return {"items": [written(item) for item in items]} if items else {}


def scheduled(own: Manifest, settings: PodSettings, cluster: str, role: str) -> Manifest:
    """What the platform asks for by itself together with what is given.

    Args:
        own: node selector, affinity and topology spread of the platform.
        role: of the pods, by which those are found that a spread without a selector counts.
    """
    result = dict(own)
    if settings.affinity is not None:
        result["affinity"] = _both(own.get("affinity") or {}, settings.affinity)
    if given := settings.topology_spread_constraints:
        keys = {spread.topology_key for spread in given}
        kept = [one for one in own.get("topologySpreadConstraints", ()) if one["topologyKey"] not in keys]
        result["topologySpreadConstraints"] = kept + [_spread(one, cluster, role) for one in given]
    return result


def _spread(spread: TopologySpread, cluster: str, role: str) -> Manifest:
    if spread.label_selector is not None:
        return written(spread)
    return {
        **written(spread),
        "labelSelector": {"matchLabels": role_selector(cluster, role)},
        # Of one generation of one pool: those before it are on their way out and make up for nothing.
        "matchLabelKeys": [names.RAY_CLUSTER_LABEL, names.RAY_GROUP_LABEL],
    }


def _both(own: Mapping[str, Any], given: Affinity) -> Manifest:
    result: Manifest = written(given)
    for kind, rules in own.items():
        result[kind] = _all_of(rules, result.get(kind) or {})
    return {kind: rules for kind, rules in result.items() if rules}


def _all_of(own: Mapping[str, Any], given: Mapping[str, Any]) -> Manifest:
    """Rules of one kind of affinity that ask for all that either asks for."""
    result = {**given, **own}
    for when in (_REQUIRED, _PREFERRED):
        first, second = own.get(when), given.get(when)
        if isinstance(first, list) and isinstance(second, list):
            result[when] = [*first, *second]
        elif isinstance(first, Mapping) and isinstance(second, Mapping):
            # Terms are alternatives: both lists hold where each term of one meets each of the other.
            terms = [
                {"matchExpressions": [*a["matchExpressions"], *b["matchExpressions"]]}
                for a in first["nodeSelectorTerms"]
                for b in second["nodeSelectorTerms"]
            ]
            result[when] = {"nodeSelectorTerms": terms}
    return result


def written(model: ApiModel) -> Manifest:
    """A model as Kubernetes takes it: without what is absent or empty, but for blocks that are there."""
    result: Manifest = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, ApiModel):
            result[camel(name)] = written(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], ApiModel):
            result[camel(name)] = [written(item) for item in value]
        elif value is not None and value not in ((), {}):
            result[camel(name)] = model.model_dump(mode="json", include={name})[name]
    return result

"""What to do about the difference between the manifests that are wanted and the objects that are there. Pure.

How a new RayService is brought in, from what is observed alone:

- Worker groups keep their order, and one that is no longer wanted stays at size 0, until a second cluster is
  built anyway: KubeRay answers a group that is taken away by a second cluster (`desired.changes`).
- Where a second cluster is needed and the ServingCluster says Hold, `rayClusterConfig` stays but for what
  can be had in place. serveConfigV2 goes on changing, so that routes, weights and tenants stay live, unless
  the images that go on running cannot read it (`CONFIG_FORMAT`): then it stays too.
- An image and serveConfigV2 never change in one write, so that the old images never see the new
  configuration. The image goes first, and an annotation marks the RayService as waiting; serveConfigV2
  follows as soon as KubeRay has seen the image (`observedGeneration`). From then on KubeRay gives it to
  the second cluster only, which has not started yet. Waiting until that one serves would be wrong: it may
  be unable to serve before it gets the new configuration.
- KubeRay 1.7 leaves the sizes of an existing RayCluster alone when only they (or tolerations) change in the
  RayService; `Plan.resize` has the patches that bring them in.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tradewind_operator.desired import changes, names
from tradewind_operator.desired.gpus import gpus_of
from tradewind_operator.desired.matching import digest_of, matches
from tradewind_operator.desired.rayservice import NO_NEW_CLUSTER
from tradewind_operator.desired.world import Manifest
from tradewind_operator.kinds import (
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    RAY_CLUSTER,
    RAY_SERVICE,
    VOLUME_CLAIM,
)
from tradewind_operator.status.rayservice import is_current, ray_cluster_names

_REMOVED: Final = (DISRUPTION_BUDGET.kind, NETWORK_POLICY.kind, VOLUME_CLAIM.kind)
"""Kinds of which an object is deleted when it is no longer wanted. Everything else ends with its owner."""


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """Which object."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> ObjectRef:
        """That of a namespaced object."""
        about = manifest["metadata"]
        return cls(manifest["apiVersion"], manifest["kind"], about.get("namespace", ""), about["name"])


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A change of the Ray cluster."""

    kind: Literal["in-place", "new-cluster"]
    reasons: tuple[str, ...]
    """Sentences on what changes, for people."""
    gpus: int = 0
    """GPUs that are needed on top while two clusters run."""
    held: bool = False
    """The running cluster is kept, because the ServingCluster says so."""


@dataclass(frozen=True, slots=True)
class Patch:
    """JSON Patch of one object."""

    ref: ObjectRef
    operations: tuple[Manifest, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order."""

    apply: tuple[Manifest, ...]
    """Manifests that differ from what is there, by server-side apply."""
    delete: tuple[ObjectRef, ...]
    resize: tuple[Patch, ...]
    """For RayClusters among the observed objects."""
    upgrade: Upgrade | None
    waiting: bool
    """serveConfigV2 comes in a later pass, when KubeRay has seen this one's rayClusterConfig."""


def plan(desired: Iterable[Manifest], observed: Mapping[ObjectRef, Manifest]) -> Plan:
    """Compare.

    Args:
        desired: all manifests of one ServingCluster, of `desired_objects`.
        observed: what there is of it, with status: objects with its labels and, to be resized, the
            RayClusters that the RayService's status names. Objects of others are left alone.
    """
    wanted: list[Manifest] = []
    upgrade: Upgrade | None = None
    for manifest in desired:
        now = manifest
        if manifest["kind"] == RAY_SERVICE.kind:
            now, upgrade = _bring_in(manifest, observed.get(ObjectRef.of(manifest)))
        wanted.append(_marked(now))
    services = [manifest for manifest in wanted if manifest["kind"] == RAY_SERVICE.kind]
    return Plan(
        apply=tuple(manifest for manifest in wanted if not _is_there(manifest, observed)),
        delete=tuple(sorted(_unwanted(wanted, observed))),
        resize=tuple(_resizes(services, observed)),
        upgrade=upgrade,
        waiting=any(names.SERVE_CONFIG_ANNOTATION in _annotations(service) for service in services),
    )


def _bring_in(wanted: Manifest, there: Manifest | None) -> tuple[Manifest, Upgrade | None]:
    """The RayService to apply now, and what it does to the cluster."""
    if there is None:
        return wanted, None
    old, new = there["spec"]["rayClusterConfig"], wanted["spec"]["rayClusterConfig"]
    config = changes.with_groups_kept(new, old)
    reasons = changes.second_cluster_reasons(old, config)
    upgrade: Upgrade | None
    if not reasons:
        upgrade = _in_place(old, config)
    elif not ray_cluster_names(there):
        config, upgrade = new, None
    elif wanted["spec"]["upgradeStrategy"]["type"] == NO_NEW_CLUSTER:
        config, upgrade = changes.with_only_sizes(new, old), _second(reasons, wanted, held=True)
    else:
        config, upgrade = new, _second(reasons, wanted)
    serve_config, waiting = _serve_config(wanted, there, config, held=upgrade is not None and upgrade.held)
    result = copy.deepcopy(wanted)
    result["spec"] |= {"rayClusterConfig": config, "serveConfigV2": serve_config}
    if waiting:
        result["metadata"].setdefault("annotations", {})[names.SERVE_CONFIG_ANNOTATION] = "waiting"
    return result, upgrade


def _serve_config(wanted: Manifest, there: Manifest, config: Manifest, *, held: bool) -> tuple[str, bool]:
    """serveConfigV2 for this pass, and whether another one has to follow."""
    now, later = there["spec"]["serveConfigV2"], wanted["spec"]["serveConfigV2"]
    old = there["spec"]["rayClusterConfig"]
    if held and changes.config_format(config) != changes.config_format(wanted["spec"]["rayClusterConfig"]):
        return now, False
    if now == later:
        return later, False
    before, after = changes.images(old), changes.images(config)
    changing = any(after.get(group, image) != image for group, image in before.items())
    unseen = names.SERVE_CONFIG_ANNOTATION in _annotations(there) and not is_current(there)
    return (now, True) if changing or unseen else (later, False)


def _in_place(old: Manifest, config: Manifest) -> Upgrade | None:
    sentences = changes.in_place_changes(old, config)
    return Upgrade("in-place", tuple(sentences)) if sentences else None


def _second(reasons: list[str], wanted: Manifest, *, held: bool = False) -> Upgrade:
    return Upgrade("new-cluster", tuple(reasons), gpus_of(wanted["spec"]), held)


def _annotations(manifest: Mapping[str, Any]) -> dict[str, str]:
    return manifest["metadata"].get("annotations") or {}


def _marked(manifest: Manifest) -> Manifest:
    """With a digest of itself, by which a field that is no longer wanted is found out."""
    about = manifest["metadata"]
    annotations = {**_annotations(manifest), names.DIGEST_ANNOTATION: digest_of(manifest)}
    return {**manifest, "metadata": {**about, "annotations": annotations}}


def _is_there(manifest: Manifest, observed: Mapping[ObjectRef, Manifest]) -> bool:
    there = observed.get(ObjectRef.of(manifest))
    return there is not None and matches(there, manifest)


def _unwanted(wanted: list[Manifest], observed: Mapping[ObjectRef, Manifest]) -> Iterable[ObjectRef]:
    """Objects of ours that are not wanted; a claim not before no pod template names it."""
    refs = {ObjectRef.of(manifest) for manifest in wanted}
    services = [manifest for manifest in wanted if manifest["kind"] == RAY_SERVICE.kind]
    labels = services[0]["metadata"]["labels"] if services else None
    mounted = set().union(*(_claims(service) for service in services), *map(_claims, _services(observed)))
    for ref, there in observed.items():
        ours = labels is not None and labels.items() <= (there["metadata"].get("labels") or {}).items()
        in_use = ref.kind == VOLUME_CLAIM.kind and ref.name in mounted
        if ref.kind in _REMOVED and ref not in refs and ours and not in_use:
            yield ref


def _services(observed: Mapping[ObjectRef, Manifest]) -> list[Manifest]:
    return [there for ref, there in observed.items() if ref.kind == RAY_SERVICE.kind]


def _claims(service: Manifest) -> set[str]:
    templates = [group["template"] for group in changes.groups(service["spec"]["rayClusterConfig"])]
    volumes = [volume for template in templates for volume in template["spec"].get("volumes") or ()]
    claims = [volume["persistentVolumeClaim"] for volume in volumes if "persistentVolumeClaim" in volume]
    return {claim["claimName"] for claim in claims}


def _resizes(services: list[Manifest], observed: Mapping[ObjectRef, Manifest]) -> Iterable[Patch]:
    """Patches of RayClusters whose groups have other sizes or tolerations than the RayService says."""
    for service in services:
        there = observed.get(ObjectRef.of(service))
        wanted = {group["groupName"]: group for group in changes.groups(service["spec"]["rayClusterConfig"])}
        for name in ray_cluster_names(there) if there is not None else ():
            ref = ObjectRef(RAY_CLUSTER.api_version, RAY_CLUSTER.kind, service["metadata"]["namespace"], name)
            if (cluster := observed.get(ref)) is not None and (patch := _resize(cluster, wanted)):
                yield Patch(ref, tuple(patch))


def _resize(cluster: Manifest, wanted: Mapping[str, Manifest]) -> list[Manifest]:
    """JSON Patch; `replicas` is the autoscaler's. Its tests keep it from changing a group that has moved."""
    operations: list[Manifest] = []
    for position, group in enumerate(changes.groups(cluster["spec"])):
        if (goal := wanted.get(group["groupName"])) is None:
            continue
        at = f"/spec/workerGroupSpecs/{position}"
        values = {f"{at}/{key}": (group.get(key), goal[key]) for key in ("minReplicas", "maxReplicas")}
        values[f"{at}/template/spec/tolerations"] = (_tolerations(group), _tolerations(goal))
        if differing := {path: new for path, (old, new) in values.items() if old != new}:
            operations.append({"op": "test", "path": f"{at}/groupName", "value": group["groupName"]})
            operations += [{"op": "add", "path": path, "value": new} for path, new in differing.items()]
    return operations


def _tolerations(group: Manifest) -> list[Manifest]:
    return group["template"]["spec"].get("tolerations") or []

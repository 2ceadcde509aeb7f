"""What to do about the difference between the manifests that are wanted and the objects that are there. Pure.

Objects are applied whole, by server-side apply. RayClusters are not among them: the autoscaler writes into
the same lists as the operator (`planning.clusters`, `planning.groups`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tradewind.api.wire import digest
from tradewind_operator.desired import names
from tradewind_operator.desired.world import Manifest
from tradewind_operator.kinds import (
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    RAY_CLUSTER,
    SERVICE,
    VOLUME_CLAIM,
)

_REMOVED: Final = (DISRUPTION_BUDGET.kind, NETWORK_POLICY.kind, SERVICE.kind, VOLUME_CLAIM.kind)
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


Observed = dict[ObjectRef, Manifest]
"""What there is of one ServingCluster, as the API server gave it."""


@dataclass(frozen=True, slots=True)
class ObjectsPlan:
    """What to do, in this order."""

    apply: tuple[Manifest, ...]
    """Manifests that differ from what is there, by server-side apply."""
    delete: tuple[ObjectRef, ...]


def plan_objects(desired: Iterable[Manifest], observed: Mapping[ObjectRef, Manifest]) -> ObjectsPlan:
    """Compare.

    Args:
        desired: all manifests of one ServingCluster, of `desired_objects`.
        observed: objects with its labels, RayClusters included. Objects of others are left alone.
    """
    wanted = [_marked(manifest) for manifest in desired]
    return ObjectsPlan(
        apply=tuple(manifest for manifest in wanted if not _is_there(manifest, observed)),
        delete=tuple(sorted(_unwanted(wanted, observed))),
    )


def digest_of(manifest: Manifest) -> str:
    """Of everything in the manifest but the digest itself."""
    about = manifest["metadata"]
    annotations = {
        name: value for name, value in annotations_of(manifest).items() if name != names.DIGEST_ANNOTATION
    }
    return digest({**manifest, "metadata": {**about, "annotations": annotations}})


def annotations_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The annotations that an object has."""
    return manifest["metadata"].get("annotations") or {}


def contains(there: Any, wanted: Any) -> bool:
    """Every wanted field has its value, whatever else there is; the API server leaves out empty lists."""
    if there is None and wanted == []:
        return True
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(
            contains(there.get(key), value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        same_length = isinstance(there, list) and len(there) == len(wanted)
        return same_length and all(map(contains, there, wanted))
    return bool(there == wanted)


def _marked(manifest: Manifest) -> Manifest:
    """With a digest of itself, by which a field that is no longer wanted is found out."""
    about = manifest["metadata"]
    annotations = {**annotations_of(manifest), names.DIGEST_ANNOTATION: digest_of(manifest)}
    return {**manifest, "metadata": {**about, "annotations": annotations}}


def _is_there(manifest: Manifest, observed: Mapping[ObjectRef, Manifest]) -> bool:
    there = observed.get(ObjectRef.of(manifest))
    return there is not None and contains(there, manifest)


def _unwanted(wanted: list[Manifest], observed: Mapping[ObjectRef, Manifest]) -> Iterable[ObjectRef]:
    """Objects of ours that are not wanted; a claim not before no pod template names it."""
    refs = {ObjectRef.of(manifest) for manifest in wanted}
    mounted = set().union(
        *(_claims(there) for ref, there in observed.items() if ref.kind == RAY_CLUSTER.kind)
    )
    for ref in observed:
        in_use = ref.kind == VOLUME_CLAIM.kind and ref.name in mounted
        if ref.kind in _REMOVED and ref not in refs and not in_use:
            yield ref


def _claims(cluster: Manifest) -> set[str]:
    groups = [cluster["spec"]["headGroupSpec"], *(cluster["spec"].get("workerGroupSpecs") or ())]
    volumes = [volume for group in groups for volume in group["template"]["spec"].get("volumes") or ()]
    claims = [volume["persistentVolumeClaim"] for volume in volumes if "persistentVolumeClaim" in volume]
    return {claim["claimName"] for claim in claims}

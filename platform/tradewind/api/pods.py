"""What a platform team gives to pods beside their size and their nodes, for all of them or for some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Final

from pydantic import Field

from tradewind.api.affinity import Affinity, TopologySpread
from tradewind.api.environment import POD_ENV_NAMES, POD_ENV_PREFIXES, SECRET_ENV, WEIGHTS_ENV
from tradewind.api.model import ApiModel, Fault, Path, repeated
from tradewind.api.pod_volumes import PodVolumes, volume_faults
from tradewind.api.secrets import SecretKeyRef
from tradewind.api.values import TEXT_PATTERN, EnvName, LabelKey, Labels, SecretKey, SecretName

RESERVED_METADATA: Final = ("tradewind.dev/", "ray.io/", "app.kubernetes.io/")
_MODELS_OWN: Final = (
    "use spec.source.tokenSecret or spec.source.credentials of a ModelDeployment, or spec.serviceAccount"
)


class ConfigMapKeyRef(ApiModel):
    """One key of a ConfigMap in the same namespace."""

    name: SecretName
    """Name of the ConfigMap."""
    key: SecretKey
    """Key in it."""


class ValueFrom(ApiModel):
    """Where a variable's value is read when a container starts: one of secretKeyRef, configMapKeyRef."""

    secret_key_ref: SecretKeyRef | None = None
    """A Secret's key."""
    config_map_key_ref: ConfigMapKeyRef | None = None
    """A ConfigMap's key."""

    def faults(self) -> Iterable[Fault]:
        if (self.secret_key_ref is None) == (self.config_map_key_ref is None):
            yield Fault((), "allowed: exactly one of secretKeyRef, configMapKeyRef")


class PodVariable(ApiModel):
    """One environment variable of the pods' Ray container, by its value or by reference."""

    name: EnvName
    """Name of the variable; not one that the platform, Ray or KubeRay sets."""
    value: Annotated[str, Field(pattern=TEXT_PATTERN, max_length=4_096)] | None = None
    """Its value; numbers in quotes. Not for secrets."""
    value_from: ValueFrom | None = None
    """Where its value is read. A change there reaches pods that start later."""

    def faults(self) -> Iterable[Fault]:
        if (self.value is None) == (self.value_from is None):
            yield Fault((), "allowed: exactly one of value, valueFrom")
        if self.name in WEIGHTS_ENV:
            yield Fault(("name",), f"found {self.name!r}, which every model would have", _MODELS_OWN)
        elif self.name.startswith(POD_ENV_PREFIXES) or self.name in POD_ENV_NAMES:
            yield Fault(("name",), f"found {self.name!r}, which the platform sets or does not allow")
        elif self.value is not None and self.name.split("_")[-1].upper() in SECRET_ENV:
            yield Fault(
                ("name",),
                f"found {self.name!r}, which looks like a secret; a resource holds none",
                "use valueFrom.secretKeyRef",
            )


class PodSettings(ApiModel):
    """What a platform team gives to pods beside their size and their nodes."""

    priority_class_name: SecretName | None = None
    """PriorityClass, which must be there."""
    labels: Labels = Field(default_factory=dict)
    """Labels added to those that the platform and KubeRay set."""
    annotations: Annotated[dict[LabelKey, Annotated[str, Field(max_length=4_096)]], Field(max_length=16)] = (
        Field(default_factory=dict)
    )
    """Annotations, such as those of a service mesh or a node autoscaler."""
    arbitrary_user: bool | None = None
    """Leaves user and groups to what admits pods, such as OpenShift's security context constraints. Absent or
    false: user 10001. Where nothing chooses a user, pods that have none cannot read their Secrets."""
    env: Annotated[tuple[PodVariable, ...], Field(max_length=32)] = ()
    """Environment variables of every process in the pod, such as `HTTPS_PROXY` or `NCCL_IB_HCA`."""
    volumes: PodVolumes = ()
    """Volumes, each with the place where it is mounted."""
    affinity: Affinity | None = None
    """Nodes and other pods, beside what the platform itself asks for."""
    topology_spread_constraints: Annotated[tuple[TopologySpread, ...], Field(max_length=8)] = ()
    """How pods are spread. One for a label that the platform spreads by itself takes its place."""

    def faults(self) -> Iterable[Fault]:
        for field in ("labels", "annotations"):
            for key in getattr(self, field):
                if key.startswith(RESERVED_METADATA):
                    yield Fault((field, key), f"found {key!r}; allowed: keys that are not the platform's own")
        yield from repeated((variable.name for variable in self.env), ("env",), "variable", "name")
        yield from volume_faults(self.volumes)
        keys = (spread.topology_key for spread in self.topology_spread_constraints)
        yield from repeated(keys, ("topologySpreadConstraints",), "label", "topologyKey")

    def secrets(self) -> Iterator[tuple[Path, SecretKeyRef]]:
        """Every Secret's key that its variables name, with its place below it."""
        for position, variable in enumerate(self.env):
            if variable.value_from is not None and variable.value_from.secret_key_ref is not None:
                yield ("env", position, "valueFrom", "secretKeyRef"), variable.value_from.secret_key_ref

    def over(self, base: PodSettings) -> PodSettings:
        """These on top of others: of what both have, this one's holds.

        Labels, annotations, variables and volumes are put together by their names, the rest is taken whole.
        """
        places = {volume.mount_path for volume in self.volumes}
        below = {volume.name: volume for volume in base.volumes if volume.mount_path not in places}
        spread = self.topology_spread_constraints or base.topology_spread_constraints
        both = {
            "priority_class_name": self.priority_class_name or base.priority_class_name,
            "arbitrary_user": base.arbitrary_user if self.arbitrary_user is None else self.arbitrary_user,
            "labels": {**base.labels, **self.labels},
            "annotations": {**base.annotations, **self.annotations},
            "env": tuple({one.name: one for one in (*base.env, *self.env)}.values()),
            "volumes": tuple({**below, **{volume.name: volume for volume in self.volumes}}.values()),
            "affinity": self.affinity or base.affinity,
            "topology_spread_constraints": spread,
        }
        # Not validated again: together they may be more than one block may have.
        return self.model_copy(update=both)

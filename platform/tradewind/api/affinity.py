"""Which nodes pods go to, and beside which other pods: Kubernetes' own structure, with bounds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import Field

from tradewind.api.model import ApiModel, Fault
from tradewind.api.values import LabelKey, LabelValue, Name

_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_COMPARING: Final = ("Gt", "Lt")
_LISTING: Final = ("In", "NotIn")
_Values = Annotated[tuple[LabelValue, ...], Field(max_length=32)]
_Weight = Annotated[int, Field(ge=1, le=100)]
_Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=8)]


def _value_faults(operator: str, values: tuple[str, ...]) -> Iterable[Fault]:
    """A fault unless the operator has as many values as it takes."""
    if operator in _COMPARING:
        if len(values) != 1 or not _WHOLE_NUMBER.fullmatch(values[0]):
            yield Fault(
                ("values",), f"found {len(values)} with operator {operator}; allowed: one whole number"
            )
    elif operator in _LISTING and not values:
        yield Fault(("values",), f"found none with operator {operator}; allowed: at least one")
    elif operator not in _LISTING and values:
        yield Fault(("values",), f"found {len(values)} with operator {operator}; allowed: none")


class NodeRequirement(ApiModel):
    """What is asked of one label of a node."""

    key: LabelKey
    """Label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """`Gt` and `Lt` compare whole numbers."""
    values: _Values = ()
    """With `In` and `NotIn` at least one, with `Gt` and `Lt` one, with the others none."""

    def faults(self) -> Iterable[Fault]:
        yield from _value_faults(self.operator, self.values)


class NodeTerm(ApiModel):
    """Nodes that meet all of it."""

    match_expressions: Annotated[tuple[NodeRequirement, ...], Field(min_length=1, max_length=8)]
    """What is asked of their labels."""


class NodeTerms(ApiModel):
    """Nodes that fit one of several terms."""

    node_selector_terms: Annotated[tuple[NodeTerm, ...], Field(min_length=1, max_length=8)]
    """The terms."""


class PreferredNodes(ApiModel):
    """Nodes that are better than others."""

    weight: _Weight
    """How much better, beside other preferences."""
    preference: NodeTerm
    """The nodes."""


class NodeAffinity(ApiModel):
    """Nodes by their labels, where `nodeSelector` cannot say it."""

    required_during_scheduling_ignored_during_execution: NodeTerms | None = None
    """Nodes that pods must be on, beside what `nodeSelector`, `accelerator` and `spot` ask for."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredNodes, ...], Field(max_length=8)
    ] = ()
    """Nodes that they are rather on."""


class LabelRequirement(ApiModel):
    """What is asked of one label."""

    key: LabelKey
    """Label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How its value is looked at."""
    values: _Values = ()
    """With `In` and `NotIn` at least one, with the others none."""

    def faults(self) -> Iterable[Fault]:
        yield from _value_faults(self.operator, self.values)


class LabelSelector(ApiModel):
    """What has all of these labels; an empty one is everything."""

    match_labels: _Labels = Field(default_factory=dict)
    """Labels with their values."""
    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(max_length=8)] = ()
    """What else is asked of labels."""


class PodTerm(ApiModel):
    """Other pods, and how near they are."""

    topology_key: LabelKey
    """Node label whose value is the same for pods that are near, such as `kubernetes.io/hostname`."""
    label_selector: LabelSelector
    """The other pods."""
    namespaces: Annotated[tuple[Name, ...], Field(max_length=8)] = ()
    """Their namespaces. Empty, and without namespaceSelector: the ServingCluster's own."""
    namespace_selector: LabelSelector | None = None
    """Labels of their namespaces; an empty one is every namespace."""


class PreferredPods(ApiModel):
    """Other pods that it is better, or worse, to be near to."""

    weight: _Weight
    """How much, beside other preferences."""
    pod_affinity_term: PodTerm
    """The other pods."""


class PodAffinity(ApiModel):
    """Other pods to be near to or, as podAntiAffinity, away from."""

    required_during_scheduling_ignored_during_execution: Annotated[
        tuple[PodTerm, ...], Field(max_length=8)
    ] = ()
    """What must hold."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredPods, ...], Field(max_length=8)
    ] = ()
    """What is rather to hold, beside the platform's own: gateways and head rather not with engines."""


class Affinity(ApiModel):
    """Nodes and other pods, as in Kubernetes."""

    node_affinity: NodeAffinity | None = None
    """Nodes by their labels."""
    pod_affinity: PodAffinity | None = None
    """Pods to be near to."""
    pod_anti_affinity: PodAffinity | None = None
    """Pods to be away from."""


class TopologySpread(ApiModel):
    """How evenly pods are spread over the values of one node label."""

    topology_key: LabelKey
    """Node label, such as `topology.kubernetes.io/zone`."""
    max_skew: Annotated[int, Field(ge=1, le=1_000)] = 1
    """By how many pods two values may differ."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    """Whether pods wait, or go where it is worst least."""
    min_domains: Annotated[int, Field(ge=1, le=1_000)] | None = None
    """Values at least, with `DoNotSchedule`."""
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    """Whether nodes count that the pods may not go to. Absent: they do not."""
    node_taints_policy: Literal["Honor", "Ignore"] | None = None
    """`Honor`: nodes with taints that the pods do not bear do not count. Absent: they do."""
    label_selector: LabelSelector | None = None
    """Pods that are counted. Absent: those of the same role, Ray cluster and generation of the pool."""

    def faults(self) -> Iterable[Fault]:
        if self.min_domains is not None and self.when_unsatisfiable != "DoNotSchedule":
            yield Fault(
                ("minDomains",),
                f"found {self.min_domains} with {self.when_unsatisfiable}; allowed with DoNotSchedule only",
            )

"""The pods of a ServingCluster: their size, the nodes they go to, and what they keep there.

All of it takes effect in a cluster only. There is no field for host paths, privileges or service accounts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from tradewind.api.accelerators import (
    MIG_PREFIX,
    OTHER_MAKERS,
    TPU_CHIPS,
    TPU_TOPOLOGY,
    Accelerator,
    accelerator_of,
)
from tradewind.api.model import ApiModel, Fault
from tradewind.api.pods import PodSettings
from tradewind.api.values import (
    Between,
    Image,
    LabelKey,
    Labels,
    LabelValue,
    Name,
    PageSize,
    Quantity,
    ResourceName,
    SecretName,
)

Cpus = Annotated[float, Field(ge=0.1, le=1_024)]
HugePages = Annotated[Quantity, Between("64Ki", "64Ti")]
PodMemory = Annotated[Quantity, Between("256Mi", "64Ti")]


class Toleration(ApiModel):
    """Lets pods onto nodes with a taint, as in Kubernetes."""

    key: LabelKey | None = None
    """Taint. Absent, with operator Exists: every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """`Exists` asks for the key only, `Equal` for the value too."""
    value: LabelValue | None = None
    """Value of the taint, with `Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Absent: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=86_400)] | None = None
    """How long a pod may stay under a NoExecute taint. Absent: for ever."""

    def faults(self) -> Iterable[Fault]:
        if self.operator == "Equal" and self.key is None:
            yield Fault(("key",), "missing; allowed without a key: operator Exists")
        if self.operator == "Exists" and self.value is not None:
            yield Fault(
                ("value",), f"found {self.value!r} with operator Exists; allowed with operator Equal only"
            )
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            yield Fault(("tolerationSeconds",), "allowed with effect NoExecute only")


Tolerations = Annotated[tuple[Toleration, ...], Field(max_length=16)]


class HeadSpec(ApiModel):
    """Ray's head pod. It serves no requests."""

    cpus: Cpus = 2.0
    """CPUs of the pod."""
    memory: PodMemory = Quantity(8 * 2**30)
    """Memory of the pod."""
    pod: PodSettings = Field(default_factory=PodSettings)
    """What a platform team gives to it; it comes before `spec.pod`."""
    node_selector: Labels = Field(default_factory=dict)
    """Node labels it needs."""
    tolerations: Tolerations = ()
    """Taints it bears."""


class ImagesSpec(ApiModel):
    """Images other than the operator's own defaults; they must be on its allow-list."""

    head: Image | None = None
    """Of Ray's head."""
    gateway: Image | None = None
    """Of the gateways."""


class CacheSpec(ApiModel):
    """Where a node keeps the weights it has fetched."""

    size: Annotated[Quantity, Between("1Gi", "64Ti")] = Quantity(100 * 2**30)
    """Room for weights. On the node's disk all of it is set aside when a pod is placed."""
    storage_class_name: SecretName | None = None
    """Keeps weights on volumes of this class. Without it, and without claim, they are on the node's disk."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """With storageClassName: `ReadWriteMany` makes one claim for the whole pool, so that weights are fetched
    once; `ReadWriteOnce` makes one for each pod, which comes and goes with it: block storage, or the disks of
    nodes by a node-local class."""
    claim: SecretName | None = None
    """An existing PersistentVolumeClaim (ReadWriteMany, or ReadOnlyMany with everything in it)."""

    def faults(self) -> Iterable[Fault]:
        if self.claim is not None and self.storage_class_name is not None:
            yield Fault((), "found claim and storageClassName; allowed: at most one of them")
        if self.access_mode == "ReadWriteOnce" and self.storage_class_name is None:
            yield Fault(
                ("accessMode",),
                "found ReadWriteOnce without storageClassName; allowed with it: each pod gets a volume of it",
            )


class Pool(ApiModel):
    """Nodes of one shape, on which engines run: one worker pod per node, or per slice of one."""

    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs, or other accelerators, of one pod; 0 is a pool of CPU nodes."""
    cpus: Cpus
    """CPUs of one pod."""
    memory: PodMemory
    """Memory of one pod."""
    accelerator: LabelValue | None = None
    """Which product: the value that acceleratorLabel must have on a node, such as `NVIDIA-L4`."""
    accelerator_label: LabelKey | None = None
    """Node label of accelerator. Absent, by gpuResource: `nvidia.com/gpu.product` for NVIDIA's,
    `amd.com/gpu.product-name`, `gpu.intel.com/product`, `cloud.google.com/gke-tpu-accelerator`."""
    gpu_resource: ResourceName = "nvidia.com/gpu"
    """Kubernetes' name of the accelerators: also `nvidia.com/mig-1g.10gb` (a slice per pod), `amd.com/gpu`,
    `gpu.intel.com/xe`, `habana.ai/gaudi`, `google.com/tpu`. Those not of NVIDIA need an engineImage."""
    extra_resources: Annotated[
        dict[ResourceName, Annotated[int, Field(ge=1, le=1_024)]], Field(max_length=8)
    ] = Field(default_factory=dict)
    """Other extended resources of one pod, such as `rdma/hca: 1`."""
    hugepages: Annotated[dict[PageSize, HugePages], Field(max_length=4)] = Field(default_factory=dict)
    """Huge pages of one pod by their size, such as `2Mi: 1Gi`; beside the memory."""
    pod: PodSettings = Field(default_factory=PodSettings)
    """What a platform team gives to it; it comes before `spec.pod`."""
    node_selector: Labels = Field(default_factory=dict)
    """Node labels it needs."""
    tolerations: Tolerations = ()
    """Taints it bears."""
    min_nodes: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Pods that stay when no model needs them."""
    max_nodes: Annotated[int, Field(ge=1, le=10_000)]
    """Pods at most. When it is lowered, pods that have a replica go when their replicas do."""
    spot: bool = False
    """Only nodes that the provider may take back (Karpenter, GKE, EKS and AKS labels)."""
    engine_image: Image | None = None
    """Engine image other than the operator's default, which is for CPUs and NVIDIA's GPUs; it must be on its
    allow-list."""
    runtime_class_name: Name | None = None
    """RuntimeClass, such as `nvidia`."""
    shared_memory: Annotated[Quantity, Between("64Mi", "1Ti")] = Quantity(2 * 2**30)
    """Size of /dev/shm, which counts towards the memory."""
    cache: CacheSpec = Field(default_factory=CacheSpec)
    """Where weights are kept."""

    @property
    def hardware(self) -> Accelerator:
        """What its GPUs are."""
        return accelerator_of(self.gpu_resource)

    def _accelerator_faults(self) -> Iterable[Fault]:
        if not self.gpus:
            given = (("accelerator", self.accelerator), ("acceleratorLabel", self.accelerator_label))
            for name, value in given:
                if value is not None:
                    yield Fault((name,), f"found {value!r} with gpus 0; allowed with GPUs only")
            return
        found = f"found gpuResource {self.gpu_resource!r}"
        if self.accelerator is not None and (self.accelerator_label or self.hardware.label) is None:
            yield Fault(("acceleratorLabel",), f"missing; {found}, whose nodes' label is not known")
        if self.gpu_resource.startswith(MIG_PREFIX) and self.gpus > 1:
            message = f"found {self.gpus} slices of MIG; allowed: 1, for a process can use only one"
            yield Fault(("gpus",), message, "let maxNodes be the number of slices")
        if self.gpu_resource.startswith(OTHER_MAKERS) and self.engine_image is None:
            message = f"missing; {found}, which the operator's own image does not run on"
            yield Fault(("engineImage",), message)
        if self.hardware.ray == "TPU":
            if self.gpus not in TPU_CHIPS:
                yield Fault(("gpus",), f"found {self.gpus} TPU chips; allowed: 1, 2, 4 or 8")
            if self.accelerator is None or TPU_TOPOLOGY not in self.node_selector:
                message = f"missing accelerator or nodeSelector[{TPU_TOPOLOGY!r}]; GKE needs both for TPUs"
                yield Fault((), message, "a topology of one host, such as 2x4")

    def faults(self) -> Iterable[Fault]:
        yield from self._accelerator_faults()
        if self.min_nodes > self.max_nodes:
            yield Fault(
                ("minNodes",), f"found {self.min_nodes}; allowed: at most maxNodes, which is {self.max_nodes}"
            )
        for name in self.extra_resources:
            if name == self.gpu_resource:
                yield Fault(("extraResources", name), f"found {name!r}, which is gpuResource; allowed: gpus")
            elif "kubernetes.io/" in name or name.startswith("requests."):
                message = f"found {name!r}, which is Kubernetes' own; allowed: a device plugin's, as rdma/hca"
                yield Fault(("extraResources", name), message)
        for page, size in self.hugepages.items():
            if size % Quantity.parse(page):
                yield Fault(("hugepages", page), f"found {size}; allowed: a multiple of {page}")
        if self.shared_memory >= self.memory:
            yield Fault(
                ("sharedMemory",),
                f"found {self.shared_memory}; allowed: less than memory, which is {self.memory}",
            )

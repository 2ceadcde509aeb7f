"""What is known of accelerators by the name that Kubernetes has for them.

A resource that is not here is treated as GPUs of NVIDIA under another name, but for its label and taint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIG_PREFIX: Final = "nvidia.com/mig-"
"""Slices of a GPU, such as `nvidia.com/mig-1g.10gb`."""
OTHER_MAKERS: Final = ("amd.com/", "gpu.intel.com/", "habana.ai/", "google.com/")
"""Before the resources that the operator's own CUDA image cannot run on."""
TPU_TOPOLOGY: Final = "cloud.google.com/gke-tpu-topology"
TPU_CHIPS: Final = (1, 2, 4, 8)
"""How many TPU chips Ray gives to one replica."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """How one kind of accelerator is found and counted."""

    label: str | None
    """Node label with the product's name; None: none is known."""
    taint: str
    """Key of the taint that keeps other pods from its nodes."""
    ray: str = "GPU"
    """Ray's name of the resource."""


_NVIDIA: Final = Accelerator("nvidia.com/gpu.product", "nvidia.com/gpu")
_KNOWN: Final = {
    "nvidia.com/gpu": _NVIDIA,
    "nvidia.com/gpu.shared": _NVIDIA,
    "amd.com/gpu": Accelerator("amd.com/gpu.product-name", "amd.com/gpu"),
    "gpu.intel.com/i915": Accelerator("gpu.intel.com/product", "gpu.intel.com/i915"),
    "gpu.intel.com/xe": Accelerator("gpu.intel.com/product", "gpu.intel.com/xe"),
    "habana.ai/gaudi": Accelerator(None, "habana.ai/gaudi", ray="HPU"),
    "google.com/tpu": Accelerator("cloud.google.com/gke-tpu-accelerator", "google.com/tpu", ray="TPU"),
}
LABELLED: Final = tuple(sorted(name for name, found in _KNOWN.items() if found.label is not None))
"""Resources whose label is known; slices of MIG are beside them."""


def accelerator_of(resource: str) -> Accelerator:
    """What is known of a resource."""
    if resource.startswith(MIG_PREFIX):
        return _NVIDIA
    return _KNOWN.get(resource, Accelerator(None, resource))

"""Which images a ServingCluster may ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tradewind.api.cluster import ServingClusterSpec
from tradewind.api.model import Path


@dataclass(frozen=True, slots=True)
class AllowedImages:
    """The operator's allow-list: prefixes that end in `/`, `:` or `@`, or whole references."""

    allowed: tuple[str, ...] = ()

    def allows(self, image: str) -> bool:
        """Whether the reference is on the list."""
        return any(
            image.startswith(entry) if entry.endswith(("/", ":", "@")) else image == entry
            for entry in self.allowed
        )

    def __str__(self) -> str:
        prefixes = [f"{entry}*" if entry.endswith(("/", ":", "@")) else entry for entry in self.allowed]
        return ", ".join(prefixes) or "none; leave it out, and the operator's own image is used"


def images_of(spec: ServingClusterSpec) -> Iterable[tuple[Path, str]]:
    """Every image that a ServingCluster names, with its place."""
    for name, image in (("head", spec.images.head), ("gateway", spec.images.gateway)):
        if image is not None:
            yield ("spec", "images", name), image
    for name, pool in spec.pools_by_name:
        if pool.engine_image is not None:
            yield ("spec", "pools", name, "engineImage"), pool.engine_image

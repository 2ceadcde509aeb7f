"""The cluster that end-to-end tests run on: the test bed's, or one that was given to them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bed import images
from tests.e2e.bed.cluster import BedCluster, down, running, up
from tests.e2e.bed.images import say
from tests.e2e.bed.kubectl import Kubectl

GIVEN_IMAGES = "TRADEWIND_E2E_IMAGES"
"""Where a given cluster has the project's images: `localhost/tradewind-{}:ci`, {} is operator and so on."""
GIVEN_PYTHON = "docker.io/library/python:3.11-slim-bookworm"

Data = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """A cluster, and the names of images on it."""

    kubectl: Kubectl
    bed: BedCluster | None
    """None for a given cluster, whose nodes and API server nobody stops."""

    def image(self, name: str) -> str:
        """The whole name of `operator`, `gateway`, `engine-cpu`, or of the bare `python`."""
        if self.bed is not None:
            return images.reference(name)
        return GIVEN_PYTHON if name == "python" else os.environ[GIVEN_IMAGES].format(name)

    def own(self) -> BedCluster:
        """The bed's cluster; raises pytest's Skipped for a given one."""
        if self.bed is None:
            pytest.skip("the nodes and the API server of a given cluster are not ours to stop")
        return self.bed

    def get(self, *what: str) -> Data:
        """An object, or a list of objects, as data. Raises MachineError."""
        found: Data = json.loads(self.kubectl("get", *what, "--output=json"))
        return found

    def drain(self, node: str) -> float:
        """Evict its pods, as budgets allow, and let no other come; seconds that took. Raises MachineError."""
        started = time.monotonic()
        self.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
        return time.monotonic() - started

    @contextmanager
    def namespace(self, **labels: str) -> Iterator[str]:
        """A namespace that ends with the context, with everything in it."""
        name = f"e2e-{secrets.token_hex(3)}"
        metadata = {"name": name, "labels": labels}
        self.kubectl.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=true", "--timeout=120s")


@contextmanager
def site() -> Iterator[Site]:
    """The given cluster; or the one that a developer keeps; or one that ends with the context."""
    if given := os.environ.get("KUBECONFIG"):
        yield Site(Kubectl(Path(shutil.which("kubectl") or "kubectl"), Path(given)), None)
    elif kept := running():
        say("using the cluster that runs, with the images that it was started with")
        yield Site(kept.kubectl, kept)
    else:
        try:
            bed = up(outlives_us=False)
            yield Site(bed.kubectl, bed)
        finally:
            down()

"""Models that tests add beside the tutorial's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from tests.e2e.release import MODEL, Release
from tests.e2e.site import Data

API = "tradewind.dev/v1alpha1"
NEVER = "never"
"""A model that is there from the first moment and cannot start."""


def model(name: str, **changes: Any) -> Data:
    """The tutorial's model under another name, with parts of its spec changed."""
    documents = yaml.safe_load_all(MODEL.read_text(encoding="utf-8"))
    found: Data = next(each for each in documents if each["kind"] == "ModelDeployment")
    spec = {**found["spec"], **changes}
    return {"apiVersion": API, "kind": "ModelDeployment", "metadata": {"name": name}, "spec": spec}


def with_arguments(name: str, **arguments: Any) -> Data:
    """The tutorial's model with engine arguments changed."""
    found = model(name)
    found["spec"]["engine"]["args"] |= arguments
    return found


@contextmanager
def applied(release: Release, *objects: Data) -> Iterator[None]:
    """Objects that are there within, and gone after."""
    release.apply(*objects)
    try:
        yield
    finally:
        content = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        release.kubectl("delete", "--filename=-", "--timeout=180s", given=json.dumps(content))


def state(release: Release, name: str) -> str:
    """`status.state` of a model."""
    return str(release.get(f"md/{name}").get("status", {}).get("state", ""))


def fails(release: Release, name: str) -> bool:
    """Whether a model's status says that it failed."""
    return state(release, name) == "Failed"

"""What the operator imports is in the lock that its image is made from, and nothing heavy is."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest
from packaging.utils import canonicalize_name

from tests.unit.images.dockerfile import ROOT
from tools import lock as locks

SOURCES = (
    "operators/tradewind_operator",
    "platform/tradewind/api",
    "platform/tradewind/compiler",
    "platform/tradewind/telemetry",
)
"""Packages that run in the operator's image."""
OWN = {"tradewind", "tradewind_operator"}


def imported() -> Iterator[tuple[str, str]]:
    """(file, top-level module) of every import that is neither ours nor the standard library's."""
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module:
                    names = [node.module]
                for name in names:
                    if (top := name.split(".")[0]) not in OWN | set(sys.stdlib_module_names):
                        yield str(path.relative_to(ROOT)), name if top == "opentelemetry" else top


def test_what_the_operator_imports_is_in_its_lock() -> None:
    locked = set(locks.pins(ROOT / "requirements" / "operator.lock"))
    shipped_by = packages_distributions()
    missing = {
        f"{path}: {module}"
        for path, module in imported()
        if locked.isdisjoint(
            canonicalize_name(name) for name in shipped_by.get(module.split(".")[0], [module])
        )
    }
    assert missing == set()


@pytest.mark.parametrize(
    ("image", "left_out"),
    [
        ("operator", "ray"),
        ("operator", "torch"),
        ("gateway", "torch"),
        ("gateway", "vllm"),
        ("gateway", "kopf"),
    ],
)
def test_a_small_image_stays_small(image: str, left_out: str) -> None:
    assert left_out not in locks.pins(ROOT / "requirements" / f"{image}.lock")


def test_every_node_of_ray_has_the_same_ray() -> None:
    """Ray refuses a cluster of several versions, and what it sends between them is pickled."""
    for package in ("ray", "protobuf", "pydantic"):
        versions = {
            image: locks.pins(ROOT / "requirements" / f"{image}.lock").get(package)
            for image in ("gateway", "engine-cpu", "engine-cuda")
        }
        assert len(set(versions.values())) == 1, (package, versions)

"""Every set of resources gives its golden manifests, and validators that are not ours take them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.golden.operator.rendering import GOLDENS, SETS, golden_of, manifests, rendered
from tests.unit.operator.desired.pod_standard import violations
from tests.unit.operator.desired.ray_schema import injected_pods, ray_cluster_faults
from tradewind_operator.desired.world import Manifest

kubernetes_validate = pytest.importorskip("kubernetes_validate")
ALL = sorted(SETS.glob("*.yaml"))
VERSIONS = ("1.34", "1.37")


def by_kind(source: Path, kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests(source) if manifest["kind"] == kind]


def test_there_is_a_golden_file_for_each_set_and_no_other() -> None:
    assert {path.name for path in GOLDENS.glob("*")} == {source.name for source in ALL}


@pytest.mark.parametrize("source", ALL, ids=lambda path: path.stem)
def test_a_set_gives_its_golden_manifests(source: Path) -> None:
    message = "if this is meant: python -m tests.golden.rewrite"
    assert rendered(source) == golden_of(source).read_text(encoding="utf-8"), message


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("source", ALL, ids=lambda path: path.stem)
def test_kubernetes_takes_every_object_of_its_own(source: Path, version: str) -> None:
    for manifest in yaml.safe_load_all(golden_of(source).read_text(encoding="utf-8")):
        if manifest["kind"] != "RayCluster":
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("source", ALL, ids=lambda path: path.stem)
def test_kubernetes_takes_every_pod_that_kuberay_makes_of_it(source: Path, version: str) -> None:
    (cluster,) = by_kind(source, "RayCluster")
    for pod in injected_pods(cluster):
        kubernetes_validate.validate(pod, version, strict=True)


@pytest.mark.parametrize("source", ALL, ids=lambda path: path.stem)
def test_kuberay_takes_the_raycluster(source: Path) -> None:
    (cluster,) = by_kind(source, "RayCluster")
    assert ray_cluster_faults(cluster) == []


@pytest.mark.parametrize("source", ALL, ids=lambda path: path.stem)
def test_every_pod_that_kuberay_makes_meets_the_restricted_standard(source: Path) -> None:
    (cluster,) = by_kind(source, "RayCluster")
    for pod in injected_pods(cluster):
        assert violations(pod["spec"]) == [], pod["metadata"]["name"]

"""A release writes its images into the chart's values, by digest."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy.images.pin import COMPONENTS, PinError, main, parse, pin
from tests.unit.images.dockerfile import ROOT

VALUES = """\
# Comments stay.
global:
  imageRegistry: ""
operator:
  image:
    registry: ghcr.io # where
    repository: someone/tradewind-operator
    # Absent: the chart's appVersion.
    tag: ""
    digest: ""
  replicas: 2
gateway:
  image:
    registry: ghcr.io
    repository: someone/tradewind-gateway
    tag: ""
    digest: ""
engineCpu:
  image:
    registry: ghcr.io
    repository: someone/tradewind-engine-cpu
    tag: ""
    digest: ""
engineCuda:
  image:
    registry: ghcr.io
    repository: someone/tradewind-engine-cuda
    tag: ""
    digest: ""
test:
  image:
    digest: mine
"""


def reference(target: str, *, digit: str = "a") -> str:
    return f"registry.example:5000/team/tradewind-{target}:v1.2.3@sha256:{digit * 64}"


def images(values: str = VALUES) -> dict[str, dict[str, str]]:
    written = yaml.safe_load(pin(values, [parse(reference(target)) for target in COMPONENTS]))
    return {component: written[component]["image"] for component in COMPONENTS.values()}


def test_every_component_is_named_by_registry_tag_and_digest() -> None:
    assert images()["engineCuda"] == {
        "registry": "registry.example:5000",
        "repository": "team/tradewind-engine-cuda",
        "tag": "v1.2.3",
        "digest": "sha256:" + "a" * 64,
    }


def test_nothing_else_changes() -> None:
    written = pin(VALUES, [parse(reference(target)) for target in COMPONENTS])
    changed = [
        pair for pair in zip(VALUES.splitlines(), written.splitlines(), strict=True) if pair[0] != pair[1]
    ]
    assert len(changed) == 4 * len(COMPONENTS)
    assert "    registry: registry.example:5000 # where\n" in written
    assert "    digest: mine\n" in written


def test_the_charts_own_values_take_them() -> None:
    values = (ROOT / "deploy" / "helm" / "tradewind" / "values.yaml").read_text()
    assert {image["digest"] for image in images(values).values()} == {"sha256:" + "a" * 64}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("ghcr.io/team/tradewind-gateway:v1", "found 'ghcr.io/team/tradewind-gateway:v1'; allowed: "),
        (reference("gateway").replace("gateway", "proxy"), "allowed: .* of tradewind-operator"),
        (reference("gateway", digit="g"), "allowed: "),
    ],
    ids=["no digest", "another image", "not a digest"],
)
def test_another_reference_is_refused(wrong: str, message: str) -> None:
    with pytest.raises(PinError, match=message):
        parse(wrong)


def test_a_release_without_one_of_the_images_is_refused() -> None:
    with pytest.raises(PinError, match="found images for gateway; allowed: one each for operator"):
        pin(VALUES, [parse(reference("gateway"))])


def test_values_without_a_place_for_an_image_are_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(VALUES.replace("engineCpu:", "other:"))
    files = []
    for target in COMPONENTS:
        files.append(tmp_path / f"{target}.txt")
        files[-1].write_text(reference(target) + "\n")
    assert main(["--values", str(values), *map(str, files)]) == 1
    assert "the values have no engineCpu.image.digest, engineCpu.image.registry" in capsys.readouterr().err
    assert "engineCuda:\n  image:\n    registry: ghcr.io\n" in values.read_text()
    values.write_text(VALUES)
    assert main(["--values", str(values), *map(str, files)]) == 0
    assert values.read_text().count("sha256:") == len(COMPONENTS)

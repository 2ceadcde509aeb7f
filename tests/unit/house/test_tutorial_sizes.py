"""The first steps on Kubernetes take the room that the tutorial says, and ask for short answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.golden.chart.rendering import Manifest, manifests
from tests.golden.operator.rendering import world_of
from tests.unit.operator.desired.worlds import config_of, group_of, pod_of
from tradewind.api.values import Quantity
from tradewind.schema.chart_values import default_spec

ROOT = Path(__file__).resolve().parents[3]
TUTORIAL = ROOT / "docs" / "tutorials" / "first-answer-on-kubernetes.md"
KUBERAY = {"cpu": "100m", "memory": "512Mi"}
"""What the chart of KubeRay 1.6 and 1.7 limits, and by that asks for; it is not in this repository."""
TOGETHER = re.compile(r"([\d.]+) CPUs and ([\d.]+) GiB together")
GIB = 2**30

Room = tuple[Decimal, Decimal]
"""CPUs and GiB."""


def room(requests: Iterable[dict[str, str]]) -> Room:
    """The sum of containers' requests."""
    cpus, memory = Decimal(0), Decimal(0)
    for asked in requests:
        text = asked["cpu"]
        cpus += Decimal(text[:-1]) / 1000 if text.endswith("m") else Decimal(text)
        memory += Decimal(int(Quantity.parse(asked["memory"]))) / GIB
    return cpus, memory


def requests(pod: Manifest) -> list[dict[str, str]]:
    return [container["resources"]["requests"] for container in pod["containers"]]


def computed(values: dict[str, Any]) -> list[Room]:
    """By the rendered chart and the operator's RayCluster, in the order of the tutorial's table."""
    made = manifests(values)
    (operator,) = (one["spec"] for one in made if one["kind"] == "Deployment")
    (cluster,) = (
        json.loads(one["data"]["cluster.json"])
        for one in made
        if one["kind"] == "ConfigMap" and "cluster.json" in one.get("data", {})
    )
    model = (ROOT / "examples" / "cluster-cpu.yaml").read_text(encoding="utf-8")
    world = world_of(f"{yaml.safe_dump(cluster)}---\n{model}")
    autoscaler = config_of(world)["autoscalerOptions"]["resources"]["requests"]
    gateways = group_of(world, "gateway")["replicas"]
    parts = [
        requests(operator["template"]["spec"]) * operator["replicas"],
        [KUBERAY],
        [*requests(pod_of(world, "head")), autoscaler],
        requests(pod_of(world, "gateway")) * gateways,
        requests(pod_of(world, f"pool-{world.compiled.pools['smollm2']}")),
    ]
    return [room(part) for part in (*parts, [asked for part in parts for asked in part])]


def test_its_table_is_what_the_pods_ask_for() -> None:
    rows = re.findall(r"^\| [^|]+ \| ([\d.]+) \| ([\d.]+) GiB \|$", TUTORIAL.read_text(), re.MULTILINE)
    assert [(Decimal(cpus), Decimal(gib)) for cpus, gib in rows] == computed({})


def test_so_is_its_smaller_pool() -> None:
    text = TUTORIAL.read_text()
    sets = re.findall(r"--set cluster\.spec\.pools\.cpu\.(cpus|memory)=(\S+)", text)
    pool = {name: yaml.safe_load(value) for name, value in sets}
    assert set(pool) == {"cpus", "memory"}
    (together,) = TOGETHER.findall(text)
    *_, found = computed({"cluster": {"spec": {"pools": {"cpu": pool}}}})
    assert (Decimal(together[0]), Decimal(together[1])) == found


def test_the_readme_says_how_large_the_gpu_pool_is() -> None:
    pool = default_spec().pools["gpu"]
    size = f"{pool.gpus} GPU, {pool.cpus:g} CPUs and {int(pool.memory) // GIB} GiB"
    assert (
        f"the chart's pool `gpu` is for nodes that can give a pod {size}." in (ROOT / "README.md").read_text()
    )


def questions() -> Iterator[tuple[str, str]]:
    """(place, body) of everything that people are told to paste and that asks for a chat completion."""
    places = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.yaml")]
    for path in sorted([*places, ROOT / "deploy/helm/tradewind/templates/NOTES.txt"]):
        for body in re.findall(r"""-d '(\{"model".*?\})'""", path.read_text(), re.DOTALL):
            yield str(path.relative_to(ROOT)), body


@pytest.mark.parametrize(("place", "body"), list(questions()))
def test_a_question_bounds_its_answer(place: str, body: str) -> None:
    assert '"max_tokens": ' in body


def test_the_first_steps_have_a_question() -> None:
    asked = {place for place, _ in questions()}
    notes = "deploy/helm/tradewind/templates/NOTES.txt"
    assert {"README.md", str(TUTORIAL.relative_to(ROOT)), "examples/quickstart.yaml", notes} <= asked

"""The first steps on Kubernetes take the room that the tutorial says, and ask for short answers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.golden.chart.rendering import Manifest, manifests
from tests.golden.operator.rendering import world_of
from tests.unit.operator.desired.worlds import config_of, group_of, pod_of
from tradewind.api.values import Quantity
from tradewind.schema.chart_values import default_spec
from tradewind_operator.desired.world import ClusterWorld

ROOT = Path(__file__).resolve().parents[3]
TUTORIAL = ROOT / "docs" / "tutorials" / "first-answer-on-kubernetes.md"
KUBERAY = {"cpu": "100m", "memory": "512Mi"}
"""What the chart of KubeRay 1.6 and 1.7 limits, and by that asks for; it is not in this repository."""
TOGETHER = re.compile(r"([\d.]+) CPUs and ([\d.]+) GiB together")
ROW = re.compile(r"^\| [^|]+ \| ([\d.]+) \| ([\d.]+) GiB \| ([\d.]+) GiB \|$", re.MULTILINE)
NODES = re.compile(r"such as for nodes of (\d+) CPUs, (\d+) GiB and a disk of (\d+) GB")
GIB = 2**30

Room = tuple[Decimal, Decimal, Decimal]
"""CPUs, GiB of memory, and GiB of the node's disk, rounded up to a tenth."""


def room(requests: Iterable[dict[str, str]]) -> Room:
    """The sum of containers' requests."""
    cpus, memory, disk = Decimal(0), Decimal(0), Decimal(0)
    for asked in requests:
        text = asked["cpu"]
        cpus += Decimal(text[:-1]) / 1000 if text.endswith("m") else Decimal(text)
        memory += gib(asked["memory"])
        disk += gib(asked["ephemeral-storage"]) if "ephemeral-storage" in asked else 0
    return cpus, memory, disk.quantize(Decimal("0.1"), ROUND_CEILING)


def gib(quantity: str) -> Decimal:
    return Decimal(int(Quantity.parse(quantity))) / GIB


def requests(pod: Manifest) -> list[dict[str, str]]:
    return [container["resources"]["requests"] for container in pod["containers"]]


def release(values: dict[str, Any]) -> tuple[Manifest, ClusterWorld]:
    """The operator's Deployment, and the chart's ServingCluster with the tutorial's model."""
    made = manifests(values)
    (operator,) = (one["spec"] for one in made if one["kind"] == "Deployment")
    (cluster,) = (
        json.loads(one["data"]["cluster.json"])
        for one in made
        if one["kind"] == "ConfigMap" and "cluster.json" in one.get("data", {})
    )
    model = (ROOT / "examples" / "cluster-cpu.yaml").read_text(encoding="utf-8")
    return operator, world_of(f"{yaml.safe_dump(cluster)}---\n{model}")


def computed(values: dict[str, Any]) -> list[Room]:
    """By the rendered chart and the operator's RayCluster, in the order of the tutorial's table.

    Its last row is the sum of what stands above it.
    """
    operator, world = release(values)
    autoscaler = config_of(world)["autoscalerOptions"]["resources"]["requests"]
    gateways = group_of(world, "gateway")["replicas"]
    parts = [
        requests(operator["template"]["spec"]) * operator["replicas"],
        [KUBERAY],
        [*requests(pod_of(world, "head")), autoscaler],
        requests(pod_of(world, "gateway")) * gateways,
        requests(pod_of(world, f"pool-{world.compiled.pools['smollm2']}")),
    ]
    rows = [room(part) for part in parts]
    cpus, memory, disk = (sum(column, Decimal(0)) for column in zip(*rows, strict=True))
    return [*rows, (cpus, memory, disk)]


def test_its_table_is_what_the_pods_ask_for() -> None:
    rows = ROW.findall(TUTORIAL.read_text())
    assert [tuple(Decimal(number) for number in row) for row in rows] == computed({})


def test_its_largest_pod_is_as_large_as_it_says() -> None:
    *rows, _ = computed({})
    engine = rows[-1]
    assert engine == max(rows, key=lambda row: row[2])
    cpus, memory, disk = (f"{number:f}".removesuffix(".0") for number in engine)
    size = f"{cpus} CPUs, {memory} GiB of memory and {disk} GiB of disk on one node"
    assert size in TUTORIAL.read_text()


def test_so_is_its_smaller_pool() -> None:
    text = TUTORIAL.read_text()
    sets = re.findall(r"--set cluster\.spec\.pools\.cpu\.(cpus|memory)=(\S+)", text)
    pool = {name: yaml.safe_load(value) for name, value in sets}
    assert set(pool) == {"cpus", "memory"}
    (together,) = TOGETHER.findall(text)
    *_, (cpus, memory, _) = computed({"cluster": {"spec": {"pools": {"cpu": pool}}}})
    assert (Decimal(together[0]), Decimal(together[1])) == (cpus, memory)


def test_the_readme_says_how_large_the_gpu_pool_is() -> None:
    pool, (_, world) = default_spec().pools["gpu"], release({})
    (asked,) = requests(pod_of(world, "pool-gpu"))
    assert int(asked["nvidia.com/gpu"]) == pool.gpus
    cpus, memory, disk = room([asked])
    room_of_pod = f"{pool.gpus} GPU, {cpus} CPUs, {memory} GiB of memory and {math.ceil(disk)} GiB of disk"
    weights = int(pool.cache.size) // GIB
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"nodes that can give a pod {room_of_pod}, {weights} of them for weights." in text


def test_its_smaller_gpu_pool_fits_on_the_nodes_that_it_names() -> None:
    text = (ROOT / "README.md").read_text()
    cpus, memory, disk = map(int, NODES.findall(text)[0])
    values: dict[str, Any] = {}
    for path, value in re.findall(r"--set cluster\.spec\.pools\.gpu\.([\w.]+)=(\S+)", text):
        *above, last = path.split(".")
        place = values
        for key in above:
            place = place.setdefault(key, {})
        place[last] = yaml.safe_load(value)
    _, world = release({"cluster": {"spec": {"pools": {"gpu": values}}}})
    asked = room(requests(pod_of(world, "pool-gpu")))
    # Pods never get all of a node: a kubelet keeps a tenth of the disk, and some of the rest.
    assert asked[0] < cpus
    assert asked[1] < memory
    assert asked[2] * GIB < disk * 10**9 * Decimal("0.9")
    model = next(iter(yaml.safe_load_all((ROOT / "examples" / "llama-3.1-8b.yaml").read_text())))
    assert model["spec"]["resources"]["cpus"] <= values["cpus"]


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

"""Successor first where there is room for one replica more."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.builders import Data, cluster, model
from tests.unit.compiler.worlds import compiled
from tradewind.compiler.world import CLUSTER, LOCAL

GPU = {"gpus": 1}
NEVER = {"surge": "Never"}
ALWAYS = {"surge": "Always"}


def pool(nodes: int, gpus: int = 1, **more: Any) -> Data:
    shape = {"gpus": gpus, "cpus": 8, "memory": "32Gi", "maxNodes": nodes, **more}
    return cluster(pools={"l4": shape})


def first(*resources: Data, platform: Any = CLUSTER) -> set[str]:
    found = compiled(*resources, platform=platform).serve_config["applications"]
    return {app["name"] for app in found if app["deployments"][0].get("max_surge_percent")}


@pytest.mark.parametrize(
    ("resources", "names"),
    [
        ([pool(2), model("a", resources=GPU)], {"a"}),
        ([pool(1), model("a", resources=GPU)], set()),
        ([pool(2), model("a", resources=GPU), model("b", resources=GPU)], set()),
        ([pool(3), model("a", resources=GPU), model("b", resources=GPU, update=NEVER)], {"a"}),
        ([pool(1), model("a", resources=GPU, update=ALWAYS)], {"a"}),
        ([pool(3), model("a", resources=GPU, autoscaling={"maxReplicas": 3})], set()),
        ([pool(2, gpus=2), model("a", resources={"gpus": 2}), model("b", resources=GPU)], {"b"}),
        ([pool(2, gpus=2), model("a", resources=GPU), model("b", resources={"gpus": 2})], {"a"}),
        ([pool(1, gpus=0), model("a", resources={"cpus": 4, "memory": "17Gi"})], set()),
        ([pool(1, gpus=0), model("a", resources={"cpus": 4, "memory": "16Gi"})], {"a"}),
    ],
    ids=[
        "a free node",
        "the only node",
        "all nodes taken",
        "one that must not",
        "one that must",
        "room kept for autoscaling",
        "room for the small one",
        "the large are placed first",
        "memory for one",
        "memory for two",
    ],
)
def test_in_a_cluster(resources: list[Data], names: set[str]) -> None:
    assert first(*resources) == names


def test_on_one_machine_models_without_gpus_have_room() -> None:
    found = first(model("a"), model("b", resources=GPU), model("c", update=NEVER), platform=LOCAL)
    assert found == {"a", "gateway"}


def test_a_model_that_is_added_restarts_no_other() -> None:
    """Only the number that Serve takes without a restart may change."""
    one = compiled(pool(2), model("a", resources=GPU), platform=CLUSTER)
    two = compiled(pool(2), model("a", resources=GPU), model("b", resources=GPU), platform=CLUSTER)
    before, after = (
        next(app for app in result.serve_config["applications"] if app["name"] == "a")
        for result in (one, two)
    )
    assert before["deployments"][0].pop("max_surge_percent") == 1
    assert before == after

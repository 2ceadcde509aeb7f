"""The release's ServingCluster: made, kept, changed with the chart, left alone where that says nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.fake_clock import FakeClock
from tradewind_operator.errors import ApiError, Invalid, NotServed, Unreachable
from tradewind_operator.events import Events
from tradewind_operator.kinds import CONFIG_MAP, EVENT, SERVING_CLUSTER
from tradewind_operator.measures import RELEASE_CLUSTER
from tradewind_operator.metrics import OperatorMetrics
from tradewind_operator.release_cluster import (
    DIGEST,
    RELEASE,
    Place,
    ReleaseCluster,
    ReleaseError,
    wanted,
)

PLACE = Place("tw", "tradewind-cluster")


def serving_cluster(replicas: int = 2, *, release: str = "tradewind") -> dict[str, Any]:
    return {
        "apiVersion": "tradewind.dev/v1alpha1",
        "kind": "ServingCluster",
        "metadata": {"name": "default", "namespace": "tw", "annotations": {RELEASE: release}},
        "spec": {"gateway": {"replicas": replicas}},
    }


def config(manifest: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "tradewind-cluster", "namespace": "tw"},
        "data": {"cluster.json": json.dumps(manifest)},
    }


class Site:
    """A namespace with an operator that keeps the release's ServingCluster."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.api, self.clock, self.metrics = FakeApi(), FakeClock(), OperatorMetrics()
        for manifest in objects:
            self.api.put(manifest)
        events = Events(self.api, "me", clock=self.clock, now=self.clock.now)
        self.keeper = ReleaseCluster(
            self.api, events, PLACE, self.metrics.release_cluster, clock=self.clock, sleep=self.clock.sleep
        )

    def found(self) -> dict[str, Any] | None:
        return self.api.find(SERVING_CLUSTER, "tw", "default")

    def replicas(self) -> int:
        found = self.found()
        assert found is not None
        return int(found["spec"]["gateway"]["replicas"])

    def applied(self) -> float | None:
        """What the metric says."""
        values = [sample.value for metric in self.metrics.registry.collect()
                  for sample in metric.samples if sample.name == RELEASE_CLUSTER.name]  # fmt: skip
        return values[0] if values else None

    def said(self) -> list[str]:
        return [event["note"] for (plural, _, _), event in self.api.objects.items() if plural == EVENT.plural]


async def test_it_is_made_as_the_chart_says_with_a_field_manager_of_its_own() -> None:
    site = Site(config(serving_cluster()))
    await site.keeper.look()
    assert site.replicas() == 2
    assert site.api.managers == {"tradewind-chart"}
    assert site.applied() == 1
    assert "without that, or with cluster.create=false, it is left alone" in site.said()[0]


async def test_a_second_look_writes_nothing() -> None:
    site = Site(config(serving_cluster()))
    for _ in range(3):
        await site.keeper.look()
    assert site.api.made("apply") == [("servingclusters", "default")]


async def test_a_deleted_one_comes_back() -> None:
    site = Site(config(serving_cluster()))
    await site.keeper.look()
    site.api.remove(SERVING_CLUSTER, "tw", "default")
    await site.keeper.look()
    assert site.replicas() == 2


async def test_one_that_is_going_is_waited_for() -> None:
    site = Site(config(serving_cluster()))
    await site.keeper.look()
    going = site.found()
    assert going is not None
    going["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["tradewind.dev/drain"]}
    site.api.put(going)
    site.api.put(config(serving_cluster(3)))
    await site.keeper.look()
    assert site.replicas() == 2
    site.api.remove(SERVING_CLUSTER, "tw", "default")
    await site.keeper.look()
    assert site.replicas() == 3


async def test_every_revision_is_in_force_also_one_that_was_in_force_before() -> None:
    """A good revision, a bad one that was applied all the same, and the good one again."""
    site = Site(config(serving_cluster(2)))
    for replicas in (2, 64, 2):
        site.api.put(config(serving_cluster(replicas)))
        await site.keeper.look()
        assert site.replicas() == replicas


async def test_a_revision_that_came_while_no_operator_ran_is_not_missed() -> None:
    before = Site(config(serving_cluster()))
    await before.keeper.look()
    made = before.found()
    assert made is not None
    after = Site(config(serving_cluster(3)), made)
    await after.keeper.look()
    assert after.replicas() == 3


async def test_what_was_changed_by_hand_stays_until_the_chart_changes() -> None:
    site = Site(config(serving_cluster()))
    await site.keeper.look()
    by_hand = site.found()
    assert by_hand is not None
    by_hand["spec"]["gateway"]["replicas"] = 5
    site.api.put(by_hand)
    await site.keeper.look()
    assert site.replicas() == 5
    site.api.put(config(serving_cluster(3)))
    await site.keeper.look()
    assert site.replicas() == 3


async def test_without_the_config_map_nothing_is_made_changed_or_deleted() -> None:
    site = Site(config(serving_cluster()))
    await site.keeper.look()
    site.api.remove(CONFIG_MAP, "tw", "tradewind-cluster")
    await site.keeper.look()
    assert site.replicas() == 2
    assert site.applied() is None
    site.api.remove(SERVING_CLUSTER, "tw", "default")
    await site.keeper.look()
    assert site.found() is None


async def test_another_releases_is_not_touched() -> None:
    site = Site(config(serving_cluster()), serving_cluster(4, release="other"))
    await site.keeper.look()
    assert site.replicas() == 4
    assert site.applied() == 0
    assert "found one of release other; allowed: set cluster.name of release tradewind" in site.said()[0]


async def test_one_that_no_release_made_is_taken_over() -> None:
    by_hand = serving_cluster(4)
    del by_hand["metadata"]["annotations"]
    site = Site(config(serving_cluster()), by_hand)
    await site.keeper.look()
    assert site.replicas() == 2


@pytest.mark.parametrize(
    "error",
    [Invalid("apply ServingCluster tw/default", 422, "Invalid", "spec.pools: too many"),
     Unreachable("apply ServingCluster tw/default", 500, "InternalError", "spec.pools: too many")],
    ids=["invalid", "failed"],
)  # fmt: skip
async def test_a_refusal_is_told_once_in_ten_minutes_and_tried_again(error: ApiError) -> None:
    site = Site(config(serving_cluster()))
    site.api.failing["apply", "servingclusters"] = error
    for _ in range(5):
        await site.keeper.look()
    assert len(site.api.made("apply")) == 5
    assert site.applied() == 0
    (said,) = site.said()
    assert "spec.pools: too many" in said
    assert site.api.made("patch") == []
    site.clock.time += 601
    await site.keeper.look()
    assert len(site.said()) == 2
    del site.api.failing["apply", "servingclusters"]
    await site.keeper.look()
    assert (site.replicas(), site.applied()) == (2, 1)


async def test_the_definition_is_waited_for() -> None:
    site = Site(config(serving_cluster()))
    site.api.failing["get", "servingclusters"] = NotServed("get ServingCluster tw/default", 404, "NotFound")
    await site.keeper.look()
    assert site.api.made("apply") == []
    site.api.failing.clear()
    await site.keeper.look()
    assert site.replicas() == 2


async def test_an_api_server_that_does_not_answer_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(config(serving_cluster()))
    site.api.failing["get", "configmaps"] = Unreachable("get ConfigMap tw/tradewind-cluster", 0)
    for _ in range(3):
        await site.keeper.look()
    assert site.found() is None
    assert caplog.text.count("get ConfigMap tw/tradewind-cluster") == 1


NO_RELEASE = {**serving_cluster(), "metadata": {"name": "default", "namespace": "tw"}}
BAD: list[tuple[str, Any, str]] = [
    ("text", "hello", "found no ServingCluster"),
    ("a list", [1], "found no ServingCluster"),
    ("no release", NO_RELEASE, "the annotation tradewind.dev/release"),
    ("another kind", {**serving_cluster(), "kind": "Tenant"}, "found Tenant (tradewind.dev/v1alpha1)"),
    ("another version", {**serving_cluster(), "apiVersion": "v1"}, "found ServingCluster (v1)"),
]


@pytest.mark.parametrize(("manifest", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
async def test_what_is_no_serving_cluster_is_refused(manifest: Any, said: str) -> None:
    site = Site(config(manifest))
    await site.keeper.look()
    assert said in site.said()[0]
    assert site.api.made("apply") == []
    assert site.applied() == 0


def test_another_namespace_is_refused() -> None:
    elsewhere = serving_cluster()
    elsewhere["metadata"]["namespace"] = "kube-system"
    with pytest.raises(ReleaseError, match=r"of namespace kube-system; allowed: .* of namespace tw"):
        wanted(config(elsewhere))


def test_an_empty_config_map_is_refused() -> None:
    with pytest.raises(ReleaseError, match="found no ServingCluster"):
        wanted({"metadata": {"name": "tradewind-cluster", "namespace": "tw"}})


def test_the_digest_is_of_what_the_chart_says_however_it_is_written() -> None:
    first = wanted(config(serving_cluster()))
    written = {
        **config({}),
        "data": {"cluster.json": json.dumps(serving_cluster(), indent=4, sort_keys=True)},
    }
    assert wanted(written).digest == first.digest == first.manifest["metadata"]["annotations"][DIGEST]
    assert wanted(config(serving_cluster(3))).digest != first.digest


async def test_it_looks_again_and_again() -> None:
    site = Site(config(serving_cluster()))
    task = asyncio.create_task(site.keeper.run())
    await site.clock.advance(0.2)
    site.api.remove(SERVING_CLUSTER, "tw", "default")
    await site.clock.advance(5.0)
    assert site.replicas() == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

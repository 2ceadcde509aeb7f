"""Which RayCluster serves, and what becomes of the others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.operator.desired.worlds import world
from tradewind_operator.desired.raycluster import ray_cluster
from tradewind_operator.desired.world import Manifest
from tradewind_operator.planning.clusters import (
    ClustersPlan,
    Evidence,
    Known,
    UpgradeState,
    plan_clusters,
)

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
SERVED = "tradewind.dev/served"
RETIRED = "tradewind.dev/retired"
OLD, NEW = ray_cluster(world()), ray_cluster(world(head={"cpus": 4}))
OLD_NAME, NEW_NAME = (str(each["metadata"]["name"]) for each in (OLD, NEW))
FULL = Evidence(gateways=True, models=frozenset({"llama", "mistral"}), known=True)


def there(cluster: Manifest, **annotations: str) -> Manifest:
    marks = {f"tradewind.dev/{name}": value for name, value in annotations.items()}
    return {**cluster, "metadata": {**cluster["metadata"], "annotations": marks}}


@dataclass
class Scene:
    """What there is; then a plan, and what there is once it is carried out."""

    clusters: dict[str, Manifest] = field(default_factory=dict)
    recorded: str | None = None
    approved: bool | str = ""
    evidence: dict[str, Evidence] = field(default_factory=dict)
    now: datetime = NOW

    def plan(self, wanted: Manifest) -> ClustersPlan:
        known = Known(
            self.clusters, self.recorded, self.approved, self.evidence, timedelta(minutes=5), self.now
        )
        return plan_clusters(wanted, known)

    def carried_out(self, wanted: Manifest) -> tuple[ClustersPlan, Scene]:
        plan = self.plan(wanted)
        clusters = {name: each for name, each in self.clusters.items() if name not in plan.delete}
        if plan.create:
            clusters[wanted["metadata"]["name"]] = wanted
        for name, change in plan.annotate.items():
            has = {**(clusters[name]["metadata"].get("annotations") or {}), **change}
            marks = {key: value for key, value in has.items() if value is not None}
            clusters[name] = {
                **clusters[name],
                "metadata": {**clusters[name]["metadata"], "annotations": marks},
            }
        return plan, replace(self, clusters=clusters, recorded=plan.active)


def serving(**more: Any) -> Scene:
    given: dict[str, Any] = {"clusters": {OLD_NAME: there(OLD, served="t")}, "recorded": OLD_NAME}
    return Scene(**{**given, "evidence": {OLD_NAME: FULL}, **more})


def upgrading(new: Evidence | None = None, **more: Any) -> Scene:
    clusters = {OLD_NAME: there(OLD, served="t"), NEW_NAME: there(NEW)}
    evidence = {OLD_NAME: FULL, NEW_NAME: new or Evidence()}
    return serving(**{"clusters": clusters, "approved": True, "evidence": evidence, **more})


def test_the_first_one_is_made_and_nothing_more_is_done_then() -> None:
    plan, scene = Scene().carried_out(OLD)
    assert (plan.active, plan.create, plan.upgrade.state) == (OLD_NAME, True, UpgradeState.NONE)
    again = scene.plan(OLD)
    assert (again.create, again.delete, again.annotate) == (False, (), {})


def test_one_that_a_gateway_answers_for_is_marked_as_one_that_has_served() -> None:
    _, scene = Scene(evidence={OLD_NAME: FULL}).carried_out(OLD)
    assert SERVED in scene.plan(OLD).annotate[OLD_NAME]


def test_a_change_that_needs_a_second_one_is_held_with_its_reasons() -> None:
    plan = serving().plan(NEW)
    assert (plan.active, plan.pending, plan.create) == (OLD_NAME, None, False)
    assert (plan.upgrade.state, plan.upgrade.name) == (UpgradeState.HELD, NEW_NAME)
    assert any("cpu" in reason and "The head" in reason for reason in plan.upgrade.reasons)


@pytest.mark.parametrize("approved", [True, "true", NEW_NAME, NEW_NAME.rpartition("-")[2]])
def test_it_is_made_once_it_is_approved(approved: bool | str) -> None:
    plan, scene = serving(approved=approved).carried_out(NEW)
    assert (plan.active, plan.pending, plan.create) == (OLD_NAME, NEW_NAME, True)
    assert scene.plan(NEW).create is False


@pytest.mark.parametrize("approved", ["", "false", OLD_NAME, "yes"])
def test_an_approval_of_something_else_is_none(approved: str) -> None:
    assert serving(approved=approved).plan(NEW).upgrade.state is UpgradeState.HELD


def test_taking_the_change_back_gives_the_second_one_up_at_once_and_makes_no_third() -> None:
    plan = upgrading().plan(OLD)
    assert (plan.active, plan.pending, plan.delete) == (OLD_NAME, None, (NEW_NAME,))
    assert (plan.create, plan.upgrade.state) == (False, UpgradeState.NONE)


def test_taking_the_approval_back_gives_it_up_too() -> None:
    plan = upgrading(approved="").plan(NEW)
    assert (plan.delete, plan.upgrade.state) == ((NEW_NAME,), UpgradeState.HELD)


def test_another_change_on_the_way_replaces_the_pending_one() -> None:
    third = ray_cluster(world(head={"cpus": 8}))
    plan = upgrading().plan(third)
    assert plan.delete == (NEW_NAME,)
    assert (plan.pending, plan.create) == (third["metadata"]["name"], True)


@pytest.mark.parametrize(
    ("new", "missing"),
    [
        (Evidence(), ("the gateways",)),
        (replace(FULL, gateways=False), ("the gateways",)),
        (replace(FULL, models=frozenset({"llama"})), ("mistral",)),
    ],
)
def test_it_does_not_take_over_before_all_that_answers_answers_there(new: Evidence, missing: Any) -> None:
    plan = upgrading(new).plan(NEW)
    assert (plan.active, plan.upgrade.missing) == (OLD_NAME, missing)


def test_a_model_that_runs_nowhere_holds_nobody_up() -> None:
    scene = upgrading(replace(FULL, models=frozenset({"llama"})))
    scene.evidence[OLD_NAME] = replace(FULL, models=frozenset({"llama"}))
    assert scene.plan(NEW).active == NEW_NAME


def test_then_it_serves_and_the_old_one_ends_its_streams_before_it_goes() -> None:
    plan, scene = upgrading(FULL).carried_out(NEW)
    assert (plan.active, plan.retired, plan.delete) == (NEW_NAME, (OLD_NAME,), ())
    later, scene = replace(scene, now=NOW + timedelta(minutes=4)).carried_out(NEW)
    assert (later.retired, later.delete) == ((OLD_NAME,), ())
    assert replace(scene, now=NOW + timedelta(minutes=6)).plan(NEW).delete == (OLD_NAME,)


def test_going_back_to_a_retired_one_takes_it_back_into_service() -> None:
    _, scene = upgrading(FULL).carried_out(NEW)
    plan = scene.plan(OLD)
    assert (plan.active, plan.pending, plan.create) == (NEW_NAME, OLD_NAME, False) or plan.active == OLD_NAME
    assert plan.annotate[OLD_NAME] == {RETIRED: None}


def test_silence_of_the_active_one_is_no_proof_for_half_a_minute() -> None:
    scene = upgrading(FULL)
    scene.evidence[OLD_NAME] = Evidence()
    assert scene.plan(NEW).active == OLD_NAME
    scene.evidence[OLD_NAME] = Evidence(lost=True)
    assert scene.plan(NEW).active == NEW_NAME


def test_a_lost_active_one_is_followed_by_the_pending_one() -> None:
    scene = upgrading()
    del scene.clusters[OLD_NAME]
    plan = scene.plan(NEW)
    assert (plan.active, plan.pending, plan.create) == (NEW_NAME, None, False)


def test_one_that_never_served_is_replaced_without_asking() -> None:
    plan = serving(clusters={OLD_NAME: there(OLD)}, evidence={}).plan(NEW)
    assert (plan.active, plan.create, plan.delete) == (NEW_NAME, True, (OLD_NAME,))


def test_where_the_record_is_lost_the_cluster_that_serves_says_so_itself() -> None:
    assert upgrading(recorded=None).plan(NEW).active == OLD_NAME
    plan = serving(recorded=None).plan(NEW)
    assert (plan.active, plan.upgrade.state) == (OLD_NAME, UpgradeState.HELD)


def test_reasons_are_the_same_after_a_restart() -> None:
    scene = upgrading()
    assert scene.plan(NEW).upgrade.reasons == serving().plan(NEW).upgrade.reasons

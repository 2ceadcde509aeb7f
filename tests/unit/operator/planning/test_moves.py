"""Which worker group an application is on, and whose turn it is to move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.operator.desired.worlds import CPU_POOL, busy, world
from tradewind.rayapi.app_status import deployed_configs, parse_status
from tradewind_operator.desired.raycluster import ray_cluster
from tradewind_operator.planning.groups import (
    Used,
    generation_of,
    group_names,
    merged_groups,
    patch_of,
)
from tradewind_operator.planning.moves import Moves, Placed, placed_apps, placed_config, plan_moves

OLD, NEW = "pool-cpu-aaaaaaaa", "pool-cpu-bbbbbbbb"
KINDS = {"a": "pool-cpu", "b": "pool-cpu", "c": "pool-cpu"}
UP = Placed(OLD, running=True, failed=False)
STARTS = Placed(NEW, running=False, failed=False)
FAILS = Placed(NEW, running=False, failed=True)
ARRIVED = Placed(NEW, running=True, failed=False)


def moves(placed: dict[str, Placed], there: tuple[str, ...] = (OLD, NEW), **more: Any) -> Moves:
    return plan_moves(more.get("kinds", KINDS), placed, there, (NEW,), more.get("is_up", lambda _: True))


def test_at_first_everything_is_placed_on_the_group_of_now() -> None:
    found = moves({}, (NEW,))
    assert found.groups == dict.fromkeys(KINDS, NEW)
    assert (found.moving, found.waiting) == ((), ())


def test_one_moves_at_a_time_and_starts_before_it_stops() -> None:
    found = moves({"a": UP, "b": UP, "c": UP})
    assert found.groups == {"a": NEW, "b": OLD, "c": OLD}
    assert (found.moving, found.waiting, found.surging) == (("a",), ("b", "c"), frozenset("a"))


def test_the_next_waits_until_the_one_before_runs() -> None:
    found = moves({"a": replace(STARTS, surging=True), "b": UP, "c": UP})
    assert found.groups == {"a": NEW, "b": OLD, "c": OLD}
    assert found.surging == {"a"}
    assert moves({"a": ARRIVED, "b": UP, "c": UP}).groups == {"a": NEW, "b": NEW, "c": OLD}


def test_the_last_one_is_told_until_it_has_arrived() -> None:
    others = {"a": ARRIVED, "b": ARRIVED}
    starts, fails = (
        moves({**others, "c": replace(each, surging=True, serves=True)}) for each in (STARTS, FAILS)
    )
    assert moves({**others, "c": replace(FAILS, surging=True)}).moving == ()
    assert (starts.moving, starts.failed, starts.waiting) == (("c",), (), ())
    assert (fails.moving, fails.failed, fails.waiting) == (("c",), ("c",), ())
    assert moves({**others, "c": replace(ARRIVED, surging=True)}).moving == ()


def test_one_that_cannot_start_there_stops_the_others_where_they_run() -> None:
    found = moves({"a": FAILS, "b": UP, "c": UP})
    assert found.groups == {"a": NEW, "b": OLD, "c": OLD}
    assert (found.failed, found.waiting) == (("a",), ("b", "c"))


def test_what_does_not_run_anyway_moves_last_and_holds_nobody_up() -> None:
    broken = Placed(OLD, running=False, failed=True)
    assert moves({"a": broken, "b": UP}).groups["b"] == NEW
    assert moves({"a": broken, "b": ARRIVED, "c": broken}).groups == dict.fromkeys(KINDS, NEW)


def test_when_all_have_arrived_nothing_is_told() -> None:
    assert moves(dict.fromkeys(KINDS, ARRIVED)) == Moves(dict.fromkeys(KINDS, NEW))


def test_a_group_that_is_not_there_yet_is_nobodys() -> None:
    assert moves({"a": UP}, (OLD,)).groups == dict.fromkeys(KINDS, OLD)


def test_a_model_that_changes_its_pool_waits_for_nobody() -> None:
    elsewhere = Placed("pool-l4-cccccccc", running=True, failed=False)
    found = moves({"a": elsewhere, "b": elsewhere}, (OLD, NEW, "pool-l4-cccccccc"))
    assert (found.groups["a"], found.groups["b"], found.waiting) == (NEW, NEW, ())


@pytest.mark.parametrize(("up", "expected"), [(False, "gateway-aaaaaaaa"), (True, "gateway-bbbbbbbb")])
def test_gateways_move_when_their_new_pods_are_there(up: bool, expected: str) -> None:
    there = ("gateway-aaaaaaaa", "gateway-bbbbbbbb")
    placed = {"gateway": Placed(there[0], running=True, failed=False)}
    found = plan_moves({"gateway": "gateway"}, placed, there, (there[1],), lambda _: up)
    assert found.groups == {"gateway": expected}


def test_what_serve_has_is_read_back_as_it_was_placed() -> None:
    found = busy()
    there = group_names(ray_cluster(found))
    kinds = {"gateway": "gateway", "llama": "pool-cpu", "mistral": "pool-cpu"}
    first = plan_moves(kinds, {}, there, there, lambda _: True)
    config = placed_config(found.compiled.serve_config, first)
    document = {
        "applications": {
            app["name"]: {"status": "RUNNING", "deployments": {}, "deployed_app_config": app}
            for app in config["applications"]
        }
    }
    placed = placed_apps(deployed_configs(document), parse_status(document))
    assert {name: app.group for name, app in placed.items()} == first.groups
    assert plan_moves(kinds, placed, there, there, lambda _: True) == first
    retired = placed_config(found.compiled.serve_config, first, only=["llama"])
    assert [app["name"] for app in retired["applications"]] == ["gateway", "llama"]


BEFORE = ray_cluster(world())
AFTER = ray_cluster(world(pools={"cpu": {**CPU_POOL, "engineImage": "registry.example/other:2"}}))
OLD_POOL, NEW_POOL = group_names(BEFORE)[1], group_names(AFTER)[1]


def running(**spec: Any) -> dict[str, Any]:
    return {**BEFORE, "metadata": {**BEFORE["metadata"], "resourceVersion": "7"}, **spec}


def with_groups(groups: list[Any]) -> dict[str, Any]:
    return running(spec={**BEFORE["spec"], "workerGroupSpecs": groups})


def sizes(groups: list[Any]) -> dict[str, tuple[int, int]]:
    return {group["groupName"]: (group["minReplicas"], group["maxReplicas"]) for group in groups}


def test_a_changed_pool_is_added_at_the_end_and_the_old_one_stays_while_it_is_used() -> None:
    groups = merged_groups(running(), AFTER, Used(placed={OLD_POOL}))
    assert list(sizes(groups)) == [*group_names(BEFORE), NEW_POOL]
    both = with_groups(groups)
    assert sizes(merged_groups(both, AFTER, Used(placed={OLD_POOL})))[OLD_POOL] == (0, 2)
    assert sizes(merged_groups(both, AFTER, Used(placed=None)))[OLD_POOL] == (0, 2)


def test_a_cluster_that_is_being_replaced_gets_no_new_group() -> None:
    groups = merged_groups(running(), AFTER, Used(placed={OLD_POOL}), stays=False)
    assert list(sizes(groups)) == group_names(BEFORE)
    assert patch_of(running(), AFTER, Used(placed={OLD_POOL}), stays=False) is None


def test_an_emptied_group_is_scaled_to_zero_and_goes_when_its_last_pod_is_gone() -> None:
    both = with_groups(merged_groups(running(), AFTER, Used()))
    emptied = merged_groups(both, AFTER, Used(placed={NEW_POOL}, inhabited={OLD_POOL: ["a"]}))
    assert sizes(emptied)[OLD_POOL] == (0, 0)
    there = with_groups(emptied)
    for inhabited in ({OLD_POOL: []}, None):
        assert OLD_POOL in sizes(merged_groups(there, AFTER, Used({NEW_POOL}, inhabited)))
    assert OLD_POOL not in sizes(merged_groups(there, AFTER, Used({NEW_POOL}, {})))


def test_a_group_keeps_its_pods_while_a_replica_is_on_them_wherever_its_application_is_placed_now() -> None:
    both = with_groups(merged_groups(running(), AFTER, Used()))
    used = Used(placed={NEW_POOL}, inhabited={OLD_POOL: ["a"]}, occupied={OLD_POOL: 1})
    assert sizes(merged_groups(both, AFTER, used))[OLD_POOL] == (0, 2)


@pytest.mark.parametrize(
    ("occupied", "most"),
    [(None, 9), ({}, 4), ({OLD_POOL: 2}, 4), ({OLD_POOL: 6}, 6), ({OLD_POOL: 12}, 9)],
    ids=["not known", "none", "few", "more", "more than there may be"],
)
def test_a_smaller_pool_keeps_the_pods_that_have_a_replica(
    occupied: dict[str, int] | None, most: int
) -> None:
    large = ray_cluster(world(pools={"cpu": {**CPU_POOL, "maxNodes": 9}}))
    there = {**large, "metadata": {**large["metadata"], "resourceVersion": "7"}}
    small = ray_cluster(world(pools={"cpu": {**CPU_POOL, "maxNodes": 4}}))
    used = Used({OLD_POOL}, {OLD_POOL: ["a"]}, occupied)
    assert sizes(merged_groups(there, small, used))[OLD_POOL] == (0, most)


def test_hosts_of_one_replica_are_one_of_a_pools_nodes() -> None:
    large = ray_cluster(world(pools={"cpu": {**CPU_POOL, "maxNodes": 9}}))
    groups = [{**group, "numOfHosts": 4} for group in large["spec"]["workerGroupSpecs"]]
    small = ray_cluster(world(pools={"cpu": {**CPU_POOL, "maxNodes": 1}}))
    used = Used({OLD_POOL}, {OLD_POOL: ["a"]}, {OLD_POOL: 8})
    assert sizes(merged_groups(with_groups(groups), small, used))[OLD_POOL] == (0, 2)


def test_gateways_of_before_are_deleted_one_by_one_so_that_they_end_their_streams() -> None:
    wanted = ray_cluster(world(gateway={"cpus": 2}))
    old, new = group_names(BEFORE)[0], group_names(wanted)[0]
    both = with_groups(merged_groups(running(), wanted, Used()))
    for pods in (["b", "a"], []):  # those on their way out need not be named again
        groups = merged_groups(both, wanted, Used({new}, {old: pods}))
        (group,) = (each for each in groups if each["groupName"] == old)
        assert (group["minReplicas"], group["replicas"]) == (0, 0)
        assert group["maxReplicas"] > 0  # or the autoscaler would end Ray in them
        assert group["scaleStrategy"] == {"workersToDelete": sorted(pods)}
        both = with_groups(groups)
    assert old not in sizes(merged_groups(both, wanted, Used({new}, {})))


def test_the_autoscalers_fields_are_carried_over() -> None:
    groups = [{**group, "replicas": 2, "scaleStrategy": {}} for group in BEFORE["spec"]["workerGroupSpecs"]]
    bigger = ray_cluster(world(pools={"cpu": {**CPU_POOL, "maxNodes": 9}}))
    patch = patch_of(with_groups(groups), bigger, Used())
    assert patch is not None
    assert patch["metadata"] == {"resourceVersion": "7"}
    pool = patch["spec"]["workerGroupSpecs"][1]
    assert (pool["maxReplicas"], pool["replicas"], pool["scaleStrategy"]) == (9, 2, {})


def test_nothing_is_patched_where_nothing_differs() -> None:
    assert patch_of(running(), BEFORE, Used()) is None


def test_tolerations_change_in_place() -> None:
    tolerant = {"tolerations": [{"key": "x", "operator": "Exists"}]}
    wanted = ray_cluster(world(head=tolerant, pools={"cpu": {**CPU_POOL, **tolerant}}))
    patch = patch_of(running(), wanted, Used())
    assert patch is not None
    assert patch["spec"]["headGroupSpec"]["template"]["spec"]["tolerations"]
    assert patch["spec"]["workerGroupSpecs"][1]["template"]["spec"]["tolerations"]


def test_pods_of_another_ray_do_not_join() -> None:
    wanted = ray_cluster(world(rayVersion="2.61.0", pools={"cpu": {**CPU_POOL, "cpus": 9}}))
    assert sizes(merged_groups(running(), wanted, Used())) == sizes(BEFORE["spec"]["workerGroupSpecs"])
    assert generation_of("pool-cpu", group_names(BEFORE), group_names(wanted)) == OLD_POOL

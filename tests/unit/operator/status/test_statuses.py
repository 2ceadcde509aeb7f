from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.operator.policy.objects import (
    cluster,
    decided,
    deleting,
    edited,
    model,
    platform,
    route,
    tenant,
)
from tests.unit.operator.status.scenes import (
    ACTIVE,
    LATER,
    app,
    condition,
    healthy,
    live,
    ray,
    seen,
    statuses,
    text,
    written,
)
from tradewind.rayapi.app_status import deployed_revisions, settings_revision
from tradewind_operator.planning.clusters import Upgrade, UpgradeState
from tradewind_operator.planning.differences import Demand
from tradewind_operator.planning.moves import Moves
from tradewind_operator.policy.finalizers import FinalizerChange, finalizer_changes
from tradewind_operator.status.conditions import changed
from tradewind_operator.status.draining import ended
from tradewind_operator.status.live import Live
from tradewind_operator.status.observation import Observation
from tradewind_operator.status.route import percentages
from tradewind_operator.status.transitions import EventNote, transitions

LLAMA = ("ModelDeployment", "llama")
CHAT = ("ModelRoute", "chat")
CLUSTER = ("ServingCluster", "default")
TENANT = ("Tenant", "acme")
OOM = app("llama", "DEPLOY_FAILED", "the engine is out of memory", running=0, failed=True)


def ready(observation: Observation, key: tuple[str, str] = LLAMA) -> tuple[str, str]:
    return condition(statuses(observation)[key])


def test_a_healthy_platform_says_all_there_is_to_say() -> None:
    new = statuses(healthy())
    for key, status in new.items():
        assert condition(status, "Accepted") == ("True", "Accepted"), key
        if key != TENANT:
            assert condition(status) == ("True", "Ready"), key
    llama = {name: value for name, value in new[LLAMA].items() if name not in ("conditions", "accepted")}
    revision = llama.pop("revision")
    assert len(revision) == 16
    assert llama == {
        "observedGeneration": 1, "state": "Running", "replicas": 1, "readyReplicas": 1, "wantedReplicas": 1,
        "selector": "models.tradewind.dev/llama=true", "pool": "cpu", "family": "llama",
        "contextLength": 4_096,
        "endpoint": "http://default.team.svc:8000/v1",
    }  # fmt: skip
    assert new[CHAT]["split"] == "v-llama 50.0%, v-mistral 50.0%"
    assert new[CHAT]["variants"][0] == {
        "name": "v-llama", "deployment": "llama", "weight": 50, "percent": "50.0", "ready": True
    }  # fmt: skip
    assert (new[TENANT]["keys"], new[TENANT]["models"]) == (1, 4)
    assert condition(new[CLUSTER], "ClusterUpgrade") == ("False", "NoUpgrade")
    counts = ("gatewayReplicas", "gatewayReady", "models", "routes", "tenants", "rayCluster")
    assert [new[CLUSTER][name] for name in counts] == [2, 2, 2, 2, 1, ACTIVE]


def test_a_tenant_is_told_what_it_opens_in_every_cluster_of_its_namespace() -> None:
    parts = [cluster(), model(), cluster("second"), model("there", cluster="second"), route("to-it", "there")]
    parts += [tenant("acme", models=["there", "to-it"])]
    told = statuses(healthy(*parts))[TENANT]
    assert (condition(told, "Accepted")[0], told["keys"], told["models"]) == ("True", 1, 2)
    told = statuses(healthy(*parts[:-1], tenant("acme", models=["llama", "there"])))[TENANT]
    assert (told["keys"], told["models"]) == (1, 2)
    told = statuses(healthy(*parts[:-1], tenant("acme", models=["*"])))[TENANT]
    assert (told["keys"], told["models"]) == (1, 3)


def test_a_status_that_was_written_is_not_written_again() -> None:
    parts = written(platform(), healthy())
    again = healthy(*parts, now=LATER)
    for key, status in statuses(again).items():
        assert not changed(again.decision.entries[key].document["status"], status), key


def test_the_time_of_a_condition_stays_until_its_status_changes() -> None:
    parts = written(platform(), healthy())
    decision = decided(*parts)
    failing = statuses(seen(decision, live(decision, OOM), ray(), LATER))[LLAMA]
    times = {each["type"]: each["lastTransitionTime"] for each in failing["conditions"]}
    assert times == {"Accepted": "2026-11-22T10:00:00Z", "Ready": "2026-11-22T10:05:00Z"}


def test_the_accepted_spec_is_kept_while_a_newer_one_is_refused() -> None:
    parts = written(platform(), healthy())
    spec = parts[1]["spec"]
    parts[1] = edited(parts[1], "spec.replicas", 0)
    status = statuses(healthy(*parts))[LLAMA]
    assert status["accepted"] == {"apiVersion": "tradewind.dev/v1alpha1", "generation": 1, "spec": spec}
    assert status["observedGeneration"] == 2
    assert condition(status, "Accepted") == ("False", "Invalid")
    assert condition(status) == ("True", "Ready")
    parts[1] = edited(parts[1], "spec.replicas", 2)
    assert statuses(healthy(*parts))[LLAMA]["accepted"]["generation"] == 3


@pytest.mark.parametrize(
    ("application", "expected", "state"),
    [
        (OOM, "Failed", "Failed"),
        (app("llama", "DEPLOYING", running=0), "Deploying", "Deploying"),
        (app("llama", "NOT_STARTED", running=0), "NotDeployed", "Pending"),
        (app("llama", "UNHEALTHY", "the engine has died"), "Unhealthy", "Deploying"),
        (app("llama", running=0), "NoReplica", "Deploying"),
    ],
)
def test_what_serve_says_of_a_model(application: Any, expected: str, state: str) -> None:
    decision = decided(*platform())
    status = statuses(seen(decision, live(decision, application), ray()))[LLAMA]
    assert condition(status) == ("False", expected)
    assert status["state"] == state
    assert status.get("lastError") == (application.message or None)


def test_a_model_without_its_settings_is_not_ready_yet() -> None:
    decision = decided(*platform())
    what = live(decision, old={"llama": "0" * 16})
    status = statuses(seen(decision, what, ray()))[LLAMA]
    assert condition(status) == ("False", "Updating")
    assert status["revision"] == "0" * 16


def test_at_first_everything_says_what_it_waits_for() -> None:
    decision = decided(*platform())
    nothing = seen(decision)
    assert (ready(nothing)[1], ready(nothing, CLUSTER)[1]) == ("WaitingForCluster", "Starting")
    why = "head pod: Unschedulable: 0/3 nodes are available"
    first = ray(head=False, configured=False, served=False, reason="ContainersNotReady", why=why)
    starting = statuses(seen(decision, Live(), first))
    assert condition(starting[LLAMA]) == ("False", "ClusterNotReady")
    assert condition(starting[CLUSTER]) == ("False", "ContainersNotReady")
    assert condition(starting[CLUSTER], "HeadReady") == ("False", "Starting")
    assert why in text(starting[LLAMA])
    assert why in text(starting[CLUSTER])


def test_one_model_that_fails_makes_no_other_unready() -> None:
    decision = decided(*platform())
    found = statuses(seen(decision, live(decision, OOM), ray()))
    assert condition(found["ModelDeployment", "mistral"]) == ("True", "Ready")
    assert condition(found[CLUSTER]) == ("True", "Ready")


def test_a_lost_head_is_told_and_what_a_gateway_reaches_stays_ready() -> None:
    parts = written(platform(), healthy())
    decision = decided(*parts)
    gone = replace(live(decision), apps=None, problem="Ray's API cannot be reached: ConnectError")
    found = statuses(seen(decision, gone, ray(head=False, why="Head Pod not found"), LATER))
    assert condition(found[CLUSTER], "HeadReady") == ("False", "HeadLost")
    assert "Head Pod not found" in text(found[CLUSTER], "HeadReady")
    for key in (LLAMA, CHAT, CLUSTER):
        assert condition(found[key]) == ("True", "Ready"), key
    silent = statuses(seen(decision, gone, ray(), LATER))
    assert condition(silent[CLUSTER], "HeadReady") == ("Unknown", "Unreachable")


def test_a_head_that_comes_back_and_lists_nothing_yet_makes_no_model_unready() -> None:
    parts = written(platform(), healthy())
    decision = decided(*parts)
    empty = replace(live(decision), apps={}, revisions={})
    found = statuses(seen(decision, empty, ray(), LATER))
    assert condition(found[LLAMA]) == ("True", "Ready")
    assert "a gateway says so" in text(found[LLAMA])
    unreached = replace(empty, gateway=None)
    assert condition(statuses(seen(decision, unreached, ray(), LATER))[LLAMA]) == ("False", "NotDeployed")


def test_what_no_gateway_reaches_is_not_ready_though_serve_runs_it() -> None:
    decision = decided(*platform())
    without = replace(live(decision), gateway=None)
    assert ready(seen(decision, without, ray())) == ("False", "GatewayUnreachable")
    parts = written(platform(), healthy())
    assert ready(seen(decided(*parts), without, ray())) == ("Unknown", "GatewayUnreachable")


def test_a_model_that_moves_stays_ready_while_it_answers() -> None:
    parts = written(platform(), healthy())
    decision = decided(*parts)
    moving = live(decision, app("llama", "DEPLOYING"))
    assert ready(seen(decision, moving, ray())) == ("True", "Ready")
    changed_args = [parts[0], edited(parts[1], "spec.engine", {"args": {"maxModelLen": 1024}}), *parts[2:]]
    anew = decided(*changed_args)
    assert ready(seen(anew, live(anew, app("llama", "DEPLOYING")), ray())) == ("False", "Deploying")


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        (Moves(), ("True", "Current")),
        (Moves(moving=("llama",), waiting=("mistral",)), ("False", "Moving")),
        (Moves(moving=("llama",), failed=("llama",), waiting=("mistral",)), ("False", "MoveFailed")),
    ],
)
def test_the_cluster_says_how_far_its_pods_are(moves: Moves, expected: tuple[str, str]) -> None:
    decision = decided(*platform())
    status = statuses(seen(decision, replace(live(decision), moves=moves), ray()))[CLUSTER]
    assert condition(status, "PodsCurrent") == expected


def test_an_earlier_releases_rayservice_is_left_alone_and_it_is_said_what_to_do() -> None:
    decision = decided(*platform())
    status = statuses(seen(decision, earlier="default"))[CLUSTER]
    assert condition(status) == ("False", "RayServiceOfEarlierRelease")
    assert "kubectl delete rayservice default --namespace team" in text(status)


def test_a_new_weight_is_shown_when_the_gateway_goes_by_it() -> None:
    parts = written(platform(), healthy())
    old = parts[3]["status"]
    parts[3] = edited(parts[3], "spec.variants.0.weight", 150)
    decision = decided(*parts)
    before = statuses(seen(decision, live(decision, revision="old"), ray()))
    assert condition(before[CHAT]) == ("False", "Configuring")
    assert before[CHAT]["variants"] == old["variants"]
    assert condition(before["ModelRoute", "direct"]) == ("True", "Ready")
    after = statuses(seen(decision, live(decision), ray()))[CHAT]
    assert after["split"] == "v-llama 75.0%, v-mistral 25.0%"
    assert after["revision"] != old["revision"]


def test_a_route_names_the_deployment_that_cannot_answer() -> None:
    decision = decided(*platform())
    status = statuses(seen(decision, live(decision, OOM), ray()))[CHAT]
    assert condition(status) == ("False", "VariantNotReady")
    assert "No replica of llama can answer" in text(status)
    assert [variant["ready"] for variant in status["variants"]] == [False, True]


def test_while_nothing_can_be_reached_nobody_knows() -> None:
    parts = written(platform(), healthy())
    blind = seen(decided(*parts), Live(), ray(), LATER)
    assert ready(blind) == ("Unknown", "Unreachable")
    assert ready(seen(decided(*platform()), Live(), ray())) == ("False", "ClusterNotReady")


def test_the_last_error_stays_until_the_model_serves_or_is_written_anew() -> None:
    decision = decided(*platform())
    parts = written(platform(), seen(decision, live(decision, OOM), ray()))
    retried = app("llama", "DEPLOYING", running=0)
    again = decided(*parts)
    assert statuses(seen(again, live(again, retried), ray()))[LLAMA]["lastError"] == OOM.message
    assert "lastError" not in statuses(seen(again, live(again), ray()))[LLAMA]
    parts[1] = edited(parts[1], "spec.engine", {"args": {"maxModelLen": 1024}})
    anew = decided(*parts)
    assert "lastError" not in statuses(seen(anew, live(anew, retried), ray()))[LLAMA]


def test_a_refused_deletion_says_how_it_is_done() -> None:
    status = statuses(healthy(*[deleting(platform()[0]), *platform()[1:]]))[CLUSTER]
    assert condition(status) == ("False", "DeletionRefused")
    assert (
        "kubectl annotate servingcluster default --namespace team tradewind.dev/delete-models=true"
        in text(status)
    )


def test_without_a_tenant_the_cluster_says_that_nobody_can_call() -> None:
    status = statuses(healthy(*platform()[:5]))[CLUSTER]
    assert condition(status) == ("True", "NoTenant")


@pytest.mark.parametrize("state", [UpgradeState.HELD, UpgradeState.IN_PROGRESS])
def test_an_upgrade_says_why_and_what_it_takes(state: UpgradeState) -> None:
    decision = decided(*platform())
    upgrade = Upgrade(state, "default-new", ("Ray changes.", "The head changes."), ("llama",))
    observation = seen(decision, live(decision), ray(), upgrade=upgrade, demand=Demand(8, 12))
    said = statuses(observation)[CLUSTER]
    assert condition(said, "ClusterUpgrade") == ("True", state.value)
    assert "8 more GPUs and 12 more CPUs" in text(said, "ClusterUpgrade")
    assert "Ray changes. The head changes." in text(said, "ClusterUpgrade")
    held = "tradewind.dev/approve-upgrade=default-new" in text(said, "ClusterUpgrade")
    assert held is (state is UpgradeState.HELD)


def test_a_draining_model_is_let_go_on_positive_evidence_alone() -> None:
    parts = written(platform(), healthy())
    parts[2] = deleting(parts[2])
    parts[2]["metadata"]["finalizers"] = ["tradewind.dev/drain"]
    decision = decided(*parts)
    listed = seen(decision, live(decision, app("mistral", "DELETING")), ray())
    status = statuses(listed)["ModelDeployment", "mistral"]
    assert (condition(status), status["state"]) == (("False", "Draining"), "Draining")
    assert condition(status, "Accepted") == ("True", "Accepted")
    assert ended(listed) == ()
    assert ended(seen(decision, Live(), ray())) == ()
    assert ended(seen(decision, Live(), ray(configured=False))) == ("mistral",)
    gone = seen(decision, live(decision), ray())
    assert ended(gone) == ("mistral",)
    assert ended(seen(decision)) == ("mistral",)
    changes = finalizer_changes(decision, ended(gone))
    assert FinalizerChange("ModelDeployment", "mistral", "tradewind.dev/drain", add=False) in changes
    assert FinalizerChange("ModelDeployment", "llama", "tradewind.dev/drain", add=True) in changes
    assert FinalizerChange("ServingCluster", "default", "tradewind.dev/protect", add=True) in changes
    assert len(changes) == 3


def test_a_cluster_is_let_go_only_when_nothing_holds_it() -> None:
    held = deleting(cluster())
    held["metadata"]["finalizers"] = ["tradewind.dev/protect"]
    with_model = model()
    with_model["metadata"]["finalizers"] = ["tradewind.dev/drain"]
    assert finalizer_changes(decided(held, with_model), ()) == ()
    assert finalizer_changes(decided(held), ()) == (
        FinalizerChange("ServingCluster", "default", "tradewind.dev/protect", add=False),
    )


def test_events_tell_of_what_changed() -> None:
    parts = written(platform(), healthy())
    decision = decided(*parts)
    failing = statuses(seen(decision, live(decision, OOM), ray()))[LLAMA]
    assert transitions(LLAMA, parts[1]["status"], failing) == [
        EventNote("ModelDeployment", "llama", "Warning", "Failed", "the engine is out of memory")
    ]
    assert transitions(LLAMA, failing, failing) == []
    back = transitions(LLAMA, failing, parts[1]["status"])
    assert [(note.type, note.reason) for note in back] == [("Normal", "Ready")]


def test_a_new_resource_is_announced_once_and_not_while_it_starts() -> None:
    starting = statuses(seen(decided(*platform())))
    notes = [note for key, status in starting.items() for note in transitions(key, None, status)]
    assert {(note.type, note.reason) for note in notes} == {("Normal", "Accepted")}
    refused = statuses(healthy(*platform(), model("zz", replicas=0)))["ModelDeployment", "zz"]
    (note,) = transitions(("ModelDeployment", "zz"), None, refused)
    assert (note.type, note.reason) == ("Warning", "Invalid")


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1, 1, 1], ["33.4", "33.3", "33.3"]),
        ([90, 10], ["90.0", "10.0"]),
        ([5], ["100.0"]),
        ([0, 7], ["0.0", "100.0"]),
    ],
)
def test_shares_add_up(weights: list[int], expected: list[str]) -> None:
    assert percentages(weights) == expected


def test_settings_are_the_same_whoever_wrote_the_numbers() -> None:
    document = {
        "applications": {
            "m": {"deployed_app_config": {"args": {"settings": {"a": 300, "b": [0.5]}}}},
            "g": {},
        }
    }
    assert deployed_revisions(document) == {"m": settings_revision({"b": (0.5,), "a": 300.0})}

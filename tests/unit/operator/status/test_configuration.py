"""What is said while gateways refuse their configuration, or cannot read all of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.operator.policy.objects import decided, edited, platform
from tests.unit.operator.status.scenes import (
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
from tradewind_operator.policy.decision import Decision
from tradewind_operator.status.live import Live, Unread
from tradewind_operator.status.transitions import transitions

CLUSTER = ("ServingCluster", "default")
CHAT = ("ModelRoute", "chat")
LLAMA = ("ModelDeployment", "llama")
WHY = "tenant acme: key from file keys/acme cannot be read (OSError)"


def at(decision: Decision, what: Live, **gateway: Any) -> dict[tuple[str, str], dict[str, Any]]:
    assert what.gateway is not None
    return statuses(seen(decision, replace(what, gateway=replace(what.gateway, **gateway)), ray()))


def test_a_refused_configuration_is_told_while_the_gateways_serve() -> None:
    parts = written(platform(), healthy())
    parts[3] = edited(parts[3], "spec.variants.0.weight", 150)
    decision = decided(*parts)
    new = at(decision, live(decision, revision="old"), refused="new", why=WHY)
    assert condition(new[CLUSTER]) == ("True", "ConfigurationRefused")
    assert f"refuse configuration new: {WHY}. They go on with old" in text(new[CLUSTER])
    assert condition(new[CHAT]) == ("False", "ConfigurationRefused")
    assert new[CHAT]["variants"] == parts[3]["status"]["variants"]
    assert condition(new["ModelRoute", "direct"]) == ("True", "Ready")
    assert condition(new[LLAMA]) == ("True", "Ready")


def test_people_hear_of_a_refusal_and_of_its_end() -> None:
    before = statuses(healthy())[CLUSTER]
    decision = decided(*platform())
    refusing = at(decision, live(decision, revision="old"), refused="new", why=WHY)[CLUSTER]
    (note,) = transitions(CLUSTER, before, refusing)
    assert (note.type, note.reason) == ("Warning", "ConfigurationRefused")
    assert transitions(CLUSTER, refusing, refusing) == []
    assert [(note.type, note.reason) for note in transitions(CLUSTER, refusing, before)] == [
        ("Normal", "Ready")
    ]


def test_a_route_that_gateways_cannot_read_says_so_and_what_became_of_it() -> None:
    parts = written(platform(), healthy())
    parts[3] = edited(parts[3], "spec.variants.0.weight", 150)
    decision = decided(*parts)
    kept = at(decision, live(decision), unread=(Unread("route", "chat", "assign_by: 'x'", kept=True),))
    assert condition(kept[CHAT]) == ("False", "NotRead")
    assert "assign_by: 'x'. It goes on as it was." in text(kept[CHAT])
    assert kept[CHAT]["revision"] == parts[3]["status"]["revision"]
    assert kept[CHAT]["variants"] == parts[3]["status"]["variants"]
    assert condition(kept["ModelRoute", "direct"]) == ("True", "Ready")
    assert condition(kept[CLUSTER]) == ("True", "ConfigurationNotRead")
    assert "route chat goes on as it was (assign_by: 'x')" in text(kept[CLUSTER])
    gone = at(decision, live(decision), unread=(Unread("route", "chat", "why", kept=False),))
    assert text(gone[CHAT]).endswith("It is not there.")


def test_a_model_that_gateways_cannot_read_says_so() -> None:
    decision = decided(*platform())
    what = live(decision)
    assert what.gateway is not None
    others = {name: each for name, each in what.gateway.deployments.items() if name != "llama"}
    new = at(
        decision, what, deployments=others, unread=(Unread("deployment", "llama", "task: x", kept=False),)
    )
    assert condition(new[LLAMA]) == ("False", "NotRead")
    assert "task: x" in text(new[LLAMA])
    failed = live(decision, app("llama", "DEPLOY_FAILED", "out of memory", running=0, failed=True))
    worse = at(decision, failed, unread=(Unread("deployment", "llama", "task: x", kept=False),))
    assert condition(worse[LLAMA]) == ("False", "Failed")


def test_the_clusters_message_tells_of_a_few_and_counts_the_others() -> None:
    decision = decided(*platform())
    unread = tuple(Unread("route", f"r{number}", "why", kept=False) for number in range(9))
    new = at(decision, live(decision), unread=unread)
    assert "route r2 is left out (why) and 6 more." in text(new[CLUSTER])

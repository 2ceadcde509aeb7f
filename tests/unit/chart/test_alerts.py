"""Which alerts fire, and which do not, on what the operator exports in the course of a trouble."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from tests.golden.chart.rendering import manifests, values_of
from tests.unit.chart.replay import Rule, Statuses, samples
from tests.unit.operator.policy.objects import decided, edited, platform
from tests.unit.operator.status import test_adapters
from tests.unit.operator.status.scenes import app, healthy, live, ray, seen, statuses, written
from tradewind_operator.measures import CONDITION
from tradewind_operator.planning.moves import Moves
from tradewind_operator.status.live import AdapterLive, Live

DECISION = decided(*written(platform(), healthy()))
GONE = replace(live(DECISION), apps=None, problem="Ray's API cannot be reached: ConnectError")


@cache
def alerts() -> list[dict[str, Any]]:
    (rules,) = [each for each in manifests(values_of("all")) if each["kind"] == "PrometheusRule"]
    return [rule for group in rules["spec"]["groups"] for rule in group["rules"]]


def about_conditions() -> list[Rule]:
    return [Rule.of(each) for each in alerts() if CONDITION.name in each["expr"]]


def at(what: Live, **more: Any) -> Statuses:
    return statuses(seen(DECISION, what, ray(**more)))


def moves(**more: tuple[str, ...]) -> Statuses:
    return at(replace(live(DECISION), moves=Moves(waiting=("mistral",), **more)))


def adapter(report: AdapterLive) -> Statuses:
    return test_adapters.looked(test_adapters.TONE, tone=report)


def refused(field: str, value: Any) -> Statuses:
    parts = written(platform(), healthy())
    parts[1] = edited(parts[1], field, value)
    return statuses(healthy(*parts))


WELL = statuses(healthy())
FAILED = at(live(DECISION, app("llama", "DEPLOY_FAILED", "out of memory", running=0, failed=True)))
DEPLOYING = at(live(DECISION, app("llama", "DEPLOYING", running=0)))
BARE = seen(decided(*platform()), Live(), ray(head=False, configured=False, served=False))
STARTING = {key: status for key, status in statuses(BARE).items() if key[0] == "ServingCluster"}
LOST, SILENT = at(GONE, head=False), at(GONE)
NOT_TAKEN = at(replace(live(DECISION), problem="Serve refused it"))
MOVING, STUCK = moves(moving=("llama",)), moves(moving=("llama",), failed=("llama",))
BROKEN = adapter(AdapterLive(failed=1, message="no such key"))
LOADING = adapter(AdapterLive(loading=1, message="fetching it"))
INVALID, NO_CLUSTER = refused("spec.replicas", 0), refused("spec.cluster", "none")


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        pytest.param([WELL] * 1_500, set(), id="all is well for a day"),
        pytest.param([DEPLOYING] * 10 + [WELL], set(), id="a model that starts"),
        pytest.param([DEPLOYING, FAILED] * 8, {"TradewindModelNotReady"}, id="fails, is tried again, fails"),
        pytest.param([DEPLOYING, FAILED] * 4 + [WELL] + [FAILED, DEPLOYING] * 4, set(), id="ready between"),
        pytest.param([LOST] * 3, {"TradewindHeadLost"}, id="a head is lost while gateways answer"),
        pytest.param([LOST, SILENT] * 2, {"TradewindHeadLost"}, id="a new head does not answer either"),
        pytest.param([LOST] * 2 + [WELL] * 3, set(), id="a head that is back in two minutes"),
        pytest.param([STARTING] * 5 + [WELL], set(), id="a cluster that starts"),
        pytest.param([STARTING] * 6, {"TradewindClusterNotReady"}, id="a cluster that never does"),
        pytest.param([NOT_TAKEN] * 11, {"TradewindConfigurationNotTaken"}, id="Serve takes nothing"),
        pytest.param([MOVING] * 600, set(), id="models move for hours"),
        pytest.param([STUCK] * 16, {"TradewindMoveFailed"}, id="a model cannot move"),
        pytest.param([STUCK, MOVING, MOVING] * 6, {"TradewindMoveFailed"}, id="Serve tries it again"),
        pytest.param([MOVING, STUCK] + [MOVING] * 30, set(), id="the second try moved it"),
        pytest.param([BROKEN, LOADING] * 8, {"TradewindAdaptersNotReady"}, id="an adapter has no source"),
        pytest.param([LOADING] * 15 + [WELL], set(), id="an adapter is fetched"),
        pytest.param(
            [INVALID, NO_CLUSTER] * 3, {"TradewindResourceNotAccepted"}, id="one error after another"
        ),
    ],
)
def test_what_fires_in_the_course_of_a_trouble(minutes: Sequence[Statuses], expected: set[str]) -> None:
    shown = {id(each): samples(each) for each in minutes}
    course = [shown[id(each)] for each in minutes]
    assert {rule.name for rule in about_conditions() if rule.fires(course)} == expected


def test_a_new_reason_is_no_new_alert_and_texts_name_labels_that_the_alert_has() -> None:
    for rule in about_conditions():
        assert set(rule.by) <= {"kind", "namespace", "name"}
    for alert in alerts():
        grouped = re.search(r"by \(([a-z_, ]+)\)", alert["expr"])
        labels = set(grouped[1].split(", ")) if grouped else set()
        assert set(re.findall(r"\$labels\.(\w+)", str(alert["annotations"]))) <= labels, alert["alert"]


@pytest.mark.parametrize(
    "expression",
    [
        f'sum by (name) ({CONDITION.name}{{kind="Tenant"}}) > 0',
        f"max by (name) ({CONDITION.name}{{kind=\"Tenant\", status='False'}}) > 0",
    ],
)
def test_a_rule_of_another_form_is_not_taken_for_one_that_can_be_replayed(expression: str) -> None:
    with pytest.raises(ValueError, match="TradewindOther"):
        Rule.of({"alert": "TradewindOther", "expr": expression, "for": "5m"})

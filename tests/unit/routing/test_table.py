"""The routing table: names, shadowing, rules, units, and configurations that contradict themselves."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tradewind.api.wire import (
    DeploymentEntry,
    GatewayConfig,
    Overrides,
    RetryEntry,
    RouteEntry,
    RuleEntry,
    VariantEntry,
)
from tradewind.routing.table import InvalidTableError, RouteTable, Subject, UnknownModel


def deployment(name: str, **fields: Any) -> DeploymentEntry:
    return DeploymentEntry(name=name, app=name, prefix=f"/engines/{name}", family="llama", **fields)


def variant(name: str, target: str = "small", weight: int = 1, **fields: Any) -> VariantEntry:
    return VariantEntry(name=name, deployment=target, weight=weight, **fields)


def chat(*variants: VariantEntry, **fields: Any) -> RouteEntry:
    split = variants or (variant("control", "small", 80), variant("candidate", "large", 20))
    return RouteEntry(model=fields.pop("model", "chat"), variants=split, **fields)


def table(*routes: RouteEntry, deployments: tuple[DeploymentEntry, ...] = ()) -> RouteTable:
    both = deployments or (deployment("small", adapters=("tone",)), deployment("large"))
    return RouteTable.build(GatewayConfig(revision="r1", deployments=both, routes=routes))


def subject(**fields: Any) -> Subject:
    defaults = {"headers": {}, "user": None, "session": None, "tenant": "", "request_id": "req_1"}
    return Subject(**(defaults | fields))


def arms(built: RouteTable, **fields: Any) -> Counter[str]:
    """Variants of 200 requests that differ in their id only."""
    decisions = [built.resolve("chat", subject(request_id=f"req_{n}", **fields)) for n in range(200)]
    return Counter(decision.variant.name for decision in decisions)


def test_a_route_gives_everything_its_request_needs() -> None:
    built = table(
        chat(
            variant("warm", overrides=Overrides(temperature=0.3), adapter="tone"),
            fallback=("large", "small"),
            retry=RetryEntry(attempts=3),
            first_token_timeout_s=7,
            total_timeout_s=70,
        )
    )
    decision = built.resolve("chat", subject())
    route, chosen = decision.route, decision.variant
    assert (route.model, route.kind, route.first_token_timeout_s, route.total_timeout_s) == (
        "chat",
        "route",
        7,
        70,
    )
    assert [entry.name for entry in route.fallback] == ["large", "small"]
    assert route.retry.attempts == 3
    assert chosen.upstream_model == "small:tone"
    assert chosen.overrides is not None
    assert chosen.overrides.temperature == 0.3
    assert built.revision == "r1"


def test_no_overrides_is_none_so_that_the_body_can_pass_untouched() -> None:
    assert all(v.overrides is None for v in table(chat()).routes["chat"].variants)


def test_a_deployment_answers_to_its_own_name() -> None:
    decision = table(deployments=(deployment("solo", request_timeout_s=45),)).resolve("solo", subject())
    assert (decision.reason, decision.variant.name, decision.variant.upstream_model) == (
        "direct",
        "solo",
        "solo",
    )
    assert decision.route.kind == "deployment"
    assert (decision.route.first_token_timeout_s, decision.route.total_timeout_s) == (45, 45)


def test_a_route_shadows_the_deployment_of_its_name() -> None:
    built = table(chat(variant("new", "large"), model="small"))
    assert built.resolve("small", subject()).variant.deployment.name == "large"
    assert [listed.name for listed in built.models()] == ["small", "small:tone", "large"]


def test_an_adapter_is_called_by_its_deployments_name_and_its_own() -> None:
    decision = table(chat()).resolve("small:tone", subject())
    assert (decision.variant.deployment.name, decision.variant.adapter) == ("small", "tone")
    assert decision.variant.upstream_model == "small:tone"
    assert decision.reason == "direct"


def test_models_are_listed_with_the_deployment_when_there_is_only_one() -> None:
    built = table(chat(), chat(variant("a"), variant("b"), model="prompts"))
    assert [(m.name, m.kind, m.deployment and m.deployment.name) for m in built.models()] == [
        ("chat", "route", None),
        ("prompts", "route", "small"),
        ("small", "deployment", "small"),
        ("small:tone", "deployment", "small"),
        ("large", "deployment", "large"),
    ]


@pytest.mark.parametrize(
    ("fields", "beaten"),
    [
        ({"headers": {"x-user-id": "u"}}, {"user": "v", "session": "w", "tenant": "t"}),
        ({"user": "u"}, {"session": "w", "tenant": "t"}),
        ({"session": "u"}, {"tenant": "t"}),
        ({"headers": {"x-session-id": "u"}}, {"tenant": "t"}),
        ({"tenant": "u"}, {}),
    ],
    ids=["header", "user", "session", "session header", "tenant"],
)
def test_the_first_unit_present_decides(fields: dict[str, Any], beaten: dict[str, Any]) -> None:
    built = table(chat())
    decision = built.resolve("chat", subject(**fields))
    assert decision.reason == "sticky"
    assert len(arms(built, **fields)) == 1
    assert built.resolve("chat", subject(**(beaten | fields))) == decision
    # The value is the unit, wherever it came from.
    assert built.resolve("chat", subject(user="u")).variant == decision.variant


def test_header_look_up_by_function_and_names_in_any_case() -> None:
    built = table(chat(assign_by=("header:X-User-Id",)))
    by_function = built.resolve("chat", subject(headers={"x-user-id": "u"}.get))
    assert by_function == built.resolve("chat", subject(headers={"x-user-id": "u"}))
    assert by_function.reason == "sticky"


def test_without_a_unit_each_request_is_on_its_own() -> None:
    built = table(chat())
    assert built.resolve("chat", subject()).reason == "request"
    assert 20 <= arms(built)["candidate"] <= 60


def test_an_empty_unit_is_no_unit() -> None:
    """A proxy that sends an empty user id for everybody must not put everybody into one variant."""
    built = table(chat())
    fields: dict[str, Any] = {"headers": {"x-user-id": "", "x-session-id": ""}, "user": "", "tenant": ""}
    assert built.resolve("chat", subject(**fields)).reason == "request"
    assert len(arms(built, **fields)) == 2


def test_assignment_by_request_spreads_even_a_known_user() -> None:
    built = table(chat(assign_by=("request", "user")))
    assert built.resolve("chat", subject(user="u")).reason == "request"
    assert len(arms(built, user="u")) == 2


def test_routes_without_a_salt_do_not_line_up() -> None:
    built = table(chat(), chat(model="other"))
    users = [subject(user=f"u{n}") for n in range(300)]
    pairs = {tuple(built.resolve(m, user).variant.name for m in ("chat", "other")) for user in users}
    assert len(pairs) == 4


def test_routes_with_one_salt_line_up() -> None:
    built = table(chat(salt="s"), chat(model="other", salt="s"))
    users = [subject(user=f"u{n}") for n in range(300)]
    pairs = {tuple(built.resolve(m, user).variant.name for m in ("chat", "other")) for user in users}
    assert pairs == {("control", "control"), ("candidate", "candidate")}


RULES = (
    RuleEntry(variant="candidate", headers={"x-beta": "1", "x-region": "eu"}),
    RuleEntry(variant="control", tenants=("acme", "initech")),
    RuleEntry(variant="candidate", headers={"X-Beta": "2"}, tenants=("globex",)),
)


@pytest.mark.parametrize(
    ("headers", "tenant", "expected"),
    [
        ({"x-beta": "1", "x-region": "eu"}, "acme", "candidate"),  # the first rule that matches
        ({"x-beta": "1"}, "acme", "control"),  # all headers of a rule, any of its tenants
        ({}, "initech", "control"),
        ({"x-beta": "2"}, "globex", "candidate"),
        ({"x-beta": "2"}, "hooli", None),  # headers and tenant both
        ({"x-beta": "3"}, "globex", None),
        ({"x-beta": ""}, "hooli", None),
    ],
)
def test_rules_come_before_assignment(headers: dict[str, str], tenant: str, expected: str | None) -> None:
    decision = table(chat(rules=RULES)).resolve("chat", subject(headers=headers, tenant=tenant, user="u"))
    assert (decision.variant.name if decision.reason == "rule" else None) == expected


def test_a_rule_reaches_a_variant_of_weight_zero_and_assignment_does_not() -> None:
    split = (variant("control", weight=1), variant("candidate", "large", weight=0))
    built = table(chat(*split, rules=(RuleEntry(variant="candidate", tenants=("acme",)),)))
    assert built.resolve("chat", subject(tenant="acme")).variant.name == "candidate"
    assert arms(built) == {"control": 200}


def test_unknown_model_suggests_what_the_caller_may_see() -> None:
    with pytest.raises(UnknownModel, match="'smal'") as caught:
        table(chat()).resolve("smal", subject())
    assert caught.value.model == "smal"
    assert caught.value.close_matches() == ["small"]
    assert caught.value.close_matches(visible=lambda name: name != "small") == []


def test_a_huge_model_name_is_neither_echoed_nor_compared() -> None:
    with pytest.raises(UnknownModel) as caught:
        table(chat()).resolve("chat" * 100_000, subject())
    assert len(str(caught.value)) < 200
    assert caught.value.close_matches() == []


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ((chat(variant("a", "gone")),), r"routes\[chat\].variants\[a\]: there is no deployment 'gone'"),
        ((chat(variant("a", adapter="gone")),), r"small has no adapter 'gone'"),
        ((chat(fallback=("gone",)),), r"routes\[chat\].fallback: there is no deployment 'gone'"),
        ((chat(rules=(RuleEntry(variant="gone"),)),), r"routes\[chat\].rules: there is no variant 'gone'"),
        ((chat(variant("a"), variant("a")),), "two have the same name"),
        ((chat(), chat()), "two are for the model 'chat'"),
        ((chat(variant("a", weight=0)),), "at least one weight"),
        ((chat(variant("a", weight=-1)),), "not negative"),
        ((chat(assign_by=("cookie",)),), "'cookie' is none of"),
        ((chat(assign_by=("header:",)),), "'header:' is none of"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(
    routes: tuple[RouteEntry, ...], message: str
) -> None:
    with pytest.raises(InvalidTableError, match=message):
        table(*routes)


def test_two_deployments_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidTableError, match="deployments"):
        table(deployments=(deployment("a"), deployment("a")))

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.endpoint import REQUEST_ID, FakeEndpoint, Script, deployment
from tradewind import home as home_files
from tradewind.api.wire import (
    GatewayConfig,
    RouteEntry,
    RuleEntry,
    SecretRef,
    Task,
    TenantEntry,
    VariantEntry,
)
from tradewind.cli import selfcheck
from tradewind.cli.client import Client
from tradewind.cli.errors import CommandFailed
from tradewind.cli.selfcheck import Probe, example_model, probes, unit_for
from tradewind.routing.table import RouteTable, Subject

TWO = (deployment("llama"), deployment("mistral"))
EMBEDDER = deployment("embedder", task=Task.EMBED)
SCORER = deployment("scorer", task=Task.SCORE)


def route(weights: tuple[int, int] = (80, 20), **changes: object) -> RouteEntry:
    variants = (
        VariantEntry(name="control", deployment="llama", weight=weights[0]),
        VariantEntry(name="candidate", deployment="mistral", weight=weights[1]),
    )
    return RouteEntry.model_validate({"model": "chat", "variants": variants, "salt": "s", **changes})


def config(*routes: RouteEntry, **changes: object) -> GatewayConfig:
    return GatewayConfig.model_validate({"revision": "r1", "deployments": TWO, "routes": routes, **changes})


def tenant(name: str, home: Path, *models: str) -> TenantEntry:
    """A tenant with a key that lies in the state directory."""
    home_files.write_private(home / "keys" / name, f"tw-{name}\n")
    return TenantEntry(name=name, keys=(SecretRef(file=f"keys/{name}"),), models=models or ("*",))


def keys(*tenants: TenantEntry) -> dict[str, str]:
    return {f"tw-{entry.name}": entry.name for entry in tenants}


def checked(
    made: GatewayConfig, home: Path, tenants: dict[str, str], script: Script | None = None
) -> FakeEndpoint:
    """The endpoint after a self-check against it."""
    with FakeEndpoint(made, keys=tenants, script=script or Script()) as endpoint:
        client = Client(endpoint.url, "")
        try:
            selfcheck.run(client, made, home, trace_wait_s=0.0)
        finally:
            client.close()
    return endpoint


@pytest.mark.parametrize("weights", [(80, 20), (999, 1), (1, 1)])
def test_the_unit_is_one_that_the_gateways_own_routing_sends_there(weights: tuple[int, int]) -> None:
    made = config(route(weights))
    table = RouteTable.build(made)
    for variant in ("control", "candidate"):
        unit = unit_for(table, made.routes[0], variant)
        assert unit is not None
        decision = table.resolve("chat", Subject({}, unit, None, "acme", "req_x"))
        assert (decision.variant.name, decision.reason) == (variant, "sticky")


def test_a_variant_without_weight_is_reached_by_no_unit_and_not_asked() -> None:
    made = config(route((1, 0)))
    assert unit_for(RouteTable.build(made), made.routes[0], "control") == "user-0"
    assert [(probe.model, probe.variant) for probe in probes(made)] == [
        ("chat", "control"), ("mistral", "mistral"),
    ]  # fmt: skip


@pytest.mark.parametrize("assign_by", [("user",), ("header:x-user-id",), ("session",), ("tenant", "user")])
def test_each_variant_answers_once_however_units_are_named(assign_by: tuple[str, ...], home: Path) -> None:
    endpoint = checked(config(route(assign_by=assign_by)), home, {})
    assert [seen.variant for seen in endpoint.seen] == ["control", "candidate"]


def test_without_a_unit_to_choose_whoever_answers_is_taken(home: Path) -> None:
    made = config(route(assign_by=("request",)))
    assert [probe.unit for probe in probes(made)] == [None, None]
    assert len(checked(made, home, {}).seen) == 2


def test_a_rule_for_the_tenant_is_no_failure(home: Path) -> None:
    acme = tenant("acme", home)
    made = config(route(rules=(RuleEntry(variant="candidate", tenants=("acme",)),)), tenants=(acme,))
    endpoint = checked(made, home, keys(acme))
    assert [seen.variant for seen in endpoint.seen] == ["candidate", "candidate"]


def test_each_model_is_asked_with_a_key_that_may_call_it(home: Path) -> None:
    tenants = (tenant("narrow", home, "chat"), tenant("other", home, "alone"))
    made = config(route(), deployments=(*TWO, deployment("alone"), deployment("closed")), tenants=tenants)
    endpoint = checked(made, home, keys(*tenants))
    assert [(seen.body["model"], seen.tenant) for seen in endpoint.seen] == [
        ("chat", "narrow"), ("chat", "narrow"), ("alone", "other"),
    ]  # fmt: skip


def test_what_nobody_may_call_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = config(route(), tenants=(tenant("other", home, "llama"),))
    checked(made, home, {"tw-other": "other"})
    assert "chat: not asked" in capsys.readouterr().err


def test_models_that_do_not_talk_are_asked_what_they_do(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = checked(config(deployments=(EMBEDDER, SCORER)), home, {})
    assert [seen.path for seen in endpoint.seen] == ["/v1/embeddings", "/v1/score"]
    shown = capsys.readouterr().out
    assert "3 numbers" in shown
    assert "score 0.875" in shown


def test_what_is_shown_names_variant_split_answer_and_request(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checked(config(route()), home, {}, Script(words=("[/red]", "Paris")))
    shown = capsys.readouterr().out
    for text in ("control", "80%", "candidate", "20%", "[/red]Paris", f"Trace of {REQUEST_ID}"):
        assert text in shown


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (Script(status=503, code="no_capacity"), r"chat \(control\) did not answer: Refused with 503"),
        (Script(breaks_after=1), r"chat \(control\) did not answer: the stream ended"),
    ],
)
def test_a_variant_that_does_not_answer_fails_the_check(home: Path, script: Script, message: str) -> None:
    with pytest.raises(CommandFailed, match=message):
        checked(config(route()), home, {}, script)


def test_another_variant_than_computed_fails_the_check(home: Path) -> None:
    expected, served = config(route()), config(route(salt="another"))
    units = [probe.unit for probe in probes(expected)]
    table = RouteTable.build(served)
    got = [table.resolve("chat", Subject({}, unit, None, "", "r")).variant.name for unit in units]
    assert got != ["control", "candidate"], "choose another salt: this one agrees by chance"
    with FakeEndpoint(served) as endpoint:
        client = Client(endpoint.url, "")
        with pytest.raises(CommandFailed, match="expected variant"):
            selfcheck.run(client, expected, home, trace_wait_s=0.0)
        client.close()


def test_a_key_is_in_no_representation_of_a_probe() -> None:
    assert "tw-secret" not in repr(Probe("chat", "control", 1.0, key="tw-secret"))


def test_the_example_uses_a_model_that_talks() -> None:
    assert example_model(config(route())) == "chat"
    assert example_model(config(deployments=(EMBEDDER, *TWO))) == "llama"
    assert example_model(config(deployments=(EMBEDDER,))) is None

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.api.builders import Data, changed
from tests.unit.operator.policy.objects import (
    KEYS,
    accepted,
    cluster,
    decided,
    deleting,
    edited,
    model,
    platform,
    route,
    tenant,
)
from tradewind_operator.policy.decision import Decision, Deletion
from tradewind_operator.policy.secrets import SecretValue, State
from tradewind_operator.policy.verdict import Reason

GATED = {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "tokenSecret": {"name": "hf", "key": "token"}}


def said(decision: Decision, kind: str, name: str) -> tuple[bool, str, int | None]:
    verdict = decision.verdicts[kind, name]
    return verdict.accepted, verdict.reason.value, verdict.from_generation


def message(decision: Decision, kind: str, name: str) -> str:
    return decision.verdicts[kind, name].message


def served(decision: Decision) -> tuple[set[str], dict[str, list[str]], set[str]]:
    """Engines, routes with their deployments, and tenants in the compiled configuration."""
    assert decision.compiled is not None
    gateway = decision.compiled.gateway
    routes = {entry.model: [variant.deployment for variant in entry.variants] for entry in gateway.routes}
    return set(decision.compiled.engines), routes, {entry.name for entry in gateway.tenants}


def keys(decision: Decision) -> dict[str, tuple[str, ...]]:
    """Tenants of the compiled configuration, with the hashes of their keys."""
    assert decision.compiled is not None
    return {entry.name: entry.key_hashes for entry in decision.compiled.gateway.tenants}


def test_a_platform_without_fault_is_accepted_in_whole() -> None:
    decision = decided(*platform())
    assert all(verdict.accepted for verdict in decision.verdicts.values())
    assert len(decision.verdicts) == 6
    assert served(decision) == (
        {"llama", "mistral"}, {"chat": ["llama", "mistral"], "direct": ["llama"]}, {"acme"}
    )  # fmt: skip


def test_without_tenants_nobody_is_at_fault() -> None:
    decision = decided(cluster(), model())
    assert all(verdict.accepted for verdict in decision.verdicts.values())
    assert served(decision)[2] == set()


def test_an_unreadable_edit_leaves_what_was_accepted_in_force() -> None:
    parts = platform()
    parts[1] = edited(parts[1], "spec.replicas", 0)
    decision = decided(*parts)
    assert said(decision, "ModelDeployment", "llama") == (False, "Invalid", 1)
    assert message(decision, "ModelDeployment", "llama") == (
        "spec.replicas: found 0; allowed: at least 1. What was accepted as generation 1 stays in force."
    )
    assert decision.compiled == decided(*platform()).compiled


def test_scaling_what_scales_itself_is_refused() -> None:
    scaled = edited(accepted(model(autoscaling={"maxReplicas": 3})), "spec.replicas", 2)
    decision = decided(cluster(), scaled)
    assert said(decision, "ModelDeployment", "llama") == (False, "Invalid", 1)
    assert "found replicas and autoscaling" in message(decision, "ModelDeployment", "llama")


def test_an_unknown_engine_argument_is_that_models_fault_alone() -> None:
    parts = platform()
    parts[2] = edited(parts[2], "spec.engine", {"args": {"maxModelLenn": 1}})
    decision = decided(*parts, model("fresh", engine={"args": {"nonsense": 1}}))
    assert said(decision, "ModelDeployment", "mistral") == (False, "Invalid", 1)
    assert said(decision, "ModelDeployment", "fresh") == (False, "Invalid", None)
    assert "spec.engine.args.maxModelLenn" in message(decision, "ModelDeployment", "mistral")
    assert decision.compiled == decided(*platform()).compiled


def test_a_new_route_to_a_model_that_is_not_accepted_names_it() -> None:
    decision = decided(cluster(), model(), model("mistral", replicas=0), route(), tenant())
    assert said(decision, "ModelRoute", "chat") == (False, "DeploymentNotAccepted", None)
    assert "'mistral'" in message(decision, "ModelRoute", "chat")
    assert served(decision) == ({"llama"}, {}, {"acme"})


def test_a_route_whose_deployment_vanished_goes_on_with_the_variants_that_are_left() -> None:
    parts = [part for part in platform() if part["metadata"]["name"] != "mistral"]
    decision = decided(*parts)
    assert said(decision, "ModelRoute", "chat") == (False, "DeploymentNotFound", 1)
    assert "spec.variants[1].deployment: found 'mistral'" in message(decision, "ModelRoute", "chat")
    assert served(decision)[1]["chat"] == ["llama"]


def test_a_route_without_any_deployment_left_is_out() -> None:
    parts = [part for part in platform() if part["kind"] != "ModelDeployment"]
    decision = decided(*parts)
    assert said(decision, "ModelRoute", "chat") == (False, "DeploymentNotFound", None)
    assert served(decision) == (set(), {}, {"acme"})


def test_a_model_that_is_being_deleted_drains() -> None:
    parts = platform()
    parts[2] = deleting(parts[2])
    decision = decided(*parts)
    assert decision.draining == ("mistral",)
    assert ("ModelDeployment", "mistral") not in decision.verdicts
    assert said(decision, "ModelRoute", "chat") == (False, "DeploymentDeleting", 1)
    assert served(decision)[:2] == ({"llama"}, {"chat": ["llama"], "direct": ["llama"]})


def test_a_cluster_that_does_not_exist_is_named_with_those_that_do() -> None:
    decision = decided(cluster(), model(cluster="defualt"), about="defualt")
    assert decision.compiled is None
    assert said(decision, "ModelDeployment", "llama") == (False, "ClusterNotFound", None)
    assert "did you mean default?" in message(decision, "ModelDeployment", "llama")


def test_a_mistyped_cluster_does_not_end_a_running_model() -> None:
    decision = decided(cluster(), edited(accepted(model()), "spec.cluster", "nope"))
    assert said(decision, "ModelDeployment", "llama") == (False, "ClusterNotFound", 1)
    assert served(decision)[0] == {"llama"}


def test_models_of_a_cluster_that_was_never_accepted_say_so() -> None:
    decision = decided(cluster(gateway={"replicas": 1}), model())
    assert said(decision, "ServingCluster", "default") == (False, "Invalid", None)
    assert said(decision, "ModelDeployment", "llama") == (False, "ClusterNotAccepted", None)
    assert decision.compiled is None


def test_clusters_share_a_namespace() -> None:
    parts = [cluster("a"), cluster("b"), model("x", cluster="a"), model("y", cluster="b")]
    parts += [route("to-x", "x"), route("to-y", "y"), route("both", "x", "y"), tenant(models=["to-x"])]
    a, b = decided(*parts, about="a"), decided(*parts, about="b")
    assert served(a) == ({"x"}, {"to-x": ["x"]}, {"acme"})
    assert served(b) == ({"y"}, {"to-y": ["y"]}, set())
    assert said(a, "ModelRoute", "both") == (False, "MixedClusters", None)
    assert not set(a.verdicts) & set(b.verdicts)
    assert said(a, "Tenant", "acme") == (True, "Accepted", 1)


def test_every_tenant_opens_every_cluster_of_its_namespace_and_one_speaks_about_it() -> None:
    rule = {"match": {"tenants": ["acme"]}, "variant": "v-y"}
    parts = [cluster("a"), cluster("b"), model("x", cluster="a"), model("y", cluster="b")]
    parts += [route("to-y", "y", rules=[rule]), tenant(models=["*"]), tenant("beta", models=["to-y"])]
    a, b = decided(*parts, about="a"), decided(*parts, about="b")
    assert keys(a) == {"acme": ("aa" * 32,)}
    assert keys(b) == {"acme": ("aa" * 32,), "beta": ("bb" * 32,)}
    assert b.compiled is not None
    assert [each.tenants for each in b.compiled.gateway.routes[0].rules] == [("acme",)]
    assert said(a, "Tenant", "acme") == said(a, "Tenant", "beta") == (True, "Accepted", 1)
    assert [key for key in {**b.entries, **b.verdicts} if key[0] == "Tenant"] == []
    assert (a.refused, b.refused) == ((), ())


def test_a_tenant_goes_from_every_cluster_with_its_key_or_its_deletion() -> None:
    parts = [cluster("a"), cluster("b"), model("x", cluster="a"), model("y", cluster="b")]
    revoked = revoking(tenant(), modells=["*"])
    left = [keys(decided(*parts, revoked, about=each)) for each in ("a", "b")]
    assert left == [{"acme": ("bb" * 32,)}] * 2
    no_key = {("acme", "key"): SecretValue(State.NO_KEY)}
    assert keys(decided(*parts, accepted(tenant()), about="b", secrets=no_key)) == {}
    assert keys(decided(*parts, deleting(accepted(tenant())), about="b")) == {}


def test_a_wrong_tenant_is_told_so_once_and_is_out_of_every_cluster() -> None:
    wrong = tenant("beta", models=["nobody"])
    parts = [cluster("a"), cluster("b"), model("y", cluster="b"), tenant(), wrong]
    a, b = decided(*parts, about="a"), decided(*parts, about="b")
    assert said(a, "Tenant", "beta") == (False, "ModelNotFound", None)
    assert set(keys(b)) == {"acme"}
    assert [entry.name for entry in a.refused] == [entry.name for entry in b.refused] == ["beta"]


def test_images_off_the_list_are_refused() -> None:
    good = accepted(cluster(images={"head": "ghcr.io/tradewind/ray:1"}))
    decision = decided(edited(good, "spec.pools.cpu.engineImage", "docker.io/evil/engine:1"), model())
    assert said(decision, "ServingCluster", "default") == (False, "ImageNotAllowed", 1)
    assert "spec.pools.cpu.engineImage: found 'docker.io/evil/engine:1'" in message(
        decision, "ServingCluster", "default"
    )
    assert decision.compiled is not None


def test_a_long_name_is_refused() -> None:
    decision = decided(cluster("x" * 41), about="x" * 41)
    assert said(decision, "ServingCluster", "x" * 41) == (False, "Invalid", None)


def test_a_model_called_gateway_is_refused() -> None:
    assert said(decided(cluster(), model("gateway")), "ModelDeployment", "gateway") == (
        False,
        "Invalid",
        None,
    )


def test_a_pool_that_models_ask_for_cannot_go() -> None:
    other = {"big": {"cpus": 16, "memory": "64Gi", "maxNodes": 1}}
    changed_cluster = edited(accepted(cluster()), "spec.pools", other)
    decision = decided(changed_cluster, accepted(model(resources={"pool": "cpu"})))
    assert said(decision, "ServingCluster", "default") == (False, "PoolInUse", 1)
    assert said(decision, "ModelDeployment", "llama") == (True, "Accepted", 1)
    moved = decided(
        changed_cluster, edited(accepted(model(resources={"pool": "cpu"})), "spec.resources.pool", "big")
    )
    assert said(moved, "ServingCluster", "default") == (True, "Accepted", 2)


def test_a_missing_secret_of_a_tenant_says_the_command() -> None:
    decision = decided(cluster(), model(), tenant(), secrets={})
    assert said(decision, "Tenant", "acme") == (False, "SecretNotFound", None)
    assert "kubectl create secret generic acme --namespace team --from-literal='key=<api key>'" in message(
        decision, "Tenant", "acme"
    )
    assert said(decision, "ModelDeployment", "llama") == (True, "Accepted", 1)


def test_a_tenant_goes_on_with_the_keys_that_are_left() -> None:
    two = [{"secret": {"name": name, "key": "key"}} for name in ("acme", "beta")]
    parts = [cluster(), model(), accepted(tenant(keys=two))]
    decision = decided(
        *parts, secrets={("acme", "key"): KEYS["acme", "key"], ("beta", "key"): SecretValue(State.NO_KEY)}
    )
    assert said(decision, "Tenant", "acme") == (False, "SecretKeyNotFound", 1)
    assert "kubectl patch secret beta --namespace team" in message(decision, "Tenant", "acme")
    assert decision.compiled is not None
    assert decision.compiled.gateway.tenants[0].key_hashes == ("aa" * 32,)


def test_a_value_that_is_no_api_key_is_refused() -> None:
    decision = decided(cluster(), tenant(), secrets={("acme", "key"): SecretValue(State.UNUSABLE)})
    assert said(decision, "Tenant", "acme") == (False, "SecretUnusable", None)


def test_two_tenants_cannot_have_one_key() -> None:
    thief = tenant("aaa", keys=[{"secret": {"name": "acme", "key": "key"}}])
    decision = decided(cluster(), thief, accepted(tenant()))
    assert said(decision, "Tenant", "aaa") == (False, "KeyInUse", None)
    assert said(decision, "Tenant", "acme") == (True, "Accepted", 1)


def test_a_key_from_the_environment_is_no_key_in_a_cluster() -> None:
    decision = decided(cluster(), tenant(keys=[{"env": "KEY"}]))
    assert said(decision, "Tenant", "acme") == (False, "Invalid", None)


def test_a_missing_hub_token_stops_a_new_model_but_not_a_running_one() -> None:
    decision = decided(cluster(), model(source=GATED), accepted(model("mistral", source=GATED)))
    assert said(decision, "ModelDeployment", "llama") == (False, "SecretNotFound", None)
    assert said(decision, "ModelDeployment", "mistral") == (False, "SecretNotFound", 1)
    assert "--from-literal='token=<token>'" in message(decision, "ModelDeployment", "llama")
    assert served(decision)[0] == {"mistral"}


def test_a_tenants_unknown_model_is_its_own_fault_and_one_out_of_force_is_not() -> None:
    parts = [cluster(), model(), model("broken", replicas=0)]
    decision = decided(*parts, tenant(models=["llama", "broken"]), tenant("beta", models=["lama"]))
    assert said(decision, "Tenant", "acme") == (True, "Accepted", 1)
    assert said(decision, "Tenant", "beta") == (False, "ModelNotFound", None)
    assert "did you mean llama?" in message(decision, "Tenant", "beta")
    assert decision.compiled is not None
    assert [entry.models for entry in decision.compiled.gateway.tenants] == [("llama",)]


def test_a_model_name_stays_with_the_route_that_has_it() -> None:
    decision = decided(*platform(), route("aaa", "llama", model="chat"))
    assert said(decision, "ModelRoute", "aaa") == (False, "ModelTaken", None)
    assert said(decision, "ModelRoute", "chat") == (True, "Accepted", 1)
    grabbing = edited(platform()[4], "spec.model", "chat")
    decision = decided(*platform()[:4], grabbing)
    assert said(decision, "ModelRoute", "direct") == (False, "ModelTaken", 1)
    assert served(decision)[1]["direct"] == ["llama"]


def test_a_rule_for_a_tenant_that_is_out_is_left_out_and_never_widened() -> None:
    rule = {"match": {"tenants": ["beta"]}, "variant": "v-mistral"}
    ruled = route(rules=[rule])
    decision = decided(cluster(), model(), model("mistral"), ruled, tenant("beta", keys=[{"env": "X"}]))
    assert said(decision, "ModelRoute", "chat") == (True, "Accepted", 1)
    assert decision.compiled is not None
    assert decision.compiled.gateway.routes[0].rules == ()
    gone = decided(cluster(), model(), model("mistral"), ruled)
    assert said(gone, "ModelRoute", "chat") == (False, "TenantNotFound", None)


def test_deleting_a_cluster_with_models_is_refused_until_it_is_asked_for() -> None:
    held = decided(deleting(cluster()), model())
    assert (held.deletion, held.holding) == (Deletion.REFUSED, ("llama",))
    assert held.compiled is not None
    asked = changed(deleting(cluster()), "metadata.annotations", {"tradewind.dev/delete-models": "true"})
    allowed = decided(asked, model())
    assert (allowed.deletion, allowed.compiled) == (Deletion.ALLOWED, None)
    assert said(allowed, "ModelDeployment", "llama") == (False, "ClusterNotFound", None)
    assert decided(deleting(cluster())).deletion is Deletion.ALLOWED


def test_a_message_is_never_longer_than_a_condition_takes() -> None:
    variants = [{"name": f"v{i}", "deployment": f"none-{i}"} for i in range(32)]
    decision = decided(cluster(), route(variants=variants))
    text = message(decision, "ModelRoute", "chat")
    assert len(text) <= 1_000
    assert " more. Nothing of this resource is in force." in text


FAULTY: list[Data] = [
    model("zz", replicas=0),
    model("zz", engine={"args": {"nonsense": 1}}),
    model("zz", cluster="nowhere"),
    model("zz", source=GATED),
    model("zz", resources={"gpus": 8}),
    model("zz", resources={"pool": "none"}),
    route("zz", "nobody"),
    route("zz", "llama", model="chat"),
    route("zz", "llama", "nobody", rules=[{"match": {"tenants": ["nobody"]}, "variant": "v-llama"}]),
    route("zz", variants=[]),
    tenant("zz"),
    tenant("zz", keys=[{"secret": {"name": "acme", "key": "key"}}]),
    tenant("zz", keys=[{"secret": {"name": "beta", "key": "key"}}], models=["nothing"]),
    tenant("zz", keys="plain text"),
]


@pytest.mark.parametrize("faulty", FAULTY, ids=lambda data: data["kind"])
def test_a_faulty_resource_changes_nothing_for_the_others(faulty: Data) -> None:
    clean, mixed = decided(*platform()), decided(*platform(), faulty)
    key = (faulty["kind"], "zz")
    if key in mixed.verdicts:
        assert mixed.verdicts[key].from_generation is None
        assert not mixed.verdicts[key].accepted
    assert mixed.compiled == clean.compiled
    assert {each: found for each, found in mixed.verdicts.items() if each != key} == clean.verdicts


@given(st.permutations(platform() + FAULTY[:1] + FAULTY[6:7] + FAULTY[12:13]))
@settings(max_examples=25)
def test_the_order_of_documents_decides_nothing(shuffled: list[Data]) -> None:
    ordered = sorted(shuffled, key=lambda data: (data["kind"], data["metadata"]["name"]))
    assert decided(*shuffled) == decided(*ordered)


@given(st.lists(st.sampled_from(range(len(FAULTY))), unique=True, max_size=6))
@settings(max_examples=40)
def test_several_faults_do_no_more_harm_than_one(picked: list[int]) -> None:
    renamed: list[Any] = [changed(FAULTY[i], "metadata.name", f"zz{i}") for i in picked]
    assert decided(*platform(), *renamed).compiled == decided(*platform()).compiled


def test_a_thousand_models_and_five_hundred_routes_take_little_time() -> None:
    parts = [accepted(cluster()), accepted(tenant())]
    parts += [accepted(model(f"m{i:04}", engine={"args": {"maxModelLen": 8192}})) for i in range(1_000)]
    parts += [accepted(route(f"r{i:03}", f"m{i:04}", f"m{i + 500:04}")) for i in range(500)]
    parts[5] = edited(parts[5], "spec.engine.args", {"nonsense": 1})
    parts[1_200] = edited(parts[1_200], "spec.variants.0.deployment", "nobody")
    started = time.process_time()
    decision = decided(*parts)
    took = time.process_time() - started
    assert [key for key, found in decision.verdicts.items() if not found.accepted] == [
        ("ModelDeployment", "m0003"), ("ModelRoute", "r198")
    ]  # fmt: skip
    assert decision.verdicts["ModelRoute", "r198"].reason is Reason.DEPLOYMENT_NOT_FOUND
    assert took < 1.9


def revoking(data: Data, **spec: Any) -> Data:
    """A Tenant with two keys that was accepted, as somebody has written it since."""
    keys = [{"secret": {"name": name, "key": "key"}} for name in ("acme", "beta")]
    before = accepted(changed(data, "spec.keys", keys))
    return changed(edited(before, "spec.keys", keys[1:]), "spec", {"keys": keys[1:], **spec})


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"models": ["nobody"]}, id="an unknown model"),
        pytest.param({"modells": ["chat"]}, id="an unknown field"),
        pytest.param({"keys": [{"secret": {"name": "beta", "key": "key"}}, 7]}, id="a key that is none"),
    ],
)
def test_a_key_that_is_taken_out_opens_nothing_whatever_else_is_wrong(wrong: Data) -> None:
    parts = platform()[:-1]
    decision = decided(*parts, revoking(tenant(), **wrong))
    assert not decision.verdicts["Tenant", "acme"].accepted
    assert decision.compiled is not None
    hashes = [entry.key_hashes for entry in decision.compiled.gateway.tenants]
    expected = [] if "models" in wrong else [("bb" * 32,)]
    assert hashes == expected


def test_without_readable_keys_a_tenant_is_closed() -> None:
    decision = decided(*platform()[:-1], revoking(tenant(), keys="none"))
    assert decision.compiled is not None
    assert decision.compiled.gateway.tenants == ()


def test_a_key_that_another_tenant_has_by_now_closes_nobody() -> None:
    """Moved from acme to aaa, which is judged first, by somebody who mistyped a field of acme beside it."""
    moved = edited(accepted(tenant("aaa")), "spec.keys", [{"secret": {"name": "acme", "key": "key"}}])
    decision = decided(*platform()[:-1], moved, revoking(tenant(), modells=["chat"]))
    assert said(decision, "Tenant", "aaa") == (True, "Accepted", 2)
    assert said(decision, "Tenant", "acme") == (False, "Invalid", 1)
    assert keys(decision) == {"aaa": ("aa" * 32,), "acme": ("bb" * 32,)}


def test_an_edit_takes_no_key_from_the_tenant_that_has_it() -> None:
    two = [{"secret": {"name": name, "key": "key"}} for name in ("beta", "acme")]
    grabbing = edited(accepted(tenant("aaa", keys=two[:1])), "spec.keys", two)
    decision = decided(*platform(), grabbing)
    assert said(decision, "Tenant", "aaa") == (False, "KeyInUse", 1)
    assert said(decision, "Tenant", "acme") == (True, "Accepted", 1)
    assert keys(decision) == {"aaa": ("bb" * 32,), "acme": ("aa" * 32,)}


def test_a_secret_with_the_key_of_another_tenant_opens_nothing_and_the_other_keys_go_on() -> None:
    places = [{"secret": {"name": name, "key": "key"}} for name in ("copied", "beta")]
    copied = {**KEYS, ("copied", "key"): KEYS["acme", "key"]}
    parts = [cluster(), model(), accepted(tenant()), accepted(tenant("zz", keys=places))]
    decision = decided(*parts, secrets=copied)
    assert said(decision, "Tenant", "zz") == (False, "KeyInUse", 1)
    assert keys(decision) == {"acme": ("aa" * 32,), "zz": ("bb" * 32,)}

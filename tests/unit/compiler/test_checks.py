"""Rules among several resources: where, what was found, what is allowed."""

from __future__ import annotations

import json

import pytest

from tests.unit.api.builders import Data, changed, cluster, model, tenant
from tests.unit.compiler.worlds import located, pair, pools
from tradewind.compiler.compile import compile_resources
from tradewind.compiler.diagnostics import CompileError
from tradewind.compiler.documents import Located, read_documents
from tradewind.compiler.world import CLUSTER, LOCAL, Platform

LLAMA, MISTRAL, CHAT = pair()
ADAPTED = model("llama", adapters=[{"name": "tone", "uri": "s3://loras/tone"}])
POOLS = pools()
SECRET_ADAPTER = {
    "name": "tone",
    "uri": "gs://bucket/a",
    "credentials": {"gcs": {"serviceAccountKey": {"name": "g", "key": "k"}}},
}
SECRET_SOURCE = {"uri": "hf://a/b", "tokenSecret": {"name": "hf", "key": "token"}}

CASES: list[tuple[str, Platform, list[Data], str, list[str]]] = [
    (
        "an unknown deployment",
        LOCAL,
        [LLAMA, CHAT],
        "spec.variants[1].deployment",
        ["'mistral'", "no such ModelDeployment", "allowed: llama"],
    ),
    (
        "a misspelt deployment",
        LOCAL,
        [LLAMA, MISTRAL, changed(CHAT, "spec.variants.1.deployment", "mistrall")],
        "spec.variants[1].deployment",
        ["did you mean mistral?"],
    ),
    (
        "a route without any deployment",
        LOCAL,
        [changed(CHAT, "spec.variants.1.deployment", "llama")],
        "spec.variants[0].deployment",
        ["none, because there is no ModelDeployment"],
    ),
    (
        "an unknown fallback",
        LOCAL,
        [LLAMA, MISTRAL, changed(CHAT, "spec.fallback", [{"deployment": "x"}])],
        "spec.fallback[0].deployment",
        ["'x'", "llama, mistral"],
    ),
    (
        "an unknown adapter",
        LOCAL,
        [ADAPTED, MISTRAL, changed(CHAT, "spec.variants.0.adapter", "tones")],
        "spec.variants[0].adapter",
        ["'tones'", "did you mean tone?"],
    ),
    (
        "an adapter of nobody",
        LOCAL,
        [LLAMA, MISTRAL, changed(CHAT, "spec.variants.0.adapter", "tone")],
        "spec.variants[0].adapter",
        ["no adapter of ModelDeployment llama"],
    ),
    (
        "an unknown tenant in a rule",
        LOCAL,
        [
            LLAMA,
            MISTRAL,
            tenant(),
            changed(CHAT, "spec.rules", [{"match": {"tenants": ["acmee"]}, "variant": "control"}]),
        ],
        "spec.rules[0].match.tenants[0]",
        ["'acmee'", "did you mean acme?"],
    ),
    (
        "a tenant for an unknown model",
        LOCAL,
        [LLAMA, MISTRAL, CHAT, tenant(models=["chat", "chats"])],
        "spec.models[1]",
        ["'chats'", "did you mean chat?", "allowed: chat, llama, mistral"],
    ),
    (
        "a route over two tasks",
        LOCAL,
        [LLAMA, model("mistral", task="embed"), CHAT],
        "spec.variants[1].deployment",
        ["'mistral', which does embed", "all do generate"],
    ),
    (
        "a fallback of another task",
        LOCAL,
        [LLAMA, MISTRAL, model("e", task="embed"), changed(CHAT, "spec.fallback", [{"deployment": "e"}])],
        "spec.fallback[0].deployment",
        ["which does embed"],
    ),
    ("another cluster", LOCAL, [model(cluster="west")], "spec.cluster", ["'west'", "allowed: default"]),
    (
        "two clusters",
        LOCAL,
        [cluster(), changed(cluster(), "metadata.name", "west")],
        "metadata.name",
        ["second ServingCluster 'west'", "'default'"],
    ),
    (
        "one name twice",
        LOCAL,
        [LLAMA, LLAMA],
        "metadata.name",
        ["ModelDeployment 'llama' a second time", "set.yaml:2"],
    ),
    (
        "one model on two routes",
        LOCAL,
        [LLAMA, MISTRAL, CHAT, changed(CHAT, "metadata.name", "chat-b")],
        "spec.model",
        ["ModelRoute chat serves", "one route per model"],
    ),
    (
        "two namespaces",
        LOCAL,
        [changed(LLAMA, "metadata.namespace", "a"), changed(MISTRAL, "metadata.namespace", "b")],
        "metadata.namespace",
        ["'b'", "one namespace", "'a'"],
    ),
    (
        "a Secret's token on a laptop",
        LOCAL,
        [model(source=SECRET_SOURCE)],
        "spec.source.tokenSecret",
        ["only in a cluster", "env or file"],
    ),
    (
        "a Secret's key on a laptop",
        LOCAL,
        [LLAMA, tenant(keys=[{"secret": {"name": "a", "key": "b"}}])],
        "spec.keys[0]",
        ["only in a cluster"],
    ),
    (
        "a pool on a laptop",
        LOCAL,
        [model(resources={"pool": "l4"})],
        "spec.resources.pool",
        ["'l4'", "only in a cluster"],
    ),
    (
        "an unknown pool",
        CLUSTER,
        [POOLS, model(resources={"pool": "l40"})],
        "spec.resources.pool",
        ["'l40'", "allowed: h100, l4", "did you mean l4?"],
    ),
    (
        "no tenant on the network",
        LOCAL,
        [LLAMA, cluster(gateway={"endpoint": {"host": "0.0.0.0"}})],
        "spec.gateway.endpoint.host",
        ["no Tenant", "'0.0.0.0' is not on loopback", "add a Tenant"],
    ),
    (
        "no pool at all",
        CLUSTER,
        [LLAMA],
        "spec.resources",
        ["no pool that a replica fits on", "has no pools"],
    ),
    (
        "no pool large enough",
        CLUSTER,
        [POOLS, model(resources={"gpus": 4})],
        "spec.resources",
        ["h100: its pods have 2 of 4 GPUs", "l4: its pods have 1 of 4 GPUs", "add one to spec.pools"],
    ),
    (
        "a pool too small",
        CLUSTER,
        [POOLS, model(resources={"pool": "l4", "gpus": 1, "cpus": 8, "memory": "64Gi"})],
        "spec.resources.pool",
        ["'l4'", "4 of 8 CPUs and have 16Gi of 64Gi memory"],
    ),
    (
        "a CPU model for GPU nodes",
        CLUSTER,
        [POOLS, model(resources={"pool": "l4"})],
        "spec.resources.pool",
        ["are for models with GPUs"],
    ),
    (
        "a Secret's bucket key on a laptop",
        LOCAL,
        [model(adapters=[SECRET_ADAPTER])],
        "spec.adapters[0].credentials.gcs.serviceAccountKey",
        ["only in a cluster", "env or file"],
    ),
    (
        "a laptop's token in a cluster",
        CLUSTER,
        [POOLS, model(source={"uri": "hf://a/b", "tokenSecret": {"env": "HF"}}, resources={"gpus": 1})],
        "spec.source.tokenSecret",
        ["one machine only", "name and key"],
    ),
    (
        "a laptop's key in a cluster",
        CLUSTER,
        [POOLS, tenant()],
        "spec.keys[0]",
        ["one machine only", "secret"],
    ),
    (
        "a key whose Secret is not there",
        CLUSTER,
        [POOLS, tenant(keys=[{"secret": {"name": "a", "key": "b"}}])],
        "spec.keys[0].secret",
        ["no key 'b'", "Secret 'a'"],
    ),
    (
        "a single gateway in a cluster",
        CLUSTER,
        [cluster(gateway={"replicas": 1})],
        "spec.gateway.replicas",
        ["found 1", "2 or more"],
    ),
    (
        "a wrong argument",
        LOCAL,
        [model(engine={"args": {"maxModelLength": 5}})],
        "spec.engine.args.maxModelLength",
        ["did you mean maxModelLen?"],
    ),
]


@pytest.mark.parametrize(
    ("platform", "data", "path", "says"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_refused(platform: Platform, data: list[Data], path: str, says: list[str]) -> None:
    with pytest.raises(CompileError) as caught:
        compile_resources(located(*data), platform=platform)
    at_path = [item for item in caught.value.diagnostics if item.path == path]
    assert at_path, caught.value
    told = "\n".join(map(str, at_path))
    for words in says:
        assert words in told
    assert told.startswith("set.yaml")


def test_an_error_stands_where_the_name_is_written() -> None:
    text = "---\n" + json.dumps(LLAMA) + "\n---\n" + json.dumps(CHAT, indent=1)
    with pytest.raises(CompileError) as caught:
        compile_resources(read_documents([("r.yaml", text)]))
    (found,) = caught.value.diagnostics
    line = text.splitlines()[found.line - 1]
    assert line[found.column - 1 :].startswith('"deployment": "mistral"')


def test_everything_wrong_is_told_at_once() -> None:
    bad = [model(cluster="west", engine={"args": {"port": 1, "x": 2}}), CHAT, tenant(models=["nothing"])]
    with pytest.raises(CompileError) as caught:
        compile_resources(located(*bad))
    assert [item.path for item in caught.value.diagnostics] == [
        "spec.cluster",
        "spec.engine.args.port",
        "spec.engine.args.x",
        "spec.variants[1].deployment",
        "spec.models[0]",
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_without_a_tenant_a_loopback_endpoint_is_open(host: str) -> None:
    compiled = compile_resources(located(LLAMA, cluster(gateway={"endpoint": {"host": host}})))
    assert compiled.gateway.anonymous


def test_a_cluster_without_anything_in_it_is_open_to_nobody() -> None:
    assert not compile_resources([], platform=CLUSTER).gateway.anonymous


def test_with_a_tenant_nobody_is_anonymous_and_any_host_will_do() -> None:
    compiled = compile_resources(located(LLAMA, tenant(), cluster(gateway={"endpoint": {"host": "0.0.0.0"}})))
    assert not compiled.gateway.anonymous


def test_resources_without_text_are_checked_too() -> None:
    bare = [Located.bare(item.resource) for item in located(LLAMA, CHAT)]
    with pytest.raises(
        CompileError, match=r"^ModelRoute/chat: spec.variants\[1\].deployment: found 'mistral'"
    ):
        compile_resources(bare)

# ruff: noqa: E501 - one field, one line
"""CEL and Python say the same: every rule has both, and both give one verdict on whatever is generated."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.fakes.kubernetes_schema import admitted, cel_faults, compiled, schema_faults
from tradewind.api.model import ApiModel
from tradewind.api.resources import KINDS
from tradewind.schema.cel import Rule, Unique, Unsaid
from tradewind.schema.cel_rules import CONSTRAINTS
from tradewind.schema.crd_schema import structural_schema
from tradewind.schema.structural import Schema

COMMIT = "0123456789abcdef0123456789abcdef01234567"
COMPARED = [
    model
    for model, constraints in CONSTRAINTS.items()
    if model not in KINDS.values() and not all(isinstance(one, Unsaid) for one in constraints)
]


def subclasses(model: type[ApiModel]) -> set[type[ApiModel]]:
    direct = set(model.__subclasses__())
    return direct.union(*(subclasses(one) for one in direct))


def test_every_model_with_rules_has_them_in_cel_or_says_why_not() -> None:
    with_rules = {model for model in subclasses(ApiModel) if "faults" in vars(model)}
    ours = {model for model in with_rules if model.__module__.startswith("tradewind.api.")}
    assert ours == set(CONSTRAINTS)
    reasons = [one.reason for rules in CONSTRAINTS.values() for one in rules if isinstance(one, Unsaid)]
    assert all(reasons)


@pytest.mark.parametrize("model", CONSTRAINTS, ids=lambda model: model.__name__)
def test_every_rule_compiles_and_tells_people_something(model: type[ApiModel]) -> None:
    for constraint in CONSTRAINTS[model]:
        if isinstance(constraint, Unique):
            assert constraint.field in {field.alias for field in model.model_fields.values()}
            compiled(constraint.rule().cel)
        elif isinstance(constraint, Rule):
            compiled(constraint.cel)
            assert constraint.message
            assert len(constraint.message) < 2048


URIS = st.sampled_from(
    [
        "hf://a/b", "hf://a/b/c.gguf", "hf://a/b/d/c.gguf", "hf://a", "hf://a/b/c", "hf://a/..", "hf://a/b@c", "hf://a/b?x", "HF://a/b",
        "s3://bucket/path", "s3://bucket/path/", "s3://bucket", "s3://Bucket/a", "s3://bu/a", "s3://bucket/../a", "s3://bucket/a#b",
        "gs://bu_cket/a/b", "gs://bucket/", "file:///models/a", "file:///", "file://models", "file:///a/../b", "file:///a/..",
        "file:///a\\..\\b", "file:///a b/ü", "file:///..a", "package://llm/a.gguf", "package://1a/b", "package://a.b/c/d", "package://a",
        "oci://r/m", "pvc://a", "a/b", "", "://", "hf:///a/b", "x://a/b", "hf://a/b\u2028c", "file:///a\u2028b",
    ]
)  # fmt: skip
WORDS: dict[str, st.SearchStrategy[Any]] = {
    "uri": st.just("hf://a/b") | URIS,
    "port": st.sampled_from([8000, 9464, 1024]),
    "metricsPort": st.sampled_from([1024, 7998, 8000, 9464]),
    "revision": st.sampled_from([COMMIT, COMMIT[:-1], "main", "a..b", "a/../b", "v1.0"]),
    "endpoint": st.just("http://a.b") | st.sampled_from(["http://a.b", "https://a/b", "ftp://a.bc", "http://u:p@a", "http://a?b=c", "HTTP://abc"]),
    "otlpEndpoint": st.sampled_from(["http://a:4318", "https://a/b", "a:4318/xx", "http://u:p@a", "http://a#b"]),
    "file": st.sampled_from(["a", "/a/b", "../a", "a/..", "a/../b", "..", "a..b", "..a/b", "a\\..\\b", "a/b.."]),
    "firstToken": st.sampled_from(["100ms", "30s", "1m", "60s", "2m", "0.5m", "1h", "99ms"]),
    "total": st.sampled_from(["1s", "30s", "1m", "2m", "1h30m", "24h", "24h1ms", "999999999h"]),
    "sharedMemory": st.just("64Mi") | st.sampled_from(["64Mi", "1Gi", "1024Mi", "2Gi", "1G", "1Ti", "0.5Gi", "67108863"]),
    "memory": st.just("2Gi") | st.sampled_from(["256Mi", "1Gi", "1073741825", "1000000k", "2Gi", "64Ti", "65Ti", "1.5Gi", "268435455.9"]),
    "size": st.sampled_from(["1Gi", "1023Mi", "64Ti", "64.001Ti", "100G", "70368744177664.9", "70368744177665"]),
    "address": st.sampled_from(["redis:6379", "redis", "rediss://r:1", "http://r:1"]),
    "labels": st.dictionaries(st.sampled_from(["team", "ray.io/a", "ray.iox/a", "tradewind.dev/b"]), st.just("v"), max_size=2),
    "mountPath": st.just("/mnt/a")
    | st.sampled_from(
        ["/mnt/data", "/", "/mnt/", "/mnt//a", "/mnt/../tmp", "/tmp", "/tmp/a", "/tmpx", "/etc", "/etc/ssl/certs", "/etc/tradewind/x", "mnt",
         "/var/lib", "/var/lib/other", "/usr/lib/x", "/usr/lib64x", "/etc/ld_so_preload", "/etc/ld.so.preload", "/a/.b", "/a/.", "/a/..b"]
    ),
    "path": st.sampled_from(["a", "a/b", "../a", "a/..", "a//b", "a/", "..a", "/a", "a..b"]),
    "extraResources": st.sampled_from([{"rdma/hca": 1}, {"nvidia.com/gpu": 1}, {"a.kubernetes.io/b": 1}, {"requests.x/y": 1}, {"rdma": 1}]),
    "gpuResource": st.sampled_from(["nvidia.com/gpu", "rdma/hca", "nvidia.com/mig-1g.5gb", "amd.com/gpu", "google.com/tpu", "habana.ai/gaudi"]),
    "hugepages": st.sampled_from([{"2Mi": "4Mi"}, {"2Mi": "3Mi"}, {"1Gi": "1Gi", "2Mi": "2Mi"}, {"0Mi": "2Mi"}, {"2Ti": "2Ti"}, {"1Gi": "1.5Gi"}]),
    "loadBalancerSourceRanges": st.sampled_from([[], ["10.0.0.0/8"]]),
    "ipBlock": st.just("10.0.0.0/8"),
    "allowEgressTo": st.just(["10.0.0.0/8"]),
    "service": st.sampled_from([{}, {"type": "NodePort"}, {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]}]),
    "allowFrom": st.sampled_from([[], [{"podSelector": {}}], [{"podSelector": {}}, {"ipBlock": "10.0.0.0/8"}]]),
    "subPath": st.sampled_from(["a", "a/b", "../a", "a/..", "/a"]),
    "values": st.sampled_from([[], ["a"], ["1"], ["-12"], ["1", "2"]]),
    "topologyKey": st.sampled_from(["zone", "kubernetes.io/hostname"]),
    "env": st.just([{"name": "A", "value": "b"}]) | st.lists(st.sampled_from([{"name": "A", "value": "b"}, {"name": "B", "value": ""}]), max_size=2),
    "variant": st.sampled_from(["a", "b"]),
    "deployment": st.sampled_from(["a", "b", "c"]),
    "key": st.sampled_from(["a", "b"]),
    "keys": st.just([{"env": "a"}])
    | st.lists(
        st.sampled_from([{"env": "a"}, {"file": "a"}, {"env": "a", "file": "b"}, {}, {"secret": {"name": "a", "key": "b"}}]),
        min_size=1,
        max_size=2,
    ),
    "models": st.just(["*", "a"]) | st.lists(st.sampled_from(["*", "a", "b"]), min_size=1, max_size=3),
    "tenants": st.lists(st.sampled_from(["a", "b"]), max_size=3),
    "weight": st.integers(0, 1),
    "headers": st.just({"x-b": "1"})
    | st.dictionaries(
        st.sampled_from(["a", "A", "x-b", "X-Tradewind-Token", "authorization", "X-API-Key", "authorization-x", "a b", "x" * 65]),
        st.just("1"),
        max_size=3,
    ),
    "by": st.sampled_from([["request", "user"], ["user", "user"], ["user", "request"]])
    | st.lists(
        st.sampled_from(
            ["user", "session", "tenant", "request", "header:x-a", "header:X-Tradewind-A", "header:", "header:a b",
             "header:Authorization", "header:x-api-key2", "cookie", "header:" + "a" * 65, "userx", "xheader:a"]
        ),
        min_size=1,
        max_size=3,
    ),
    "nodeSelector": st.dictionaries(st.sampled_from(["a", "a.b/c", "/c", "a b", "-a", "x" * 64]), st.just("v"), max_size=2),
}  # fmt: skip
"""Values that sit on both sides of a rule, by field; for other fields the schema itself makes some."""
ENV_NAMES = [
    "A", "TOKEN", "HF_TOKEN", "hf_token", "TOKENS", "MYTOKEN", "A_KEY", "RAY_X", "XRAY_X", "PATH", "PATHS",
    "CUDA_VISIBLE_DEVICES", "FQ_RAY_IP", "LOGNAME", "HTTPS_PROXY", "VLLM_PLUGINS", "LD_PRELOAD", "ld_preload", "PYTHONPATH", "KEY", "SECRET_A", "a_Password",
]  # fmt: skip


def values(schema: Schema, field: str, owner: Schema | None = None) -> st.SearchStrategy[Any]:
    """Values of a field's type, few enough to collide, some of them out of bounds."""
    if field in WORDS and schema["type"] in ("string", "array", "object", "integer"):
        return WORDS[field]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if kind == "object":
        return blocks(schema) if "properties" in schema else st.just({})
    if kind == "array":
        return st.lists(values(schema["items"], field), min_size=schema.get("minItems", 0), max_size=2)
    if kind == "boolean":
        return st.booleans()
    if kind == "integer":
        least, most = int(schema.get("minimum", -5)), int(schema.get("maximum", 9))
        return st.sampled_from(sorted({least, least + 1, 2, 4, 8, min(least + 3, most)} - set(range(least))))
    if kind == "number":
        return st.sampled_from([schema["minimum"] + 0.5, 1, 16.0, 300])
    if field == "name" and owner is not None and "value" in owner["properties"]:
        return st.sampled_from(ENV_NAMES)
    return st.sampled_from(["a", "b", "a" * 41]) if field == "name" else st.sampled_from(["a", "b"])


@st.composite
def blocks(draw: st.DrawFn, schema: Schema) -> dict[str, Any]:
    """Blocks with all required fields and a few of the others: with many, most would break several rules."""
    required = schema.get("required", [])
    others = [name for name in schema["properties"] if name not in required]
    chosen = draw(st.lists(st.sampled_from(others), unique=True, max_size=3)) if others else []
    fields = schema["properties"]
    return {name: draw(values(fields[name], name, schema)) for name in [*required, *chosen]}


@cache
def schema_of(model: type[ApiModel]) -> Schema:
    return structural_schema(model)


def read(model: type[ApiModel], data: dict[str, Any]) -> ApiModel | None:
    """The model of `data`, or None where it is refused."""
    try:
        return model.model_validate_json(json.dumps(data), by_alias=True, by_name=False)
    except ValidationError:
        return None


SEARCH = settings(max_examples=20_000, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("model", COMPARED, ids=lambda model: model.__name__)
def test_server_and_model_give_one_verdict(model: type[ApiModel]) -> None:
    schema = schema_of(model)
    found: set[bool] = set()

    def verdicts_agree(data: dict[str, Any]) -> None:
        stored = admitted(data, schema)
        faults = schema_faults(stored, schema) or cel_faults(stored, schema)
        parsed = read(model, data)
        assert (not faults) == (parsed is not None)
        assert read(model, stored) == parsed, "defaults changed the meaning"
        found.add(parsed is not None)

    @settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
    @given(blocks(schema))
    def compare(data: dict[str, Any]) -> None:
        verdicts_agree(data)

    compare()
    # Of some models one block in sixty is good, and one run of Hypothesis may hold none: the missing kind is looked for.
    if len(found) < 2:
        verdicts_agree(
            find(blocks(schema), lambda data: (read(model, data) is not None) not in found, settings=SEARCH)
        )
    assert found == {True, False}, "the generated cases are all of one kind"

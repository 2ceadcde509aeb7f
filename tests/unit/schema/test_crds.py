"""The definitions as a whole: what they hold, what a server makes of resources, and the chart's template."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.kubernetes_schema import admitted, cel_faults, schema_faults
from tests.unit.api.builders import Data, cluster, model, route, tenant
from tests.unit.api.test_resources import INVALID, VALID
from tradewind.api import route as route_module
from tradewind.api.resources import KINDS, InvalidResourceError, parse_resource
from tradewind.schema.cel import Rule, Unique
from tradewind.schema.cel_rules import CONSTRAINTS
from tradewind.schema.crd_schema import NO_DEFAULT
from tradewind.schema.crds import crd, crd_template, kubectl_line, resource_schema

ROOT = Path(__file__).resolve().parents[3]
SCHEMAS = {kind: resource_schema(kind) for kind in KINDS}
EXAMPLES = [
    pytest.param(document, id=f"{path.stem}-{document['metadata']['name']}-{document['kind']}")
    for path in sorted((ROOT / "examples").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
    if document
]
KUBERNETES_OWN = {
    "no kind",
    "a wrong kind",
    "a planned kind",
    "a wrong version",
    "no metadata",
    "a bad label",
}
"""Cases that never reach a definition: another kind, or metadata that Kubernetes itself refuses."""
OURS = [case[:2] for case in INVALID if case[0] not in KUBERNETES_OWN]
UNSAID = {"egress to no network", "a load balancer for no network", "callers of no network"}
"""Cases of rules that CEL cannot say."""


def refused(data: Data) -> bool:
    """Whether an API server with CEL refuses a resource."""
    schema = SCHEMAS[data["kind"]]
    stored = admitted(data, schema)
    return bool(schema_faults(stored, schema) or cel_faults(stored, schema))


def accepted_by_models(data: Data) -> bool:
    try:
        parse_resource(data)
    except InvalidResourceError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_definition_has_names_columns_and_subresources(kind: str) -> None:
    made = crd(kind)
    names, (version,) = made["spec"]["names"], made["spec"]["versions"]
    assert made["metadata"]["name"] == f"{names['plural']}.tradewind.dev"
    assert names["categories"] == ["tradewind"]
    assert version["subresources"]["status"] == {}
    assert version["additionalPrinterColumns"][-1]["name"] == "Age"
    assert version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["conditions"]
    assert names["shortNames"][0] in kubectl_line(kind)


def test_a_model_can_be_scaled() -> None:
    (version,) = crd("ModelDeployment")["spec"]["versions"]
    assert version["subresources"]["scale"]["specReplicasPath"] == ".spec.replicas"
    assert "kubectl scale md/" in kubectl_line("ModelDeployment")
    assert "scale" not in crd("ModelRoute")["spec"]["versions"][0]["subresources"]


@pytest.mark.parametrize("kind", KINDS)
def test_columns_show_fields_that_exist(kind: str) -> None:
    for column in crd(kind)["spec"]["versions"][0]["additionalPrinterColumns"]:
        node: Any = SCHEMAS[kind]
        for part in re.sub(r"\[.*?\]", "[]", column["jsonPath"]).removeprefix(".").split("."):
            node = node["properties"].get(part.removesuffix("[]"), {"type": "string"})
            node = node["items"] if part.endswith("[]") else node
            if part == "metadata":
                break
        else:
            assert node["type"] == column["type"], column


@pytest.mark.parametrize("kind", KINDS)
def test_after_templating_the_chart_has_the_definition(kind: str) -> None:
    template = crd_template(kind)
    lines = template.splitlines()
    assert lines[1] == "{{- if .Values.crds.install }}"
    assert lines[-1] == "{{- end }}"
    body = "\n".join(lines[2:-1])
    assert "{{" not in body.replace('{{ "{{" }}', "")
    assert yaml.safe_load(body.replace('{{ "{{" }}', "{{")) == crd(kind)
    assert crd(kind)["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    written = json.dumps(crd(kind), separators=(",", ":"))
    assert len(written) < 230_000, "kubectl apply keeps a copy in an annotation of at most 256 KiB"


@pytest.mark.parametrize("data", EXAMPLES)
def test_an_example_is_taken_and_means_the_same_with_defaults(data: Data) -> None:
    assert not refused(data)
    stored = admitted(data, SCHEMAS[data["kind"]])
    assert parse_resource(stored) == parse_resource(data)


@pytest.mark.parametrize("data", [case[1] for case in VALID], ids=[case[0] for case in VALID])
def test_what_the_models_take_the_server_takes_and_keeps_its_meaning(data: Data) -> None:
    assert not refused(data)
    assert parse_resource(admitted(data, SCHEMAS[data["kind"]])) == parse_resource(data)


@pytest.mark.parametrize(("name", "data"), OURS, ids=[case[0] for case in OURS])
def test_what_the_models_refuse_the_server_refuses_or_prunes(name: str, data: Data) -> None:
    stored = admitted(data, SCHEMAS[data["kind"]])
    assert refused(data) != (accepted_by_models(stored) or name in UNSAID)


def test_every_rule_alone_refuses_something() -> None:
    rules = {
        (constraint.rule() if isinstance(constraint, Unique) else constraint).message
        for constraints in CONSTRAINTS.values()
        for constraint in constraints
        if isinstance(constraint, Rule) or (isinstance(constraint, Unique) and constraint.ordered)
    }
    for _, data in OURS:
        stored = admitted(data, SCHEMAS[data["kind"]])
        if not schema_faults(stored, SCHEMAS[data["kind"]]):
            faults = cel_faults(stored, SCHEMAS[data["kind"]])
            rules -= set(faults) if len(faults) == 1 else set()
    assert rules == set()


def test_defaults_appear_in_blocks_that_nobody_wrote() -> None:
    stored = admitted(cluster(gateway={}), SCHEMAS["ServingCluster"])
    assert stored["spec"]["gateway"]["endpoint"] == {"host": "127.0.0.1", "port": 8000}
    assert stored["spec"]["limits"]["bodySize"] == "10Mi"
    assert admitted(model(), SCHEMAS["ModelDeployment"])["spec"]["drain"] == {"timeout": "5m"}
    assert admitted(tenant(), SCHEMAS["Tenant"])["spec"]["models"] == ["*"]


def test_a_cluster_without_a_spec_gets_a_whole_one() -> None:
    data = {key: value for key, value in cluster().items() if key != "spec"}
    assert parse_resource(admitted(data, SCHEMAS["ServingCluster"])) == parse_resource(data)
    assert not refused(data)


def test_an_empty_list_or_map_is_no_default() -> None:
    spec = admitted(model(), SCHEMAS["ModelDeployment"])["spec"]
    assert "adapters" not in spec
    assert "engine" not in spec
    assert "overrides" not in admitted(route(), SCHEMAS["ModelRoute"])["spec"]["variants"][0]


def test_what_differs_between_absent_and_default_has_no_default() -> None:
    stored = admitted(route(timeouts={"total": "30s"}), SCHEMAS["ModelRoute"])
    assert stored["spec"]["timeouts"] == {"total": "30s"}
    assert "total" in SCHEMAS["ModelRoute"]["properties"]["spec"]["properties"]["timeouts"]["properties"]


def test_every_use_of_model_fields_set_is_known() -> None:
    known = {(route_module.__name__, field) for fields in NO_DEFAULT.values() for field in fields}
    found = set()
    for path in (ROOT / "platform" / "tradewind").rglob("*.py"):
        lines = [line for line in path.read_text().splitlines() if "model_fields_set" in line]
        module = ".".join(path.relative_to(ROOT / "platform").with_suffix("").parts)
        found |= {(module, re.search(r'"(\w+)" in', line)) for line in lines}
    assert {(module, field and field[1]) for module, field in found} == {
        (module, re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", field)) for module, field in known
    }

"""The definitions on a real API server: it takes them, writes defaults, prunes, refuses, scales."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client as k8s

from tests.cluster.definitions import put
from tests.fakes.kubernetes_schema import admitted, cel_faults, schema_faults
from tests.unit.api.builders import Data, changed, cluster, model, route, tenant
from tests.unit.api.test_resources import INVALID, VALID
from tradewind.api.resources import KINDS, parse_resource, plural
from tradewind.api.status import Condition, ModelDeploymentStatus, time_of
from tradewind.schema.crds import GROUP, VERSION, crd, resource_schema

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [
    pytest.param(document, id=f"{path.stem}-{document['kind']}-{document['metadata']['name']}")
    for path in sorted((ROOT / "examples").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
    if document
]
ELSEWHERE = {"no kind", "a wrong kind", "a planned kind", "a wrong version"}
"""Cases that reach no definition of ours."""
OURS = [pytest.param(case[1], id=case[0]) for case in INVALID if case[0] not in ELSEWHERE]


@pytest.fixture(scope="module")
def definitions(kube: k8s.ApiClient) -> dict[str, Any]:
    """Every definition as the server has it, by kind."""
    found = put(kube, [crd(kind) for kind in KINDS])
    return {definition.spec.names.kind: definition for definition in found.values()}


class Resources:
    """Resources of one namespace, as plain data."""

    def __init__(self, kube: k8s.ApiClient, namespace: str) -> None:
        self._objects: Any = k8s.CustomObjectsApi(kube)
        self._namespace = namespace

    def create(self, data: Data) -> Data:
        made: Data = self._objects.create_namespaced_custom_object(
            GROUP, VERSION, self._namespace, plural(data["kind"]), data
        )
        return made

    def refuses(self, data: Data) -> bool:
        """Whether the server refuses a resource; what it takes is deleted again."""
        try:
            made = self.create(data)
        except k8s.ApiException as error:
            if error.status not in (400, 422):
                raise
            return True
        self._objects.delete_namespaced_custom_object(
            GROUP, VERSION, self._namespace, plural(data["kind"]), made["metadata"]["name"]
        )
        return False

    def apply(self, data: Data, manager: str) -> Data:
        """Server-side apply as `manager`, and what is there then."""
        self._objects.patch_namespaced_custom_object(
            GROUP,
            VERSION,
            self._namespace,
            plural(data["kind"]),
            data["metadata"]["name"],
            data,
            field_manager=manager,
            force=True,
            _content_type="application/apply-patch+yaml",
        )
        # The client drops the answer of an apply that creates.
        return self.get(data["kind"], data["metadata"]["name"])

    def patch(self, kind: str, name: str, part: str, change: Data) -> Data:
        """Merge patch of the resource itself ("") or a subresource ("status", "scale")."""
        suffix = f"_{part}" if part else ""
        call = getattr(self._objects, f"patch_namespaced_custom_object{suffix}")
        made: Data = call(
            GROUP,
            VERSION,
            self._namespace,
            plural(kind),
            name,
            change,
            _content_type="application/merge-patch+json",
        )
        return made

    def get(self, kind: str, name: str, part: str = "") -> Data:
        suffix = f"_{part}" if part else ""
        call = getattr(self._objects, f"get_namespaced_custom_object{suffix}")
        found: Data = call(GROUP, VERSION, self._namespace, plural(kind), name)
        return found


@pytest.fixture
def resources(kube: k8s.ApiClient, namespace: str, definitions: dict[str, Any]) -> Resources:
    return Resources(kube, namespace)


def own(data: Data) -> Data:
    """What a person wrote and the server completed, without what Kubernetes adds to metadata."""
    return {**data, "metadata": {"name": data["metadata"]["name"]}}


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_takes_a_definition_as_it_is(kind: str, definitions: dict[str, Any]) -> None:
    conditions = {condition.type: condition.status for condition in definitions[kind].status.conditions}
    assert conditions["NamesAccepted"] == conditions["Established"] == "True"
    assert "NonStructuralSchema" not in conditions
    assert definitions[kind].status.accepted_names.short_names == crd(kind)["spec"]["names"]["shortNames"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_keeps_all_of_a_schema(
    kind: str, definitions: dict[str, Any], kube: k8s.ApiClient
) -> None:
    extensions: Any = k8s.ApiextensionsV1Api(kube)
    answer = extensions.read_custom_resource_definition(f"{plural(kind)}.{GROUP}", _preload_content=False)
    (version,) = json.loads(answer.data)["spec"]["versions"]
    assert version["schema"]["openAPIV3Schema"] == resource_schema(kind)
    assert version["additionalPrinterColumns"] == columns(kind)


def columns(kind: str) -> Any:
    return crd(kind)["spec"]["versions"][0]["additionalPrinterColumns"]


@pytest.mark.parametrize("data", EXAMPLES)
def test_an_example_is_taken_and_keeps_its_meaning(data: Data, resources: Resources) -> None:
    assert parse_resource(own(resources.apply(data, "somebody"))) == parse_resource(data)


def test_what_the_models_take_the_server_takes(resources: Resources) -> None:
    for number, (name, data) in enumerate(VALID):
        named = changed(data, "metadata.name", f"case-{number}")
        assert parse_resource(own(resources.create(named))) == parse_resource(named), name


@pytest.mark.parametrize("data", OURS)
def test_what_the_models_refuse(data: Data, resources: Resources) -> None:
    schema = resource_schema(data["kind"])
    stored = admitted(data, schema)
    metadata = not data["metadata"] or data["metadata"].get("labels") is not None
    by_schema = bool(schema_faults(stored, schema)) or metadata
    assert resources.refuses(data) == (by_schema or bool(cel_faults(stored, schema)))


def test_unknown_fields_are_pruned_but_not_engine_arguments(resources: Resources) -> None:
    args = {"maxModelLen": 8192, "speculativeConfig": {"method": "ngram", "deep": [1, {"a": None}]}}
    made = resources.create(model(engine={"args": args}, replica=2, resources={"gpu": 1}))
    assert "replica" not in made["spec"]
    assert "gpu" not in made["spec"]["resources"]
    assert made["spec"]["engine"]["args"] == args


def test_defaults_are_written(resources: Resources) -> None:
    made = resources.create(cluster())
    assert made == {**made, "spec": admitted(cluster(), resource_schema("ServingCluster"))["spec"]}
    assert made["spec"]["limits"]["bodySize"] == "10Mi"
    timeouts = resources.create(route(timeouts={"total": "30s"}))["spec"]["timeouts"]
    assert timeouts == {"total": "30s"}
    assert resources.create(tenant())["spec"]["models"] == ["*"]


def test_status_is_a_subresource(resources: Resources) -> None:
    resources.create({**model(), "status": {"state": "Running"}})
    now = time_of(datetime.now(UTC))
    condition = Condition(
        type="Ready", status="True", reason="Running", message="1 of 1 replicas.", last_transition_time=now
    )
    status = ModelDeploymentStatus(observed_generation=1, conditions=(condition,), state="Running")
    written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    made = resources.patch("ModelDeployment", "llama", "status", {"status": written, "spec": {"replicas": 9}})
    assert made["status"] == written
    assert made["spec"]["replicas"] == 1
    assert made["metadata"]["generation"] == 1
    made = resources.patch("ModelDeployment", "llama", "", {"spec": {"replicas": 2}, "status": None})
    assert made["status"] == written
    assert made["metadata"]["generation"] == 2


def test_a_model_is_scaled_by_its_subresource(resources: Resources) -> None:
    resources.create(model())
    selector = "tradewind.dev/model=llama"
    resources.patch("ModelDeployment", "llama", "status", {"status": {"replicas": 1, "selector": selector}})
    resources.patch("ModelDeployment", "llama", "scale", {"spec": {"replicas": 3}})
    assert resources.get("ModelDeployment", "llama")["spec"]["replicas"] == 3
    scale = resources.get("ModelDeployment", "llama", "scale")
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 1, "selector": selector}
    with pytest.raises(k8s.ApiException, match="1001"):
        resources.patch("ModelDeployment", "llama", "scale", {"spec": {"replicas": 1001}})


def test_one_without_replicas_has_a_scale_too(resources: Resources) -> None:
    """`kubectl scale` and a HorizontalPodAutoscaler read it before they write it."""
    resources.apply(model(), "somebody")
    assert resources.get("ModelDeployment", "llama", "scale")["spec"] == {"replicas": 1}
    resources.patch("ModelDeployment", "llama", "scale", {"spec": {"replicas": 2}})
    again = resources.apply(model(), "somebody")
    assert again["spec"]["replicas"] == 2, "who does not say replicas leaves them to who scales"


def test_one_with_autoscaling_has_a_scale_that_only_it_may_change(resources: Resources) -> None:
    resources.create(model(autoscaling={"maxReplicas": 3}))
    assert resources.get("ModelDeployment", "llama", "scale")["spec"] == {"replicas": 1}
    with pytest.raises(k8s.ApiException, match="found replicas and autoscaling"):
        resources.patch("ModelDeployment", "llama", "scale", {"spec": {"replicas": 2}})


def test_two_may_own_variants_of_one_route(resources: Resources) -> None:
    one, two = ({"name": name, "deployment": "llama", "weight": 1} for name in ("one", "two"))
    resources.apply(route(variants=[one]), "first")
    made = resources.apply(route(variants=[two]), "second")
    assert [variant["name"] for variant in made["spec"]["variants"]] == ["one", "two"]
    made = resources.apply(route(variants=[{**two, "weight": 5}]), "second")
    assert [variant["weight"] for variant in made["spec"]["variants"]] == [1, 5]


def test_two_may_own_pools_of_one_cluster(resources: Resources) -> None:
    pool = {"cpus": 1, "memory": "1Gi", "maxNodes": 1, "sharedMemory": "64Mi"}
    resources.apply(cluster(pools={"a": pool}), "first")
    resources.apply(cluster(pools={"b": pool}), "second")
    made = resources.apply(cluster(pools={"a": {**pool, "maxNodes": 5}}), "first")
    assert {name: found["maxNodes"] for name, found in made["spec"]["pools"].items()} == {"a": 5, "b": 1}


def test_columns_are_what_kubectl_shows(resources: Resources, kube: k8s.ApiClient, namespace: str) -> None:
    resources.create(model())
    status = {"state": "Running", "readyReplicas": 1, "pool": "l4"}
    resources.patch("ModelDeployment", "llama", "status", {"status": status})
    objects: Any = k8s.CustomObjectsApi(kube)
    answer = objects.list_namespaced_custom_object(
        GROUP,
        VERSION,
        namespace,
        "modeldeployments",
        _headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"},
        _preload_content=False,
    )
    table = json.loads(answer.data)
    names = [column["name"] for column in table["columnDefinitions"]]
    assert names == ["Name", *(column["name"] for column in columns("ModelDeployment"))]
    assert table["rows"][0]["cells"][:3] == ["llama", "Running", 1]


@pytest.mark.parametrize("data", [cluster(), model(), route(), tenant()], ids=lambda data: str(data["kind"]))
def test_every_kind_can_be_applied_by_the_server(
    kube: k8s.ApiClient, namespace: str, definitions: dict[str, Any], data: Data
) -> None:
    """A list type that server-side apply cannot merge is taken with the definition, and fails here."""
    objects: Any = k8s.CustomObjectsApi(kube)
    for _ in range(2):
        found = objects.patch_namespaced_custom_object(
            GROUP,
            VERSION,
            namespace,
            plural(data["kind"]),
            data["metadata"]["name"],
            data,
            field_manager="somebody",
            force=True,
            _content_type="application/apply-patch+yaml",
        )
    assert found["metadata"]["generation"] == 1

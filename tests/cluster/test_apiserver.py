"""The API server that other tests lean on is a real one: what an operator needs of Kubernetes works on it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client as k8s
from kubernetes import watch

from tests.cluster.audit import Call
from tests.cluster.cluster import Cluster
from tests.cluster.given import GivenCluster

pytestmark = pytest.mark.cluster

GROUP = "tests.tradewind.dev"
SSA = "application/apply-patch+yaml"
Object = dict[str, Any]


SCHEMA: Object = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 0},
                "colour": {"type": "string", "default": "red"},
            },
        },
        "status": {
            "type": "object",
            "properties": {"size": {"type": "integer"}, "phase": {"type": "string"}},
        },
    },
}


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Return once `condition` is true; AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.05)


def gone(read: Callable[[], object]) -> bool:
    """Whether `read` finds nothing (404)."""
    try:
        read()
    except k8s.ApiException as error:
        if error.status != 404:
            raise
        return True
    return False


def refused(call: Callable[[], object]) -> Any:
    """The error with which the API server answers `call`."""
    with pytest.raises(k8s.ApiException) as caught:
        call()
    return caught.value


class Sails:
    """Custom objects of a kind made for one test module, in one namespace."""

    def __init__(self, api: k8s.ApiClient, plural: str, namespace: str) -> None:
        self.at: Object = {"group": GROUP, "version": "v1", "namespace": namespace, "plural": plural}
        self.objects: Any = k8s.CustomObjectsApi(api)

    def body(self, name: str, **spec: object) -> Object:
        """The object; without a specification when nothing is given, as one who applies a status has none."""
        head = {"apiVersion": f"{GROUP}/v1", "kind": "Sail", "metadata": {"name": name}}
        return {**head, "spec": spec} if spec else head

    def create(self, name: str, **spec: object) -> Object:
        body = self.body(name, **spec)
        made: Object = self.objects.create_namespaced_custom_object(**self.at, body=body)
        return made

    def read(self, name: str) -> Object:
        found: Object = self.objects.get_namespaced_custom_object(**self.at, name=name)
        return found

    def apply(self, manager: str, body: Object, part: str = "", *, force: bool = False) -> Object:
        """Server-side apply of `body`, or of its subresource `part` ("_status")."""
        patch = getattr(self.objects, f"patch_namespaced_custom_object{part}")
        options = {"field_manager": manager, "force": force, "_content_type": SSA}
        applied: Object = patch(**self.at, name=body["metadata"]["name"], body=body, **options)
        return applied


def definition(plural: str) -> Object:
    """A CustomResourceDefinition with status and scale."""
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": SCHEMA},
        "subresources": {"status": {}, "scale": scale},
    }
    names = {"plural": plural, "singular": plural[:-1], "kind": "Sail", "listKind": "SailList"}
    spec = {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": spec,
    }


@pytest.fixture(scope="module")
def plural(kube: k8s.ApiClient) -> Iterator[str]:
    """A kind of this module's own, served."""
    plural = f"sails{secrets.token_hex(3)}s"
    extensions: Any = k8s.ApiextensionsV1Api(kube)
    extensions.create_custom_resource_definition(definition(plural))
    objects: Any = k8s.CustomObjectsApi(kube)
    wait_for(lambda: not gone(lambda: objects.list_cluster_custom_object(GROUP, "v1", plural)), "CRD served")
    yield plural
    extensions.delete_custom_resource_definition(f"{plural}.{GROUP}")


@pytest.fixture
def sails(kube: k8s.ApiClient, plural: str, namespace: str) -> Sails:
    return Sails(kube, plural, namespace)


def test_a_custom_resource_is_defaulted_pruned_and_validated(sails: Sails) -> None:
    made = sails.create("jib", size=3, unknown="x")
    assert made["spec"] == {"size": 3, "colour": "red"}
    error = refused(lambda: sails.create("genoa", size=-1))
    assert error.status == 422
    assert "spec.size" in error.body


def test_server_side_apply_conflicts_until_forced(sails: Sails) -> None:
    sails.apply("captain", sails.body("jib", size=3))
    error = refused(lambda: sails.apply("mate", sails.body("jib", size=4)))
    assert error.status == 409
    assert '"captain"' in error.body.replace("\\", "")
    assert sails.apply("mate", sails.body("jib", size=4), force=True)["spec"]["size"] == 4


def test_server_side_apply_knows_the_lists_of_built_in_types(kube: k8s.ApiClient, namespace: str) -> None:
    core: Any = k8s.CoreV1Api(kube)
    for manager, port in (("one", 1), ("two", 2)):
        body = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "harbour"},
            "spec": {"ports": [{"name": f"p{port}", "port": port, "protocol": "TCP"}]},
        }
        options = {"field_manager": manager, "_content_type": SSA}
        core.patch_namespaced_service("harbour", namespace, body, **options)
    assert [port.port for port in core.read_namespaced_service("harbour", namespace).spec.ports] == [1, 2]


def test_a_stale_resource_version_is_a_conflict(sails: Sails) -> None:
    old = sails.create("jib", size=1)
    replace = sails.objects.replace_namespaced_custom_object
    replace(**sails.at, name="jib", body={**old, "spec": {"size": 2}})
    error = refused(lambda: replace(**sails.at, name="jib", body={**old, "spec": {"size": 3}}))
    assert error.status == 409


def test_status_and_spec_are_written_apart_and_only_spec_makes_a_generation(sails: Sails) -> None:
    sails.create("jib", size=1)
    status = {**sails.body("jib"), "status": {"size": 7, "phase": "Set"}}
    after = sails.apply("operator", status, "_status")
    assert (after["spec"]["size"], after["status"]["phase"], after["metadata"]["generation"]) == (1, "Set", 1)
    again = sails.apply("captain", {**sails.body("jib", size=2), "status": {"phase": "Lost"}}, force=True)
    assert (again["status"]["phase"], again["metadata"]["generation"]) == ("Set", 2)


def test_scale_reads_and_writes_the_paths_of_the_definition(sails: Sails) -> None:
    sails.create("jib", size=1)
    sails.apply("operator", {**sails.body("jib"), "status": {"size": 7}}, "_status")
    sails.objects.patch_namespaced_custom_object_scale(**sails.at, name="jib", body={"spec": {"replicas": 5}})
    scale = sails.objects.get_namespaced_custom_object_scale(**sails.at, name="jib")
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (5, 7)
    assert sails.read("jib")["spec"]["size"] == 5


def test_a_watch_sees_what_happens_after_its_start(sails: Sails) -> None:
    listed = sails.objects.list_namespaced_custom_object(**sails.at)
    sails.create("jib", size=1)
    sails.objects.delete_namespaced_custom_object(**sails.at, name="jib")
    seen = []
    stream: Any = watch.Watch()
    start = {"resource_version": listed["metadata"]["resourceVersion"], "timeout_seconds": 20}
    for event in stream.stream(sails.objects.list_namespaced_custom_object, **sails.at, **start):
        seen.append((event["type"], event["object"]["metadata"]["name"]))
        if len(seen) == 2:
            stream.stop()
    assert seen == [("ADDED", "jib"), ("DELETED", "jib")]


def test_a_finalizer_holds_an_object_until_it_is_taken_off(sails: Sails) -> None:
    body = sails.body("jib", size=1)
    body["metadata"]["finalizers"] = [f"{GROUP}/reef"]
    sails.objects.create_namespaced_custom_object(**sails.at, body=body)
    sails.objects.delete_namespaced_custom_object(**sails.at, name="jib")
    assert sails.read("jib")["metadata"]["deletionTimestamp"]
    sails.objects.patch_namespaced_custom_object(
        **sails.at, name="jib", body={"metadata": {"finalizers": None}}
    )
    assert gone(lambda: sails.read("jib"))


def test_what_an_object_owns_goes_with_it(api: Cluster, sails: Sails, kube: k8s.ApiClient) -> None:
    if not api.has_gc:
        pytest.skip("no kube-controller-manager")
    core: Any = k8s.CoreV1Api(kube)
    namespace = sails.at["namespace"]
    owner = sails.create("jib", size=1)
    reference = {"apiVersion": f"{GROUP}/v1", "kind": "Sail", "name": "jib", "uid": owner["metadata"]["uid"]}
    for name, references in (("sheet", [reference]), ("anchor", [])):
        metadata = {"name": name, "ownerReferences": references}
        core.create_namespaced_config_map(namespace, {"metadata": metadata})
    sails.objects.delete_namespaced_custom_object(**sails.at, name="jib")
    # The garbage collector looks for new kinds every 30 s.
    wait_for(lambda: gone(lambda: core.read_namespaced_config_map("sheet", namespace)), "sheet collected", 50)
    assert core.read_namespaced_config_map("anchor", namespace).metadata.name == "anchor"


def test_a_deleted_namespace_ends(api: Cluster, kube: k8s.ApiClient) -> None:
    if not api.has_gc:
        pytest.skip("no kube-controller-manager")
    core: Any = k8s.CoreV1Api(kube)
    name = f"t-{secrets.token_hex(4)}"
    core.create_namespace({"metadata": {"name": name}})
    core.create_namespaced_config_map(name, {"metadata": {"name": "anchor"}})
    core.delete_namespace(name)
    wait_for(lambda: gone(lambda: core.read_namespace(name)), "namespace ended")


def allow(kube: k8s.ApiClient, namespace: str, account: str, verbs: list[str], resources: list[str]) -> None:
    """Let the service account do `verbs` on core `resources` in its namespace."""
    rbac: Any = k8s.RbacAuthorizationV1Api(kube)
    rules = [{"apiGroups": [""], "resources": resources, "verbs": verbs}]
    rbac.create_namespaced_role(namespace, {"metadata": {"name": account}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    rbac.create_namespaced_role_binding(
        namespace, {"metadata": {"name": account}, "roleRef": role, "subjects": [subject]}
    )


@pytest.mark.parametrize("account", ["crew", "an-account-whose-name-is-longer-than-a-certificate-may-say"])
def test_a_service_account_may_what_its_role_says(
    api: Cluster, kube: k8s.ApiClient, namespace: str, account: str
) -> None:
    allow(kube, namespace, account, ["get", "list"], ["configmaps"])
    with api.client(f"system:serviceaccount:{namespace}:{account}") as client:
        core: Any = k8s.CoreV1Api(client)
        wait_for(
            lambda: not raises_forbidden(lambda: core.list_namespaced_config_map(namespace)), "role effective"
        )
        error = refused(lambda: core.list_namespaced_secret(namespace))
    assert error.status == 403
    assert f"system:serviceaccount:{namespace}:{account}" in error.body


def test_a_given_cluster_makes_service_accounts_and_is_not_stopped(
    api: Cluster, namespace: str, tmp_path: Path
) -> None:
    given = GivenCluster(api.kubeconfig(), tmp_path)
    with given.client(f"system:serviceaccount:{namespace}:crew") as client:
        error = refused(lambda: k8s.CoreV1Api(client).list_namespaced_secret(namespace))
    assert f"system:serviceaccount:{namespace}:crew" in error.body
    for cannot in (given.stop_api, lambda: given.kubeconfig("alice"), lambda: given.audit("alice")):
        with pytest.raises(pytest.skip.Exception):
            cannot()


def raises_forbidden(call: Callable[[], object]) -> bool:
    """Whether RBAC refuses `call`; a role is effective a moment after it is stored."""
    try:
        call()
    except k8s.ApiException as error:
        if error.status != 403:
            raise
        return True
    return False


def test_the_audit_log_says_what_each_user_asked_for(
    api: Cluster, kube: k8s.ApiClient, namespace: str
) -> None:
    user = f"system:serviceaccount:{namespace}:scribe"
    allow(kube, namespace, "scribe", ["get"], ["configmaps"])
    with api.client(user) as client:
        core: Any = k8s.CoreV1Api(client)
        wait_for(
            lambda: gone_or_forbidden(lambda: core.read_namespaced_config_map("log", namespace)) == 404,
            "role effective",
        )
        refused(lambda: core.list_namespaced_secret(namespace))
        refused(lambda: core.patch_namespaced_pod_status("p", namespace, {}))
        k8s.VersionApi(client).get_code()
    calls = api.audit(user)
    read = Call("get", "", "configmaps", "", namespace, "log")
    list_secrets = Call("list", "", "secrets", "", namespace, "")
    patch_status = Call("patch", "", "pods", "status", namespace, "p")
    assert [call for call in calls if call != read] == [
        list_secrets,
        patch_status,
        Call("get", "", "", "", "", "/version/"),
    ]
    assert calls[-4] == read
    assert api.audit(user, denied=True)[-2:] == [list_secrets, patch_status]
    assert api.audit(f"{user}-nobody") == []


def gone_or_forbidden(call: Callable[[], object]) -> int:
    """The status with which `call` is refused."""
    return int(refused(call).status)


def test_an_outage_refuses_connections_and_keeps_the_data(api: Cluster, sails: Sails) -> None:
    uid = sails.create("jib", size=1)["metadata"]["uid"]
    with api.outage(), pytest.raises(urllib3.exceptions.HTTPError):
        sails.read("jib")
    assert sails.read("jib")["metadata"]["uid"] == uid


def test_a_paused_server_answers_nothing_until_it_goes_on(api: Cluster, sails: Sails) -> None:
    sails.create("jib", size=1)
    read = sails.objects.get_namespaced_custom_object
    with api.paused(), pytest.raises(urllib3.exceptions.HTTPError):
        read(**sails.at, name="jib", _request_timeout=0.2)
    assert read(**sails.at, name="jib")["spec"]["size"] == 1

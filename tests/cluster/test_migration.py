"""Stored resources are brought to another version on a real API server, with the rights that the chart gives.

The definition is one of the test's own, in two versions: Tradewind's kinds have one so far.
"""

from __future__ import annotations

import copy
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as k8s

from tests.cluster.cluster import Cluster, new_namespace
from tests.cluster.definitions import put, take_away
from tests.cluster.objects import wait_for
from tests.cluster.operated import PYTHONPATH, install
from tests.cluster.ray import Data
from tests.golden.chart.rendering import manifests
from tradewind_operator.errors import NotMigrated
from tradewind_operator.kinds import CUSTOM, Resource
from tradewind_operator.kube import Kube, connect
from tradewind_operator.migration import Migrated, migrate

pytestmark = pytest.mark.cluster

GROUP = "tests.tradewind.dev"
NOT_FOUND = 404
VERSIONS = {"v1alpha1", "v1beta1"}
SPEC = {"type": "object", "properties": {"tons": {"type": "integer"}}}
SCHEMA = {"type": "object", "properties": {"spec": SPEC, "status": {"type": "object"}}}


def version(name: str, *, storage: bool, schema: Data = SCHEMA) -> Data:
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }


OLD = version("v1alpha1", storage=True)
BOTH = [version("v1alpha1", storage=False), version("v1beta1", storage=True)]
NEW = version("v1beta1", storage=True)


class Barges:
    """A kind of one test alone."""

    def __init__(self, kube: k8s.ApiClient) -> None:
        self.kube = kube
        # Two definitions of one group may not share the name of a kind, even while one goes.
        name = f"Barge{secrets.token_hex(3)}"
        self.kind = Resource(f"{GROUP}/v1alpha1", name, f"{name.lower()}s")
        self._objects: Any = k8s.CustomObjectsApi(kube)
        self._extensions: Any = k8s.ApiextensionsV1Api(kube)

    def define(self, *versions: Data) -> None:
        """Create or replace the definition, and wait until the server acts by it."""
        names = {"plural": self.kind.plural, "singular": self.kind.plural[:-1], "kind": self.kind.kind}
        put(
            self.kube,
            [
                {
                    "apiVersion": "apiextensions.k8s.io/v1",
                    "kind": "CustomResourceDefinition",
                    "metadata": {"name": self.kind.full_name},
                    "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [*versions]},
                }
            ],
        )
        served = {each["name"] for each in versions if each["served"]}
        wait_for(lambda: {each for each in VERSIONS if self._is_served(each)} == served, "it is served")

    def _is_served(self, version: str) -> bool:
        try:
            self._objects.list_cluster_custom_object(GROUP, version, self.kind.plural, limit=1)
        except k8s.ApiException as error:
            return error.status != NOT_FOUND  # an object that it cannot read is there
        return True

    @property
    def stored(self) -> list[str]:
        """What the definition says."""
        found = self._extensions.read_custom_resource_definition(self.kind.full_name)
        return list(found.status.stored_versions)

    def forget(self, kept: str) -> None:
        """Cut the list, and write nothing."""
        patch = {"status": {"storedVersions": [kept]}}
        self._extensions.patch_custom_resource_definition_status(self.kind.full_name, patch)

    def create(self, namespace: str, name: str, tons: int) -> None:
        body = {"apiVersion": f"{GROUP}/v1alpha1", "kind": self.kind.kind, "metadata": {"name": name}}
        at = (GROUP, "v1alpha1", namespace, self.kind.plural)
        made = self._objects.create_namespaced_custom_object(*at, body | {"spec": {"tons": tons}})
        self._objects.replace_namespaced_custom_object_status(*at, name, made | {"status": {}})

    def read(self, namespace: str, name: str, version: str) -> Data:
        found: Data = self._objects.get_namespaced_custom_object(
            GROUP, version, namespace, self.kind.plural, name
        )
        return found


@pytest.fixture
def barges(kube: k8s.ApiClient) -> Iterator[Barges]:
    made = Barges(kube)
    made.define(OLD)
    yield made
    take_away(kube, made.kind.full_name)


@pytest.fixture
def other(kube: k8s.ApiClient) -> Iterator[str]:
    with new_namespace(kube) as name:
        yield name


@pytest.fixture
def migrator(kube: k8s.ApiClient, barges: Barges, namespace: str) -> Iterator[str]:
    """A user with the rights of the chart's Job, and the same for the kind of this test."""
    (role,) = (
        manifest
        for manifest in manifests({"crds": {"migrate": True}})
        if manifest["kind"] == "ClusterRole" and "migration" in manifest["metadata"]["name"]
    )
    name, user = f"migrator-{namespace}", f"system:serviceaccount:{namespace}:migration"
    rules = [*role["rules"], *(_of(barges.kind, rule) for rule in role["rules"])]
    roles: Any = k8s.RbacAuthorizationV1Api(kube)
    roles.create_cluster_role({"metadata": {"name": name}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subject = {"kind": "ServiceAccount", "name": "migration", "namespace": namespace}
    binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
    roles.create_cluster_role_binding(binding)
    yield user
    roles.delete_cluster_role_binding(name)
    roles.delete_cluster_role(name)


def _of(kind: Resource, rule: Data) -> Data:
    """The same rule for another kind."""
    told = copy.deepcopy(rule)
    if "resourceNames" in told:
        return told | {"resourceNames": [kind.full_name]}
    return told | {"apiGroups": [kind.group], "resources": [kind.plural]}


async def done(api: Cluster, user: str, kind: Resource) -> Migrated:
    kube = Kube(await connect(str(api.kubeconfig(user)), "default"), concurrency=1)
    try:
        return await migrate(kube, kind)
    finally:
        await kube.close()


async def test_what_was_stored_is_readable_when_its_version_is_gone(
    api: Cluster, barges: Barges, migrator: str, namespace: str, other: str
) -> None:
    barges.create(namespace, "a", 3)
    barges.create(other, "b", 4)
    barges.define(*BOTH)
    assert barges.stored == ["v1alpha1", "v1beta1"]
    before = barges.read(namespace, "a", "v1beta1")
    found = await done(api, migrator, barges.kind)
    assert found == Migrated(barges.kind.kind, "v1beta1", ("v1alpha1",), 2)
    assert barges.stored == ["v1beta1"]
    again = await done(api, migrator, barges.kind)
    assert again == Migrated(barges.kind.kind, "v1beta1")
    barges.define(NEW)
    after = barges.read(namespace, "a", "v1beta1")
    assert barges.read(other, "b", "v1beta1")["spec"] == {"tons": 4}
    assert (after["spec"], after["metadata"]["generation"]) == (
        before["spec"],
        before["metadata"]["generation"],
    )
    asked = {(call.group, call.resource, call.subresource, call.verb) for call in api.audit(migrator)}
    definitions = "customresourcedefinitions"
    assert {each for each in asked if each[1]} == {
        ("apiextensions.k8s.io", definitions, "", "get"),
        ("apiextensions.k8s.io", definitions, "status", "patch"),
        (GROUP, barges.kind.plural, "", "list"),
        (GROUP, barges.kind.plural, "", "patch"),
    }
    assert api.audit(migrator, denied=True) == []


def test_what_was_not_written_again_is_lost_with_its_version(barges: Barges, namespace: str) -> None:
    """Why there is a migration at all."""
    barges.create(namespace, "a", 3)
    barges.define(*BOTH)
    barges.forget("v1beta1")
    barges.define(NEW)
    with pytest.raises(k8s.ApiException) as error:
        barges.read(namespace, "a", "v1beta1")
    assert error.value.status == 500
    # With the version it is back; and a definition does not go while something of it cannot be read.
    barges.define(*BOTH)
    assert barges.read(namespace, "a", "v1beta1")["spec"] == {"tons": 3}


async def test_a_resource_that_breaks_the_rules_of_the_new_version_keeps_the_old_one(
    api: Cluster, barges: Barges, migrator: str, namespace: str
) -> None:
    barges.create(namespace, "a", 3)
    barges.create(namespace, "b", 4)
    limited = copy.deepcopy(SCHEMA)
    rule = {"rule": "self.spec.tons > 3", "message": "a barge takes more than 3 tons"}
    limited["x-kubernetes-validations"] = [rule]
    barges.define(version("v1alpha1", storage=False), version("v1beta1", storage=True, schema=limited))
    with pytest.raises(NotMigrated, match=rf"1 resources .* {namespace}/a: .*more than 3 tons"):
        await done(api, migrator, barges.kind)
    assert barges.stored == ["v1alpha1", "v1beta1"]


def migrate_all(kubeconfig: Path) -> subprocess.CompletedProcess[str]:
    """`tradewind-operator migrate`, as the Job runs it."""
    (job,) = (each for each in manifests({"crds": {"migrate": True}}) if each["kind"] == "Job")
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    return subprocess.run(
        [sys.executable, "-m", "tradewind_operator.main", *arguments],
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_the_command_goes_through_all_kinds(api: Cluster, kube: k8s.ApiClient, migrator: str) -> None:
    install(kube)
    ran = migrate_all(api.kubeconfig(migrator))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        f"{kind.kind}: everything is stored as {kind.version}" for kind in CUSTOM
    ]


def test_the_command_says_for_each_kind_that_it_may_not(api: Cluster, kube: k8s.ApiClient) -> None:
    install(kube)
    ran = migrate_all(api.kubeconfig("nobody"))
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.count("not migrated") == len(CUSTOM)

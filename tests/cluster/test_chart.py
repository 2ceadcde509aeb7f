"""The chart on a real API server, by real Helm: installed, upgraded, rolled back, uninstalled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helm_python import Config, HelmError
from kubernetes import client as k8s

from tests.cluster.cluster import Cluster
from tests.cluster.definitions import put, take_away
from tests.cluster.given import given_kubeconfig
from tests.cluster.objects import wait_for
from tests.golden.chart.rendering import copy_with_kuberay, manifests
from tradewind.api.resources import KINDS
from tradewind_operator.events import Events
from tradewind_operator.kube import Kube, connect
from tradewind_operator.metrics import OperatorMetrics
from tradewind_operator.release_cluster import Place, ReleaseCluster

pytestmark = pytest.mark.cluster

RELEASE = "tradewind"
THREE_GATEWAYS = {"spec": {"gateway": {"replicas": 3}}}
DEFINITION = "servingclusters.tradewind.dev"


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """The chart with a stand-in for KubeRay."""
    return copy_with_kuberay(tmp_path)


@pytest.fixture
def helm(api: Cluster, namespace: str) -> Iterator[Config]:
    with Config(kubeconfig_path=api.kubeconfig(), namespace=namespace) as config:
        yield config


@pytest.fixture
def definitions(kube: k8s.ApiClient) -> None:
    """A server with the definitions that the chart renders."""
    put(kube, rendered())


def rendered() -> list[dict[str, Any]]:
    """The definitions of `helm template`."""
    return [each for each in manifests() if each["kind"] == "CustomResourceDefinition"]


def defined(kube: k8s.ApiClient) -> bool:
    found = k8s.ApiextensionsV1Api(kube).list_custom_resource_definition().items
    return DEFINITION in {definition.metadata.name for definition in found}


def values(**more: Any) -> dict[str, Any]:
    """Values for a server whose definitions may be another's."""
    return {"crds": {"install": False}, **more}


def replicas(kube: k8s.ApiClient, namespace: str) -> int:
    deployment = k8s.AppsV1Api(kube).read_namespaced_deployment(f"{RELEASE}-operator", namespace)
    return int(deployment.spec.replicas)


def test_installs_upgrades_rolls_back_and_uninstalls(
    kube: k8s.ApiClient, helm: Config, chart: Path, namespace: str
) -> None:
    helm.install(chart, RELEASE, values(), namespace=namespace)
    assert replicas(kube, namespace) == 2
    accounts = k8s.CoreV1Api(kube).list_namespaced_service_account(namespace).items
    assert f"{RELEASE}-operator" in {account.metadata.name for account in accounts}

    changed = values(operator={"replicas": 3}, cluster=THREE_GATEWAYS, networkPolicies={"enabled": False})
    helm.upgrade(chart, RELEASE, changed, namespace=namespace)
    assert replicas(kube, namespace) == 3
    assert k8s.NetworkingV1Api(kube).list_namespaced_network_policy(namespace).items == []

    helm.rollback(RELEASE, version=1)
    assert replicas(kube, namespace) == 2
    assert len(k8s.NetworkingV1Api(kube).list_namespaced_network_policy(namespace).items) == 2
    assert len(helm.history(RELEASE)) == 3

    helm.uninstall(RELEASE)
    assert k8s.AppsV1Api(kube).list_namespaced_deployment(namespace).items == []
    assert k8s.RbacAuthorizationV1Api(kube).list_namespaced_role(namespace).items == []


def test_definitions_come_with_the_release_and_stay(
    kube: k8s.ApiClient, helm: Config, chart: Path, namespace: str
) -> None:
    if given_kubeconfig() and defined(kube):
        pytest.skip("the definitions are there already")
    assert not defined(kube), "on a server of our own this runs before whoever puts them there"
    extensions = k8s.ApiextensionsV1Api(kube)
    try:
        helm.install(chart, RELEASE, values() | {"crds": {"install": True}}, namespace=namespace)
        assert defined(kube)
        helm.upgrade(chart, RELEASE, values() | {"crds": {"install": True}}, namespace=namespace)
        helm.uninstall(RELEASE)
        assert defined(kube)
    finally:
        for definition in extensions.list_custom_resource_definition().items:
            if definition.spec.group == "tradewind.dev":
                take_away(kube, definition.metadata.name)


def test_the_server_takes_every_definition_that_the_chart_renders(kube: k8s.ApiClient) -> None:
    taken = put(kube, rendered()).values()
    assert len(taken) == len(KINDS)
    for definition in taken:
        told = {condition.type: condition.status for condition in definition.status.conditions}
        assert (told["NamesAccepted"], told["Established"]) == ("True", "True")
        assert told.get("NonStructuralSchema", "False") == "False"


def test_two_releases_share_a_server(kube: k8s.ApiClient, helm: Config, chart: Path, namespace: str) -> None:
    everywhere = values(watchedNamespaces=["*"])
    helm.install(chart, RELEASE, everywhere, namespace=namespace)
    second = everywhere | {"kuberay": {"enabled": False}, "cluster": {"name": "second"}}
    helm.install(chart, "second", second, namespace=namespace)
    roles = k8s.RbacAuthorizationV1Api(kube).list_cluster_role().items
    names = [(role.metadata.labels or {}).get("app.kubernetes.io/name") for role in roles]
    # For each release: its operator's rights, and the right to see the StorageClasses.
    assert names.count("tradewind") == 4
    for release in (RELEASE, "second"):
        helm.uninstall(release)


@pytest.fixture
def kept(api: Cluster, namespace: str) -> Callable[[], None]:
    """One look at the release's ServingCluster: as the operator, with its service account's rights alone."""
    user = f"system:serviceaccount:{namespace}:{RELEASE}-operator"
    place = Place(namespace, f"{RELEASE}-cluster")

    async def look() -> None:
        kube = Kube(await connect(str(api.kubeconfig(user)), namespace), attempts=1)
        try:
            metrics = OperatorMetrics()
            await ReleaseCluster(kube, Events(kube, "test"), place, metrics.release_cluster).look()
        finally:
            await kube.close()

    return lambda: asyncio.run(look())


class Stored:
    """The ServingCluster `default` of a namespace, as the server has it."""

    def __init__(self, kube: k8s.ApiClient, namespace: str) -> None:
        self._custom: Any = k8s.CustomObjectsApi(kube)
        self._place = ("tradewind.dev", "v1alpha1", namespace, "servingclusters")

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = self._custom.get_namespaced_custom_object(*self._place, "default")
        return found

    def there(self) -> bool:
        listed = self._custom.list_namespaced_custom_object(*self._place)["items"]
        return "default" in {item["metadata"]["name"] for item in listed}

    def gateways(self) -> int | None:
        """How many its spec asks for; None where it does not say."""
        replicas: int | None = self.read()["spec"].get("gateway", {}).get("replicas")
        return replicas

    def annotate(self, key: str, value: str) -> None:
        patch = {"metadata": {"annotations": {key: value}}}
        self._custom.patch_namespaced_custom_object(*self._place, "default", patch)

    def why_kept(self, policy: str) -> str:
        """What the server has against a deletion by this propagation policy, on trial; empty for nothing."""
        try:
            self._custom.delete_namespaced_custom_object(
                *self._place, "default", propagation_policy=policy, dry_run="All"
            )
        except k8s.ApiException as error:
            return str(error.body)
        return ""

    def delete(self) -> None:
        self._custom.delete_namespaced_custom_object(*self._place, "default")
        wait_for(lambda: not self.there(), "the ServingCluster is gone")


@pytest.fixture
def stored(kube: k8s.ApiClient, namespace: str) -> Stored:
    return Stored(kube, namespace)


FOUR_GATEWAYS = {"spec": {"gateway": {"replicas": 4}}}
REFUSED = {"annotations": {"not a name": "so the server refuses the service account"}}


def written(kube: k8s.ApiClient, namespace: str) -> int | None:
    """Gateways that the release's ConfigMap asks for."""
    config = k8s.CoreV1Api(kube).read_namespaced_config_map(f"{RELEASE}-cluster", namespace)
    replicas: int | None = json.loads(config.data["cluster.json"])["spec"].get("gateway", {}).get("replicas")
    return replicas


@pytest.mark.usefixtures("definitions")
def test_the_serving_cluster_follows_every_revision(
    kube: k8s.ApiClient, helm: Config, chart: Path, namespace: str, kept: Callable[[], None],
    stored: Stored,
) -> None:  # fmt: skip
    helm.install(chart, RELEASE, values(cluster=THREE_GATEWAYS), namespace=namespace)
    assert not stored.there()
    kept()
    assert stored.gateways() == 3
    stored.annotate("example.org/by", "me")

    failing = values(cluster=FOUR_GATEWAYS, operator={"serviceAccount": REFUSED})
    with pytest.raises(HelmError):
        helm.upgrade(chart, RELEASE, failing, namespace=namespace)
    kept()
    assert stored.gateways() == written(kube, namespace)

    helm.upgrade(chart, RELEASE, values(cluster=THREE_GATEWAYS), namespace=namespace)
    kept()
    assert stored.gateways() == 3

    helm.upgrade(chart, RELEASE, values(), namespace=namespace)
    kept()
    assert stored.gateways() is None
    helm.rollback(RELEASE, version=1)
    kept()
    assert stored.gateways() == 3
    assert stored.read()["metadata"]["annotations"]["example.org/by"] == "me"


@pytest.mark.usefixtures("definitions")
def test_a_deleted_serving_cluster_comes_back_while_the_release_has_one(
    kube: k8s.ApiClient, helm: Config, chart: Path, namespace: str, kept: Callable[[], None],
    stored: Stored,
) -> None:  # fmt: skip
    helm.install(chart, RELEASE, values(cluster=THREE_GATEWAYS), namespace=namespace)
    kept()
    version = stored.read()["metadata"]["resourceVersion"]
    kept()
    assert stored.read()["metadata"]["resourceVersion"] == version
    stored.delete()
    kept()
    assert stored.gateways() == 3

    helm.upgrade(chart, RELEASE, values(cluster={"create": False}), namespace=namespace)
    stored.delete()
    kept()
    assert not stored.there()


@pytest.mark.usefixtures("definitions")
def test_a_deletion_in_the_foreground_is_refused(
    helm: Config, chart: Path, namespace: str, kept: Callable[[], None], stored: Stored
) -> None:
    """It would take a cluster's pods away, whatever its finalizer says."""
    helm.install(chart, RELEASE, values(cluster=THREE_GATEWAYS), namespace=namespace)
    kept()
    wait_for(lambda: "allowed: Background" in stored.why_kept("Foreground"), "it is refused")
    assert stored.why_kept("Background") == stored.why_kept("Orphan") == ""


@pytest.mark.usefixtures("definitions")
def test_a_release_leaves_another_releases_serving_cluster_alone(
    kube: k8s.ApiClient, helm: Config, chart: Path, namespace: str, kept: Callable[[], None],
    stored: Stored,
) -> None:  # fmt: skip
    helm.install(chart, RELEASE, values(cluster=THREE_GATEWAYS), namespace=namespace)
    kept()
    helm.uninstall(RELEASE)
    assert stored.gateways() == 3
    stored.annotate("tradewind.dev/release", "first")
    helm.install(chart, RELEASE, values(cluster=FOUR_GATEWAYS), namespace=namespace)
    kept()
    assert stored.gateways() == 3
    events = k8s.EventsV1Api(kube).list_namespaced_event(namespace).items
    (said,) = [event.note for event in events if event.reason == "ReleaseNotApplied"]
    assert "found one of release first" in said

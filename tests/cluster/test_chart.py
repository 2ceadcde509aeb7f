"""The chart on a real API server, by real Helm: installed, upgraded, rolled back, uninstalled."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from helm_python import Config
from kubernetes import client as k8s

from tests.cluster.cluster import Cluster
from tests.cluster.definitions import take_away
from tests.golden.chart.rendering import CHART, copy_with_kuberay, take_out_rules

pytestmark = pytest.mark.cluster

RELEASE = "tradewind"
THREE_GATEWAYS = {"spec": {"gateway": {"replicas": 3}}}
DEFINITION = "servingclusters.tradewind.dev"


@pytest.fixture
def chart(api: Cluster, tmp_path: Path) -> Path:
    """The chart with a stand-in for KubeRay; it may be installed on this server, however old."""
    copy = copy_with_kuberay(tmp_path, kube_version=f">=1.{min(api.minor, 25)}.0-0")
    if api.minor < 25:
        take_out_rules(copy)
    return copy


@pytest.fixture
def helm(api: Cluster, namespace: str) -> Iterator[Config]:
    with Config(kubeconfig_path=api.kubeconfig(), namespace=namespace) as config:
        yield config


@pytest.fixture
def definitions(kube: k8s.ApiClient) -> Iterator[None]:
    """A server on which ServingCluster is defined, if need be by the least that it takes."""
    extensions = k8s.ApiextensionsV1Api(kube)
    made = not defined(kube)
    if made:
        extensions.create_custom_resource_definition(least_definition())
    yield
    if made:
        take_away(kube, DEFINITION)


def least_definition() -> dict[str, Any]:
    names = {"plural": "servingclusters", "singular": "servingcluster", "kind": "ServingCluster"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": schema}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": DEFINITION},
        "spec": {"group": "tradewind.dev", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def defined(kube: k8s.ApiClient) -> bool:
    found = k8s.ApiextensionsV1Api(kube).list_custom_resource_definition().items
    return DEFINITION in {definition.metadata.name for definition in found}


def values(api: Cluster, **more: Any) -> dict[str, Any]:
    """Values for this server: policy/v1 came with Kubernetes 1.21, and definitions may be another's."""
    operator = {"podDisruptionBudget": {"enabled": api.minor >= 21}, **more.pop("operator", {})}
    return {"operator": operator, "crds": {"install": False}, **more}


def jobs(kube: k8s.ApiClient, namespace: str) -> set[str]:
    return {job.metadata.name for job in k8s.BatchV1Api(kube).list_namespaced_job(namespace).items}


def replicas(kube: k8s.ApiClient, namespace: str) -> int:
    deployment = k8s.AppsV1Api(kube).read_namespaced_deployment(f"{RELEASE}-operator", namespace)
    return int(deployment.spec.replicas)


def test_installs_upgrades_rolls_back_and_uninstalls(
    api: Cluster, kube: k8s.ApiClient, helm: Config, chart: Path, namespace: str
) -> None:
    helm.install(chart, RELEASE, values(api), namespace=namespace)
    first = jobs(kube, namespace)
    assert replicas(kube, namespace) == 2
    assert len(first) == 1
    accounts = k8s.CoreV1Api(kube).list_namespaced_service_account(namespace).items
    assert f"{RELEASE}-operator" in {account.metadata.name for account in accounts}

    changed = values(
        api, operator={"replicas": 3}, cluster=THREE_GATEWAYS, networkPolicies={"enabled": False}
    )
    helm.upgrade(chart, RELEASE, changed, namespace=namespace)
    assert replicas(kube, namespace) == 3
    assert len(jobs(kube, namespace)) == 1
    assert jobs(kube, namespace) != first
    assert k8s.NetworkingV1Api(kube).list_namespaced_network_policy(namespace).items == []

    helm.rollback(RELEASE, version=1)
    assert replicas(kube, namespace) == 2
    assert jobs(kube, namespace) == first
    assert len(k8s.NetworkingV1Api(kube).list_namespaced_network_policy(namespace).items) == 3
    assert len(helm.history(RELEASE)) == 3

    helm.uninstall(RELEASE)
    assert k8s.AppsV1Api(kube).list_namespaced_deployment(namespace).items == []
    assert k8s.RbacAuthorizationV1Api(kube).list_namespaced_role(namespace).items == []


def test_definitions_come_with_the_release_and_stay(
    api: Cluster, kube: k8s.ApiClient, helm: Config, chart: Path, namespace: str
) -> None:
    if not (chart / "templates" / "crds").exists() or defined(kube):
        pytest.skip("the definitions are there already")
    extensions = k8s.ApiextensionsV1Api(kube)
    try:
        helm.install(chart, RELEASE, values(api) | {"crds": {"install": True}}, namespace=namespace)
        assert defined(kube)
        helm.upgrade(chart, RELEASE, values(api) | {"crds": {"install": True}}, namespace=namespace)
        helm.uninstall(RELEASE)
        assert defined(kube)
    finally:
        for definition in extensions.list_custom_resource_definition().items:
            if definition.spec.group == "tradewind.dev":
                take_away(kube, definition.metadata.name)


def test_the_chart_says_which_kubernetes_it_needs(
    api: Cluster, helm: Config, tmp_path: Path, namespace: str
) -> None:
    if api.minor >= 25:
        pytest.skip("this server is new enough")
    with pytest.raises(Exception, match=r"kubeVersion: >=1.27.0-0"):
        helm.install(copy_with_kuberay(tmp_path / "own"), RELEASE, values(api), namespace=namespace)


def test_two_releases_share_a_server(
    api: Cluster, kube: k8s.ApiClient, helm: Config, chart: Path, namespace: str
) -> None:
    everywhere = values(api, watchedNamespaces=["*"])
    helm.install(chart, RELEASE, everywhere, namespace=namespace)
    second = everywhere | {"kuberay": {"enabled": False}, "cluster": {"name": "second"}}
    helm.install(chart, "second", second, namespace=namespace)
    roles = k8s.RbacAuthorizationV1Api(kube).list_cluster_role().items
    names = [(role.metadata.labels or {}).get("app.kubernetes.io/name") for role in roles]
    assert names.count("tradewind") == 2
    for release in (RELEASE, "second"):
        helm.uninstall(release)


def setup_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("apply_cluster", CHART / "files" / "apply_cluster.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PAUSE_S = 0.05  # type: ignore[attr-defined]
    return module


@pytest.mark.usefixtures("definitions")
def test_the_job_makes_the_serving_cluster_with_the_rights_it_is_given(
    api: Cluster, kube: k8s.ApiClient, helm: Config, chart: Path, namespace: str, tmp_path: Path
) -> None:
    """The script as the Job runs it: the release's own service account, its token, its Role."""
    script, custom = setup_script(), k8s.CustomObjectsApi(kube)
    place = ("tradewind.dev", "v1alpha1", namespace, "servingclusters")
    account = account_directory(api, tmp_path)
    address = urlsplit(server_of(api))

    def run() -> tuple[int, dict[str, Any]]:
        config = k8s.CoreV1Api(kube).read_namespaced_config_map(f"{RELEASE}-cluster-setup", namespace)
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": []},
        }
        answer = k8s.CoreV1Api(kube).create_namespaced_service_account_token(
            f"{RELEASE}-cluster-setup", namespace, request
        )
        (account / "token").write_text(answer.status.token)
        manifest = json.loads(config.data["cluster.json"])
        code = script.main(manifest, script.Api(account, address.hostname, str(address.port)), 20)
        return code, custom.get_namespaced_custom_object(*place, manifest["metadata"]["name"])

    helm.install(chart, RELEASE, values(api, cluster=THREE_GATEWAYS), namespace=namespace)
    code, made = run()
    assert code == 0
    assert made["spec"]["gateway"]["replicas"] == 3
    assert set(made["spec"]["pools"]) == {"cpu", "gpu"}

    mine = {"metadata": {"annotations": {"example.org/by": "me"}}}
    custom.patch_namespaced_custom_object(*place, "default", mine)
    helm.upgrade(chart, RELEASE, values(api), namespace=namespace)
    code, changed = run()
    assert code == 0
    assert "gateway" not in changed["spec"]
    assert changed["metadata"]["annotations"]["example.org/by"] == "me"

    helm.uninstall(RELEASE)
    assert custom.get_namespaced_custom_object(*place, "default")["spec"] == changed["spec"]


def server_of(api: Cluster) -> str:
    server = yaml.safe_load(api.kubeconfig().read_text())["clusters"][0]["cluster"]["server"]
    return str(server)


def account_directory(api: Cluster, tmp_path: Path) -> Path:
    """What the kubelet mounts into a pod, but for the token."""
    cluster = yaml.safe_load(api.kubeconfig().read_text())["clusters"][0]["cluster"]
    if "certificate-authority" not in cluster:
        pytest.skip("this server's certificate is not in a file")
    directory = tmp_path / "account"
    directory.mkdir()
    (directory / "ca.crt").write_text(Path(cluster["certificate-authority"]).read_text())
    return directory

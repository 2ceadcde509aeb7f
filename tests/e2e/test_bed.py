"""The test bed is what it says: nodes, enforced policies, DNS, volumes, KubeRay, and faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import audit
from tests.e2e import pods
from tests.e2e.bed.machines import MachineError
from tests.e2e.bed.plan import CONTROL_PLANE, ENGINE_LABEL, HOST, NODES
from tests.e2e.pods import PORT, Pod
from tests.e2e.site import Data, Site

pytestmark = pytest.mark.e2e
NODE = "kubernetes.io/hostname"


def wait_for(true: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Seconds until `true`."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < timeout_s, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.3)
    return time.monotonic() - started


def on(node: str) -> Data:
    """A pod's spec that puts it there."""
    return {"nodeSelector": {NODE: node}, "tolerations": [{"operator": "Exists"}]}


def ready(cluster: Site, node: str) -> bool:
    conditions = cluster.get("node", node)["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@pytest.fixture(scope="module")
def place(cluster: Site) -> Iterator[str]:
    cluster.own()
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="module")
def server(cluster: Site, place: str) -> Pod:
    return pods.start(cluster, place, "server", **on("node-a"))


@pytest.fixture(scope="module")
def client(cluster: Site, place: str) -> Pod:
    return pods.start(cluster, place, "client", **on("node-c"))


def test_every_node_is_ready_and_runs_current_kubernetes(cluster: Site) -> None:
    cluster.own()
    found = {each["metadata"]["name"]: each for each in cluster.get("nodes")["items"]}
    assert set(found) == {node.name for node in NODES}
    assert all(ready(cluster, name) for name in found)
    assert {each["status"]["nodeInfo"]["kubeletVersion"][:6] for each in found.values()} == {"v1.36."}


def test_nodes_for_engines_take_only_what_is_meant_for_them(cluster: Site, place: str, server: Pod) -> None:
    for item in cluster.get("pods", "--all-namespaces")["items"]:
        node = next(node for node in NODES if node.name == item["spec"]["nodeName"])
        assert not node.taint or item["metadata"]["namespace"] == place
    assert [node.name for node in NODES if ENGINE_LABEL in node.labels] == ["node-c", "node-d"]


def test_pods_of_two_nodes_reach_each_other(server: Pod, client: Pod) -> None:
    assert client.reaches(f"http://{server.address}:{PORT}/")


def test_a_service_has_a_name_and_an_address_for_pods_and_for_tests(
    cluster: Site, place: str, server: Pod, client: Pod
) -> None:
    cluster.kubectl("expose", f"--namespace={place}", "pod", server.name, f"--port={PORT}", "--name=named")
    wait_for(lambda: client.reaches(f"http://named.{place}.svc:{PORT}/"), 20, "a service by name")
    address = cluster.get("service", "named", f"--namespace={place}")["spec"]["clusterIP"]
    wait_for(lambda: pods.fetch(f"http://{address}:{PORT}/"), 20, "a service by address, from here")
    assert pods.fetch(f"http://{server.address}:{PORT}/")


def test_a_policy_that_allows_nothing_blocks_and_one_that_allows_lets_through(
    cluster: Site, place: str, server: Pod, client: Pod
) -> None:
    stranger = pods.start(cluster, place, "stranger", **on("node-a"))
    url = f"http://{server.address}:{PORT}/"
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "server"}}
    closed = {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]}
    assert stranger.reaches(url)
    pods.create(cluster, place, {**policy, "spec": closed})
    wait_for(lambda: not client.reaches(url) and not stranger.reaches(url), 30, "nobody reaches the server")
    allowed = {"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]}
    cluster.kubectl("delete", f"--namespace={place}", "networkpolicy", "server")
    pods.create(cluster, place, {**policy, "spec": {**closed, **allowed}})
    wait_for(lambda: client.reaches(url), 30, "the allowed client reaches the server")
    assert not stranger.reaches(url)
    cluster.kubectl("delete", f"--namespace={place}", "networkpolicy", "server")
    stranger.delete()


def test_a_claim_is_bound_and_its_data_follows_the_pod_to_another_node(cluster: Site, namespace: str) -> None:
    cluster.own()
    request = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": request,
    }
    pods.create(cluster, namespace, {**claim, "spec": request})
    volumes: Data = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}
    first = pods.start(cluster, namespace, "first", **volumes, **on("node-a"))
    first.run("sh", "-c", "id -u && echo kept > /data/file")
    first.delete()
    second = pods.start(cluster, namespace, "second", **volumes, **on("node-b"))
    assert second.run("cat", "/data/file") == "kept\n"
    volume = cluster.get("pvc", "data", f"--namespace={namespace}")["spec"]["volumeName"]
    second.delete()
    cluster.kubectl("delete", f"--namespace={namespace}", "pvc", "data")

    def volumes_left() -> list[str]:
        return [each["metadata"]["name"] for each in cluster.get("pv")["items"]]

    wait_for(lambda: volume not in volumes_left(), 20, "the volume goes with its claim")


def test_restricted_pod_security_refuses_a_privileged_pod(cluster: Site) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with cluster.namespace(**labels) as name:
        content = pods.manifest(cluster, "bad")
        content["spec"]["containers"][0]["securityContext"] = {"privileged": True}
        with pytest.raises(MachineError, match="violates PodSecurity"):
            pods.create(cluster, name, content)
        pods.start(cluster, name, "good")


def test_a_pod_is_who_its_service_account_says_and_the_audit_log_knows(
    cluster: Site, place: str, client: Pod
) -> None:
    bed = cluster.own()
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = (
        "import ssl, urllib.request as u\n"
        f"token = open('{folder}/token').read()\n"
        f"url = 'https://kubernetes.default.svc/api/v1/namespaces/{place}/secrets'\n"
        "request = u.Request(url, headers={'authorization': 'Bearer ' + token})\n"
        f"u.urlopen(request, context=ssl.create_default_context(cafile='{folder}/ca.crt'))\n"
    )
    with pytest.raises(MachineError, match="403"):
        client.run("python3", "-c", script)
    refused = audit.Log(bed.home.audit_log).calls(f"system:serviceaccount:{place}:default", denied=True)
    assert audit.Call("list", "", "secrets", "", place, "") in refused


def test_a_pod_reaches_a_server_of_the_tests(client: Pod) -> None:
    with pods.serving(HOST) as url:
        assert client.reaches(url)


def test_a_lost_node_is_not_ready_and_comes_back(cluster: Site, namespace: str) -> None:
    bed = cluster.own()
    victim = pods.start(cluster, namespace, "victim", **on("node-d"))
    address = victim.address
    bed.lose("node-d")
    assert not pods.fetch(f"http://{address}:{PORT}/")
    noticed = wait_for(lambda: not ready(cluster, "node-d"), 60, "the loss is noticed")
    print(f"noticed after {noticed:.0f} s")
    bed.bring_back("node-d")
    wait_for(lambda: ready(cluster, "node-d"), 60, "the node is Ready again")
    pods.start(cluster, namespace, "next", **on("node-d"))


def test_an_api_server_that_was_down_goes_on(cluster: Site, server: Pod) -> None:
    bed, url = cluster.own(), f"http://{server.address}:{PORT}/"
    with bed.outage():
        with pytest.raises(MachineError):
            cluster.get("nodes")
        assert pods.fetch(url)
    wait_for(lambda: all(ready(cluster, node.name) for node in NODES), 60, "every node is Ready")
    assert bed.program(CONTROL_PLANE, "kube-apiserver").alive


def test_kuberay_starts_a_ray_cluster_of_our_images(cluster: Site, namespace: str) -> None:
    """The head of the gateway's image on one node, an engine's worker on one that is kept for engines."""
    cluster.own()

    def template(image: str, **spec: object) -> dict[str, object]:
        resources = {"requests": {"cpu": "200m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
        # KubeRay's own probes run wget, which our images do not have.
        alive = {"tcpSocket": {"port": 52365}, "periodSeconds": 2, "failureThreshold": 60}
        main = {
            "name": "ray",
            "image": cluster.image(image),
            "imagePullPolicy": "Never",
            "resources": resources,
            "readinessProbe": alive,
            "livenessProbe": alive,
        }
        return {"spec": {"containers": [main], **spec}}

    group = {
        "groupName": "engines",
        "replicas": 1,
        "minReplicas": 1,
        "maxReplicas": 1,
        "rayStartParams": {"num-cpus": "1"},
        "template": template("engine-cpu", **on("node-c")),
    }
    head = {"rayStartParams": {"num-cpus": "0"}, "template": template("gateway")}
    spec = {"rayVersion": "2.60.0", "headGroupSpec": head, "workerGroupSpecs": [group]}
    named = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "bare"}}
    pods.create(cluster, namespace, {**named, "spec": spec})

    def state() -> str:
        return str(
            cluster.get("raycluster", "bare", f"--namespace={namespace}").get("status", {}).get("state")
        )

    took = wait_for(lambda: state() == "ready", 240, "KubeRay's RayCluster is ready")
    print(f"ready after {took:.0f} s")
    found = cluster.get("pods", f"--namespace={namespace}")["items"]
    assert sorted(each["metadata"]["labels"]["ray.io/node-type"] for each in found) == ["head", "worker"]

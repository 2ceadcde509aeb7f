"""Policies, budgets, scheduling, claims and the endpoint."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.api.builders import Data, model
from tests.unit.operator.desired.pod_standard import violations
from tests.unit.operator.desired.worlds import CPU_POOL, GPU_POOL, busy, config_of, group_of, pod_of, world
from tradewind_operator.desired.network import OPERATOR_LABELS
from tradewind_operator.desired.objects import desired_objects
from tradewind_operator.desired.world import ClusterWorld, Endpoint, Manifest

ACTIVE = "default-0a1b2c3d"


def objects(found: ClusterWorld, kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in desired_objects(found, ACTIVE) if one["kind"] == kind}


def ports(rules: list[Manifest]) -> set[int]:
    return {port["port"] for rule in rules for port in rule.get("ports", ())}


def test_everything_is_labelled_and_owned_and_nothing_holds_a_secret() -> None:
    for one in desired_objects(busy(), ACTIVE):
        assert one["metadata"]["labels"]["tradewind.dev/cluster"] == "default"
        assert one["metadata"]["ownerReferences"][0]["controller"] is True
        assert one["kind"] not in ("Secret", "ConfigMap")


def test_all_pods_are_closed_both_ways_before_anything_is_allowed() -> None:
    policy = objects(world(), "NetworkPolicy")["default-pods"]["spec"]
    assert policy["podSelector"] == {"matchLabels": {"tradewind.dev/cluster": "default"}}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert 8265 not in ports(policy["ingress"])
    assert 8000 not in ports(policy["ingress"])


def test_the_dashboard_is_for_the_two_operators() -> None:
    (rule,) = objects(world(), "NetworkPolicy")["default-head"]["spec"]["ingress"]
    callers = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
    assert callers == [OPERATOR_LABELS, {"app.kubernetes.io/name": "kuberay-operator"}]
    assert ports([rule]) == {8265}


def test_everyone_may_call_the_endpoint_unless_it_is_said_who() -> None:
    open_to, _ = objects(world(), "NetworkPolicy")["default-gateway"]["spec"]["ingress"]
    assert "from" not in open_to
    some = world(
        networkPolicy={"allowFrom": [{"namespaceSelector": {"team": "a"}, "podSelector": {"b": "c"}}]}
    )
    limited, _ = objects(some, "NetworkPolicy")["default-gateway"]["spec"]["ingress"]
    apps, operator = limited["from"]
    assert apps == {
        "namespaceSelector": {"matchLabels": {"team": "a"}},
        "podSelector": {"matchLabels": {"b": "c"}},
    }
    assert operator["podSelector"]["matchLabels"] == OPERATOR_LABELS


def test_only_engines_reach_the_world_and_a_mirror_on_its_port() -> None:
    found = world(model(source={"uri": "hf://org/m", "endpoint": "https://hub.internal:8443"}))
    policies = objects(found, "NetworkPolicy")
    assert ports(policies["default-engines"]["spec"]["egress"]) == {443, 8443}
    assert policies["default-gateway"]["spec"]["egress"] == []


def test_only_the_engines_account_is_known_to_the_cloud_and_no_token_for_this_api_is_mounted() -> None:
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/weights"}
    accounts = objects(world(serviceAccount={"annotations": role}), "ServiceAccount")
    assert accounts["default-engines"]["metadata"]["annotations"] == role
    assert "annotations" not in accounts["default-ray"]["metadata"]
    assert {one["automountServiceAccountToken"] for one in accounts.values()} == {False}
    found = world(serviceAccount={"annotations": role})
    assert pod_of(found, "pool-cpu")["serviceAccountName"] == "default-engines"
    assert pod_of(found, "gateway")["serviceAccountName"] == "default-ray"
    assert pod_of(found, "pool-cpu")["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("cloud", "reached"),
    [
        (None, set()),
        ("EKS", {("169.254.170.23/32", 80), ("fd00:ec2::23/128", 80)}),
        ("GKE", {("169.254.169.254/32", 80), ("169.254.169.252/32", 988)}),
        ("Azure", set()),
    ],
)
def test_engines_reach_the_clouds_metadata_only_where_it_is_their_identity(
    cloud: str | None, reached: set[tuple[str, int]]
) -> None:
    identity = {} if cloud is None else {"workloadIdentity": cloud}
    policies = objects(world(serviceAccount=identity), "NetworkPolicy")
    _, *rules = policies["default-engines"]["spec"]["egress"]
    assert {(rule["to"][0]["ipBlock"]["cidr"], rule["ports"][0]["port"]) for rule in rules} == reached
    assert policies["default-gateway"]["spec"]["egress"] == []


def test_azure_knows_its_pods_by_a_label() -> None:
    label = "azure.workload.identity/use"
    labels = group_of(world(serviceAccount={"workloadIdentity": "Azure"}), "pool-cpu")["template"]["metadata"]
    assert labels["labels"][label] == "true"
    assert label not in group_of(world(), "pool-cpu")["template"]["metadata"]["labels"]


def test_the_collector_may_be_reached() -> None:
    found = world(telemetry={"otlpEndpoint": "https://collector.example"})
    assert 443 in ports(objects(found, "NetworkPolicy")["default-pods"]["spec"]["egress"])


def test_network_policies_can_be_switched_off() -> None:
    assert objects(world(networkPolicy={"enabled": False}), "NetworkPolicy") == {}


def test_an_eviction_takes_one_gateway_at_a_time_of_the_cluster_that_serves() -> None:
    (budget,) = (
        one["spec"]
        for one in desired_objects(world(gateway={"replicas": 3}), "default-xyz")
        if one["kind"] == "PodDisruptionBudget"
    )
    assert budget["minAvailable"] == 2
    assert "maxUnavailable" not in budget  # Kubernetes cannot count pods of a RayCluster by it
    assert budget["selector"]["matchLabels"]["ray.io/cluster"] == "default-xyz"


@pytest.mark.parametrize(
    ("group", "place"), [("head", "head"), ("gateway", "gateway"), ("pool-cpu", "pools")]
)
def test_a_platform_team_gives_pods_priority_labels_and_annotations(group: str, place: str) -> None:
    own = {"pod": {"priorityClassName": "serving", "labels": {"team": "a"}, "annotations": {"x.y/z": "1"}}}
    found = world(**{place: {"cpu": {**CPU_POOL, **own}} if place == "pools" else own})
    assert pod_of(found, group)["priorityClassName"] == "serving"
    about = (config_of(found)["headGroupSpec"] if group == "head" else group_of(found, group))["template"][
        "metadata"
    ]
    assert about["labels"]["team"] == "a"
    assert about["labels"]["tradewind.dev/cluster"] == "default"
    assert about["annotations"]["x.y/z"] == "1"


def test_no_budget_holds_up_the_drain_of_a_node_for_ever() -> None:
    assert set(objects(world(), "PodDisruptionBudget")) == {"default-gateway"}


def test_the_endpoint_is_of_the_cluster_that_serves_and_each_cluster_has_gateways_of_its_own() -> None:
    services = {
        one["metadata"]["name"]: one["spec"]["selector"]
        for one in desired_objects(world(), "default-new", ["default-old"])
        if one["kind"] == "Service"
    }
    roles = {"tradewind.dev/cluster": "default", "tradewind.dev/role": "gateway"}
    assert services == {
        "default": {**roles, "ray.io/cluster": "default-new"},
        "default-new-gateways": {**roles, "ray.io/cluster": "default-new"},
        "default-old-gateways": {**roles, "ray.io/cluster": "default-old"},
    }


def test_the_endpoint_is_seen_as_the_settings_say_without_another_pod() -> None:
    plain = world()
    balanced = Endpoint("LoadBalancer", {"cloud/internal": "true"}, "example.com/lb", ("10.0.0.0/8",))
    seen = replace(plain, defaults=replace(plain.defaults, endpoint=balanced))
    service = objects(seen, "Service")["default"]
    assert service["metadata"]["annotations"] == {"cloud/internal": "true"}
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["spec"]["loadBalancerClass"] == "example.com/lb"
    assert service["spec"]["loadBalancerSourceRanges"] == ["10.0.0.0/8"]
    assert config_of(seen) == config_of(plain)
    assert "loadBalancerClass" not in objects(plain, "Service")["default"]["spec"]


def test_a_serving_cluster_says_how_its_own_endpoint_is_seen() -> None:
    own = {
        "type": "LoadBalancer",
        "annotations": {"cloud/internal": "true"},
        "loadBalancerClass": "example.com/own",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
    }
    pods = {"allowFrom": [{"podSelector": {"app": "web"}}]}
    found = replace(
        world(gateway={"service": own}, networkPolicy=pods),
        defaults=replace(world().defaults, endpoint=Endpoint("NodePort")),
    )
    service = objects(found, "Service")["default"]
    assert service["metadata"]["annotations"] == {"cloud/internal": "true"}
    assert {key: value for key, value in service["spec"].items() if key not in ("ports", "selector")} == {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",  # else the policy would see the node's address
        "loadBalancerClass": "example.com/own",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
    }
    open_to, _ = objects(found, "NetworkPolicy")["default-gateway"]["spec"]["ingress"]
    assert {"ipBlock": {"cidr": "192.0.2.0/24"}} in open_to["from"]
    assert config_of(found) == config_of(world())


def test_callers_outside_are_let_in_by_their_addresses() -> None:
    some = world(
        gateway={"service": {"type": "NodePort"}}, networkPolicy={"allowFrom": [{"ipBlock": "10.0.0.0/8"}]}
    )
    open_to, _ = objects(some, "NetworkPolicy")["default-gateway"]["spec"]["ingress"]
    assert open_to["from"][0] == {"ipBlock": {"cidr": "10.0.0.0/8"}}
    assert objects(some, "Service")["default"]["spec"]["externalTrafficPolicy"] == "Cluster"
    assert "externalTrafficPolicy" not in objects(world(), "Service")["default"]["spec"]


def test_gateways_are_on_different_nodes_where_there_are_two() -> None:
    by_host, by_zone = pod_of(world(), "gateway")["topologySpreadConstraints"]
    assert (by_host["whenUnsatisfiable"], by_host["maxSkew"]) == ("DoNotSchedule", 1)
    assert by_host["nodeTaintsPolicy"] == "Honor"  # else GPU nodes would count as empty ones
    assert by_zone["whenUnsatisfiable"] == "ScheduleAnyway"


@pytest.mark.parametrize(
    ("pool", "tainted"),
    [
        ({}, {"nvidia.com/gpu"}),
        ({"gpuResource": "amd.com/gpu", "engineImage": "r/rocm:1"}, {"amd.com/gpu"}),
        ({"gpuResource": "nvidia.com/mig-1g.10gb"}, {"nvidia.com/gpu"}),
        (
            {"spot": True},
            {"nvidia.com/gpu", "cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"},
        ),
    ],
    ids=["nvidia", "amd", "mig", "spot"],
)
def test_gpu_and_spot_pools_bear_the_providers_taints(pool: Data, tainted: set[str]) -> None:
    pod = pod_of(world(pools={"l4": {**GPU_POOL, **pool}}), "pool-l4")
    assert {toleration["key"] for toleration in pod["tolerations"]} == tainted
    assert ("affinity" in pod) is bool(pool.get("spot"))
    gpus = pod["containers"][0]["resources"]["limits"]
    assert gpus.pop("ephemeral-storage")
    assert gpus == {"memory": "32Gi", pool.get("gpuResource", "nvidia.com/gpu"): "1"}


def test_a_claim_of_another_class_is_another_claim() -> None:
    names = []
    for storage in ("slow", "fast"):
        pool = {**CPU_POOL, "cache": {"size": "10Gi", "storageClassName": storage}}
        (name,) = objects(world(pools={"cpu": pool}), "PersistentVolumeClaim")
        volumes = pod_of(world(pools={"cpu": pool}), "pool-cpu")["volumes"]
        assert {"name": "cache", "persistentVolumeClaim": {"claimName": name}} in volumes
        names.append(name)
    assert names[0] != names[1]


def test_a_given_claim_is_not_made() -> None:
    pool = {**CPU_POOL, "cache": {"claim": "weights"}}
    assert objects(world(pools={"cpu": pool}), "PersistentVolumeClaim") == {}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"hostNetwork": True}, "host namespaces"),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "volume types"),
        ({"securityContext": {}}, None),
        ({"containers": [{"name": "x", "securityContext": {"privileged": True}}]}, "x: privileged"),
        ({"containers": [{"name": "x"}]}, "x: capabilities dropped"),
    ],
)
def test_the_standards_table_finds_what_is_wrong(change: Data, rule: str | None) -> None:
    pod = {**pod_of(world(), "gateway"), **change}
    assert (rule in violations(pod)) if rule else violations(pod) == []

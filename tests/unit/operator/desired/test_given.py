"""What a platform team gives to pods: variables, volumes, affinity and spread, for all or for some."""

from __future__ import annotations

import pytest

from tests.unit.api.builders import Data
from tests.unit.api.test_resources import POD
from tests.unit.operator.desired.pod_standard import violations
from tests.unit.operator.desired.test_others import objects, ports
from tests.unit.operator.desired.worlds import CPU_POOL, config_of, pod_of, world
from tradewind.api.environment import POD_ENV_NAMES, POD_ENV_PREFIXES
from tradewind.api.pod_volumes import path_fault
from tradewind_operator.desired.world import ClusterWorld, Manifest

ROLES = ["head", "gateway", "pool-cpu"]
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
ZONE = "topology.kubernetes.io/zone"


def pool(**more: object) -> Data:
    return {"cpu": {**CPU_POOL, **more}}


def container(found: ClusterWorld, name: str) -> Manifest:
    (only,) = pod_of(found, name)["containers"]
    return dict(only)


def env_of(found: ClusterWorld, name: str) -> dict[str, Manifest]:
    return {one["name"]: one for one in container(found, name)["env"]}


@pytest.mark.parametrize("role", ROLES)
def test_no_variable_that_the_platform_sets_can_be_given(role: str) -> None:
    for name in env_of(world(gcsFaultTolerance={"backend": "rocksdb"}), role):
        assert name.startswith(POD_ENV_PREFIXES) or name in POD_ENV_NAMES


@pytest.mark.parametrize("role", ROLES)
def test_nothing_can_be_mounted_where_the_platform_mounts_something(role: str) -> None:
    pod = pod_of(world(gcsFaultTolerance={"backend": "rocksdb"}), role)
    for mount in pod["containers"][0]["volumeMounts"]:
        assert path_fault(mount["mountPath"]), mount


@pytest.mark.parametrize("role", ROLES)
def test_every_role_gets_what_all_pods_are_given_and_stays_restricted(role: str) -> None:
    found = world(pod=POD)
    variables = env_of(found, role)
    assert variables["HTTPS_PROXY"] == {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    assert variables["A_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "a", "key": "b"}}
    assert variables["NCCL_IB_HCA"]["valueFrom"] == {"configMapKeyRef": {"name": "nccl", "key": "hca"}}
    assert list(variables) == sorted(variables)
    volumes = {one["name"]: one for one in pod_of(found, role)["volumes"]}
    assert volumes["extra-ca"]["configMap"] == {
        "name": "ca",
        "defaultMode": 0o440,
        "items": [{"key": "ca.pem", "path": "own.pem"}],
    }
    assert volumes["extra-licence"]["secret"] == {"secretName": "licence", "defaultMode": 0o440}
    assert volumes["extra-weights"]["persistentVolumeClaim"] == {"claimName": "weights"}
    assert volumes["extra-room"]["emptyDir"] == {"sizeLimit": "1Gi", "medium": "HugePages-2Mi"}
    mounts = {one["name"]: one for one in container(found, role)["volumeMounts"]}
    assert mounts["extra-ca"] == {
        "name": "extra-ca",
        "mountPath": "/etc/ssl/certs/own.pem",
        "subPath": "own.pem",
        "readOnly": True,
    }
    assert "readOnly" not in mounts["extra-weights"]
    assert not violations(pod_of(found, role))


def test_what_a_pool_says_comes_before_what_is_said_for_all() -> None:
    base = {
        "priorityClassName": "low",
        "labels": {"team": "a", "cost": "1"},
        "env": [{"name": "A", "value": "all"}, {"name": "B", "value": "all"}],
        "volumes": [
            {"name": "one", "mountPath": "/mnt/one", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "two", "mountPath": "/mnt/two", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
    }
    own = {
        "priorityClassName": "high",
        "labels": {"team": "b"},
        "env": [{"name": "B", "value": "pool"}],
        "volumes": [
            {"name": "other", "mountPath": "/mnt/two", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "one", "mountPath": "/mnt/1", "emptyDir": {"sizeLimit": "2Gi"}},
        ],
    }
    found = world(pod=base, pools=pool(pod=own))
    spec = pod_of(found, "pool-cpu")
    assert spec["priorityClassName"] == "high"
    assert pod_of(found, "gateway")["priorityClassName"] == "low"
    variables = env_of(found, "pool-cpu")
    assert (variables["A"]["value"], variables["B"]["value"]) == ("all", "pool")
    mounts = {one["mountPath"]: one["name"] for one in container(found, "pool-cpu")["volumeMounts"]}
    assert {path: name for path, name in mounts.items() if path.startswith("/mnt")} == {
        "/mnt/1": "extra-one",
        "/mnt/two": "extra-other",
    }
    labels = [group["template"]["metadata"]["labels"] for group in config_of(found)["workerGroupSpecs"]]
    assert [(one["team"], one["cost"]) for one in labels] == [("a", "1"), ("b", "1")]


def test_together_they_may_be_more_than_one_of_them_may_have() -> None:
    def many(word: str) -> Data:
        return {"labels": {f"{word}{number}": "x" for number in range(16)}}

    found = world(pod=many("a"), pools=pool(pod=many("b")))
    (_, engines) = config_of(found)["workerGroupSpecs"]
    assert {"a15", "b15"} <= set(engines["template"]["metadata"]["labels"])


def test_nodes_that_are_asked_for_must_be_spot_nodes_too() -> None:
    expressions = [{"key": "arch", "operator": "In", "values": ["x"]}, {"key": "old", "operator": "Exists"}]
    terms = [{"matchExpressions": [expression]} for expression in expressions]
    given = {"affinity": {"nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": terms}}}}
    found = pod_of(world(pools=pool(spot=True, pod=given)), "pool-cpu")
    asked = found["affinity"]["nodeAffinity"][_REQUIRED]["nodeSelectorTerms"]
    assert len(asked) == 8
    assert all(len(term["matchExpressions"]) == 2 for term in asked)
    assert {term["matchExpressions"][1]["key"] for term in asked} == {"arch", "old"}
    assert {term["matchExpressions"][0]["key"] for term in asked} >= {"karpenter.sh/capacity-type"}


def test_what_gateways_keep_away_from_is_added_to() -> None:
    term = {"topologyKey": "rack", "labelSelector": {"matchLabels": {"app": "noisy"}}}
    away = {"podAntiAffinity": {_PREFERRED: [{"weight": 9, "podAffinityTerm": term}], _REQUIRED: [term]}}
    plain = pod_of(world(), "gateway")["affinity"]["podAntiAffinity"]
    found = pod_of(world(gateway={"pod": {"affinity": away}}), "gateway")["affinity"]["podAntiAffinity"]
    assert found[_PREFERRED] == [*plain[_PREFERRED], {"weight": 9, "podAffinityTerm": term}]
    assert found[_REQUIRED] == [term]


def test_an_empty_selector_of_namespaces_stays_and_what_is_absent_is_not_written() -> None:
    terms = pod_of(world(pod=POD), "pool-cpu")["affinity"]["podAffinity"][_REQUIRED]
    assert terms == [
        {
            "topologyKey": "rack",
            "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
            "namespaceSelector": {},
        }
    ]


def test_a_spread_counts_the_pods_of_its_own_generation_unless_it_says_which() -> None:
    spread = {"topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}
    found = world(pod={"topologySpreadConstraints": [spread]})
    (only,) = pod_of(found, "pool-cpu")["topologySpreadConstraints"]
    assert only == {
        **spread,
        "maxSkew": 1,
        "labelSelector": {
            "matchLabels": {"tradewind.dev/cluster": "default", "tradewind.dev/role": "engine"}
        },
        "matchLabelKeys": ["ray.io/cluster", "ray.io/group"],
    }
    (chosen,) = pod_of(world(pod=POD), "pool-cpu")["topologySpreadConstraints"]
    assert chosen["labelSelector"] == {"matchLabels": {"app": "x"}}
    assert "matchLabelKeys" not in chosen


def test_a_spread_takes_the_place_of_the_platforms_own_for_the_same_label() -> None:
    given = {"topologySpreadConstraints": [{"topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}]}
    own = pod_of(world(), "gateway")["topologySpreadConstraints"]
    found = pod_of(world(gateway={"pod": given}), "gateway")["topologySpreadConstraints"]
    assert found[0] == own[0]
    assert [one["topologyKey"] for one in found] == ["kubernetes.io/hostname", ZONE]
    assert found[1]["whenUnsatisfiable"] == "DoNotSchedule"


def test_a_proxy_can_be_reached_by_the_engines_that_go_through_it() -> None:
    proxy = {"env": [{"name": "https_proxy", "value": "http://proxy.corp:3128"}, {"name": "X", "value": "a"}]}
    found = objects(world(pools=pool(pod=proxy)), "NetworkPolicy")
    assert ports(found["default-engines"]["spec"]["egress"]) == {443, 3128}
    assert ports(objects(world(), "NetworkPolicy")["default-engines"]["spec"]["egress"]) == {443}


@pytest.mark.parametrize("role", ROLES)
def test_user_and_groups_are_left_to_what_admits_pods_and_processes_know_their_name(role: str) -> None:
    found = world(pod={"arbitraryUser": True})
    context = pod_of(found, role)["securityContext"]
    assert context["runAsNonRoot"] is True
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(context)
    assert not violations(pod_of(found, role))
    assert env_of(found, role)["LOGNAME"]["value"] == env_of(found, role)["USER"]["value"] == "tradewind"
    assert pod_of(world(), role)["securityContext"]["runAsUser"] == 10001


def test_one_role_may_keep_its_user() -> None:
    found = world(pod={"arbitraryUser": True}, gateway={"pod": {"arbitraryUser": False}})
    assert pod_of(found, "gateway")["securityContext"]["fsGroup"] == 10001

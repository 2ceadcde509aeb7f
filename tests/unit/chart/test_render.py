"""The chart, rendered by real Helm: what it makes, what it refuses, and that it is what Kubernetes takes."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from helm_python import Config, HelmError

from tests.golden.chart.rendering import (
    CASES,
    CHART,
    NAMESPACE,
    RELEASE,
    Manifest,
    copy_with_kuberay,
    golden,
    golden_of,
    manifests,
    render,
    values_of,
)
from tradewind.schema.json_schemas import json_schema
from tradewind_operator.desired.network import OPERATOR_LABELS
from tradewind_operator.kinds import CUSTOM_KINDS
from tradewind_operator.release_cluster import Wanted, wanted

KUBERNETES = "1.36.0"
CUSTOM = ("monitoring.coreos.com/", "gateway.networking.k8s.io/", "apiextensions.k8s.io/")
CLUSTER_SCOPED = {
    *("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
}


@pytest.mark.parametrize("case", CASES)
def test_renders_to_its_golden_file(case: str) -> None:
    message = "if this is meant: python -m tests.golden.rewrite"
    assert golden(case) == golden_of(case).read_text(encoding="utf-8"), message


def made_cluster(**spec: Any) -> Manifest:
    """The ServingCluster that a release with these values for its spec applies."""
    (found,) = (
        json.loads(manifest["data"]["cluster.json"])
        for manifest in manifests({"cluster": {"spec": spec}})
        if manifest["kind"] == "ConfigMap" and "cluster.json" in manifest.get("data", {})
    )
    return dict(found)


def test_two_operators_are_on_two_nodes_where_there_are_two() -> None:
    (deployment,) = (one for one in manifests() if one["kind"] == "Deployment")
    by_node, by_zone = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert (by_node["whenUnsatisfiable"], by_node["maxSkew"]) == ("DoNotSchedule", 1)
    assert by_node["nodeTaintsPolicy"] == "Honor"
    assert by_node["matchLabelKeys"] == ["pod-template-hash"]  # else an update waits for the old pods
    assert by_zone["whenUnsatisfiable"] == "ScheduleAnyway"


def test_an_overlay_of_values_changes_one_pool_and_keeps_the_others() -> None:
    given = made_cluster()["spec"]["pools"]
    pools = made_cluster(pools={"gpu": {"maxNodes": 9}})["spec"]["pools"]
    assert pools == {**given, "gpu": {**given["gpu"], "maxNodes": 9}}


def test_null_takes_a_pool_away_and_a_new_name_adds_one() -> None:
    l4 = {"gpus": 1, "cpus": 4, "memory": "16Gi", "maxNodes": 1}
    pools = made_cluster(pools={"gpu": None, "l4": l4})["spec"]["pools"]
    assert set(pools) == {"cpu", "l4"}
    assert pools["l4"] == l4


@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_every_manifest(case: str) -> None:
    for manifest in manifests(values_of(case)):
        if not manifest["apiVersion"].startswith(CUSTOM):
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_lint_finds_nothing_but_the_dependency_that_is_fetched_at_packaging(case: str) -> None:
    report = helm_python.lint(CHART, values_of(case), strict=False)
    serious = [message for message in report["messages"] if message["severity"] > 1]
    assert [message for message in serious if "missing these dependencies" not in message["error"]] == []


def test_lint_finds_nothing_with_the_dependency(tmp_path: Path) -> None:
    report = helm_python.lint(copy_with_kuberay(tmp_path), {}, strict=True)
    assert [message for message in report["messages"] if message["severity"] > 1] == []
    assert report["errors"] == []


def test_every_option_is_in_the_case_that_has_all() -> None:
    def paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for key, value in values.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict) and prefix + key != "cluster.spec":
                yield from paths(value, f"{prefix}{key}.")

    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    free = re.compile(r"\.(labels|limits)\.")
    wanted = {path for path in paths(defaults) if not free.search(path)}
    assert wanted - set(paths(values_of("all"))) == set()


def test_kuberay_comes_under_its_condition(tmp_path: Path) -> None:
    chart = copy_with_kuberay(tmp_path)
    with_it = {manifest["metadata"]["name"] for manifest in manifests({}, chart=chart)}
    without = {
        manifest["metadata"]["name"] for manifest in manifests({"kuberay": {"enabled": False}}, chart=chart)
    }
    assert with_it - without == {"kuberay-stand-in"}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("an unknown key", {"bogus": 1}, "additional properties 'bogus' not allowed"),
    ("a misspelt key below", {"operator": {"replica": 2}}, "'replica' not allowed"),
    ("Ray's authentication off", {"cluster": {"spec": {"auth": {"mode": "disabled"}}}}, "'auth' not allowed"),
    ("an exposed dashboard", {"expose": {"dashboard": {"enabled": True}}}, "'dashboard' not allowed"),
    ("a privileged operator", {"operator": {"securityContext": {"privileged": True}}}, "not allowed"),
    (
        "a host path in a pool",
        {"cluster": {"spec": {"pools": {"cpu": {"hostPath": "/"}}}}},
        "'hostPath' not allowed",
    ),
    ("a digest that is none", {"operator": {"image": {"digest": "latest"}}}, "does not match pattern"),
    ("a release's long name", {"cluster": {"name": "x" * 41}}, "maxLength"),
    ("a collector with a password", {"otlp": {"endpoint": "http://user:pw@collector"}}, "pattern"),
    ("all namespaces and one", {"watchedNamespaces": ["*", "a"]}, 'found "*" beside other namespaces'),
    ("a cluster nobody serves", {"watchedNamespaces": ["models"]}, "so nobody would serve it"),
    ("one gateway", {"cluster": {"spec": {"gateway": {"replicas": 1}}}}, "found 1; allowed: at least 2"),
    (
        "two ways in",
        {
            "expose": {
                "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
                "ingress": {"enabled": True, "hosts": ["models.example.org"]},
            }
        },
        "expose: found expose.httpRoute and expose.ingress together",
    ),
    ("a route to nowhere", {"expose": {"httpRoute": {"enabled": True}}}, "parentRefs: found none"),
    ("an ingress for no host", {"expose": {"ingress": {"enabled": True}}}, "hosts: found none"),
]


@pytest.mark.parametrize(
    ("values", "said"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_refuses(values: dict[str, Any], said: str) -> None:
    with pytest.raises(HelmError) as refused:
        render(values)
    assert said in str(refused.value)


NAMES = [
    ("tradewind", "tradewind"),
    ("a", "default"),
    ("r" * 53, "n" * 63),
    ("tradewind-operator", "tw"),
    ("release-1.2", "tw"),
]


@pytest.mark.parametrize(("name", "namespace"), NAMES, ids=[name[:20] for name, _ in NAMES])
def test_any_release_name_and_namespace(name: str, namespace: str) -> None:
    for manifest in manifests(values_of("all") | {"watchedNamespaces": [namespace]}, name, namespace):
        assert len(manifest["metadata"]["name"]) <= 63
        assert manifest["kind"] in CLUSTER_SCOPED or manifest["metadata"]["namespace"] == namespace
        if not manifest["apiVersion"].startswith(CUSTOM):
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def identities(name: str, namespace: str, values: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {
        (manifest["kind"], manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"])
        for manifest in manifests(values, name, namespace)
        if manifest["kind"] != "CustomResourceDefinition"
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("a", "tw"), ("b", "tw")),
        (("a", "tw"), ("a-operator", "tw")),
        (("a", "tw"), ("a", "other")),
        (("a-b", "c"), ("a", "b-c")),
        (("r" * 53, "tw"), ("r" * 52, "tw")),
    ],
)
@pytest.mark.parametrize("watched", [["*"], ["shared", "tw", "other", "c", "b-c"]], ids=["all", "some"])
def test_two_releases_do_not_collide(
    first: tuple[str, str], second: tuple[str, str], watched: list[str]
) -> None:
    values = values_of("all") | {"watchedNamespaces": watched}
    assert identities(*first, values) & identities(*second, values) == set()


def pod_specs(found: list[Manifest]) -> Iterator[Manifest]:
    for manifest in found:
        if manifest["kind"] == "Pod":
            yield manifest["spec"]
        elif manifest["kind"] in ("Deployment", "Job"):
            yield manifest["spec"]["template"]["spec"]


@pytest.mark.parametrize("case", CASES)
def test_pods_are_restricted(case: str) -> None:
    """The rules of Kubernetes' pod security standard "restricted", and a read-only root beside."""
    specs = list(pod_specs(manifests(values_of(case))))
    assert len(specs) == (3 if case == "all" else 2)
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
        assert all({"configMap", "emptyDir"} & set(volume) for volume in spec["volumes"])
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in context
            assert {"requests", "limits"} <= set(container["resources"])
            assert all("hostPort" not in port for port in container.get("ports", ()))


def test_images_come_from_the_mirror_and_by_digest() -> None:
    specs = list(pod_specs(manifests(values_of("all"))))
    digest = values_of("all")["operator"]["image"]["digest"]
    images = {container["image"] for spec in specs for container in spec["containers"]}
    assert images == {f"registry.example:5000/mirror/team/operator@{digest}"}
    assert all(spec["imagePullSecrets"] == [{"name": "mirror"}] for spec in specs)


@pytest.mark.parametrize("watched", [[], ["*"], ["tw", "models"]], ids=["own", "all", "named"])
def test_rights_are_named_one_by_one(watched: list[str]) -> None:
    roles = [m for m in manifests({"watchedNamespaces": watched}) if m["kind"] in ("Role", "ClusterRole")]
    rules = [rule for role in roles for rule in role["rules"]]
    for rule in rules:
        assert not any("*" in text for key in rule for text in rule[key])
        assert not {"escalate", "bind", "impersonate", "deletecollection"} & set(rule["verbs"])
        assert "rbac.authorization.k8s.io" not in rule["apiGroups"]
    secrets = [rule["verbs"] for rule in rules if "secrets" in rule["resources"]]
    assert secrets == [["get", "create", "patch"]] * max(1, len(watched))
    everywhere = [role for role in roles if role["kind"] == "ClusterRole"]
    classes = [role["rules"] for role in everywhere if role["metadata"]["name"].endswith("-sc")]
    assert classes == [
        [{"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["list"]}]
    ]
    assert len(everywhere) == (2 if watched == ["*"] else 1)
    places = {role["metadata"]["namespace"] for role in roles if role["kind"] == "Role"}
    assert places == ({"tw", "models"} if watched == ["tw", "models"] else {"tw"})


def test_the_migration_has_its_rights_for_as_long_as_it_takes_and_the_operator_has_none_of_them() -> None:
    found = [m for m in manifests({"crds": {"migrate": True}}) if "migration" in m["metadata"]["name"]]
    assert {m["kind"] for m in found} == {
        *("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "NetworkPolicy", "Job")
    }
    for manifest in found:
        hook = manifest["metadata"]["annotations"]
        assert hook["helm.sh/hook"] == "post-install,post-upgrade"
        assert "hook-succeeded" in hook["helm.sh/hook-delete-policy"]
        assert (int(hook["helm.sh/hook-weight"]) < 0) == (manifest["kind"] != "Job")
    (role,) = [m for m in found if m["kind"] == "ClusterRole"]
    assert {name for rule in role["rules"] for name in rule.get("resourceNames", ())} == {
        kind.full_name for kind in CUSTOM_KINDS.values()
    }
    (own,) = [rule for rule in role["rules"] if rule["apiGroups"] == ["tradewind.dev"]]
    assert set(own["resources"]) == {kind.plural for kind in CUSTOM_KINDS.values()}
    assert not [m for m in manifests() if "migration" in m["metadata"]["name"]]


def test_settings_are_what_the_operator_reads(tmp_path: Path) -> None:
    settings = pytest.importorskip("tradewind_operator.settings")
    for case in CASES:
        (config,) = [
            manifest["data"]["settings.yaml"]
            for manifest in manifests(values_of(case))
            if manifest["kind"] == "ConfigMap" and "settings.yaml" in manifest["data"]
        ]
        written = yaml.safe_load(config)
        assert ("endpointService" in written) == (case == "all")
        (tmp_path / "settings.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
        loaded = settings.load(tmp_path / "settings.yaml")
        assert loaded.leader_election.lease_name == "tradewind-operator"
        if case == "all":
            assert loaded.namespaces == ("models", "tw")
            assert loaded.images.engine_cpu == "registry.example:5000/mirror/team/engine-cpu:v9"
            assert loaded.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.observability:4318"
            assert loaded.environment["OTEL_TRACES_SAMPLER_ARG"] == "0.25"


def release_cluster(values: dict[str, Any], name: str = RELEASE, namespace: str = NAMESPACE) -> Wanted:
    """What the operator reads in the ConfigMap that its settings name."""
    found = manifests(values, name, namespace)
    maps = {m["metadata"]["name"]: m for m in found if m["kind"] == "ConfigMap"}
    (settings,) = [m["data"]["settings.yaml"] for m in maps.values() if "settings.yaml" in m["data"]]
    return wanted(maps[yaml.safe_load(settings)["clusterConfigMap"]])


@pytest.mark.parametrize(("name", "namespace"), NAMES, ids=[name[:20] for name, _ in NAMES])
def test_the_operator_finds_the_serving_cluster_of_its_release(name: str, namespace: str) -> None:
    found = release_cluster({}, name, namespace)
    assert (found.name, found.release) == ("default", name)
    (cluster,) = [m for m in (found.manifest,) if m["kind"] == "ServingCluster"]
    jsonschema.validate(cluster, json_schema("ServingCluster"))


def test_the_serving_cluster_changes_with_its_values_and_with_nothing_else() -> None:
    first = release_cluster({})
    assert release_cluster({"operator": {"replicas": 3, "image": {"tag": "v2"}}}).digest == first.digest
    assert release_cluster({"cluster": {"spec": {"gateway": {"replicas": 3}}}}).digest != first.digest


def test_the_serving_cluster_has_no_label_by_which_tools_find_what_is_theirs_to_prune() -> None:
    labels = release_cluster({}).manifest["metadata"]["labels"]
    assert not {"app.kubernetes.io/instance", "app.kubernetes.io/managed-by"} & set(labels)


def test_without_a_serving_cluster_the_operator_may_not_make_one() -> None:
    found = manifests({"cluster": {"create": False}})
    rules = [rule for m in found if m["kind"] == "Role" for rule in m["rules"]]
    assert not any("create" in rule["verbs"] and "servingclusters" in rule["resources"] for rule in rules)
    assert not any("configmaps" in rule["resources"] for rule in rules)
    assert not any("clusterConfigMap" in str(m.get("data")) for m in found if m["kind"] == "ConfigMap")


def test_operators_are_on_nodes_of_their_own() -> None:
    [pod] = [one for one in manifests({}) if one["kind"] == "Deployment"]
    hosts, zones = pod["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert (hosts["topologyKey"], hosts["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")
    assert hosts["matchLabelKeys"] == ["pod-template-hash"]
    assert zones["whenUnsatisfiable"] == "ScheduleAnyway"


def test_a_large_number_is_written_out() -> None:
    (config,) = [m for m in manifests(values_of("all")) if "cluster.json" in m.get("data", {})]
    assert json.loads(config["data"]["cluster.json"])["spec"]["limits"] == {"jsonItems": 10_000_000}
    assert "10000000" in config["data"]["cluster.json"]


def test_the_operators_own_policies_let_its_pods_in() -> None:
    [pod] = [one for one in manifests({}) if one["kind"] == "Deployment"]
    labels = pod["spec"]["template"]["metadata"]["labels"]
    assert OPERATOR_LABELS.items() <= labels.items()


def test_the_operator_is_denied_what_it_does_not_need() -> None:
    policies = [m for m in manifests({}) if m["kind"] == "NetworkPolicy"]
    (operator,) = [m for m in policies if m["metadata"]["name"] == "tradewind-operator"]
    assert operator["spec"]["policyTypes"] == ["Ingress", "Egress"]
    ports = [port["port"] for rule in operator["spec"]["egress"] for port in rule["ports"]]
    assert ports == [53, 53, 5353, 5353, 443, 6443, 8265, 8000]
    with_collector = manifests({"otlp": {"endpoint": "http://collector.observability:4318"}})
    (operator,) = [
        m
        for m in with_collector
        if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] == "tradewind-operator"
    ]
    assert operator["spec"]["egress"][-1]["ports"] == [{"port": 4318, "protocol": "TCP"}]


def test_the_notes_hold_resources_that_a_cluster_takes() -> None:
    notes = render({})["templates/NOTES.txt"]
    example = textwrap.dedent(notes.split("<<'EOF'\n")[1].split("     EOF\n")[0])
    documents = list(yaml.safe_load_all(example))
    assert [document["kind"] for document in documents] == ["ModelDeployment", "ModelRoute", "Tenant"]
    for document in documents:
        jsonschema.validate(document, json_schema(document["kind"]))


def test_a_checkout_without_kuberay_says_what_to_run(tmp_path: Path) -> None:
    """Helm asks for every dependency, also for one that its condition leaves out."""
    with Config(kube_apiserver="http://127.0.0.1:1", storage_driver="memory") as helm:
        bare = Path(shutil.copytree(CHART, tmp_path / "bare", ignore=shutil.ignore_patterns("charts")))
        with pytest.raises(HelmError, match=r"run dependency update/build first: .*kuberay-operator"):
            helm.install(bare, "tradewind", {"kuberay": {"enabled": False}}, dry_run="client")
        whole = copy_with_kuberay(tmp_path)
        assert helm.install(whole, "tradewind", {}, dry_run="client")["manifest"]


def test_the_lock_names_the_dependency() -> None:
    own, lock = (yaml.safe_load((CHART / f"Chart.{end}").read_text()) for end in ("yaml", "lock"))
    (declared,), (locked,) = own["dependencies"], lock["dependencies"]
    assert {key: declared[key] for key in locked} == locked

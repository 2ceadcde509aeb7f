"""The life of a release: tested, upgraded, rolled back, uninstalled. Nothing is lost, and nothing is left."""

from __future__ import annotations

from contextlib import suppress

import pytest
from helm_python.errors import HelmError

from tests.e2e.bed.machines import MachineError
from tests.e2e.chosen_users import users_are_chosen
from tests.e2e.effect import weight_s
from tests.e2e.load import under_load
from tests.e2e.release import NAME, NAMESPACE, Release, values
from tests.e2e.site import Data
from tradewind_operator.desired import names

pytestmark = pytest.mark.e2e
TAKES_OVER_S = 20.0
"""How long a change may wait for the operator that follows, while both of two are replaced."""


def test_helm_test_asks_and_is_answered(release: Release) -> None:
    release.helm.test(NAME)


def test_an_upgrade_and_a_rollback_cost_nothing(release: Release) -> None:
    served = release.ray_clusters()
    wanted = changed(release)
    with (
        users_are_chosen(release.site, release.namespace) as user,
        under_load(release.url(), release.key) as load,
    ):
        wanted["operator"]["arbitraryUser"] = user is not None
        release.helm.upgrade(release.chart, NAME, wanted)
        rolled_out(release)
        release.wait("the new limit is in force", lambda: max_tokens(release) == 64, 60)
        release.wait(
            "the operator is another user", lambda: operators_user(release) == (user or names.USER_ID), 30
        )
        load.until(10)
        release.helm.rollback(NAME)
        rolled_out(release)
        release.wait("the old limit is in force", lambda: max_tokens(release) != 64, 60)
        load.until(10)
    assert load.unhappy == [], load.summary()
    assert release.ray_clusters() == served


def test_a_weight_is_in_force_soon_while_the_operator_is_replaced(release: Release) -> None:
    release.helm.upgrade(release.chart, NAME, changed(release))
    release.kubectl("rollout", "restart", "deployment/tradewind-operator")
    took = [weight_s(release) for _ in range(5)]
    rolled_out(release)
    release.helm.rollback(NAME)
    rolled_out(release)
    assert max(took) < TAKES_OVER_S


def test_a_failed_revision_is_mended_by_the_next(release: Release) -> None:
    wrong = changed(release, 32)
    # The ConfigMap with the ServingCluster is written, and then the API server refuses a Deployment.
    wrong["operator"]["resources"] = {
        "requests": {"cpu": "100m", "memory": "2Gi"},
        "limits": {"memory": "1Gi"},
    }
    with pytest.raises(HelmError, match="memory"):
        release.helm.upgrade(release.chart, NAME, wrong)
    release.wait("half of it is in force", lambda: max_tokens(release) == 32, 60)
    release.helm.upgrade(release.chart, NAME, changed(release))
    release.wait("the next revision is in force", lambda: max_tokens(release) == 64, 60)


def test_no_way_to_delete_it_ends_a_cluster_that_has_models(release: Release) -> None:
    """Nor one by which Kubernetes deletes first what belongs to an object, as Argo CD asks it to."""
    served = release.ray_clusters()
    with under_load(release.url(), release.key) as load:
        with pytest.raises(MachineError, match="allowed: Background"):
            release.kubectl("delete", "servingcluster/default", "--cascade=foreground", "--wait=false")
        release.kubectl("delete", "servingcluster/default", "--wait=false")
        release.wait("it says so", lambda: "smollm2" in release.condition("scl/default").message, 30)
        load.until(30)
    assert load.unhappy == [], load.summary()
    assert release.ray_clusters() == served


def test_uninstalled_by_the_guide_nothing_is_left(release: Release) -> None:
    release.kubectl("delete", "modelroutes,modeldeployments,tenants", "--all", "--timeout=180s")
    release.kubectl("delete", "configmap", "tradewind-cluster")
    release.kubectl("delete", "servingclusters", "--all", "--timeout=180s")
    release.kubectl("wait", "--for=delete", "pod", "--selector=tradewind.dev/cluster", "--timeout=240s")
    assert release.get("pods", "--selector=ray.io/cluster")["items"] == []
    release.helm.uninstall(NAME)
    release.kubectl("delete", "pod,configmap", "tradewind-test", "--ignore-not-found")
    release.kubectl("delete", "lease", "tradewind-operator", "--ignore-not-found")
    release.kubectl("delete", "secret", "tradewind-test-key")
    with suppress(AssertionError):
        release.wait("nothing is left", lambda: not left(release), 60)
    assert left(release) == []
    release.site.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")


def changed(release: Release, max_tokens: int = 64) -> Data:
    """The release's values with another limit."""
    found = values(release.site)
    found["cluster"]["spec"]["limits"] = {"maxTokens": max_tokens}
    return found


def rolled_out(release: Release) -> None:
    release.kubectl("rollout", "status", "deployment/tradewind-operator", "--timeout=120s")


def operators_user(release: Release) -> int:
    return int(release.kubectl("exec", "deployment/tradewind-operator", "--", "id", "-u"))


def max_tokens(release: Release) -> int:
    return int(release.get("scl/default")["spec"]["limits"]["maxTokens"])


def left(release: Release) -> list[str]:
    """Objects of the namespace that Kubernetes did not put there itself."""
    kinds = (
        "pods,services,deployments,replicasets,configmaps,secrets,serviceaccounts,roles,rolebindings,"
        "networkpolicies,poddisruptionbudgets,persistentvolumeclaims,leases,rayclusters,scl,md,mr,tn"
    )
    listed = release.site.kubectl("get", kinds, f"--namespace={NAMESPACE}", "--output=name").split()
    return [each for each in listed if each not in ("configmap/kube-root-ca.crt", "serviceaccount/default")]

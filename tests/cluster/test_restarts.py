"""The operator is killed right after every single write, before it hears of it: the end is the same.

Each process gets one write done, so every step of a life is broken off at every place there is, and each
beginning has to make one step of progress.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.cutting import Cutter
from tests.cluster.kuberay import KubeRay
from tests.cluster.life import POOLS, cluster, model, route, secret, tenant
from tests.cluster.objects import Objects, wait_for
from tests.cluster.operated import Operator, Site, site
from tests.cluster.ray import Data

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

STEP_S = 240.0
BIG = {"cpus": 16, "memory": "64Gi", "maxNodes": 2}
ANOTHER_HEAD = {"spec": {"head": {"cpus": 4}, "upgradeStrategy": {"type": "NewCluster"}}}
RETIRED = "tradewind.dev/retired"
OWNED = ("RayCluster", "Service", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget")
CUSTOM = ("ServingCluster", "ModelDeployment", "ModelRoute", "Tenant")
TIMES = {"activeResyncSeconds": 0.3, "resyncSeconds": 5}
VOLATILE = frozenset(
    {
        *("creationTimestamp", "generation", "managedFields", "observedGeneration", "resourceVersion"),
        *("lastTransitionTime", "uid", "clusterIP", "clusterIPs", "annotations", "secrets"),
    }
)
Step = tuple[str, Callable[[Objects], Any], Callable[[Objects], bool]]
"""What happens, how, and when it is done."""


def current(objects: Objects, kind: str, name: str, reason: str = "Ready") -> bool:
    """It is ready as it is written now, or is so for another reason."""
    found = objects.find(kind, name) or {"metadata": {"generation": 0}}
    status = found.get("status") or {}
    return (
        objects.condition(kind, name)[1] == reason
        and status["observedGeneration"] == found["metadata"]["generation"]
    )


def all_ready(objects: Objects) -> bool:
    """Everything there is is ready, as it is written."""
    return all(
        current(objects, kind, item["metadata"]["name"]) for kind in CUSTOM[:3] for item in objects.list(kind)
    )


def create(objects: Objects) -> None:
    objects.apply(secret("acme", key="a-key-of-a-tenant-000000000001"))
    objects.apply(secret("hub", token="a-token-of-a-hub-00000000001"))
    gated = {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "tokenSecret": {"name": "hub", "key": "token"}}
    objects.apply_all([cluster(), model(source=gated), model("mistral"), route(), tenant()])


def gone(objects: Objects) -> bool:
    return objects.find("ModelDeployment", "mistral") is None and all_ready(objects)


def serving(objects: Objects) -> list[Data]:
    """RayClusters that serve, or will: not one that only ends its streams."""
    found = objects.list("RayCluster")
    return [item for item in found if RETIRED not in (item["metadata"].get("annotations") or {})]


def has_another_head(objects: Objects) -> bool:
    """The second RayCluster serves, alone, as it is wanted."""
    found = serving(objects)
    recorded = objects.status("ServingCluster", "default").get("rayCluster")
    head = found[0]["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    return (
        [item["metadata"]["name"] for item in found] == [recorded]
        and head["resources"]["requests"]["cpu"] == "4"
        and all_ready(objects)
    )


def has_groups(objects: Objects, count: int) -> bool:
    """One RayCluster of so many groups, and nobody on the way from one group to another."""
    (ray,) = serving(objects)
    moved = objects.condition("ServingCluster", "default", "PodsCurrent")[0] == "True"
    return moved and len(ray["spec"]["workerGroupSpecs"]) == count and all_ready(objects)


LIFE: list[Step] = [
    ("created", create, lambda o: len(o.list("ModelRoute")) == 1 and all_ready(o)),
    (
        "other weights, and a model less in the route",
        lambda o: o.apply(route(weights={"llama": 7})),
        lambda o: o.status("ModelRoute", "chat").get("split") == "v-llama 100.0%" and all_ready(o),
    ),
    (
        "other engine arguments",
        lambda o: o.edit("ModelDeployment", "llama", {"spec": {"engine": {"args": {"maxModelLen": 4096}}}}),
        lambda o: o.status("ModelDeployment", "llama")["contextLength"] == 4096 and all_ready(o),
    ),
    (
        "a pool more",
        lambda o: o.edit("ServingCluster", "default", {"spec": {"pools": {**POOLS, "big": BIG}}}),
        lambda o: has_groups(o, 3),
    ),
    (
        "wrong arguments",
        lambda o: o.edit("ModelDeployment", "llama", {"spec": {"engine": {"args": {"nonsense": 1}}}}),
        lambda o: o.condition("ModelDeployment", "llama", "Accepted")[1] == "Invalid",
    ),
    (
        "right ones again",
        lambda o: o.edit("ModelDeployment", "llama", {"spec": {"engine": {"args": {"nonsense": None}}}}),
        lambda o: o.condition("ModelDeployment", "llama", "Accepted")[0] == "True" and all_ready(o),
    ),
    (
        "other pods of the pool",
        lambda o: o.edit("ServingCluster", "default", {"spec": {"pools": {"cpu": {"memory": "24Gi"}}}}),
        lambda o: has_groups(o, 3),
    ),
    ("another head", lambda o: o.edit("ServingCluster", "default", ANOTHER_HEAD), has_another_head),
    ("a model deleted", lambda o: o.delete("ModelDeployment", "mistral"), gone),
]


def lives(place: Site, kubeconfig: Path | None, cutter: Cutter | None) -> tuple[Data, int]:
    """Go through the life; with a cutter, killed at every write. Returns the end, and how many starts."""
    starts = 0

    def start() -> Operator:
        nonlocal starts
        starts += 1
        # As a container that is started again in its pod: it may have its Lease at once.
        operator = place.start(kubeconfig=kubeconfig, identity="pod-1", **TIMES)
        if cutter is not None:
            cutter.cut(operator.kill)
        return operator

    operator = start()
    for title, change, done in LIFE:
        change(place.objects)

        def reached() -> bool:
            nonlocal operator
            if operator.ended is not None:
                operator = start()
            return done(place.objects)  # noqa: B023 - used in this round alone

        wait_for(reached, title, STEP_S, every_s=0.1)
    operator.kill()
    return end_of(place), starts


def end_of(place: Site) -> Data:
    """All that there is, without what is another in every namespace and at every time.

    A retired RayCluster goes when its streams have ended, with what belongs to it, and counts for nothing.
    """
    objects = place.objects
    (ray,) = serving(objects)
    name = ray["metadata"]["name"]
    retired = tuple({item["metadata"]["name"] for item in objects.list("RayCluster")} - {name})
    found: Data = {
        f"{kind}/{item['metadata']['name']}": plain(item)
        for kind in (*OWNED, *CUSTOM)
        for item in objects.list(kind)
        if not item["metadata"]["name"].startswith(retired)
    }
    # KubeRay's word: addresses, and how often a size was written.
    del found[f"RayCluster/{name}"]["status"]
    found["serve"] = place.apps()
    text = json.dumps(found, sort_keys=True).replace(place.namespace, "NAMESPACE")
    # Keys are hashed with what is each cluster's own, and a revision is a digest of that among others.
    text = re.sub(r"\b[0-9a-f]{64}\b", "HASH", text)
    end: Data = json.loads(re.sub(r"(revision\W+)[0-9a-f]{16}\b", r"\1REVISION", text))
    end["tokens"] = place.objects.get("Secret", "default-tokens")["data"]
    return end


def plain(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: plain(value) for key, value in found.items() if key not in VOLATILE}
    return [plain(item) for item in found] if isinstance(found, list) else found


def test_killed_at_every_write_it_comes_to_the_same_end(
    api: Cluster, kuberay: KubeRay, tmp_path: Path
) -> None:
    with site(api, kuberay) as place:
        expected, _ = lives(place, None, None)
    with site(api, kuberay) as place, Cutter(api, place.user) as cutter:
        found, starts = lives(place, cutter.kubeconfig(tmp_path), cutter)
        denied = api.audit(place.user, denied=True)
    print(f"\n{starts} starts for {len(cutter.writes)} writes")
    assert starts > 20
    assert denied == []
    assert found == expected

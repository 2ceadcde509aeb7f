"""The head is lost, its state on a volume and in Redis; one Ray cluster follows another under load."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e import pods
from tests.e2e.chosen_users import users_are_chosen
from tests.e2e.load import nothing_lost, under_load
from tests.e2e.pods import Pod
from tests.e2e.release import Release
from tests.e2e.site import Data, Site

pytestmark = pytest.mark.e2e
AFTER = 30
"""Answers that are waited for once a head is back."""
SILENT_S = 12
"""How long no answer may end around a lost head: a busy machine's pause, and no engine's start."""
NEXT_CLUSTER_S = 500
LONG = 64
"""Tokens of an answer that is always open when something ends."""
PASSWORD_SECRET = "redis-password"


@dataclass(frozen=True)
class Redis:
    """A Redis that asks for a password."""

    pod: Pod
    password: str

    @property
    def backend(self) -> Data:
        """`gcsFaultTolerance` with it."""
        address = f"redis.{self.pod.namespace}.svc:6379"
        password = {"name": PASSWORD_SECRET, "key": "password"}
        return {"backend": "redis", "redis": {"address": address, "password": password}}

    def keys(self) -> int:
        """How many it holds."""
        return int(self.pod.run("redis-cli", "--no-auth-warning", "-a", self.password, "dbsize"))


@pytest.fixture(scope="module")
def redis(release: Release) -> Iterator[Redis]:
    """In a namespace of its own; the release's has the password."""
    # A way through kubectl, as to another cluster, would end with the gateways that it leads to.
    release.site.own()
    password = secrets.token_hex(16)
    stored = {"metadata": {"name": PASSWORD_SECRET}, "stringData": {"password": password}}
    with release.site.namespace() as namespace:
        release.apply({"apiVersion": "v1", "kind": "Secret", **stored})
        yield Redis(start_redis(release.site, namespace, password), password)
        release.kubectl("delete", "secret", PASSWORD_SECRET)


@pytest.fixture(scope="module")
def chosen_user(release: Release) -> Iterator[int]:
    """What a pod runs as that names no user."""
    with users_are_chosen(release.site, release.namespace) as user:
        assert user is not None
        yield user


def start_redis(site: Site, namespace: str, password: str) -> Pod:
    """A pod and its Service."""
    script = f"exec redis-server --requirepass {password} --save '' --dir /tmp"
    content = pods.manifest(site, "redis", script)
    content["spec"]["containers"][0]["image"] = site.image("redis")
    ports = [{"port": 6379}]
    service = {"metadata": {"name": "redis"}, "spec": {"selector": {"app": "redis"}, "ports": ports}}
    pods.create(site, namespace, {"apiVersion": "v1", "kind": "Service", **service})
    pods.create(site, namespace, content)
    site.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/redis", f"--namespace={namespace}")
    return Pod(site, namespace, "redis")


@pytest.fixture(scope="module", autouse=True)
def room(release: Release) -> None:
    """For the engine of a second Ray cluster; and the one that it follows goes soon."""
    release.patch("scl/default", {"spec": {"pools": {"cpu": {"maxNodes": 1}}}})
    # A cluster that is followed by another stays for its models' drain time-out and a little longer.
    release.patch("md/smollm2", {"spec": {"drain": {"timeout": "20s"}}})
    release.wait("one engine pod", lambda: len(release.pods("engine")) == 1, 180)


@pytest.fixture(autouse=True)
def whole(release: Release) -> None:
    """One Ray cluster, and everything in it as it should be."""
    release.wait("one Ray cluster", lambda: len(release.ray_clusters()) == 1, 120)
    release.wait("its gateways", lambda: len(release.ready_pods("gateway")) == 2, 180)
    release.wait("the model", lambda: release.condition("md/smollm2").status == "True", 180)
    release.wait("the head", lambda: release.condition("scl/default", "HeadReady").status == "True", 120)


def test_a_lost_head_with_a_volume_costs_nothing_and_status_tells(release: Release) -> None:
    lose_head(release)


def test_a_drained_head_node_costs_nothing(release: Release) -> None:
    # Before the tests with Redis: a pod without a controller, as theirs, keeps a node from being drained.
    (head,) = release.ready_pods("head")
    node = head["spec"]["nodeName"]
    with under_load(release.url(), release.key) as load:
        try:
            took = release.site.drain(node)
            print(f"drained in {took:.1f} s")
            release.wait("the head", lambda: head_is_back(release, head["metadata"]["name"]), 240)
            load.until(AFTER)
        finally:
            release.site.kubectl("uncordon", node)
    nothing_lost(load)


def test_a_gateway_that_leaves_while_the_head_is_away_cuts_no_stream(release: Release) -> None:
    """Both on one node that is drained, say: the gateway hears of its pod's end without Ray."""
    (head,) = release.ready_pods("head")
    name = head["metadata"]["name"]
    leaves = release.ready_pods("gateway")[0]["metadata"]["name"]
    with under_load(release.url(), release.key, rate=1, tokens=LONG) as load:
        release.kubectl("delete", f"pod/{leaves}", "--wait=false")
        release.kubectl("delete", f"pod/{name}", "--grace-period=0", "--force")
        gone = release.wait("the gateway has left", lambda: leaves not in all_pods(release), 240)
        print(f"the gateway left after {gone:.1f} s")
        release.wait("the head", lambda: head_is_back(release, name), 240)
        load.until(AFTER)
    nothing_lost(load)


def test_an_approved_move_to_redis_and_to_users_that_the_cluster_chooses_costs_nothing(
    release: Release, redis: Redis, chosen_user: int
) -> None:
    move(release, {"gcsFaultTolerance": redis.backend, "pod": {"arbitraryUser": True}})
    assert redis.keys() > 0
    users = {role: release.own_pod(role).run("id", "-u").strip() for role in ("head", "gateway", "engine")}
    assert set(users.values()) == {str(chosen_user)}, users


def test_a_lost_head_with_redis_costs_nothing_and_status_tells(release: Release, redis: Redis) -> None:
    assert redis.keys() > 0
    lose_head(release)


def test_redis_is_cleared_once_no_ray_cluster_uses_it(release: Release, redis: Redis) -> None:
    move(release, {"gcsFaultTolerance": {"backend": "rocksdb", "redis": None}, "pod": None})
    release.wait("Redis is empty", lambda: redis.keys() == 0, 120)


def all_pods(release: Release) -> set[str]:
    """Names, also of those that are on their way out."""
    return {pod["metadata"]["name"] for pod in release.get("pods")["items"]}


def lose_head(release: Release) -> None:
    """Under load; nothing is lost, and status tells within ten seconds."""
    (head,) = release.ready_pods("head")
    name = head["metadata"]["name"]
    with under_load(release.url(), release.key) as load:
        release.kubectl("delete", f"pod/{name}", "--grace-period=0", "--force")
        told = release.wait("status tells", lambda: head_ready(release) != "True", 30)
        print(f"status tells after {told:.1f} s")
        back = release.wait("the head", lambda: head_is_back(release, name), 240)
        print(f"another head answers after {told + back:.1f} s")
        load.until(AFTER)
    nothing_lost(load)
    assert told < 10
    # An engine that the new controller does not know again is started anew, which takes longer.
    assert load.longest_gap_s() < SILENT_S


def move(release: Release, change: Data) -> None:
    """To another Ray cluster, for a `change` of the ServingCluster's spec that is approved, under load."""
    before = release.ray_clusters()
    with under_load(release.url(), release.key) as load:
        release.approve_upgrade("true")
        release.patch("scl/default", {"spec": change})
        took = release.wait("the next Ray cluster alone", lambda: has_moved(release, before), NEXT_CLUSTER_S)
        print(f"the next Ray cluster serves alone after {took:.1f} s")
        load.until(AFTER)
    release.approve_upgrade(None)
    nothing_lost(load)


def has_moved(release: Release, before: set[str]) -> bool:
    now = release.ray_clusters()
    return len(now) == 1 and not now & before


def head_ready(release: Release) -> str:
    return release.condition("scl/default", "HeadReady").status


def head_is_back(release: Release, old: str) -> bool:
    names = {each["metadata"]["name"] for each in release.ready_pods("head")}
    return bool(names - {old}) and head_ready(release) == "True"

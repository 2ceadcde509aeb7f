"""The operator's process on a real API server: what it writes, asks for, and does when things go away.

What it decides is tested without a server; here it is the shell: watches, Lease, retries, memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from kubernetes import client as k8s
from opentelemetry.sdk.resources import Resource as TelemetryResource
from opentelemetry.sdk.trace import TracerProvider

from tests.cluster.cluster import Cluster
from tests.cluster.kuberay import KubeRay
from tests.cluster.operated import install
from tests.unit.api.builders import Data, cluster, model, route, tenant
from tradewind.telemetry.setup import Tracing
from tradewind.telemetry.sink import NullSink
from tradewind_operator.errors import LeaseLost, NotFound, NotServed, Unreachable
from tradewind_operator.kinds import (
    EVENT,
    LEASE,
    MODEL_DEPLOYMENT,
    MODEL_ROUTE,
    RAY_CLUSTER,
    SECRET,
    SERVING_CLUSTER,
    TENANT,
    resource_of,
)
from tradewind_operator.kube import Kube, connect
from tradewind_operator.operator import Operator
from tradewind_operator.settings import LeaderElection, Settings

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

KEY = "tw-canary-0123456789abcdef0123456789"
TOKEN = "hf_CanaryCanaryCanaryCanary"
POOL = {"cpus": 4, "memory": "16Gi", "maxNodes": 4}
ROOT = Path(__file__).resolve().parents[2]
FAST = LeaderElection(lease_name="fast", duration_seconds=2, renew_seconds=1.2, retry_seconds=0.2)


@pytest.fixture(scope="module")
def definitions(kube: k8s.ApiClient) -> None:
    """Our four kinds and KubeRay's two."""
    install(kube)


@pytest.fixture
def rays(kuberay: KubeRay, definitions: None) -> KubeRay:
    """KubeRay, its heads and gateways, played."""
    return kuberay


@pytest.fixture
async def admin(api: Cluster, namespace: str, definitions: None) -> AsyncIterator[Kube]:
    """Our own client as one who may do anything."""
    client = Kube(await connect(str(api.kubeconfig())))
    yield client
    await client.close()


def behind(rays: KubeRay) -> Data:
    """Settings with which an operator reaches the Ray clusters that are played."""
    place = f"{rays.url}/{{namespace}}/{{cluster}}"
    return {"serve_api_url": f"{place}/head", "gateway_url": f"{place}/gateway"}


def settings(namespace: str, kubeconfig: Path, **changes: Any) -> Settings:
    given: dict[str, Any] = {
        "namespaces": (namespace,),
        "namespace": namespace,
        "kubeconfig": str(kubeconfig),
        "leader_election": LeaderElection(enabled=False),
        "health_host": "127.0.0.1",
        "health_port": 0,
        "serve_api_url": "http://127.0.0.1:1",
        "gateway_url": "http://127.0.0.1:1",
        "active_resync_seconds": 0.5,
    }
    return Settings(**(given | changes))


@asynccontextmanager
async def operating(given: Settings, identity: str = "test") -> AsyncIterator[Operator]:
    """An operator in this process, until the end of the block."""
    connection = await connect(given.kubeconfig, given.namespace)
    tracing = Tracing(TracerProvider(), NullSink(), TelemetryResource.get_empty())
    operator, stop = Operator(given, connection, identity, tracing), asyncio.Event()
    await operator.start()
    task = asyncio.create_task(operator.lead(stop))
    try:
        yield operator
    finally:
        stop.set()
        with contextlib.suppress(LeaseLost):
            await task
        await operator.close()


async def until(condition: Callable[[], Awaitable[object]], what: str, timeout_s: float = 30.0) -> Any:
    """What `condition` gives once it is true; AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        if found := await condition():
            return found
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        await asyncio.sleep(0.05)


def placed(namespace: str, document: Data) -> Data:
    return document | {"metadata": {**document["metadata"], "namespace": namespace}}


async def put_all(kube: Kube, namespace: str) -> None:
    """A cluster with a model from a gated repository, a route to it, and a tenant."""
    for name, values in (("hub", {"token": TOKEN}), ("keys", {"acme": KEY})):
        await kube.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": namespace},
                "stringData": values,
            }
        )
    source = {"uri": "hf://org/model", "tokenSecret": {"name": "hub", "key": "token"}}
    documents = [
        cluster(pools={"cpu": POOL}),
        model("llama", source=source, resources={"cpus": 2, "memory": "4Gi"}),
        route("chat", variants=[{"name": "only", "deployment": "llama", "weight": 100}]),
        tenant("acme", keys=[{"secret": {"name": "keys", "key": "acme"}}]),
    ]
    for document in documents:
        await kube.create(placed(namespace, document))


def condition(document: Data, kind: str) -> Data:
    found = [item for item in (document.get("status") or {}).get("conditions", []) if item["type"] == kind]
    return found[0] if found else {}


async def ray_cluster(kube: Kube, namespace: str) -> Data | None:
    """The RayCluster, once there is one."""
    return next(iter(await kube.list(RAY_CLUSTER, namespace)), None)


async def given(rays: KubeRay, kube: Kube, namespace: str) -> str:
    """What Serve was given last, as text; empty: nothing yet."""
    there = await ray_cluster(kube, namespace)
    ray = rays.ray(namespace, there["metadata"]["name"]) if there is not None else None
    return json.dumps(ray.config) if ray is not None and ray.config is not None else ""


async def test_resources_become_a_ray_cluster_and_no_secret_is_in_anything_but_secrets(
    api: Cluster, admin: Kube, namespace: str, rays: KubeRay
) -> None:
    async with operating(settings(namespace, api.kubeconfig(), **behind(rays))):
        await put_all(admin, namespace)
        config = await until(lambda: given(rays, admin, namespace), "Serve's configuration")
        assert '"llama"' in config

        async def accepted() -> bool:
            found = [
                await admin.get(MODEL_DEPLOYMENT, namespace, "llama"),
                await admin.get(MODEL_ROUTE, namespace, "chat"),
                await admin.get(TENANT, namespace, "acme"),
                await admin.get(SERVING_CLUSTER, namespace, "default"),
            ]
            return all(condition(item, "Accepted").get("status") == "True" for item in found)

        await until(accepted, "everything is accepted")
        deployment = await admin.get(MODEL_DEPLOYMENT, namespace, "llama")
        assert deployment["metadata"]["finalizers"] == ["tradewind.dev/drain"]
        assert not any("kopf" in name for name in deployment["metadata"].get("annotations") or {})
        auth = await admin.get(SECRET, namespace, "default-auth")
        assert sorted(auth["data"]) == ["auth_token", "hash-key", "internal-token"]
        tokens = await admin.get(SECRET, namespace, "default-tokens")
        assert len(tokens["data"]) == 1

        async def told() -> list[Data]:
            return await admin.list(EVENT, namespace)

        events = await until(told, "an Event")
        assert any("trace" in (event.get("note") or "") for event in events)
        visible = [*events, deployment, await admin.get(TENANT, namespace, "acme")]
        visible += [*await admin.list(RAY_CLUSTER, namespace), {"config": config}]
        assert KEY not in str(visible)
        assert TOKEN not in str(visible)


async def test_a_route_reaches_serve_in_a_few_requests(
    api: Cluster, admin: Kube, namespace: str, rays: KubeRay
) -> None:
    user = f"system:serviceaccount:{namespace}:operator"
    _allow_everything(api, namespace, user)
    async with operating(settings(namespace, api.kubeconfig(user), **behind(rays))) as operator:
        await put_all(admin, namespace)
        await until(lambda: _is_ready(admin, namespace), "the route is ready")
        await _settle(operator)
        before = operator.metrics.requests()
        patch = {"spec": {"timeouts": {"firstToken": "77s"}}}
        began = time.monotonic()
        await admin.merge_patch(MODEL_ROUTE, namespace, "chat", patch)

        async def arrived() -> bool:
            return '"first_token_timeout_s": 77' in await given(rays, admin, namespace)

        await until(arrived, "the new route")
        took = time.monotonic() - began
        await _settle(operator)
        after = operator.metrics.requests()
    ended = operator.metrics.requests()
    made = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    made = {key: count for key, count in made.items() if key[1] != "leases"}
    print(f"a route's change: {took:.2f} s, {sum(made.values())} requests: {made}")
    assert took < 3.0
    # It looks at the Ray clusters, the pods and the Secrets again and again.
    looks = {("list", "rayclusters"), ("list", "pods"), ("get", "secrets")}
    assert sum(count for key, count in made.items() if key not in looks) <= 10
    assert not {("patch", "rayclusters"), ("create", "rayclusters")} & made.keys()
    calls = api.audit(user)
    verbs = {(call.verb, call.resource) for call in calls}
    watched = {resource for verb, resource in verbs if verb == "watch"}
    assert watched == {"servingclusters", "modeldeployments", "modelroutes", "tenants", "rayclusters"}
    # Nobody but our own client writes to what is watched, kopf least of all.
    asked = [(call.verb, call.resource) for call in calls if call.resource in watched]
    for resource in watched:
        writes = sum(asked.count((verb, resource)) for verb in ("patch", "update", "create", "delete"))
        ours = sum(ended.get((verb, resource), 0) for verb in ("patch", "apply", "create", "delete"))
        assert writes == ours, resource
    assert not {("list", "secrets"), ("watch", "secrets"), ("delete", "secrets")} & verbs
    assert not any(resource in ("namespaces", "customresourcedefinitions") for _, resource in verbs)


async def _is_ready(kube: Kube, namespace: str) -> bool:
    return condition(await kube.get(MODEL_ROUTE, namespace, "chat"), "Ready").get("status") == "True"


async def _settle(operator: Operator) -> None:
    """Until nothing is due or under way for a moment."""
    quiet = 0
    while quiet < 3:
        busy = operator.queue.running or operator.queue.depth()
        quiet = 0 if busy else quiet + 1
        await asyncio.sleep(0.1)


def _allow_everything(api: Cluster, namespace: str, user: str) -> None:
    with api.client() as client:
        rbac: Any = k8s.RbacAuthorizationV1Api(client)
        name = f"all-{secrets.token_hex(4)}"
        rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
        rbac.create_namespaced_role(namespace, {"metadata": {"name": name}, "rules": rules})
        place, account = user.split(":")[2:]
        rbac.create_namespaced_role_binding(
            namespace,
            {
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": place}],
            },
        )


async def test_deleting_a_model_drains_it_first(
    api: Cluster, admin: Kube, namespace: str, rays: KubeRay
) -> None:
    async with operating(settings(namespace, api.kubeconfig(), **behind(rays))):
        await put_all(admin, namespace)
        await until(lambda: _is_ready(admin, namespace), "the route is ready")
        there = await admin.get(MODEL_DEPLOYMENT, namespace, "llama")
        assert there["metadata"]["finalizers"] == ["tradewind.dev/drain"]
        await admin.delete(MODEL_ROUTE, namespace, "chat")
        await admin.delete(MODEL_DEPLOYMENT, namespace, "llama")
        states = set()

        async def gone() -> bool:
            found = await admin.list(MODEL_DEPLOYMENT, namespace)
            states.update((item.get("status") or {}).get("state") for item in found)
            return not found

        await until(gone, "the model is gone")
        assert "Draining" in states
        assert '"llama"' not in await given(rays, admin, namespace)


async def test_credentials_are_made_anew_when_they_are_deleted_and_the_operator_says_so(
    api: Cluster, admin: Kube, namespace: str
) -> None:
    async with operating(settings(namespace, api.kubeconfig(), resync_seconds=1)):
        await put_all(admin, namespace)
        await until(lambda: ray_cluster(admin, namespace), "a RayCluster")
        before = await admin.get(SECRET, namespace, "default-auth")
        await admin.delete(SECRET, namespace, "default-auth")

        async def again() -> Data | None:
            try:
                return await admin.get(SECRET, namespace, "default-auth")
            except NotFound:
                return None

        after = await until(again, "a new Secret")
        assert after["data"] != before["data"]

        async def told() -> bool:
            events = await admin.list(EVENT, namespace)
            return any(event.get("reason") == "CredentialsRecreated" for event in events)

        await until(told, "an Event")


async def test_what_belongs_to_someone_else_is_left_alone_and_the_status_says_so(
    api: Cluster, admin: Kube, namespace: str
) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "default", "namespace": namespace},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}},
    }
    await admin.create(foreign)
    async with operating(settings(namespace, api.kubeconfig())):
        await put_all(admin, namespace)

        async def refused() -> str | None:
            found = await admin.get(SERVING_CLUSTER, namespace, "default")
            ready = condition(found, "Ready")
            return str(ready["message"]) if ready.get("reason") == "ReconcileError" else None

        message = await until(refused, "the condition")
    assert f"Service {namespace}/default was not made by Tradewind" in message
    found = await admin.get(resource_of(foreign), namespace, "default")
    assert found["spec"]["selector"] == {"app": "theirs"}


async def test_two_operators_one_leads_and_the_other_takes_over(
    api: Cluster, admin: Kube, namespace: str
) -> None:
    given = settings(namespace, api.kubeconfig(), leader_election=FAST)
    async with contextlib.AsyncExitStack() as first:
        one = await first.enter_async_context(operating(given, "one"))
        await until(lambda: _holder(admin, namespace), "a leader")
        async with operating(given, "two") as two:
            await put_all(admin, namespace)
            await until(lambda: ray_cluster(admin, namespace), "a RayCluster")
            assert await _holder(admin, namespace) == "one"
            assert two.metrics.requests().get(("create", "rayclusters"), 0) == 0
            async with httpx.AsyncClient(trust_env=False) as http:
                for operator in (one, two):
                    for path in ("healthz", "readyz"):
                        answer = await http.get(f"http://127.0.0.1:{operator.health.port}/{path}")
                        assert (answer.status_code, answer.text) == (200, "ok\n")
            began = time.monotonic()
            await first.aclose()

            async def taken() -> bool:
                return await _holder(admin, namespace) == "two"

            await until(taken, "the other leads")
            print(f"a clean stop: the other leads after {time.monotonic() - began:.2f} s")
            before = await admin.list(RAY_CLUSTER, namespace)
            await admin.delete(RAY_CLUSTER, namespace, before[0]["metadata"]["name"])

            async def another() -> bool:
                found = await ray_cluster(admin, namespace)
                return found is not None and found["metadata"]["uid"] != before[0]["metadata"]["uid"]

            await until(another, "the RayCluster is made again")


async def _holder(kube: Kube, namespace: str) -> str:
    try:
        lease = await kube.get(LEASE, namespace, "fast")
    except NotFound:
        return ""
    return str(lease["spec"].get("holderIdentity") or "")


async def test_a_leader_that_loses_its_lease_writes_nothing_any_more(
    api: Cluster, admin: Kube, namespace: str
) -> None:
    given = settings(namespace, api.kubeconfig(), leader_election=FAST)
    connection = await connect(given.kubeconfig, given.namespace)
    tracing = Tracing(TracerProvider(), NullSink(), TelemetryResource.get_empty())
    operator = Operator(given, connection, "one", tracing)
    await operator.start()
    task = asyncio.create_task(operator.lead(asyncio.Event()))
    await until(lambda: _holder(admin, namespace), "a leader")
    lease = await admin.get(LEASE, namespace, "fast")
    spec = lease["spec"] | {"holderIdentity": "thief", "leaseDurationSeconds": 60}
    await admin.merge_patch(LEASE, namespace, "fast", {"spec": spec})
    with pytest.raises(LeaseLost, match="is held by thief now"):
        await task
    before = operator.metrics.requests()
    await put_all(admin, namespace)
    await asyncio.sleep(1.0)
    assert operator.metrics.requests() == before
    assert await ray_cluster(admin, namespace) is None
    await operator.close()


async def test_the_api_server_goes_away_and_comes_back(
    api: Cluster, admin: Kube, namespace: str, rays: KubeRay
) -> None:
    async with operating(settings(namespace, api.kubeconfig(), resync_seconds=5, **behind(rays))):
        await put_all(admin, namespace)
        await until(lambda: given(rays, admin, namespace), "Serve's configuration")
        await asyncio.to_thread(api.stop_api)
        await asyncio.sleep(2.0)
        await asyncio.to_thread(api.start_api)
        await until(lambda: _alive(admin, namespace), "the API server is back")
        await admin.merge_patch(MODEL_ROUTE, namespace, "chat", {"spec": {"timeouts": {"total": "99s"}}})

        async def arrived() -> bool:
            return '"total_timeout_s": 99' in await given(rays, admin, namespace)

        await until(arrived, "the change after the outage", 60.0)


async def _alive(kube: Kube, namespace: str) -> bool:
    try:
        await kube.list(TENANT, namespace)
    except (Unreachable, NotServed):
        return False
    return True


async def test_a_silent_api_server_makes_healthz_fail_and_name_the_watches(
    api: Cluster, admin: Kube, namespace: str
) -> None:
    given = settings(namespace, api.kubeconfig(), watch_seconds=1)
    async with operating(given) as operator, httpx.AsyncClient(trust_env=False) as http:
        url = f"http://127.0.0.1:{operator.health.port}"

        async def says(path: str, status: int) -> str | None:
            answer = await http.get(f"{url}/{path}")
            return answer.text if answer.status_code == status else None

        await until(lambda: says("readyz", 200), "everything is listed")
        await asyncio.sleep(4.0)
        assert await says("healthz", 200), "watches that live are healthy beyond their period"
        await asyncio.to_thread(api.pause_api)
        try:
            text = await until(lambda: says("healthz", 503), "healthz fails")
        finally:
            await asyncio.to_thread(api.resume_api)
        assert re.search(rf"the watch of \w+ in {namespace} was not answered for \d+ s", text)
        metrics = (await http.get(f"{url}/metrics")).text
        assert 'tradewind_operator_watch_age_seconds{namespace="' in metrics
        await until(lambda: says("healthz", 200), "the watches are back", 60.0)


@pytest.fixture
def process(api: Cluster, namespace: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command itself."""
    config = tmp_path / "operator.yaml"
    given = {"namespaces": f"[{namespace}]", "namespace": namespace, "kubeconfig": str(api.kubeconfig())}
    given |= {"healthHost": "127.0.0.1", "healthPort": "0", "leaderElection": "{leaseName: process}"}
    config.write_text("".join(f"{key}: {value}\n" for key, value in given.items()))
    command = [sys.executable, "-m", "tradewind_operator.main", "run", "--config", str(config)]
    with (tmp_path / "log").open("wb") as log:
        environment = {"PYTHONPATH": f"{ROOT / 'platform'}:{ROOT / 'operators'}", "PATH": "/usr/bin:/bin"}
        process = subprocess.Popen(command, stderr=log, env=environment)
        yield process
        process.kill()
        process.wait()


async def test_the_command_is_small_and_ends_within_five_seconds_of_sigterm(
    admin: Kube, namespace: str, process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    await put_all(admin, namespace)
    await until(lambda: ray_cluster(admin, namespace), "a RayCluster")
    await asyncio.sleep(1.0)
    rss = psutil.Process(process.pid).memory_info().rss / 2**20
    print(f"RSS at idle with one model: {rss:.0f} MiB")
    assert rss < 250
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(process.wait, 10)
    took = time.monotonic() - began
    print(f"ended with {code} after {took:.2f} s")
    log = (tmp_path / "log").read_text()
    assert (code, "Traceback" in log) == (0, False), log
    assert took < 5.0
    lease = await admin.get(LEASE, namespace, "process")
    assert not lease["spec"]["holderIdentity"]
    assert KEY not in log
    assert TOKEN not in log

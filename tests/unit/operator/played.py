"""Ray clusters that are played behind an API server of dicts: KubeRay's status, Serve's API, and gateways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.cluster.ray import RayCluster
from tests.unit.operator.fake_api import FakeApi, Object
from tradewind.rayapi.client import AsyncServeControl, ControlError
from tradewind_operator.kinds import POD, RAY_CLUSTER
from tradewind_operator.status.live import GatewayLive
from tradewind_operator.tending import Tender, parse_gateway

Data = dict[str, Any]


class PlayedRays(AsyncServeControl):
    """Serve's API of every RayCluster, by `serve://NAME`; one without a head answers nothing."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self.now = now
        self.rays: dict[str, RayCluster] = {}
        self.away: set[str] = set()
        """RayClusters whose head does not answer."""
        self.told: list[str] = []
        """RayClusters that were given a configuration, in order."""

    async def apply(self, url: str, token: str, serve_config: Mapping[str, Any]) -> None:
        self._ray(url).put(dict(serve_config), self.now())
        self.told.append(_name(url))

    async def document(self, url: str, token: str) -> Data:
        return self._ray(url).document(self.now())

    def play(self, api: FakeApi, namespace: str) -> list[Object]:
        """KubeRay does all that there is to do. Returns the RayClusters whose status changed."""
        found = {
            name: there
            for (plural, place, name), there in api.objects.items()
            if (plural, place) == (RAY_CLUSTER.plural, namespace)
        }
        self.rays = {name: ray for name, ray in self.rays.items() if name in found}
        changed = []
        for name, there in found.items():
            self.rays.setdefault(name, RayCluster(self.now() - 60))
            _make_pods(api, namespace, there)
            conditions = [{"type": "HeadPodReady", "status": "True", "reason": "HeadPodRunningAndReady"}]
            status = {"state": "ready", "conditions": conditions}
            if there.get("status") != status:
                changed.append(api.put({**there, "status": status}))
        return changed

    def config(self, name: str) -> Data:
        """What Serve was given last in one."""
        config = self.rays[name].config
        assert config is not None
        return config

    def _ray(self, url: str) -> RayCluster:
        name = _name(url)
        if name not in self.rays or name in self.away:
            raise ControlError("Ray's API cannot be reached: ConnectError")
        return self.rays[name]


def _make_pods(api: FakeApi, namespace: str, cluster: Object) -> None:
    """As many ready pods per worker group as it has at least; those of groups that are gone end."""
    name, wanted = cluster["metadata"]["name"], set()
    for group in cluster["spec"]["workerGroupSpecs"]:
        for number in range(group["minReplicas"]):
            pod = f"{name}-{group['groupName']}-{number}"
            wanted.add(pod)
            labels = {
                "tradewind.dev/cluster": cluster["metadata"]["labels"]["tradewind.dev/cluster"],
                "ray.io/cluster": name,
                "ray.io/group": group["groupName"],
            }
            about = {"name": pod, "namespace": namespace, "labels": labels}
            status = {
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "ray", "started": True}],
            }
            if api.find(POD, namespace, pod) is None:
                api.put({"apiVersion": "v1", "kind": "Pod", "metadata": about, "status": status})
    for plural, place, pod in list(api.objects):
        if plural == POD.plural and pod.startswith(f"{name}-") and pod not in wanted:
            api.remove(POD, place, pod)


class PlayedTender(Tender):
    """The operator's own, but for the HTTP."""

    def __init__(self, rays: PlayedRays) -> None:
        super().__init__(rays)
        self._rays = rays

    async def _gateway_side(self, url: str, token: str) -> GatewayLive | None:
        ray = self._rays.rays.get(_name(url))
        return parse_gateway(ray.readiness(self._rays.now(), details=True)[1]) if ray is not None else None


def _name(url: str) -> str:
    return url.partition("://")[2]

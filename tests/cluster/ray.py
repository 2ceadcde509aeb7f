"""A Ray cluster as it is seen from outside: Serve's applications, and a gateway's word on its own state.

Nothing runs. An application that Serve is given is RUNNING a little later, unless the test has said that its
engine cannot start; one that is no longer in the configuration drains and goes. Time is given by the caller.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

from tradewind.rayapi.app_status import START_MARK

GATEWAY = "gateway"
CONTEXT_LENGTH = 8_192
"""Tokens, where the engine's arguments do not say."""
Data = dict[str, Any]


P = ParamSpec("P")
R = TypeVar("R")


def _alone(method: Callable[Concatenate[RayCluster, P], R]) -> Callable[Concatenate[RayCluster, P], R]:
    """Those who ask over HTTP and those who play are threads: one at a time."""

    @functools.wraps(method)
    def locked(cluster: RayCluster, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with cluster.lock:
            return method(cluster, *args, **kwargs)

    return locked


@dataclass(frozen=True)
class Delays:
    """How long things take, in seconds."""

    head: float = 0.2
    """From a RayCluster to a head that answers."""
    start: float = 0.3
    """From an application's configuration to a replica that runs."""
    stop: float = 0.3
    """From the removal of an application to its end."""
    live: float = 0.1
    """From a new `user_config` to its effect."""


def traceback_of(why: str) -> str:
    """What Serve says about a replica whose engine did not start, as Ray 2.60 words it."""
    return (
        "The deployment failed to start 3 times in a row. This may be due to a problem with its constructor"
        " or initial health check failing. See controller logs for details. Retrying after 4 s. Error:\n"
        "ray::ServeReplica:model:engine.initialize_and_get_metadata() (pid=412, ip=10.1.4.7)\n"
        '  File "/opt/tradewind/lib/python3.11/site-packages/ray/serve/_private/replica.py", line 1146, in'
        " initialize_and_get_metadata\n    await self._replica_impl.initialize(deployment_config)\n"
        f"RuntimeError: {START_MARK} {why}\n"
    )


@dataclass
class _App:
    config: Data
    started: float
    """When its code and arguments were last deployed."""
    configured: float
    """When its `user_config` was last sent."""
    in_force: Data | None = None
    """`user_config` of before, until the new one has effect."""
    ends: float | None = None

    @property
    def deployment(self) -> Data:
        found: Data = self.config["deployments"][0]
        return found

    @property
    def wanted(self) -> int:
        scaled = self.deployment.get("autoscaling_config")
        return int(scaled["min_replicas"] if scaled else self.deployment.get("num_replicas", 1))

    def deployed_as(self) -> Data:
        """What makes Serve start new replicas when it changes."""
        config = copy.deepcopy(self.config)
        for key in ("user_config", "num_replicas", "autoscaling_config"):
            config["deployments"][0].pop(key, None)
        return config


@dataclass
class RayCluster:
    """One Ray cluster, from `born` on."""

    born: float
    delays: Delays = field(default_factory=Delays)
    broken: dict[str, str] = field(default_factory=dict)
    """Application → why its engine cannot start. Shared by all clusters of a stand-in."""
    config: Data | None = None
    """What Serve was given last."""
    puts: int = 0
    """How often it was given a configuration."""
    _apps: dict[str, _App] = field(default_factory=dict)
    node_ips: dict[str, str] = field(default_factory=dict)
    """Application → the node that all its replicas are on, where that matters."""
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def head_ready(self, now: float) -> bool:
        return now >= self.born + self.delays.head

    @_alone
    def put(self, config: Data, now: float) -> None:
        """Serve's declarative API: the whole desired set."""
        self.config = config
        self.puts += 1
        wanted = {app["name"]: app for app in config["applications"]}
        for name, app in wanted.items():
            old = self._apps.get(name)
            if old is None or old.ends is not None:
                self._apps[name] = _App(app, now, now)
                continue
            new = _App(app, old.started, old.configured, old.in_force)
            if new.deployed_as() != old.deployed_as():
                new.started = new.configured = now
            elif new.deployment.get("user_config") != old.deployment.get("user_config"):
                new.in_force, new.configured = self._user_config(old, now), now
            self._apps[name] = new
        for name, gone in self._apps.items():
            if name not in wanted and gone.ends is None:
                gone.ends = now + self.delays.stop

    @_alone
    def document(self, now: float) -> Data:
        """As Serve's REST API answers: ServeInstanceDetails, as far as anyone reads it."""
        applications = {}
        for name, app in self._living(now).items():
            status, message = self._status(name, app, now)
            deployment = {
                "name": app.deployment["name"],
                "status": _DEPLOYMENT[status],
                "message": message,
                "target_num_replicas": 0 if app.ends else app.wanted,
                "replicas": [self._replica(name)] * self._running(name, app, now),
            }
            applications[name] = {
                "name": name,
                "status": status,
                "message": message,
                "deployed_app_config": app.config,
                "deployments": {app.deployment["name"]: deployment},
            }
        return {"applications": applications}

    def _replica(self, name: str) -> Data:
        where = {"node_ip": self.node_ips[name]} if name in self.node_ips else {}
        return {"state": "RUNNING", **where}

    @_alone
    def readiness(self, now: float, *, details: bool) -> tuple[int, Data]:
        """Status and body of a gateway's `/readyz`; 502 while there is no gateway, as an empty Service."""
        gateway = self._living(now).get(GATEWAY)
        if gateway is None or not self._running(GATEWAY, gateway, now):
            return 502, {}
        config = self._user_config(gateway, now) or {}
        names = [entry["name"] for entry in config.get("deployments") or ()]
        known = {name: self._deployment_seen(name, now) for name in names}
        ready = not known or any(entry["ready"] for entry in known.values())
        body = {"status": "ready" if ready else "not_ready", "revision": config["revision"]}
        return (200 if ready else 503), body | ({"deployments": known} if details else {})

    def _living(self, now: float) -> dict[str, _App]:
        self._apps = {name: app for name, app in self._apps.items() if app.ends is None or now < app.ends}
        return self._apps

    def _status(self, name: str, app: _App, now: float) -> tuple[str, str]:
        if app.ends is not None:
            return "DELETING", ""
        if now < app.started + self.delays.start:
            return "DEPLOYING", ""
        if name in self.broken:
            return "DEPLOY_FAILED", traceback_of(self.broken[name])
        return "RUNNING", ""

    def _running(self, name: str, app: _App, now: float) -> int:
        return app.wanted if self._status(name, app, now)[0] == "RUNNING" else 0

    def _user_config(self, app: _App, now: float) -> Data | None:
        """What is in force: the configuration of before for a moment after a change."""
        if app.in_force is not None and now < app.configured + self.delays.live:
            return app.in_force
        return app.deployment.get("user_config")

    def _deployment_seen(self, name: str, now: float) -> Data:
        app = self._living(now).get(name)
        ready = self._running(name, app, now) if app is not None else 0
        args = app.config["args"]["settings"]["args"] if app is not None else {}
        length = args.get("max_model_len", CONTEXT_LENGTH) if ready else None
        return {"ready": ready, "context_length": length}


_DEPLOYMENT = {
    "RUNNING": "HEALTHY",
    "DEPLOYING": "UPDATING",
    "DEPLOY_FAILED": "DEPLOY_FAILED",
    "DELETING": "UPDATING",
}

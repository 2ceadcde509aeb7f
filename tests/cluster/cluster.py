"""What tests may ask of a cluster, be it a server of our own or one that was given to them."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client as k8s
from kubernetes import config

from tests.cluster import audit

LOOPBACK = "127.0.0.1"


class Cluster(ABC):
    """An API server that tests may change. Users have Kubernetes' names, "system:serviceaccount:ns:name"."""

    has_gc: bool
    """Whether objects go with their owner and namespaces end: needs kube-controller-manager."""

    @abstractmethod
    def kubeconfig(self, user: str | None = None, groups: tuple[str, ...] = ()) -> Path:
        """A kubeconfig file with which one is `user` in `groups`; without a user, one who may do anything.

        Raises pytest's Skipped where this cluster cannot make that user.
        """

    @abstractmethod
    def audit(self, user: str, *, denied: bool = False) -> list[audit.Call]:
        """What `user` asked for since the server's start, in order; with `denied`, only what RBAC refused.

        Raises pytest's Skipped where the audit log is out of reach.
        """

    @abstractmethod
    def stop_api(self) -> None:
        """Kill the API server: connections end, new ones are refused. Raises Skipped where it is not ours."""

    @abstractmethod
    def start_api(self) -> None:
        """Start it again on the same port with the same data, until ready; nothing when it runs."""

    @abstractmethod
    def pause_api(self) -> None:
        """Stop the API server in its tracks: connections stay open and nothing answers."""

    @abstractmethod
    def resume_api(self) -> None:
        """Let a paused API server go on."""

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The API server is gone within, and ready again after, for the tests that come next too.

        As any server without a twin, it may refuse for a moment then what RBAC allows (403): it listens
        before it has read all roles. Raises Skipped where it is not ours.
        """
        self.stop_api()
        try:
            yield
        finally:
            self.start_api()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The API server takes requests and answers none within. Raises Skipped where it is not ours."""
        self.pause_api()
        try:
            yield
        finally:
            self.resume_api()

    def client(self, user: str | None = None, groups: tuple[str, ...] = ()) -> k8s.ApiClient:
        """The official client as `user`, for the caller to close: `with server.client() as api: ...`."""
        path = str(self.kubeconfig(user, groups))
        client: k8s.ApiClient = config.new_client_from_config(config_file=path)
        return client


def write_kubeconfig(path: Path, cluster: dict[str, str], user: dict[str, str]) -> Path:
    """A kubeconfig with one cluster and one user, readable by its owner alone."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "tests", "user": user}],
        "contexts": [
            {"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": "default"}}
        ],
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content))
    return path


@contextmanager
def new_namespace(kube: k8s.ApiClient) -> Iterator[str]:
    """A namespace of its own. Its deletion is asked for at the end, and not waited for."""
    core: Any = k8s.CoreV1Api(kube)
    name = f"t-{secrets.token_hex(4)}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)

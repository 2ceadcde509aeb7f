"""A cluster that was given to the tests: kind, minikube, k3d, or any that they may change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes import client as k8s
from kubernetes import config

from tests.cluster import audit
from tests.cluster.cluster import LOOPBACK, Cluster, write_kubeconfig

ACCOUNT = "system:serviceaccount:"
CONFLICT = 409


class GivenCluster(Cluster):
    """The cluster of the kubeconfig file `path`, which must let its user do anything; ours in `home`."""

    has_gc = True

    def __init__(self, path: Path, home: Path) -> None:
        self._path, self._home = path, home
        self._accounts: dict[str, Path] = {}

    def kubeconfig(self, user: str | None = None, groups: tuple[str, ...] = ()) -> Path:
        """See Cluster. A service account is made when missing, and a token asked for."""
        if user is None:
            return self._path
        if not user.startswith(ACCOUNT) or groups:
            pytest.skip(f"a given cluster has service accounts only, not {user} in {groups}")
        if user not in self._accounts:
            self._accounts[user] = self._account(user)
        return self._accounts[user]

    def audit(self, user: str, *, denied: bool = False) -> list[audit.Call]:
        """See Cluster."""
        pytest.skip(f"a given cluster's audit log is out of reach (of {user}, {denied=})")

    def stop_api(self) -> None:
        """See Cluster."""
        pytest.skip("a given cluster is not stopped")

    start_api = pause_api = resume_api = stop_api

    def _account(self, user: str) -> Path:
        namespace, name = user.removeprefix(ACCOUNT).split(":")
        with self.client() as api:
            core: Any = k8s.CoreV1Api(api)
            try:
                core.create_namespaced_service_account(namespace, {"metadata": {"name": name}})
            except k8s.ApiException as error:
                if error.status != CONFLICT:
                    raise
            spec = {"spec": {"expirationSeconds": 7200}}
            token: str = core.create_namespaced_service_account_token(name, namespace, spec).status.token
        path = self._home / f"account-{len(self._accounts)}.yaml"
        return write_kubeconfig(path, self._place(), {"token": token})

    def _place(self) -> dict[str, str]:
        """Address and authority of the current context's cluster."""
        content = yaml.safe_load(self._path.read_text())
        contexts = {entry["name"]: entry["context"] for entry in content["contexts"]}
        clusters = {entry["name"]: entry["cluster"] for entry in content["clusters"]}
        place: dict[str, str] = clusters[contexts[content["current-context"]]["cluster"]]
        return place


def given_kubeconfig() -> Path | None:
    """The kubeconfig of a cluster that tests may change, from the environment; None for one of our own.

    `TRADEWIND_TEST_KUBECONFIG` is taken at its word. A plain `KUBECONFIG` is in many people's shells and may
    be production: it counts only when its server is on this machine (kind, minikube, k3d).
    """
    if path := os.environ.get("TRADEWIND_TEST_KUBECONFIG"):
        return Path(path)
    path = os.environ.get("KUBECONFIG", "")
    if not Path(path).is_file():
        return None
    configuration = k8s.Configuration()
    config.load_kube_config(config_file=path, client_configuration=configuration)
    return Path(path) if urlsplit(configuration.host).hostname in (LOOPBACK, "localhost", "::1") else None

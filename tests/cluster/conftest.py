"""One API server for the session, a namespace for each test, and the official client.

The programs are built before the first test, not in its fixture: a build takes minutes and a test has one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client as k8s

from tests.cluster.apiserver import running
from tests.cluster.cluster import Cluster, new_namespace
from tests.cluster.given import given_kubeconfig
from tests.cluster.kuberay import KubeRay
from tests.cluster.operated import install
from tools import cluster_binaries

HERE = Path(__file__).parent
FIRST = [HERE / "test_chart.py", HERE / "test_restarts.py"]
"""One sees how a release brings the definitions, which all others put there. The other takes as long as
half of all: begun last, it would run alone."""
UNOBTAINABLE = pytest.StashKey[cluster_binaries.BinariesError]()
"""Why there are no programs: found out once, told by every test that needs them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of FIRST first, each on a server of its own where there are two."""
    items.sort(key=lambda item: FIRST.index(item.path) if item.path in FIRST else len(FIRST))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the programs ready when a test of this folder is going to run."""
    ours = any(item.path.is_relative_to(HERE) for item in session.items)
    if not ours or session.config.option.collectonly or given_kubeconfig():
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    shown = capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()
    with shown:
        try:
            cluster_binaries.obtain()
        except cluster_binaries.BinariesError as error:
            session.config.stash[UNOBTAINABLE] = error


@pytest.fixture(scope="session")
def api(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """The API server of this session, or of this worker of it.

    Skipped where its programs cannot be fetched, unless CI says that they must be.
    """
    if error := pytestconfig.stash.get(UNOBTAINABLE, None):
        if isinstance(error, cluster_binaries.NotServedError) and not os.environ.get("CI"):
            pytest.skip(str(error))
        pytest.fail(str(error), pytrace=False)
    with running() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kube(api: Cluster) -> Iterator[k8s.ApiClient]:
    """The official client as one who may do anything."""
    with api.client() as client:
        yield client


@pytest.fixture
def namespace(kube: k8s.ApiClient) -> Iterator[str]:
    """A namespace for this test alone."""
    with new_namespace(kube) as name:
        yield name


@pytest.fixture(scope="module")
def kuberay(api: Cluster, kube: k8s.ApiClient) -> Iterator[KubeRay]:
    """The stand-in, on a server that has every definition."""
    install(kube)
    with api.client() as client, KubeRay(client) as kuberay:
        yield kuberay

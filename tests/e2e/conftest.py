"""One cluster for the session. It starts before the first test: that may take longer than a test has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.processes import ProgramEnded
from tests.e2e.bed.machines import MachineError
from tests.e2e.models import NEVER, model
from tests.e2e.release import MODEL, Phases, Release, installed
from tests.e2e.site import Site, site

HERE = Path(__file__).parent
SMALL = {"cpus": 0.2, "memory": "512Mi"}
"""Fits into the pod of the model that serves."""
NOWHERE = {"uri": "package://no_such_package/weights.gguf"}
STARTED = pytest.StashKey[contextlib.ExitStack]()
FOUND = pytest.StashKey[Site]()
ORDER = (
    "test_bed",
    "test_install",
    "test_policies",
    "test_changes",
    "test_sources",
    "test_broken",
    "test_faults",
    "test_heads",
    "test_release",
)
"""One release serves all tests but the bed's own, which take nodes away; the last one uninstalls it."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of a release's life."""
    files = [HERE / f"{stem}.py" for stem in ORDER]
    items.sort(key=lambda item: files.index(item.path) if item.path in files else -1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the cluster when a test that needs one is going to run."""
    ours = any(item.get_closest_marker("e2e") for item in session.items)
    if not ours or session.config.option.collectonly:
        return
    stack = session.config.stash[STARTED] = contextlib.ExitStack()
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        try:
            session.config.stash[FOUND] = stack.enter_context(site())
        except (MachineError, ProgramEnded) as error:
            pytest.exit(f"There is no cluster to test on. {error}", returncode=1)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what was started."""
    if stack := session.config.stash.get(STARTED, None):
        stack.close()


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Site:
    """The cluster of this session."""
    return pytestconfig.stash[FOUND]


@pytest.fixture
def namespace(cluster: Site) -> Iterator[str]:
    """A namespace for this test alone."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def phases() -> Phases:
    """When the installation reached what."""
    return Phases()


@pytest.fixture(scope="session")
def release(cluster: Site, tmp_path_factory: pytest.TempPathFactory, phases: Phases) -> Iterator[Release]:
    """The chart with the tutorial's model, which serves, and one beside it that cannot start."""
    with installed(cluster, tmp_path_factory.mktemp("chart"), phases) as release:
        release.kubectl("apply", f"--filename={MODEL}")
        release.apply(model(NEVER, source=NOWHERE, resources=SMALL, drain={"timeout": "20s"}))
        phases.reached("models applied")
        release.kubectl("rollout", "status", "deployment/tradewind-operator", "--timeout=120s")
        phases.reached("operator ready")
        release.wait_ready("scl/default", 300)
        phases.reached("ServingCluster ready")
        release.wait_ready("md/smollm2", 300)
        release.wait_ready("mr/chat", 60)
        phases.reached("model and route ready")
        yield release

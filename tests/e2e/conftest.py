"""One cluster for the session. It starts before the first test: that may take longer than a test has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.processes import ProgramEnded
from tests.e2e.bed.machines import MachineError
from tests.e2e.site import Site, site

HERE = Path(__file__).parent
STARTED = pytest.StashKey[contextlib.ExitStack]()
FOUND = pytest.StashKey[Site | str]()
"""The cluster, or why there is none."""


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
            session.config.stash[FOUND] = str(error)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what was started."""
    if stack := session.config.stash.get(STARTED, None):
        stack.close()


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Site:
    """The cluster of this session."""
    found = pytestconfig.stash[FOUND]
    if isinstance(found, str):
        pytest.fail(found, pytrace=False)
    return found


@pytest.fixture
def namespace(cluster: Site) -> Iterator[str]:
    """A namespace for this test alone."""
    with cluster.namespace() as name:
        yield name

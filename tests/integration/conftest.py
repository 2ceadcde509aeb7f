"""One platform for the whole session: the quickstart, started as a user starts it, then joined by a
model of each architecture through `tradewind apply`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures import models
from tests.integration.platform import QUICKSTART, Platform, free_port

ARCHITECTURES = {"tiny-llama": models.llama, "tiny-mistral": models.mistral, "tiny-deepseek": models.deepseek}

LAST = Path(__file__).with_name("test_faults.py")

DEPLOYMENT = """
---
apiVersion: tradewind.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: {name}}}
spec:
  source: {{uri: "file://{directory}"}}
  task: {task}
  engine:
    args: {{enforceEager: true, maxModelLen: 512, kvCacheMemoryBytes: 67108864}}
"""


def deployment(name: str, directory: Path, task: str = "generate") -> str:
    """Manifest of a tiny model."""
    return DEPLOYMENT.format(name=name, directory=directory, task=task)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever kills engines comes last: a start takes most of a minute, and nobody needs that one."""
    items.sort(key=lambda item: item.path == LAST)


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The default example, served. Ends with the check that stopping leaves no process."""
    platform = Platform(tmp_path_factory.mktemp("home"), free_port())
    try:
        platform.start(QUICKSTART)
        yield platform
    finally:
        left = platform.stop()
    assert left == []


@pytest.fixture(scope="session")
def everything() -> str:
    """The quickstart plus one tiny model of each architecture and an embedding model."""
    tiny = "".join(deployment(name, make()) for name, make in ARCHITECTURES.items())
    return QUICKSTART.read_text() + tiny + deployment("tiny-embedding", models.embedding(), "embed")


@pytest.fixture(scope="session")
def platform(quickstart: Platform, everything: str) -> Platform:
    """The quickstart's platform with every architecture on it."""
    result = quickstart.apply(everything)
    assert result.returncode == 0, result.stderr
    return quickstart

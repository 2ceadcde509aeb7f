from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.endpoint import FakeEndpoint
from tests.fakes.serve_api import FakeServeApi


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of its own for every test, and no settings from outside."""
    for name in ("TRADEWIND_API_KEY", "TRADEWIND_LOG_LEVEL", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "home"
    monkeypatch.setenv("TRADEWIND_HOME", str(path))
    monkeypatch.setenv("TRADEWIND_CACHE", str(tmp_path / "cache"))
    return path


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as running:
        yield running


@pytest.fixture
def serve_api() -> Iterator[FakeServeApi]:
    with FakeServeApi() as running:
        yield running

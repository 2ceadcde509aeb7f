"""What a release wrote is read by every later one: the files are never changed, new ones come beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tradewind.api.reading import read, read_live, reading
from tradewind.api.steps import at_once
from tradewind.api.wire import EngineSettings
from tradewind.routing.table import RouteTable

WIRE = Path(__file__).with_name("wire")


def stored(kind: str) -> list[Any]:
    files = sorted(WIRE.glob(f"{kind}-*.json"))
    assert files
    return [pytest.param(json.loads(file.read_text(encoding="utf-8")), id=file.stem) for file in files]


def holds(read_back: Any, written: Any) -> bool:
    """Whether every value that was written came back; fields of a later release come on top."""
    if isinstance(written, dict):
        return all(name in read_back and holds(read_back[name], value) for name, value in written.items())
    if isinstance(written, list):
        return len(written) == len(read_back) and all(map(holds, read_back, written))
    return bool(read_back == written)


@pytest.mark.parametrize("written", stored("gateway"))
def test_a_gateway_reads_what_an_earlier_operator_writes(written: dict[str, Any]) -> None:
    config, left_out = at_once(reading(written, None))
    assert left_out == ()
    assert holds(config.model_dump(mode="json"), written)
    assert RouteTable.build(config).revision == written["revision"]


@pytest.mark.parametrize("written", stored("engine"))
def test_an_engine_reads_the_settings_that_an_earlier_operator_writes(written: dict[str, Any]) -> None:
    assert holds(read(EngineSettings, written).model_dump(mode="json"), written)


@pytest.mark.parametrize("written", stored("live"))
def test_an_engine_reads_the_adapters_that_an_earlier_operator_writes(written: dict[str, Any]) -> None:
    live, left_out = read_live(written)
    assert left_out == ()
    assert holds(live.model_dump(mode="json"), written)

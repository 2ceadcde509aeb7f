"""Statuses: what the operator may write, and what becomes of text that it did not choose."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from tests.fakes.kubernetes_schema import schema_faults
from tradewind.api.resources import KINDS
from tradewind.api.status import (
    MOST_MESSAGE,
    STATUSES,
    Accepted,
    Condition,
    ModelDeploymentStatus,
    ModelRouteStatus,
    ResourceStatus,
    VariantStatus,
    time_of,
)
from tradewind.schema.crds import resource_schema

NOW = time_of(datetime(2026, 11, 22, 4, 30, 0, 999_999, tzinfo=UTC))
READY = Condition(
    type="Ready", status="False", reason="EngineFailed", message="out of memory", last_transition_time=NOW
)


def dumped(status: ResourceStatus) -> dict[str, object]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def test_there_is_a_status_for_every_kind() -> None:
    assert set(STATUSES) == set(KINDS)


@pytest.mark.parametrize("kind", STATUSES)
def test_nothing_known_is_nothing_written(kind: str) -> None:
    assert dumped(STATUSES[kind]()) == {}


def test_a_status_is_what_the_definition_takes() -> None:
    status = ModelDeploymentStatus(
        observed_generation=3,
        conditions=(READY,),
        accepted=Accepted(generation=2, spec={"source": {"uri": "hf://a/b"}, "engine": {"args": {"x": [1]}}}),
        state="Failed",
        replicas=0,
        selector="tradewind.dev/model=llama",
        last_error="CUDA out of memory",
    )
    written = dumped(status)
    assert written["conditions"] == [
        {
            "type": "Ready",
            "status": "False",
            "reason": "EngineFailed",
            "message": "out of memory",
            "lastTransitionTime": "2026-11-22T04:30:00Z",
        }
    ]
    assert written["replicas"] == 0
    assert not schema_faults(written, resource_schema("ModelDeployment")["properties"]["status"])


def test_a_split_is_what_the_definition_takes() -> None:
    variant = VariantStatus(name="control", deployment="llama", weight=80, percent="80.0", ready=True)
    written = dumped(ModelRouteStatus(variants=(variant,), split="control 80.0%"))
    assert not schema_faults(written, resource_schema("ModelRoute")["properties"]["status"])


def test_a_long_error_is_cut_not_refused() -> None:
    status = ModelDeploymentStatus(last_error="x" * 100_000)
    assert status.last_error is not None
    assert len(status.last_error) == MOST_MESSAGE
    assert status.last_error.endswith("x…")


@pytest.mark.parametrize(
    "change",
    [
        {"status": "true"},
        {"message": ""},
        {"reason": "has spaces"},
        {"reason": ""},
        {"last_transition_time": "yesterday"},
    ],
)
def test_a_condition_that_kubernetes_tools_would_not_read_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Condition.model_validate({**READY.model_dump(), **change})


@pytest.mark.parametrize("percent", ["100.0", "0.0", "12.5"])
def test_a_share_is_written_with_one_digit(percent: str) -> None:
    assert VariantStatus(name="a", deployment="b", weight=1, percent=percent, ready=False).percent == percent


def test_times_are_utc_in_whole_seconds() -> None:
    abroad = datetime(2026, 11, 22, 1, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    assert time_of(abroad) == "2026-11-21T23:00:00Z"

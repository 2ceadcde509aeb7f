"""The table of kinds is the one place that names them."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from pathlib import Path

import pytest

import tradewind_operator.kinds
from tests.unit.operator.policy.objects import decided, platform
from tradewind.api.resources import KINDS
from tradewind.schema.crds import crd
from tradewind_operator.kinds import CUSTOM, CUSTOM_KINDS
from tradewind_operator.publish import statuses_of
from tradewind_operator.status.observation import Observation

SOURCES = Path(tradewind_operator.kinds.__file__).parent


def test_its_addresses_are_those_of_the_definitions() -> None:
    for kind in CUSTOM:
        definition = crd(kind.kind)
        assert definition["metadata"]["name"] == kind.full_name
        assert kind.version in {version["name"] for version in definition["spec"]["versions"]}
    assert set(CUSTOM_KINDS) == set(KINDS)


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")), ids=lambda path: path.name)
def test_no_module_of_the_operator_spells_the_name_of_a_kind(path: Path) -> None:
    strings = {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert strings & set(KINDS) == set()


def test_every_kind_is_judged_and_gets_a_status() -> None:
    decision = decided(*platform())
    assert {kind for kind, _ in decision.verdicts} == {kind for kind, _ in decision.in_force} == set(KINDS)
    statuses = statuses_of(Observation(decision, datetime.now(UTC)))
    assert {kind for kind, _ in statuses} == set(KINDS)
    assert all(status["conditions"] for status in statuses.values())

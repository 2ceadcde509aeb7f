"""Weighted rendezvous hashing: shares, stickiness, and that only what must move moves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from tradewind.routing.assignment import Assignment

UNITS = [f"user-{n}" for n in range(100_000)]
FEW_UNITS = UNITS[:20_000]

weight_tables = st.dictionaries(st.text(max_size=8), st.integers(1, 1000), min_size=1, max_size=6)


def arms(weights: dict[str, float], units: list[str] = FEW_UNITS, salt: str = "chat") -> list[str]:
    assignment = Assignment(salt, weights)
    return [assignment.pick(unit) for unit in units]


def moves(before: list[str], after: list[str]) -> Counter[tuple[str, str]]:
    return Counter((old, new) for old, new in zip(before, after, strict=True) if old != new)


@pytest.mark.parametrize(
    "weights",
    [
        {"a": 80, "b": 20},
        {"a": 1, "b": 1},
        {"a": 99, "b": 1},
        {"a": 0.999, "b": 0.001},
        {"a": 50, "b": 30, "c": 20},
        {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5},
    ],
    ids=lambda weights: "/".join(str(w) for w in weights.values()),
)
def test_shares_follow_the_weights_over_a_hundred_thousand_units(weights: dict[str, float]) -> None:
    seen = Counter(arms(weights, UNITS))
    total = sum(weights.values())
    expected = [len(UNITS) * weight / total for weight in weights.values()]
    # Fixed units and salt: the outcome is the same for ever, the threshold only says how odd it is.
    assert chisquare([seen[name] for name in weights], expected).pvalue > 0.001


def test_known_units_never_change_their_arm() -> None:
    """Pins the function itself: a change of hash, encoding or formula would reassign every user."""
    assignment = Assignment("chat-2026-11", {"control": 2, "candidate": 1})
    units = [f"user-{n}" for n in range(24)] + ["", "ü", "日本", "\ud800"]
    candidates = [n for n, unit in enumerate(units) if assignment.pick(unit) == "candidate"]
    assert candidates == [0, 1, 2, 3, 5, 6, 7, 21, 26, 27]


def test_the_longest_and_the_strangest_units_have_an_arm() -> None:
    assignment = Assignment("s", {"a": 1, "b": 1})
    for unit in ("", "\x00", "\udfff", "x" * 100_000):
        assert assignment.pick(unit) in {"a", "b"}


@settings(max_examples=60)
@given(weight_tables, st.text(), st.text())
def test_same_unit_same_arm_whatever_the_instance_order_or_scale(
    weights: dict[str, int], salt: str, unit: str
) -> None:
    arm = Assignment(salt, weights).pick(unit)
    assert arm in weights
    assert Assignment(salt, dict(reversed(weights.items()))).pick(unit) == arm
    assert Assignment(salt, {name: weight * 4 for name, weight in weights.items()}).pick(unit) == arm


@settings(max_examples=60)
@given(weight_tables, st.text(), st.text(), st.data())
def test_a_unit_moves_only_to_an_arm_that_grew_against_its_own(
    weights: dict[str, int], salt: str, unit: str, data: st.DataObject
) -> None:
    changed = {name: data.draw(st.integers(1, 1000)) for name in weights}
    old, new = Assignment(salt, weights).pick(unit), Assignment(salt, changed).pick(unit)
    if old != new:
        assert changed[new] * weights[old] > weights[new] * changed[old]


@settings(max_examples=60)
@given(weight_tables.filter(lambda weights: len(weights) > 1), st.text(), st.text())
def test_removing_an_arm_moves_nobody_elses_units(weights: dict[str, int], salt: str, unit: str) -> None:
    arm = Assignment(salt, weights).pick(unit)
    for gone in weights:
        rest = {name: weight for name, weight in weights.items() if name != gone}
        if gone != arm:
            assert Assignment(salt, rest).pick(unit) == arm
            assert Assignment(salt, rest | {gone: 0}).pick(unit) == arm


def test_going_from_80_20_to_70_30_moves_a_tenth_and_one_way_only() -> None:
    moved = moves(arms({"a": 80, "b": 20}, UNITS), arms({"a": 70, "b": 30}, UNITS))
    assert set(moved) == {("a", "b")}
    assert moved["a", "b"] / len(UNITS) == pytest.approx(0.10, abs=0.004)


def test_growing_one_of_three_takes_from_both_others_in_proportion() -> None:
    moved = moves(arms({"a": 50, "b": 30, "c": 20}), arms({"a": 40, "b": 24, "c": 36}))
    assert set(moved) == {("a", "c"), ("b", "c")}
    assert moved["a", "c"] / len(FEW_UNITS) == pytest.approx(0.10, abs=0.01)
    assert moved["b", "c"] / len(FEW_UNITS) == pytest.approx(0.06, abs=0.01)


def test_several_changes_at_once_move_little_more_than_the_minimum() -> None:
    moved = moves(arms({"a": 50, "b": 30, "c": 20}), arms({"a": 50, "b": 40, "c": 10}))
    assert set(moved) == {("a", "b"), ("c", "a"), ("c", "b")}
    assert 0.10 <= sum(moved.values()) / len(FEW_UNITS) <= 0.17


def test_a_removed_arm_spreads_over_the_rest_in_proportion() -> None:
    moved = moves(arms({"a": 60, "b": 20, "c": 20}), arms({"a": 60, "b": 20}))
    assert set(moved) == {("c", "a"), ("c", "b")}
    assert moved["c", "a"] / sum(moved.values()) == pytest.approx(0.75, abs=0.03)


def test_an_added_arm_takes_its_share_and_moves_nothing_else() -> None:
    moved = moves(arms({"a": 60, "b": 20}), arms({"a": 60, "b": 20, "c": 20}))
    assert {new for _, new in moved} == {"c"}
    assert sum(moved.values()) / len(FEW_UNITS) == pytest.approx(0.20, abs=0.01)


def test_two_salts_are_independent() -> None:
    table = Counter(zip(arms({"a": 1, "b": 1}, salt="one"), arms({"a": 1, "b": 1}, salt="two"), strict=True))
    observed = [[table[x, y] for y in "ab"] for x in "ab"]
    assert chi2_contingency(observed).pvalue > 0.001


def test_salt_arm_and_unit_do_not_run_into_each_other() -> None:
    """('ab', 'c') and ('a', 'bc') as (salt, unit) must be different draws."""
    weights = {"x": 1, "y": 1}
    joined = [(arms(weights, [f"b{n}"], "a"), arms(weights, [f"{n}"], "ab")) for n in range(200)]
    assert any(one != other for one, other in joined)


def test_weight_zero_never_wins() -> None:
    assert set(arms({"a": 1, "b": 0, "c": 1})) == {"a", "c"}
    assert set(arms({"a": 0, "b": 1})) == {"b"}


@pytest.mark.parametrize(
    "weights",
    [{}, {"a": 0}, {"a": 0, "b": 0}, {"a": -1, "b": 2}, {"a": float("inf")}, {"a": float("nan")}],
)
def test_weights_without_a_meaning_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        Assignment("s", weights)

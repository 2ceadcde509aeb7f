"""Durations and quantities: what is read, what is refused, and that writing gives it back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.api.values import Duration, Quantity, camel


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("800ms", 0.8), ("30s", 30), ("1h30m", 5400), ("1.5s", 1.5), ("2h0m5s", 7205), ("0s", 0)],
)
def test_a_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert Duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "10 m", "m", "-5s", "1d", "1e3s", "10m\n", "١s", "5S", "1h" * 9])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="written like 30s, 800ms, 10m or 1h30m") as caught:
        Duration.parse(text)
    assert repr(text) in str(caught.value)


@given(st.integers(min_value=0, max_value=10**9))
def test_a_duration_survives_writing_and_reading(milliseconds: int) -> None:
    duration = Duration(milliseconds / 1000)
    assert Duration.parse(str(duration)) == pytest.approx(duration)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16Gi", 16 * 2**30),
        ("512Ki", 524288),
        ("10M", 10**7),
        ("1000", 1000),
        ("1.5Ki", 1536),
        ("0", 0),
        ("2k", 2000),
    ],
)
def test_a_quantity_is_read_as_bytes(text: str, size: int) -> None:
    assert Quantity.parse(text) == size


@pytest.mark.parametrize("text", ["", "Gi", "16GB", "16 Gi", "-1", "1e3", "1Pi", "0x10"])
def test_what_is_no_quantity_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="written like 512Ki, 10Mi or 16Gi"):
        Quantity.parse(text)


@given(st.integers(min_value=0, max_value=2**49))
def test_a_quantity_survives_writing_and_reading(size: int) -> None:
    assert Quantity.parse(str(Quantity(size))) == size


def test_python_names_become_camel_case() -> None:
    assert [camel(name) for name in ("max_model_len", "n", "use_fp64_gumbel", "all2all_backend")] == [
        "maxModelLen",
        "n",
        "useFp64Gumbel",
        "all2allBackend",
    ]

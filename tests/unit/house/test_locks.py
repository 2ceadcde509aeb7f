"""What the locks promise: every package by hash, nothing of one machine, nothing that was left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import lock as locks

LOCKS = {lock.name: lock for lock in locks.LOCKS}


def altered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: tuple[str, str]) -> list[str]:
    """Faults of a copy of the locks in which `change` (old, new) was made once to the lock `name`."""
    for lock in LOCKS.values():
        text = lock.path.read_text()
        if lock.name == name:
            assert change[0] in text
            text = text.replace(*change, 1)
        (tmp_path / lock.path.name).write_text(text)
    monkeypatch.setattr(locks, "REQUIREMENTS", tmp_path)
    return locks.faults(LOCKS[name])


@pytest.mark.parametrize("name", LOCKS)
def test_is_fit_to_install_from(name: str) -> None:
    assert locks.faults(LOCKS[name]) == []


def test_a_lock_older_than_what_it_is_made_from_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = altered(tmp_path, monkeypatch, "dev", (locks.INPUTS_LINE, f"{locks.INPUTS_LINE}0"))
    assert wrong == ["dev.lock is older than what it is made from"]


def test_a_host_in_a_lock_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = altered(tmp_path, monkeypatch, "dev", ("    # via", "    # via https://example.org/simple"))
    assert wrong == ["dev.lock names a host or a folder"]


def test_a_package_without_a_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = altered(tmp_path, monkeypatch, "dev", ("annotated-types==", "intruder==1.0\nannotated-types=="))
    assert wrong == ["dev.lock: no hash for intruder==1.0"]


def test_test_tools_that_disagree_with_what_serves_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = f"openai=={locks.pins(LOCKS['engine-cpu'].path)['openai']} "
    wrong = altered(tmp_path, monkeypatch, "dev", (f"\n{pin}", "\nopenai==0.1 "))
    assert len(wrong) == 1
    assert wrong[0].startswith("dev.lock has openai 0.1, engine-cpu.lock has ")


def test_what_is_left_out_is_in_no_lock() -> None:
    for lock in LOCKS.values():
        lines = re.findall(r"^[a-z].*", lock.overrides.read_text(), re.MULTILINE)
        left_out = {canonicalize_name(Requirement(line).name) for line in lines}
        assert left_out
        assert left_out.isdisjoint(locks.pins(lock.path))

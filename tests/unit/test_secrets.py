"""Secrets that are read where a reference says, and those that arrive late."""

from __future__ import annotations

from pathlib import Path

import pytest

from tradewind import home
from tradewind.api.wire import SecretRef
from tradewind.secrets import SecretMissing, await_secret


class Clock:
    """Time that passes while somebody sleeps; `at` happens on the way."""

    def __init__(self, file: Path, arrives_at: float) -> None:
        self.now = 0.0
        self._file = file
        self._arrives_at = arrives_at

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self._arrives_at:
            self._file.write_text("token-5f1d\n")


@pytest.mark.parametrize("arrives_at", [3.0, 30.0])
def test_a_file_that_arrives_in_time_is_read(tmp_path: Path, arrives_at: float) -> None:
    file = tmp_path / "token"
    clock = Clock(file, arrives_at)
    reference = SecretRef(file=str(file), wait_s=60)
    assert await_secret(reference, clock=lambda: clock.now, sleep=clock.sleep) == "token-5f1d"
    assert arrives_at <= clock.now < arrives_at + 1.5


def test_a_file_that_does_not_come_is_missed_after_the_wait(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "token", 100.0)
    with pytest.raises(SecretMissing, match="cannot be read"):
        await_secret(
            SecretRef(file=str(tmp_path / "token"), wait_s=60), clock=lambda: clock.now, sleep=clock.sleep
        )
    assert 60 <= clock.now < 62


def test_what_is_not_said_to_arrive_is_not_waited_for(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "token", 1.0)
    with pytest.raises(SecretMissing):
        await_secret(SecretRef(file=str(tmp_path / "token")), clock=lambda: clock.now, sleep=clock.sleep)
    assert clock.now == 0.0


def test_a_hash_key_is_long_enough_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home.hash_key() is None
    file = tmp_path / "hash-key"
    monkeypatch.setenv(home.HASH_KEY_FILE, str(file))
    file.write_text("ab" * 32 + "\n")
    assert home.hash_key() == b"ab" * 32
    file.write_text("short")
    with pytest.raises(RuntimeError, match="32 to 64 bytes"):
        home.hash_key()

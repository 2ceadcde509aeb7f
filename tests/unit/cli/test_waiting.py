from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from tradewind.cli.errors import CommandFailed
from tradewind.cli.fetching import stage_of
from tradewind.cli.patience import REFUSED_S, SILENCE_S
from tradewind.cli.waiting import STALE_S, Waiting, rows
from tradewind.engine.sources.report import ProgressFile, progress_file
from tradewind.rayapi.app_status import AppStatus
from tradewind.rayapi.client import ControlError, Unreachable

World = Callable[[float], dict[str, AppStatus]]


def app(name: str = "llama", status: str = "RUNNING", message: str = "") -> AppStatus:
    failed = status == "DEPLOY_FAILED"
    return AppStatus(name, status, message, wanted=1, running=int(status == "RUNNING"), failed=failed)


class Play:
    """A Serve whose state is a function of the time, and a clock that runs while somebody sleeps."""

    def __init__(
        self, world: World, *, terminal: bool = False, stage: str = "", gone: Callable[[], str] = str
    ) -> None:
        self.now = 0.0
        self.screen = io.StringIO()
        console = Console(file=self.screen, force_terminal=terminal, width=100, _environ={})
        self.waiting = Waiting(
            lambda: world(self.now),
            lambda _: stage,
            console,
            gone=gone,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def becoming(ready_at: float, before: AppStatus | None = None) -> World:
    started = {} if before is None else {"llama": before}
    return lambda now: {"llama": app()} if now >= ready_at else started


def test_it_returns_as_soon_as_everything_is_ready() -> None:
    play = Play(becoming(3.0, app(status="DEPLOYING")), stage="loading the engine")
    play.waiting.until_ready(["llama"], 60.0)
    assert 3.0 <= play.now < 3.5
    assert [line.split(" (")[0] for line in play.screen.getvalue().split("\n") if "llama: " in line] == [
        "  llama: loading the engine",
        "  llama: ready",
    ]


def test_in_a_terminal_only_what_is_ready_stays_on_the_screen() -> None:
    play = Play(becoming(1.0), terminal=True)
    play.waiting.until_ready(["llama"], 60.0)
    assert "llama: ready" in play.screen.getvalue()
    assert "llama: starting" not in play.screen.getvalue()


def test_a_failure_ends_the_wait_at_once_with_the_engines_own_words() -> None:
    play = Play(lambda _: {"llama": app(status="DEPLOY_FAILED", message="out of memory [Errno 12]")})
    with pytest.raises(CommandFailed, match=r"^llama did not start: out of memory \[Errno 12\]$"):
        play.waiting.until_ready(["llama"], 60.0)
    assert play.now == 0.0


def test_all_failures_are_told() -> None:
    world = {"a": app("a", "DEPLOY_FAILED"), "b": app("b", "DEPLOY_FAILED", "gone"), "c": app("c")}
    with pytest.raises(CommandFailed, match=r"^a did not start: DEPLOY_FAILED; b did not start: gone$"):
        Play(lambda _: world).waiting.until_ready(["a", "b", "c"], 60.0)


def test_a_failure_from_before_the_change_is_given_time_to_go_away() -> None:
    broken = app(status="DEPLOY_FAILED", message="old trouble")
    play = Play(becoming(STALE_S / 2, broken))
    play.waiting.until_ready(["llama"], 60.0, {"llama": broken})
    assert play.now >= STALE_S / 2


def test_what_could_not_start_before_the_change_and_still_cannot_is_a_failure() -> None:
    broken = app(status="DEPLOY_FAILED", message="old trouble")
    play = Play(lambda _: {"llama": broken})
    with pytest.raises(CommandFailed, match="old trouble"):
        play.waiting.until_ready(["llama"], 3600.0, {"llama": broken})
    assert STALE_S <= play.now < STALE_S + 1


def test_what_was_being_replaced_before_the_change_is_not_waited_for_and_no_failure() -> None:
    broken = app(status="UNHEALTHY", message="old trouble")
    play = Play(lambda _: {"llama": broken})
    unwell = play.waiting.until_ready(["llama"], 3600.0, {"llama": broken})
    assert [(row.name, row.trouble) for row in unwell] == [("llama", "old trouble")]
    assert play.now == 0.0


def test_what_the_change_itself_replaces_has_time_to_lose_its_old_trouble() -> None:
    broken = app(status="UNHEALTHY", message="old trouble")
    play = Play(lambda _: {"llama": broken})
    unwell = play.waiting.until_ready(["llama"], 3600.0, {"llama": broken}, ["llama"])
    assert [row.name for row in unwell] == ["llama"]
    assert STALE_S <= play.now < STALE_S + 1


def test_a_new_failure_is_not_mistaken_for_the_old_one() -> None:
    play = Play(lambda _: {"llama": app(status="DEPLOY_FAILED", message="new trouble")})
    with pytest.raises(CommandFailed, match="new trouble"):
        play.waiting.until_ready(["llama"], 60.0, {"llama": app(status="DEPLOY_FAILED", message="old")})
    assert play.now == 0.0


def test_an_engine_that_died_is_waited_for_while_it_is_replaced() -> None:
    play = Play(becoming(20.0, app(status="UNHEALTHY", message="the engine has died")))
    play.waiting.until_ready(["llama"], 60.0)
    assert "llama: being replaced: the engine has died" in play.screen.getvalue()


def test_too_slow_is_said_with_what_it_was_busy_with() -> None:
    play = Play(becoming(1e9), stage="downloading weights 40%")
    with pytest.raises(CommandFailed, match=r"not ready after 5 s: llama \(downloading weights 40%\)"):
        play.waiting.until_ready(["llama"], 5.0)


def away(error: str = "ReadTimeout") -> Unreachable:
    return Unreachable(f"Ray's API cannot be reached: {error}", refused=error == "ConnectError")


def test_a_ray_that_is_too_busy_to_answer_is_waited_for_and_told_of() -> None:
    def world(now: float) -> dict[str, AppStatus]:
        if 1.0 < now < 600.0:
            raise away()
        return {"llama": app()} if now > 600.0 else {}

    play = Play(world)
    play.waiting.until_ready(["llama"], 3600.0)
    told = [line for line in play.screen.getvalue().split("\n") if "still waiting for Ray's API" in line]
    assert 30 <= len(told) <= 41
    assert told[0].endswith("(15 s)")


def test_a_ray_that_never_answers_ends_the_wait() -> None:
    def world(now: float) -> dict[str, AppStatus]:
        raise away()

    play = Play(world)
    with pytest.raises(CommandFailed, match="cannot be reached: ReadTimeout; without an answer for 1800 s"):
        play.waiting.until_ready(["llama"], 3600.0)
    assert SILENCE_S < play.now < SILENCE_S + 1


def test_a_port_that_nobody_listens_on_ends_the_wait_soon() -> None:
    def world(now: float) -> dict[str, AppStatus]:
        raise away("ConnectError" if now > 60.0 else "ReadTimeout")

    play = Play(world)
    with pytest.raises(CommandFailed, match="nobody listens there"):
        play.waiting.until_ready(["llama"], 3600.0)
    assert 60.0 + REFUSED_S < play.now < 60.0 + REFUSED_S + 2


def test_what_has_died_is_not_waited_for() -> None:
    def world(now: float) -> dict[str, AppStatus]:
        raise away()

    play = Play(world, gone=lambda: "raylet died")
    with pytest.raises(CommandFailed, match=r"^raylet died$"):
        play.waiting.until_ready(["llama"], 3600.0)
    assert play.now == 0.0


def test_an_api_that_answers_with_a_fault_for_a_while_is_borne() -> None:
    def world(now: float) -> dict[str, AppStatus]:
        if now < 120.0:
            raise ControlError("Ray's API answered 503")
        return {"llama": app()}

    Play(world).waiting.until_ready(["llama"], 3600.0)


def test_an_application_that_serve_does_not_know_yet_is_starting() -> None:
    (row,) = rows(["llama"], {}, lambda _: "")
    assert (row.state, row.ready, row.failure) == ("starting", False, "")


def test_the_stage_is_what_the_engine_published(home: Path) -> None:
    assert stage_of("llama") == ""
    publish = ProgressFile(progress_file(home, "llama"))
    publish("download", 25, 100)
    assert stage_of("llama") == "downloading weights 25%"
    publish("load")
    assert stage_of("llama") == "loading the engine"
    publish.failed("gone")
    assert stage_of("llama") == ""


@pytest.mark.parametrize("content", ["", "[]", "null", '{"stage": []}', json.dumps({"stage": "load"})])
def test_a_progress_file_that_is_odd_says_nothing(home: Path, content: str) -> None:
    path = progress_file(home, "llama")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert stage_of("llama") == ""

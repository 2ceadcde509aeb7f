"""What this side is short of is held against no replica."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.asgi import Stage, config, deployment, route, stage
from tests.unit.gateway.ways import until, way
from tradewind.gateway.shortage import RESOURCES, SAID_EVERY_S, ShortageLog, is_short

ROOT = Path(__file__).parents[3]
SHORT = sorted(RESOURCES)


def fails(number: int) -> Callable[..., Any]:
    async def create_connection(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return create_connection


@pytest.mark.parametrize("number", SHORT, ids=[errno.errorcode[number] for number in SHORT])
@pytest.mark.parametrize("fallback", [(), ("spare",)])
async def test_a_connection_that_cannot_be_made_here_takes_no_replica_out(
    number: int, fallback: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(
        deployments=[deployment(), deployment("spare")],
        routes=[route(fallback=fallback, first_token_timeout_s=5)],
    )
    async with stage(settings, replicas={"llama": 2}) as s:
        with monkeypatch.context() as broken:
            broken.setattr("asyncio.base_events.BaseEventLoop.create_connection", fails(number))
            reply = await s.client.chat()
        assert (reply.status, reply.code, reply.header("retry-after")) == (503, "no_capacity", "1")
        assert all(view.ready for name in s.engines for view in s.gateway.directory.views(name))
        assert s.seen() == 0
        assert not s.gateway.admission.loads()
        assert (await s.client.chat()).status == 200


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH])
async def test_what_the_network_says_of_a_replica_counts_as_ever(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(config(routes=[route(first_token_timeout_s=0.05)])) as s:
        with monkeypatch.context() as broken:
            broken.setattr("asyncio.base_events.BaseEventLoop.create_connection", fails(number))
            reply = await s.client.chat()
        assert (reply.status, reply.code) == (503, "model_unavailable")
        assert down(s) == [True]


def down(scene: Stage) -> list[bool]:
    return [view.down for view in scene.gateway.directory.views("llama")]


async def test_probes_that_cannot_be_made_take_no_replica_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    async def create_connection(*_: object, **__: object) -> Any:
        nonlocal tries
        tries += 1
        raise OSError(errno.EMFILE, "Too many open files")

    async with stage() as s:
        monkeypatch.setattr("asyncio.base_events.BaseEventLoop.create_connection", create_connection)
        async with way(s.config, s.engine.port) as here:
            await until(lambda: tries > 8, 2)
            assert all(view.ready for view in here.views)


def test_a_process_without_file_descriptors_refuses_and_recovers() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.gateway.short_of_files"],
        capture_output=True, text=True, env=env, cwd=ROOT, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["before"], seen["after"]) == (200, 200)
    assert seen["during"] == [[503, "no_capacity"]]
    assert seen["retry_after"] == "1"
    assert seen["ready"] is True
    assert (seen["asked"], seen["outstanding"]) == (0, 0)
    said = [line for line in done.stderr.splitlines() if "EMFILE" in line]
    assert len(said) == 1
    assert "raise its limit on open files (ulimit -n)" in said[0]


def test_each_resource_is_said_once_in_a_while_with_what_was_missed(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    log = ShortageLog(lambda: now)
    with caplog.at_level(logging.ERROR):
        for _ in range(50):
            log.note(errno.EMFILE)
        log.note(errno.EADDRNOTAVAIL)
        now += SAID_EVERY_S
        log.note(errno.EMFILE)
    first, ports, again = caplog.messages
    assert "file descriptors of this process (EMFILE)" in first
    assert "failed: 1 " in first
    assert "ip_local_port_range" in ports
    assert "failed: 50 " in again


def test_only_what_is_about_this_side_is_short() -> None:
    assert is_short(OSError(errno.ENOBUFS, "x"))
    assert not is_short(OSError(errno.ECONNRESET, "x"))
    assert not is_short(OSError("no number"))
    assert not is_short(None)

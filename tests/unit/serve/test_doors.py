"""Serve's own ports: an engine's is open, any other answers nobody. Held to the installed Ray."""

from __future__ import annotations

import inspect
from collections.abc import MutableMapping
from typing import Any

import pytest
from ray.serve._private import constants, http_util, proxy, replica

from tradewind.compiler.ray_environment import CALLBACK, ray_environment
from tradewind.serve import doors
from tradewind.serve.doors import Shut, middlewares

SWITCH = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"


async def never() -> MutableMapping[str, Any]:
    raise AssertionError("it reads nothing")


async def answered(kind: str) -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await Shut(None)({"type": kind, "path": "/engines/llama/v1/models"}, never, send)
    return sent


async def test_a_shut_port_answers_404_and_closes_without_reading() -> None:
    head, body = await answered("http")
    assert head["status"] == 404
    assert (b"connection", b"close") in head["headers"]
    assert b'"code": "not_found"' in body["body"]
    assert [message["type"] for message in await answered("websocket")] == ["websocket.close"]


@pytest.mark.parametrize(("deployment", "opened"), [("engine", True), ("gateway", False), ("", False)])
def test_only_an_engines_port_is_open(deployment: str, opened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "_deployment", lambda: deployment)
    assert [one.cls for one in middlewares()] == ([] if opened else [Shut])


def test_a_process_that_is_no_replica_is_a_proxy() -> None:
    assert doors._deployment() == ""


def test_the_installed_ray_asks_in_every_process_that_opens_a_port() -> None:
    assert ray_environment(token_file=None)[SWITCH] == CALLBACK
    module, _, name = CALLBACK.partition(":")
    assert (module, name) == (middlewares.__module__, middlewares.__name__)
    assert SWITCH in inspect.getsource(constants)
    assert "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH" in inspect.getsource(
        http_util.configure_http_middlewares
    )
    assert "configure_http_middlewares(" in inspect.getsource(proxy)
    assert "configure_http_middlewares(" in inspect.getsource(replica)

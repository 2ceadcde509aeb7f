"""Finds the endpoint and a key for the commands that ask questions."""

from __future__ import annotations

from tradewind import home
from tradewind.cli.apply import control_of, running
from tradewind.cli.client import Client
from tradewind.cli.errors import CommandFailed
from tradewind.cli.keys import first_key
from tradewind.serve.control import ControlError


def connect(url: str | None, key: str | None) -> Client:
    """A client of `url`, or of the platform of this state directory with its first tenant's key."""
    if url is not None:
        return Client(url.rstrip("/").removesuffix("/v1"), key or "")
    state = home.home_dir()
    run = running(state)
    if key is not None or run.anonymous:
        return Client(run.endpoint, key or "")
    control = control_of(run, state)
    try:
        return Client(run.endpoint, first_key(control.gateway_config())[0])
    except ControlError as error:
        raise CommandFailed(str(error)) from error
    finally:
        control.close()

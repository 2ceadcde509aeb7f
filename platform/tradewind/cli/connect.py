"""Finds the endpoint and a key for the commands that ask questions."""

from __future__ import annotations

import httpx

from tradewind import home
from tradewind.cli.apply import control_of, running
from tradewind.cli.client import Client
from tradewind.cli.errors import BAD_INPUT, CommandFailed
from tradewind.cli.keys import first_key
from tradewind.rayapi.client import ControlError


def connect(url: str | None, key: str | None) -> Client:
    """A client of `url`, or of the platform of this state directory with its first tenant's key.

    Raises:
        CommandFailed: `url` or `key` cannot be one, or no platform runs.
    """
    given = _checked_key(key)
    if url is not None:
        return Client(_checked_url(url), given)
    state = home.home_dir()
    run = running(state)
    if given or run.anonymous:
        return Client(run.endpoint, given)
    control = control_of(run, state)
    try:
        return Client(run.endpoint, first_key(control.gateway_config())[0])
    except ControlError as error:
        raise CommandFailed(str(error)) from error
    finally:
        control.close()


def _checked_url(text: str) -> str:
    """The base of `text` without a trailing `/v1`."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo or url.query:
        raise CommandFailed(
            f"{_without_userinfo(url) or text!r} is no endpoint",
            exit_code=BAD_INPUT,
            hint="--url takes http://HOST:PORT; a key goes into --key or TRADEWIND_API_KEY",
        )
    return text.strip().rstrip("/").removesuffix("/v1")


def _without_userinfo(url: httpx.URL) -> str:
    return str(url.copy_with(userinfo=b"")) if url.userinfo else ""


def _checked_key(key: str | None) -> str:
    """`key` without white space around it. What HTTP cannot carry is refused, without showing it."""
    text = (key or "").strip()
    if not text.isascii() or not text.isprintable():
        raise CommandFailed(
            "the key of --key or TRADEWIND_API_KEY holds characters that no key has", exit_code=BAD_INPUT
        )
    return text

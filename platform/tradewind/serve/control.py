"""Talks to Serve's REST API: apply a configuration, read how the applications are.

No Ray import: the same few calls reach a local platform and one in a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tradewind.api.wire import EngineSettings, GatewayConfig

_APPLICATIONS = "/api/serve/applications/"
REASON_MARK = "tradewind-reason:"
"""Precedes the one line of an exception's text that is meant for people."""
START_MARK = "tradewind-did-not-start:"
"""The same, where a replica could not start: Serve will try again, and it will fail again."""


_MARKS = (START_MARK, REASON_MARK)


class ControlError(Exception):
    """Ray's API could not be reached or refused the configuration."""


@dataclass(frozen=True, slots=True)
class AppStatus:
    """One Serve application."""

    name: str
    status: str
    """Serve's word: DEPLOYING, RUNNING, DEPLOY_FAILED, UNHEALTHY, DELETING, NOT_STARTED."""
    message: str
    """What went wrong, in a person's words; empty while all is well."""
    wanted: int
    running: int
    failed: bool
    """It cannot start as it is configured. An engine that died later is replaced, and has not failed."""

    @property
    def ready(self) -> bool:
        return self.status == "RUNNING"


def reason(message: str) -> str:
    """The engine's own last error out of a Serve status message.

    Serve puts a traceback there; our exceptions mark the line that matters.
    """
    for mark in _MARKS:
        if mark in message:
            return message.rsplit(mark, 1)[1].split("\n", 1)[0].strip()
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"^[\w.]*(Error|Exception|Exit)\b", line)]
    return errors[-1] if errors else (lines[-1] if lines else "")


def parse_status(document: Mapping[str, Any]) -> dict[str, AppStatus]:
    """Applications by name out of the REST API's answer."""
    found: dict[str, AppStatus] = {}
    for name, app in document.get("applications", {}).items():
        deployments = list(app.get("deployments", {}).values())
        messages = [app.get("message") or ""] + [entry.get("message") or "" for entry in deployments]
        status = app.get("status", "UNKNOWN")
        starting = status in {"DEPLOYING", "DEPLOY_FAILED"}
        not_started = starting and any(START_MARK in message for message in messages)
        failed = status == "DEPLOY_FAILED" or not_started
        found[name] = AppStatus(
            name=name,
            status=status,
            message=_pick_reason(messages) if failed or status == "UNHEALTHY" else "",
            wanted=sum(entry.get("target_num_replicas", 0) for entry in deployments),
            running=sum(
                replica.get("state") == "RUNNING"
                for entry in deployments
                for replica in entry.get("replicas", [])
            ),
            failed=failed,
        )
    return found


def _pick_reason(messages: list[str]) -> str:
    marked = [message for message in messages if any(mark in message for mark in _MARKS)]
    return reason(max(marked or messages, key=len))


class ServeControl:
    """Client of one Ray dashboard's Serve API."""

    def __init__(
        self, url: str, token: str, *, timeout_s: float = 30.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._client = httpx.Client(
            base_url=url,
            timeout=timeout_s,
            headers={"authorization": f"Bearer {token}"},
            trust_env=False,
            transport=transport,
        )

    def apply(self, serve_config: Mapping[str, Any]) -> None:
        """Make `serve_config` the full desired set of applications.

        Raises:
            ControlError: Ray could not be reached or refused; nothing was changed.
        """
        response = self._request("PUT", json=dict(serve_config))
        if response.status_code != 200:
            raise ControlError(
                f"Ray refused the configuration: {reason(response.text) or response.status_code}"
            )

    def applications(self) -> dict[str, AppStatus]:
        """How every application is now."""
        return parse_status(self._document())

    def gateway_config(self) -> GatewayConfig:
        """The configuration that the gateway was given."""
        document = self._document()
        try:
            gateway = document["applications"]["gateway"]["deployed_app_config"]
            return GatewayConfig.model_validate(gateway["deployments"][0]["user_config"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ControlError("Ray's API shows no gateway") from error

    def engine_settings(self) -> dict[str, EngineSettings]:
        """What every engine was given, by ModelDeployment."""
        document = self._document()
        try:
            return {
                name: EngineSettings.model_validate(app["deployed_app_config"]["args"]["settings"])
                for name, app in document["applications"].items()
                if "settings" in ((app.get("deployed_app_config") or {}).get("args") or {})
            }
        except (KeyError, TypeError, ValueError) as error:
            raise ControlError("Ray's API shows engines of another version") from error

    def _document(self) -> dict[str, Any]:
        response = self._request("GET")
        if response.status_code != 200:
            raise ControlError(f"Ray's API answered {response.status_code}")
        return dict(response.json())

    def _request(self, method: str, **arguments: Any) -> httpx.Response:
        try:
            return self._client.request(method, _APPLICATIONS, **arguments)
        except httpx.HTTPError as error:
            raise ControlError(f"Ray's API cannot be reached: {type(error).__name__}") from error

    def close(self) -> None:
        self._client.close()

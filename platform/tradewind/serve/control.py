"""Talks to Serve's REST API: apply a configuration, read how the applications are.

No Ray import: the same few calls reach a local platform and one in a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from tradewind.api.app_status import AppStatus, parse_status, reason
from tradewind.api.wire import EngineSettings, GatewayConfig

_APPLICATIONS = "/api/serve/applications/"


class ControlError(Exception):
    """Ray's API could not be reached or refused the configuration."""


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

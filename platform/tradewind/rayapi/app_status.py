"""What Serve says about its applications, in a person's words.

Pure: the same reading for a local platform and for one in a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tradewind.api.wire import digest

REASON_MARK: Final = "tradewind-reason:"
"""Precedes the one line of an exception's text that is meant for people."""
START_MARK: Final = "tradewind-did-not-start:"
"""The same, where a replica could not start: Serve will try again, and it will fail again."""

_EXACT: Final = frozenset({"args", "user_config", "ray_actor_options"})
"""What Serve keeps as it was given: something missing there was taken out."""
_MARKS: Final = (START_MARK, REASON_MARK)


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
    nodes: tuple[str, ...] = ()
    """IP addresses of the nodes that its running replicas are on, each once and in order."""
    occupied: tuple[str, ...] = ()
    """Those of all its replicas, also of such that start, or end what they have."""

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
        replicas = [replica for entry in deployments for replica in entry.get("replicas", [])]
        status, message, failed = _state(app, deployments)
        found[name] = AppStatus(
            name=name,
            status=status,
            message=message,
            wanted=sum(entry.get("target_num_replicas", 0) for entry in deployments),
            running=sum(replica.get("state") == "RUNNING" for replica in replicas),
            failed=failed,
            nodes=_nodes(replica for replica in replicas if replica.get("state") == "RUNNING"),
            occupied=_nodes(replicas),
        )
    return found


def _nodes(replicas: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted({str(node) for replica in replicas if (node := replica.get("node_ip"))}))


def _state(app: Mapping[str, Any], deployments: list[Mapping[str, Any]]) -> tuple[str, str, bool]:
    """Serve's word, the message for a person, and whether the application cannot start."""
    messages = [app.get("message") or ""] + [entry.get("message") or "" for entry in deployments]
    status = app.get("status", "UNKNOWN")
    starting = status in {"DEPLOYING", "DEPLOY_FAILED"}
    not_started = starting and any(START_MARK in message for message in messages)
    failed = status == "DEPLOY_FAILED" or not_started
    message = _pick_reason(messages) if failed or status == "UNHEALTHY" else ""
    return status, message, failed


def _pick_reason(messages: list[str]) -> str:
    marked = [message for message in messages if any(mark in message for mark in _MARKS)]
    return reason(max(marked or messages, key=len))


def deployed_configs(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Applications by name, each as it was last applied (ServeApplicationSchema); from the REST API's answer.

    One that is being deleted, or was not applied through that API, is not among them.
    """
    return {
        name: app["deployed_app_config"]
        for name, app in document.get("applications", {}).items()
        if isinstance(app.get("deployed_app_config"), dict) and app.get("status") != "DELETING"
    }


def is_applied(deployed: Mapping[str, Mapping[str, Any]], serve_config: Mapping[str, Any]) -> bool:
    """Whether Serve has been given `serve_config` already: every application, as it is and no other.

    Args:
        deployed: of `deployed_configs`; Serve adds fields of its own around ours, which count for nothing.
    """
    wanted = {app["name"]: app for app in serve_config["applications"]}
    return deployed.keys() == wanted.keys() and all(
        _contains(deployed[name], app) for name, app in wanted.items()
    )


def _contains(there: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(
            _whole(there.get(key)) == _whole(value) if key in _EXACT else _contains(there.get(key), value)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        same_length = isinstance(there, list | tuple) and len(there) == len(wanted)
        return same_length and all(map(_contains, there, wanted))
    return bool(there == wanted)


def deployed_revisions(document: Mapping[str, Any]) -> dict[str, str]:
    """Engine applications by name, each with the `settings_revision` that it was deployed with.

    From the REST API's answer.
    """
    found: dict[str, str] = {}
    for name, app in document.get("applications", {}).items():
        settings = ((app.get("deployed_app_config") or {}).get("args") or {}).get("settings")
        if settings is not None:
            found[name] = settings_revision(settings)
    return found


def settings_revision(settings: object) -> str:
    """Digest of an engine's settings as JSON-able data, whoever has read and written them in between."""
    return digest(_whole(settings))


def _whole(content: Any) -> Any:
    """Whole numbers as such: what passes through KubeRay comes back with 300 for 300.0."""
    if isinstance(content, Mapping):
        return {name: _whole(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_whole(value) for value in content]
    return int(content) if isinstance(content, float) and content.is_integer() else content

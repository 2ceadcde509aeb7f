"""What the API server's audit log says that a user asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""
DECISION = "authorization.k8s.io/decision"


class Call(NamedTuple):
    """One request. What it does not have is "": a core group, a subresource, the namespace of a node.

    A request for something that is not a resource has its path for a name: get "/version/".
    """

    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str


def calls(log: Path, user: str, *, denied: bool = False) -> list[Call]:
    """Requests of `user` in order, each once; with `denied`, only those that authorization refused."""
    seen: set[str] = set()
    found = []
    for event in _events(log):
        refused = event.get("annotations", {}).get(DECISION) == "forbid"
        if event["user"].get("username") != user or event["auditID"] in seen or (denied and not refused):
            continue
        # A watch is written twice: when it starts and when it ends.
        seen.add(event["auditID"])
        found.append(_call(event))
    return found


def _events(log: Path) -> Iterator[dict[str, Any]]:
    """Events of whole lines: the server may be in the middle of writing the last."""
    if not log.exists():
        return
    with log.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def _call(event: dict[str, Any]) -> Call:
    target = event.get("objectRef")
    if target is None:
        return Call(event["verb"], "", "", "", "", event["requestURI"].split("?")[0])
    keys = ("apiGroup", "resource", "subresource", "namespace", "name")
    return Call(event["verb"], *(target.get(key, "") for key in keys))

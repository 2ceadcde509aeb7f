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


class Log:
    """The audit log at `path`, of which every line is read once: some tests ask ten times a second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._seen: set[str] = set()
        self._calls: dict[str, list[tuple[Call, bool]]] = {}
        """By user, each with whether it was refused."""

    def calls(self, user: str, *, denied: bool = False) -> list[Call]:
        """Requests of `user` in order, each once; with `denied`, only those that authorization refused."""
        for event in self._more():
            # A watch is written twice: when it starts and when it ends.
            if event["auditID"] not in self._seen:
                self._seen.add(event["auditID"])
                refused = event.get("annotations", {}).get(DECISION) == "forbid"
                self._calls.setdefault(event["user"].get("username"), []).append((_call(event), refused))
        return [call for call, refused in self._calls.get(user, ()) if refused or not denied]

    def _more(self) -> Iterator[dict[str, Any]]:
        """Events of whole lines since the last time: the server may be in the middle of writing one."""
        if not self.path.exists():
            return
        with self.path.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if line.endswith(b"\n"):
                    self._read += len(line)
                    yield json.loads(line)


def _call(event: dict[str, Any]) -> Call:
    target = event.get("objectRef")
    if target is None:
        return Call(event["verb"], "", "", "", "", event["requestURI"].split("?")[0])
    keys = ("apiGroup", "resource", "subresource", "namespace", "name")
    return Call(event["verb"], *(target.get(key, "") for key in keys))

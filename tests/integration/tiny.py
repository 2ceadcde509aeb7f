"""A platform of one tiny model behind the route `chat`, given to Serve without `tradewind up`."""

from __future__ import annotations

from tradewind.rayapi.client import ServeControl

RESOURCES = """\
---
apiVersion: tradewind.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: tiny}}
spec:
  source: {{uri: "file://{directory}"}}
  engine: {{args: {{enforceEager: true, maxModelLen: 512, kvCacheMemoryBytes: 67108864}}}}
---
apiVersion: tradewind.dev/v1alpha1
kind: ModelRoute
metadata: {{name: chat}}
spec: {{model: chat, variants: [{{name: only, deployment: tiny}}]}}
"""
"""To be formatted with `directory`, that of the weights; a ServingCluster comes before."""


def all_ready(control: ServeControl) -> bool:
    """Whether the gateway and the engine run. Raises AssertionError where one has failed."""
    found = control.applications()
    assert not any(app.failed for app in found.values()), found
    return len(found) == 2 and all(app.ready for app in found.values())

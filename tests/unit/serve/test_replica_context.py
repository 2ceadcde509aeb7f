"""What a starting replica reads of Serve's private context, held to the installed Ray."""

from __future__ import annotations

import dataclasses

from ray.serve._private.config import DeploymentConfig
from ray.serve.context import ReplicaContext


def test_the_installed_ray_has_what_a_starting_engine_reads() -> None:
    fields = {field.name for field in dataclasses.fields(ReplicaContext)}
    assert "_deployment_config" in fields
    assert DeploymentConfig(user_config={"adapters": []}).user_config == {"adapters": []}

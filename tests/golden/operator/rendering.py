"""Resource sets in, the operator's manifests out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from tradewind.api.tenant import Tenant
from tradewind.compiler.compile import compile_resources
from tradewind.compiler.documents import Located, read_documents
from tradewind.compiler.world import CLUSTER, World
from tradewind_operator.desired.objects import desired_objects
from tradewind_operator.desired.raycluster import ray_cluster
from tradewind_operator.desired.world import ClusterWorld, Defaults, Images, Manifest

HERE = Path(__file__).parent
SETS = HERE / "in"
GOLDENS = HERE / "out"

KEY_HASH = "0" * 64
DEFAULTS = Defaults(
    images=Images(
        head="registry.example/tradewind/gateway@sha256:" + "a" * 64,
        gateway="registry.example/tradewind/gateway@sha256:" + "a" * 64,
        engine_cpu="registry.example/tradewind/engine-cpu@sha256:" + "b" * 64,
        engine_cuda="registry.example/tradewind/engine-cuda@sha256:" + "c" * 64,
    ),
    image_pull_secrets=("defaults-pull",),
    environment={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel.telemetry.svc:4318"},
)


def world_of(text: str, *, defaults: Defaults = DEFAULTS) -> ClusterWorld:
    """The world of the one ServingCluster in a set of YAML documents."""
    resources = read_documents([("set.yaml", text)])
    compiled = compile_resources(resources, platform=CLUSTER, key_hashes=_key_hashes(resources))
    world = World.of(resources)
    return ClusterWorld(
        name=world.cluster_name,
        namespace="models",
        uid="00000000-0000-4000-8000-000000000000",
        spec=world.cluster_spec,
        compiled=compiled,
        defaults=defaults,
    )


def _key_hashes(resources: Iterable[Located]) -> dict[tuple[str, str], str]:
    tenants = [found.resource for found in resources if isinstance(found.resource, Tenant)]
    secrets = [key.secret for tenant in tenants for key in tenant.spec.keys if key.secret is not None]
    return {(secret.name, secret.key): KEY_HASH for secret in secrets}


def manifests(source: Path) -> list[Manifest]:
    """What the operator wants for a set, once a Ray cluster serves."""
    world = world_of(source.read_text(encoding="utf-8"))
    cluster = ray_cluster(world)
    active = cluster["metadata"]["name"]
    return [*desired_objects(world, active), cluster]


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def rendered(source: Path) -> str:
    """The manifests as YAML documents."""
    return yaml.dump_all(manifests(source), Dumper=_Plain, sort_keys=False, width=1_000_000)


def golden_of(source: Path) -> Path:
    return GOLDENS / source.name

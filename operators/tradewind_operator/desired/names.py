"""Names, labels, ports and paths of what the operator makes, all in one place."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from tradewind.compiler.compile import CLUSTER_PORT

MANAGER: Final = "tradewind-operator"

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
PART_OF_LABEL: Final = "app.kubernetes.io/part-of"
NAME_LABEL: Final = "app.kubernetes.io/name"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
CLUSTER_LABEL: Final = "tradewind.dev/cluster"
RAY_CLUSTER_LABEL: Final = "ray.io/cluster"
RAY_GROUP_LABEL: Final = "ray.io/group"

DIGEST_ANNOTATION: Final = "tradewind.dev/digest"
"""Digest of what was applied, so that a field that is no longer wanted is seen."""
CONFIGURED_ANNOTATION: Final = "tradewind.dev/configured"
"""On a RayCluster: Serve was given applications, or was about to be. Without it nothing can run there."""
SERVED_ANNOTATION: Final = "tradewind.dev/served"
"""On a RayCluster: since when it has served the endpoint; one without it never had a request to lose."""
RETIRED_ANNOTATION: Final = "tradewind.dev/retired"
"""On a RayCluster: since when another one serves in its place; its streams end, and it goes."""
APPROVE_ANNOTATION: Final = "tradewind.dev/approve-upgrade"
"""On a ServingCluster: the RayCluster that may be built beside the one that serves, or `true` for any."""
GROUP_LABEL: Final = "tradewind.dev/group"
"""On Ray nodes: the worker group they belong to."""
MODEL_LABEL_PREFIX: Final = "models.tradewind.dev"
"""On pods: `models.tradewind.dev/NAME: "true"` for each ModelDeployment that has a replica there."""
CONFIG_FORMAT_ANNOTATION: Final = "tradewind.dev/config-format"
"""On pods: the format of the Serve configuration that their image reads."""
CONFIG_FORMAT: Final = "1"
"""Raised when an older image can no longer read what the compiler writes."""

GATEWAY_GROUP: Final = "gateway"
HEAD_ROLE: Final = "head"
ENGINE_ROLE: Final = "engine"

USER_ID: Final = 10001
USER_NAME: Final = "tradewind"
ENDPOINT_PORT: Final = CLUSTER_PORT
GCS_PORT: Final = 6379
DASHBOARD_PORT: Final = 8265
AGENT_PORT: Final = 52365
AGENT_GRPC_PORT: Final = 8266
RUNTIME_ENV_PORT: Final = 8267
RAY_METRICS_PORT: Final = 8080

PREFIX: Final = "/opt/tradewind"
HOME_DIR: Final = "/var/lib/tradewind"
CACHE_DIR: Final = "/var/cache/tradewind"
AUTH_DIR: Final = "/etc/tradewind/auth"
RUN_DIR: Final = "/run/tradewind"
LEAVING: Final = f"{RUN_DIR}/leaving"
"""A file that a pod's end puts there, for its gateway."""
GCS_DIR: Final = "/var/lib/tradewind-gcs"
INTERNAL_TOKEN_KEY: Final = "internal-token"  # noqa: S105 - a key's name
HASH_KEY_KEY: Final = "hash-key"


def short_hash(content: object) -> str:
    """Eight hexadecimal digits for JSON-able content, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def ray_cluster(cluster: str, content: str) -> str:
    """RayCluster of a ServingCluster with this content: a DNS-1035 label of at most 49 characters."""
    return f"{cluster}-{content}"


def gateways_service(ray_cluster: str) -> str:
    """Service of the gateways of one RayCluster, by which the operator knows how they are."""
    return f"{ray_cluster}-gateways"


def model_label(model: str) -> str:
    """Label of the pods that a ModelDeployment has replicas on."""
    return f"{MODEL_LABEL_PREFIX}/{model}"


def auth_secret(cluster: str) -> str:
    """Secret with `auth_token`, `internal-token` and `hash-key`."""
    return f"{cluster}-auth"


def tokens_secret(cluster: str) -> str:
    """Secret with one file per hub token; need not exist."""
    return f"{cluster}-tokens"


def service_account(cluster: str) -> str:
    """The account of gateways, which may do nothing."""
    return f"{cluster}-ray"


def engine_account(cluster: str) -> str:
    """The account of engines, to which a cloud may give a role."""
    return f"{cluster}-engines"


def gateway_budget(cluster: str) -> str:
    """PodDisruptionBudget of the gateways."""
    return f"{cluster}-gateway"


def network_policy(cluster: str, role: str) -> str:
    """NetworkPolicy of the pods of one role, or `pods` for that of all."""
    return f"{cluster}-{role}"


def gcs_claim(ray_cluster: str) -> str:
    """PersistentVolumeClaim with the state of one Ray cluster."""
    return f"{ray_cluster}-gcs"


def pool_group(pool: str) -> str:
    """What the worker groups of a pool are generations of."""
    return f"pool-{pool}"


def cache_claim(cluster: str, pool: str, storage_class: str) -> str:
    """PersistentVolumeClaim of a pool. A claim cannot change its class, so another class is another claim."""
    digest = hashlib.blake2b(storage_class.encode(), digest_size=4).hexdigest()
    return f"{cluster}-cache-{pool}-{digest}"

"""What KubeRay 1.7 asks of a RayCluster, as far as the operator uses it, and the pods it makes of one.

Stated by hand from KubeRay's types and validation. Pod templates are left to Kubernetes' own schema.
"""

from __future__ import annotations

import copy
import re
from typing import Any, Final

import jsonschema

Data = dict[str, Any]

_OF_KUBERAY: Final = {
    "REDIS_PASSWORD",
    "REDIS_USERNAME",
    "RAY_REDIS_ADDRESS",
    "RAY_enable_autoscaler_v2",
}
_STRINGS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT: Final = {"type": "integer", "minimum": 0}
_TEMPLATE: Final = {"type": "object", "required": ["spec"]}
_CREDENTIAL: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["valueFrom"],  # a plain value would be a secret in a custom resource
    "properties": {
        "valueFrom": {
            "type": "object",
            "additionalProperties": False,
            "required": ["secretKeyRef"],
            "properties": {"secretKeyRef": {"type": "object", "required": ["name", "key"]}},
        }
    },
}
_GROUP: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
    "properties": {
        "groupName": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
        "labels": _STRINGS,
        "rayStartParams": _STRINGS,
        "minReplicas": _COUNT,
        "maxReplicas": _COUNT,
        "replicas": _COUNT,
        "numOfHosts": {"const": 1},
        "template": _TEMPLATE,
    },
}
_CONFIG: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["headGroupSpec", "rayVersion", "authOptions", "workerGroupSpecs"],
    "properties": {
        "rayVersion": {"type": "string"},
        "authOptions": {
            "type": "object",
            "additionalProperties": False,
            "required": ["mode", "secretName"],
            "properties": {"mode": {"const": "token"}, "secretName": {"type": "string", "minLength": 1}},
        },
        "enableInTreeAutoscaling": {"type": "boolean"},
        "autoscalerOptions": {
            "type": "object",
            "additionalProperties": False,
            "required": ["version"],
            "properties": {
                "version": {"const": "v2"},
                "idleTimeoutSeconds": _COUNT,
                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
                "securityContext": {"type": "object"},
                "resources": {"type": "object"},
                "env": {"type": "array"},
                "volumeMounts": {"type": "array"},
            },
        },
        "gcsFaultToleranceOptions": {
            "type": "object",
            "additionalProperties": False,
            "required": ["redisAddress"],
            "properties": {
                "redisAddress": {"type": "string"},
                "redisUsername": _CREDENTIAL,
                "redisPassword": _CREDENTIAL,
            },
        },
        "headGroupSpec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["rayStartParams", "template"],
            "properties": {"rayStartParams": _STRINGS, "template": _TEMPLATE},
        },
        "workerGroupSpecs": {"type": "array", "items": _GROUP},
    },
}


def ray_cluster_faults(cluster: Data) -> list[str]:
    """Everything that KubeRay's schema or its own validation would refuse."""
    config, name = cluster["spec"], cluster["metadata"]["name"]
    faults = [error.message for error in jsonschema.Draft202012Validator(_CONFIG).iter_errors(config)]
    if len(name) > 53 or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        faults.append("a name that is no DNS-1035 label of at most 53 characters")
    names = [group["groupName"] for group in config["workerGroupSpecs"]]
    if len(set(names)) != len(names):
        faults.append("two groups of one name")
    for group in (config["headGroupSpec"], *config["workerGroupSpecs"]):
        spec, where = group["template"]["spec"], group.get("groupName", "head")
        if spec.get("restartPolicy", "Never") != "Never":
            faults.append(f"{where}: autoscaler v2 restarts no pod")
        if "labels" in group["rayStartParams"]:
            faults.append(f"{where}: labels belong to the group")
        if group.get("minReplicas", 0) > group.get("maxReplicas", 0):
            faults.append(f"{where}: more pods at least than at most")
        variables = {variable["name"] for variable in spec["containers"][0]["env"]}
        if taken := variables & {
            "REDIS_PASSWORD",
            "REDIS_USERNAME",
            "RAY_REDIS_ADDRESS",
            "RAY_enable_autoscaler_v2",
        }:
            faults.append(f"{where}: {taken} is KubeRay's")
    return faults


def injected_pods(cluster: Data) -> list[Data]:
    """One pod per group with the containers that KubeRay adds: the autoscaler, and the wait for the GCS."""
    config = cluster["spec"]
    head = _pod("head", config["headGroupSpec"])
    options = config["autoscalerOptions"]
    autoscaler = {key: options[key] for key in ("securityContext", "resources", "env", "volumeMounts")}
    image = head["spec"]["containers"][0]["image"]
    head["spec"]["containers"].append({"name": "autoscaler", "image": image, **copy.deepcopy(autoscaler)})
    workers = [_pod(group["groupName"], group) for group in config["workerGroupSpecs"]]
    for worker in workers:
        ray = worker["spec"]["containers"][0]
        same = {key: copy.deepcopy(ray[key]) for key in ("image", "securityContext", "env", "volumeMounts")}
        worker["spec"]["initContainers"] = [{"name": "wait-gcs-ready", **same}]
    return [head, *workers]


def _pod(name: str, group: Data) -> Data:
    template = copy.deepcopy(group["template"])
    labels = {**template["metadata"]["labels"], **group.get("labels", {})}
    about = {**template["metadata"], "name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": template["spec"]}

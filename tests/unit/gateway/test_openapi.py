"""The OpenAPI document describes the application: requests made from it get answers that are in it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.unit.gateway.asgi import HOST, KEY, TOKEN, Reply, bearer, config, deployment, stage
from tradewind.api.problems import Code
from tradewind.api.wire import Task
from tradewind.gateway.endpoints import ENDPOINTS, RERANK, SCORE
from tradewind.gateway.openapi import openapi_document

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]

schema = schemathesis.openapi.from_dict(
    openapi_document(),
    config=SchemathesisConfig.from_dict(
        {"generation": {"max-examples": 6, "deterministic": True, "database": "none", "mode": "all"}}
    ),
)

MODELS = {"/v1/embeddings": "embedder"} | dict.fromkeys((*RERANK.paths, *SCORE.paths), "scorer")


async def answer(request: requests.PreparedRequest) -> Reply:
    models = [deployment(), deployment("embedder", task=Task.EMBED), deployment("scorer", task=Task.SCORE)]
    body = request.body.encode() if isinstance(request.body, str) else request.body
    headers = [
        (name.lower().encode("latin-1"), str(value).encode("latin-1"))
        for name, value in request.headers.items()
    ]
    async with stage(config(deployments=models)) as s:
        own = [pair for pair in headers if pair[0] not in (b"host", b"authorization", b"x-api-key")]
        return await s.client.send(request.method or "GET", request.path_url, body or b"", own)


@schema.parametrize()
@settings(suppress_health_check=list(HealthCheck))
def test_answers_are_as_described(case: schemathesis.Case) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str) and case.body["model"]:
        case.body["model"] = MODELS.get(case.path, "chat")  # else every one of them were unknown
    request = requests.Request(**case.as_transport_kwargs(base_url="http://gateway:8000")).prepare()
    reply = asyncio.run(answer(request))
    headers: dict[str, list[str]] = {}
    for name, value in reply.headers:
        headers.setdefault(name.decode(), []).append(value.decode())
    response = Response(reply.status, headers, reply.body, request, elapsed=0.0, verify=False)
    case.validate_response(response, checks=CHECKS)


async def test_the_document_is_served_to_everybody() -> None:
    async with stage() as s:
        s.client.headers = [(b"host", b"x")]
        reply = await s.client.get("/openapi.json")
        assert (reply.status, reply.json) == (200, json.loads(json.dumps(openapi_document())))


def test_every_endpoint_and_every_error_is_described() -> None:
    document = openapi_document()
    assert {path for endpoint in ENDPOINTS for path in endpoint.paths} < set(document["paths"])
    operations = [each for at in document["paths"].values() for each in at.values()]
    named = [each["operationId"] for each in operations if "operationId" in each]
    assert len(named) == len(set(named))
    assert document["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"][
        "enum"
    ] == [code.wire for code in Code]
    told = json.dumps(document)
    assert all(
        f"`{code.wire}`" in told for code in Code if code not in (Code.NOT_FOUND, Code.METHOD_NOT_ALLOWED)
    )


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "/v1/models/", "/v1/models/chat", "/healthz", "/readyz", "/health", "/ping", "/version",
     "/openapi.json"],
)  # fmt: skip
async def test_head_is_get_without_the_body(path: str) -> None:
    async with stage() as s:
        get: Any = await s.client.get(path)
        head = await s.client.send("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.header("content-length") == str(len(get.body))


@pytest.mark.parametrize(
    ("path", "allow"), [("/v1/models", "GET, HEAD, OPTIONS"), ("/v1/messages", "POST, OPTIONS")]
)
async def test_options_tell_the_methods_and_nothing_about_origins(path: str, allow: str) -> None:
    async with stage() as s:
        reply = await s.client.send("OPTIONS", path, None, [(b"origin", b"https://evil.example")])
        assert (reply.status, reply.header("allow"), reply.body) == (204, allow, b"")
        assert not any(name.startswith(b"access-control") for name, _ in reply.headers)


async def test_ready_means_that_something_can_answer() -> None:
    async with stage(replicas={"llama": 0}) as s:
        reply = await s.client.get("/readyz")
        assert (reply.status, reply.json) == (
            503,
            {"status": "not_ready", "reason": "no_replica", "revision": "r"},
        )
    async with stage() as s:
        assert (await s.client.get("/readyz")).json == {
            "status": "ready",
            "revision": "r",
            "cold_deployments": 0,
        }


@pytest.mark.parametrize("replicas", [0, 2])
async def test_readiness_tells_the_platform_more_than_the_public(replicas: int) -> None:
    settings = config(deployments=[deployment(context_length=None)])
    async with stage(settings, replicas={"llama": replicas}) as s:
        s.gateway.context_lengths["llama"] = 4096
        s.client.headers = [HOST, bearer(TOKEN)]
        told = (await s.client.get("/readyz")).json["deployments"]
        assert told == {"llama": {"ready": replicas, "context_length": 4096}}
        for other in (KEY, "x" * len(TOKEN)):
            s.client.headers = [HOST, bearer(other)]
            assert "deployments" not in (await s.client.get("/readyz")).json


async def test_models_show_what_all_variants_of_a_route_hold() -> None:
    from tests.unit.gateway.asgi import route
    from tradewind.api.wire import VariantEntry

    models = [
        deployment("a", context_length=8192, created=100),
        deployment("b", context_length=None, family="mistral", created=200),
    ]
    both = route("both", VariantEntry(name="x", deployment="a"), VariantEntry(name="y", deployment="b"))
    async with stage(config(deployments=models, routes=[both])) as s:
        cards = {card["id"]: card for card in (await s.client.get("/v1/models")).json["data"]}
        assert list(cards) == ["both", "a", "b"]
        assert (cards["both"]["family"], cards["both"]["context_length"]) == ("mixed", None)
        assert (cards["a"]["family"], cards["a"]["max_model_len"], cards["a"]["kind"]) == (
            "llama",
            8192,
            "deployment",
        )
        s.gateway.context_lengths["b"] = 4096
        card = (await s.client.get("/v1/models/both")).json
        assert (card["context_length"], card["max_model_len"], card["created"]) == (4096, 4096, 200)
        assert (await s.client.get("/v1/models/%62oth")).json["id"] == "both"

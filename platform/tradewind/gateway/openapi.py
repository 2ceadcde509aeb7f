"""The OpenAPI 3.1 document of the gateway, made from the endpoint table and the table of error codes."""

from __future__ import annotations

import json
from typing import Any

from tradewind.api.problems import Code
from tradewind.gateway.endpoints import ENDPOINTS, Endpoint
from tradewind.gateway.stored_responses import CANCEL, INPUT_ITEMS, RESPONSE
from tradewind.gateway.tokens import MAX_ID

_TEXT = {"type": "string"}
_PARTS = {"oneOf": [_TEXT, {"type": "array", "items": {"type": "object"}}]}
_MESSAGES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role"],
        "properties": {"role": _TEXT, "content": _PARTS},
    },
}
_PROMPTS = {"oneOf": [_TEXT, {"type": "array", "minItems": 1, "items": _TEXT, "maxItems": 256}]}
_SCORED = {"oneOf": [_TEXT, {"type": "array", "minItems": 1, "items": _TEXT, "maxItems": 256}]}
_MODEL = {"type": "string", "minLength": 1, "maxLength": 256, "description": "A name from GET /v1/models."}
_TOKENS = {"type": "integer", "minimum": 1, "maximum": 131072}
_STOP = {
    "oneOf": [
        {"type": "string", "maxLength": 1024},
        {"type": "array", "maxItems": 16, "items": {"type": "string", "maxLength": 1024}},
    ]
}
_USER = {"type": "string", "maxLength": 512}
_SAMPLING: dict[str, Any] = {
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "stream": {"type": "boolean"},
}

_PROPERTIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": _MESSAGES,
        "max_completion_tokens": _TOKENS,
        "max_tokens": _TOKENS,
        "n": {"type": "integer", "minimum": 1, "maximum": 16},
        "stop": _STOP,
        "user": _USER,
        "tools": {"type": "array", "maxItems": 128, "items": {"type": "object"}},
        **_SAMPLING,
    },
    "/v1/completions": {
        "prompt": _PROMPTS,
        "max_tokens": _TOKENS,
        "stop": _STOP,
        "user": _USER,
        "logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
        **_SAMPLING,
    },
    "/v1/responses": {
        "input": _PARTS,
        "instructions": _TEXT,
        "max_output_tokens": _TOKENS,
        "user": _USER,
        **_SAMPLING,
    },
    "/v1/messages": {
        "messages": _MESSAGES,
        "max_tokens": _TOKENS,
        "system": _TEXT,
        "stop_sequences": {"type": "array", "maxItems": 16, "items": {"type": "string", "maxLength": 1024}},
        **_SAMPLING,
    },
    "/v1/messages/count_tokens": {"messages": _MESSAGES, "system": _TEXT},
    "/v1/embeddings": {"input": _PROMPTS, "encoding_format": {"enum": ["float", "base64"]}, "user": _USER},
    "/v1/rerank": {
        "query": _TEXT,
        "documents": {"type": "array", "minItems": 1, "maxItems": 256, "items": _TEXT},
        "top_n": {"type": "integer", "minimum": 0, "maximum": 256},
    },
    "/v1/score": {"text_1": _SCORED, "text_2": _SCORED},
    "/tokenize": {
        "prompt": _TEXT,
        "messages": _MESSAGES,
        "add_special_tokens": {"type": "boolean"},
        "return_token_strs": {"type": "boolean"},
    },
    "/detokenize": {
        "tokens": {
            "type": "array",
            "maxItems": 131072,
            "items": {"type": "integer", "minimum": 0, "maximum": MAX_ID},
        }
    },
}

_SUMMARIES = {
    "/v1/chat/completions": "Answer a conversation",
    "/v1/completions": "Continue a text",
    "/v1/responses": "Answer in OpenAI's Responses format",
    "/v1/messages": "Answer in Anthropic's Messages format",
    "/v1/messages/count_tokens": "Count the tokens of a Messages request",
    "/v1/embeddings": "Turn texts into vectors",
    "/v1/rerank": "Order documents by relevance to a query",
    "/v1/score": "Score pairs of texts",
    "/tokenize": "Turn a text, or a conversation as the model's template renders it, into tokens",
    "/detokenize": "Turn tokens into a text",
}

_ALWAYS = (Code.INVALID_REQUEST, Code.HEADERS_TOO_LARGE, Code.INTERNAL_ERROR)
_KEYED = (*_ALWAYS, Code.INVALID_API_KEY, Code.SHUTTING_DOWN)
_NOT_CALLED = (Code.NOT_FOUND, Code.METHOD_NOT_ALLOWED, Code.RESPONSE_NOT_FOUND)
_CALLED = (*_KEYED, *(code for code in Code if code not in _NOT_CALLED))


def openapi_document() -> dict[str, Any]:
    """The whole document; the same on every call."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tradewind",
            "version": "v1",
            "description": "Open models behind one endpoint that the openai and anthropic SDKs speak.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": {
            "/v1/models": {"get": _list_models()},
            "/v1/models/{model}": {"get": _show_model()},
            "/v1/models/": {"get": _list_models() | {"operationId": "alias_v1_models"}},
            **{path: {"post": _operation(at, path)} for at in ENDPOINTS for path in at.paths},
            **_stored_responses(),
            "/healthz": {"get": _probe("The gateway lives and is not about to leave", 200, 503)},
            "/readyz": {"get": _probe("The gateway can answer", 200, 503)},
            "/health": {"get": _probe("The same as /readyz", 200, 503)},
            "/ping": {"get": _probe("The same as /readyz", 200, 503)},
            "/version": {"get": _probe("Which release of Tradewind answers", 200)},
            "/metrics": {"get": _elsewhere()},
            "/openapi.json": {"get": _probe("This document", 200)},
        },
        "components": _components(),
    }


def openapi_text() -> str:
    """The document as it is committed."""
    return json.dumps(openapi_document(), indent=2, ensure_ascii=False) + "\n"


def _operation(endpoint: Endpoint, path: str) -> dict[str, Any]:
    own = path == endpoint.path
    properties = {"model": _MODEL, **_PROPERTIES[endpoint.path]}
    groups = [[name for name in group if name in properties] for group in endpoint.required]
    schema: dict[str, Any] = {
        "type": "object",
        "required": ["model", *(group[0] for group in groups if len(group) == 1)],
        "properties": properties,
    }
    for group in groups:
        if len(group) > 1:
            schema["anyOf"] = [{"required": [name]} for name in group]
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if endpoint.streams:
        content["text/event-stream"] = {"schema": {}}
    return {
        "operationId": _operation_id(path) if own else f"alias{path.replace('/', '_')}",
        "summary": _SUMMARIES[endpoint.path] if own else f"The same as POST {endpoint.path}",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        },
        "responses": {
            "200": {"description": "The answer", "headers": _answer_headers(), "content": content},
            **_errors(_CALLED),
        },
    }


def _operation_id(path: str) -> str:
    return path.removeprefix("/v1").strip("/").replace("/", "_")


def _stored_responses() -> dict[str, Any]:
    """Paths of responses by their id, which say that none is kept."""
    by_id = {
        "name": "response_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    }

    def refused(name: str, summary: str) -> dict[str, Any]:
        return {
            "operationId": name,
            "summary": f"{summary}: none is kept",
            "parameters": [by_id],
            "responses": _errors((*_KEYED, Code.RESPONSE_NOT_FOUND)),
        }

    return {
        RESPONSE: {
            "get": refused("show_response", "Fetch a response"),
            "delete": refused("delete_response", "Delete a response"),
        },
        CANCEL: {"post": refused("cancel_response", "Cancel a response")},
        INPUT_ITEMS: {"get": refused("list_input_items", "List what a response was asked")},
    }


def _elsewhere() -> dict[str, Any]:
    return {
        "summary": "Not here: metrics have a port of their own (spec.gateway.metricsPort)",
        "security": [],
        "responses": _errors((*_ALWAYS, Code.NOT_FOUND)),
    }


def _list_models() -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["object", "data"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
        },
    }
    return {
        "operationId": "list_models",
        "summary": "The models this key may call",
        "responses": {"200": _json("The list", schema), **_errors(_KEYED)},
    }


def _show_model() -> dict[str, Any]:
    return {
        "operationId": "show_model",
        "summary": "One model",
        "parameters": [{"name": "model", "in": "path", "required": True, "schema": _MODEL}],
        "responses": {
            "200": _json("The model", {"$ref": "#/components/schemas/Model"}),
            **_errors((*_KEYED, Code.MODEL_NOT_ALLOWED, Code.MODEL_NOT_FOUND)),
        },
    }


def _probe(summary: str, *statuses: int) -> dict[str, Any]:
    return {
        "summary": summary,
        "security": [],
        "responses": {
            **{str(status): _json(summary, {"type": "object"}) for status in statuses},
            **_errors(_ALWAYS),
        },
    }


def _errors(codes: tuple[Code, ...]) -> dict[str, Any]:
    by_status: dict[int, list[Code]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(code.value.status, []).append(code)
    return {
        str(status): _json(
            "; ".join(f"`{code.wire}`: {code.value.meaning}" for code in group),
            {"$ref": "#/components/schemas/Error"},
        )
        for status, group in sorted(by_status.items())
    }


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _answer_headers() -> dict[str, Any]:
    named = {
        "x-request-id": "Names the request in traces and logs.",
        "x-tradewind-route": "The public model name that was resolved.",
        "x-tradewind-variant": "The variant that was assigned.",
    }
    return {name: {"description": text, "schema": _TEXT} for name, text in named.items()}


def _components() -> dict[str, Any]:
    error = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": _TEXT,
                    "type": _TEXT,
                    "param": {"type": ["string", "null"]},
                    "code": {"enum": [code.wire for code in Code]},
                },
            }
        },
    }
    integer_or_null = {"type": ["integer", "null"]}
    model = {
        "type": "object",
        "required": [
            "id",
            "object",
            "created",
            "owned_by",
            "kind",
            "family",
            "max_model_len",
            "context_length",
        ],
        "properties": {
            "id": _TEXT,
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": _TEXT,
            "kind": {"enum": ["route", "deployment"]},
            "family": _TEXT,
            "task": _TEXT,
            "max_model_len": integer_or_null,
            "context_length": integer_or_null,
        },
    }
    return {
        "schemas": {"Error": error, "Model": model},
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        },
    }

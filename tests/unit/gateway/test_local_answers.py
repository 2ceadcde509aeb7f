"""What clients made for other servers ask for, and what needs no engine."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from tests.fakes.engine import Fault, Script
from tests.unit.gateway.asgi import CHAT, config, deployment, route, stage, tenant, user
from tradewind.api.wire import Overrides, RequestLimits, Task, VariantEntry
from tradewind.gateway.endpoints import RERANK, SCORE
from tradewind.gateway.local_answers import find_place

TEXTS: dict[str, Any] = {"query": "x", "documents": ["a", "b"]}
PAIR: dict[str, Any] = {"text_1": "x", "text_2": "y"}


@pytest.mark.parametrize(
    ("path", "same", "body"),
    [(path, RERANK.path, TEXTS) for path in RERANK.paths]
    + [(path, SCORE.path, PAIR) for path in SCORE.paths],
)
async def test_an_alias_answers_as_the_path_itself(path: str, same: str, body: dict[str, Any]) -> None:
    settings = config(deployments=[deployment("scorer", task=Task.SCORE)], routes=[], tenants=[tenant()])
    settings = settings.model_copy(update={"routes": ()})
    async with stage(settings) as s:
        replies = [await s.client.post(at, {"model": "scorer", **body}) for at in (same, path)]
        assert [reply.status for reply in replies] == [200, 200]
        assert replies[0].json == replies[1].json
        # Engines of the release before know this path alone.
        assert {seen.target for seen in s.engines["scorer"][0].seen} == {f"/engines/scorer{same}"}
        assert (s.records.last.path, s.records.last.operation) == (path, path.rpartition("/")[2])


async def test_aliases_exist() -> None:
    assert set(RERANK.paths) == {"/v1/rerank", "/rerank", "/v2/rerank"}
    assert set(SCORE.paths) == {"/v1/score", "/score"}


async def test_tokens_are_counted_by_the_model_that_would_answer() -> None:
    async with stage() as s:
        reply = await s.client.post("/tokenize", {"model": "chat", "prompt": "hello", "user": "me"})
        assert (reply.status, reply.json["count"]) == (200, 5)
        assert reply.header("x-tradewind-variant") == "control"
        assert s.engine.seen[-1].json["model"] == "llama"
        text = await s.client.post("/detokenize", {"model": "chat", "tokens": [1, 2]})
        assert text.json == {"prompt": "xx"}
        assert [record.operation for record in s.records.items] == ["tokenize", "detokenize"]


@pytest.mark.parametrize("task", list(Task))
async def test_every_model_has_tokens(task: Task) -> None:
    async with stage(config(deployments=[deployment(task=task)])) as s:
        assert (await s.client.post("/tokenize", {"model": "chat", "prompt": "hello"})).status == 200


async def test_tokens_need_a_key_and_the_permission() -> None:
    body = {"model": "chat", "prompt": "hello"}
    async with stage(config(tenants=[tenant(models=("other",))])) as s:
        assert (await s.client.post("/tokenize", body)).code == "model_not_allowed"
        s.client.headers = [(b"host", b"x")]
        assert (await s.client.post("/tokenize", body)).code == "invalid_api_key"
        assert s.seen() == 0


async def test_no_more_tokens_than_an_answer_may_have() -> None:
    async with stage(config(limits=RequestLimits(max_tokens=4))) as s:
        for count, status in ((4, 200), (5, 400)):
            reply = await s.client.post("/detokenize", {"model": "chat", "tokens": [1] * count})
            assert reply.status == status
        assert s.seen() == 1


async def test_a_variants_prompt_is_not_told_by_its_tokens() -> None:
    secret = VariantEntry(name="a", deployment="llama", overrides=Overrides(system_prompt="be kind"))
    async with stage(config(routes=[route("chat", secret)])) as s:
        await s.client.post("/tokenize", {"model": "chat", "messages": [user("x")]})
        assert s.engine.seen[-1].json["messages"] == [user("x")]


@pytest.mark.parametrize("path", ["/health", "/ping"])
async def test_names_of_other_servers_probes_tell_whether_it_can_answer(path: str) -> None:
    async with stage() as s:
        s.client.headers = [(b"host", b"x")]
        assert (await s.client.get(path)).json == (await s.client.get("/readyz")).json
        assert s.records.items == []
    async with stage(replicas={"llama": 0}) as s:
        reply = await s.client.get(path)
        assert (reply.status, reply.header("retry-after")) == (503, "1")
        other = await s.client.send("POST", path)
        assert (other.status, other.header("allow")) == (405, "GET, HEAD, OPTIONS")


async def test_the_version_is_the_platforms() -> None:
    async with stage() as s:
        s.client.headers = [(b"host", b"x")]
        assert (await s.client.get("/version")).json == {"version": metadata.version("tradewind")}


async def test_a_slash_behind_the_list_of_models_does_no_harm() -> None:
    async with stage() as s:
        assert (await s.client.get("/v1/models/")).json == (await s.client.get("/v1/models")).json
        s.client.headers = [(b"host", b"x")]
        assert (await s.client.get("/v1/models/")).code == "invalid_api_key"


async def test_metrics_are_said_to_be_elsewhere() -> None:
    async with stage() as s:
        reply = await s.client.get("/metrics")
        assert (reply.status, reply.code) == (404, "not_found")
        assert "spec.gateway.metricsPort" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
    ],
)
async def test_a_response_by_its_id_is_said_not_to_be_kept(method: str, path: str) -> None:
    async with stage() as s:
        reply = await s.client.send(method, path)
        assert (reply.status, reply.code) == (404, "response_not_found")
        assert "not kept" in reply.json["error"]["message"]
        s.client.headers = [(b"host", b"x")]
        assert (await s.client.send(method, path)).code == "invalid_api_key"
        assert "resp_1" not in {record.path for record in s.records.items}


@pytest.mark.parametrize(
    ("fields", "instead"),
    [
        ({"previous_response_id": "resp_1"}, "earlier items"),
        ({"conversation": {"id": "conv_1"}}, "earlier items"),
        ({"background": True}, "wait for the answer"),
    ],
)
async def test_who_builds_on_a_kept_response_is_told_what_to_do_instead(
    fields: dict[str, Any], instead: str
) -> None:
    async with stage() as s:
        reply = await s.client.post("/v1/responses", {"model": "chat", "input": "x", **fields})
        assert (reply.status, reply.code) == (400, "field_not_allowed")
        assert reply.json["error"]["param"] == next(iter(fields))
        assert "not kept" in reply.json["error"]["message"]
        assert instead in reply.json["error"]["message"]
        nothing = dict.fromkeys(fields) | {"background": False}
        assert (
            await s.client.post("/v1/responses", {"model": "chat", "input": "x", **nothing})
        ).status == 200


async def test_an_engine_that_failed_is_worth_another_request_soon() -> None:
    async with stage(script=Script(fault=Fault.RESET_BEFORE_HEAD)) as s:
        reply = await s.client.chat()
        assert (reply.status, reply.header("retry-after")) == (502, "1")


async def test_what_is_refused_with_a_body_on_its_way_closes_the_connection() -> None:
    body = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    async with stage() as s:
        for method, path in (("POST", "/nothing"), ("POST", "/v1/responses/r/cancel"), ("PUT", CHAT)):
            reply = await s.client.send(method, path, b"{}", body)
            assert reply.header("connection") == "close"
        assert (await s.client.get("/nothing")).header("connection") is None


@pytest.mark.parametrize(
    "path",
    [b"/v1/models/" + b"x" * 2_048, b"/v1/responses/", b"/v1/responses//cancel", b"/v1/responses/r/",
     b"/v1/responses/r/cancel/", b"/rerank/", b"/v3/rerank", b"/health/", b"/v1/tokenize"],
)  # fmt: skip
def test_what_is_only_like_a_path_is_none(path: bytes) -> None:
    assert find_place(path) is None

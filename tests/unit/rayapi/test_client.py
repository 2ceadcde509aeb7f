from __future__ import annotations

import httpx
import pytest

from tradewind.rayapi.app_status import (
    REASON_MARK,
    START_MARK,
    deployed_configs,
    is_applied,
    parse_status,
    reason,
)
from tradewind.rayapi.client import AsyncServeControl, ControlError, ServeControl

TRACEBACK = f"""Failed to start replica 3 times.
The deployment constructor threw:
Traceback (most recent call last):
  File "applications.py", line 44, in __serve_build_asgi_app__
RuntimeError: {START_MARK} unknown engine argument 'maxModelLenn'; did you mean 'maxModelLen'?
"""


def document(status: str, message: str = "", replica_states: tuple[str, ...] = ()) -> dict[str, object]:
    deployment = {
        "status": "UPDATING",
        "message": message,
        "target_num_replicas": 2,
        "replicas": [{"state": state} for state in replica_states],
    }
    return {"applications": {"m": {"status": status, "message": "", "deployments": {"engine": deployment}}}}


def test_the_reason_is_the_marked_line_not_the_traceback() -> None:
    assert reason(TRACEBACK) == "unknown engine argument 'maxModelLenn'; did you mean 'maxModelLen'?"


def test_without_a_mark_the_last_exception_line_is_the_reason() -> None:
    assert reason("x\nTraceback\n  File\nValueError: bad\n\n") == "ValueError: bad"
    assert reason("plain") == "plain"
    assert reason("") == ""


def test_a_healthy_application_has_no_message() -> None:
    status = parse_status(document("RUNNING", "whatever", ("RUNNING", "STARTING")))["m"]
    assert (status.ready, status.failed, status.message) == (True, False, "")
    assert (status.wanted, status.running) == (2, 1)


def test_a_failed_application_says_why() -> None:
    status = parse_status(document("DEPLOY_FAILED", TRACEBACK))["m"]
    assert status.failed
    assert status.message.startswith("unknown engine argument")


def test_an_application_that_cannot_start_has_failed_while_serve_still_retries() -> None:
    status = parse_status(document("DEPLOYING", TRACEBACK))["m"]
    assert status.failed
    assert status.message.startswith("unknown engine argument")


def test_an_engine_that_died_is_being_replaced_and_has_not_failed() -> None:
    message = f"RuntimeError: {REASON_MARK} the engine has died: out of memory\n"
    status = parse_status(document("UNHEALTHY", message))["m"]
    assert not status.failed
    assert status.message == "the engine has died: out of memory"
    assert parse_status(document("DEPLOYING", message))["m"].message == ""


def control(handler: httpx.MockTransport) -> ServeControl:
    return ServeControl("http://127.0.0.1:1", "t0ken", transport=handler)


def test_apply_sends_the_whole_configuration_with_the_token() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    control(httpx.MockTransport(answer)).apply({"applications": []})
    assert seen[0].method == "PUT"
    assert seen[0].headers["authorization"] == "Bearer t0ken"


def test_a_refusal_is_an_error_with_its_reason() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(400, text="Traceback\nValueError: no such app"))
    with pytest.raises(ControlError, match="ValueError: no such app"):
        control(transport).apply({})


def test_an_unreachable_ray_is_an_error_without_traceback_text() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("secret internals")

    with pytest.raises(ControlError, match=r"cannot be reached: ConnectError$"):
        control(httpx.MockTransport(refuse)).applications()


def placed(pool: str = "cpu", **config: object) -> dict[str, object]:
    options = {"num_cpus": 1.0, "label_selector": {"pool": pool}}
    deployment = {"name": "engine", "num_replicas": 1, "ray_actor_options": options, **config}
    return {"name": "m", "args": {"drain_s": 300.0}, "deployments": [deployment]}


def serving(*apps: dict[str, object], **more: object) -> dict[str, object]:
    return {
        "applications": {
            str(app["name"]): {"status": "RUNNING", "deployments": {}, "deployed_app_config": app, **more}
            for app in apps
        }
    }


def test_what_serve_adds_of_its_own_is_no_difference() -> None:
    wanted = {"applications": [placed()]}
    there = {**placed(), "logging_config": {"encoding": "JSON"}, "args": {"drain_s": 300}}
    assert is_applied(deployed_configs(serving(there)), wanted)


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(serving(), id="a head that came back empty"),
        pytest.param(serving(placed("gpu")), id="another pool"),
        pytest.param(serving(placed(num_replicas=2)), id="other replicas"),
        pytest.param(serving(placed(user_config={"tenants": ["t"]})), id="a tenant too many"),
        pytest.param(serving({**placed(), "args": {"drain_s": 300.0, "more": 1}}), id="an argument too many"),
        pytest.param(serving(placed(), {**placed(), "name": "more"}), id="one more"),
        pytest.param(serving(placed(), status="DELETING"), id="one that goes"),
        pytest.param({"applications": {"m": {"deployed_app_config": None}}}, id="one of someone else"),
    ],
)
def test_a_difference_is_seen(there: dict[str, object]) -> None:
    assert not is_applied(deployed_configs(there), {"applications": [placed(user_config={})]})


def test_nodes_are_those_of_running_replicas_each_once() -> None:
    replicas = [("RUNNING", "10.0.0.2"), ("RUNNING", "10.0.0.1"), ("RUNNING", "10.0.0.2"), ("STARTING", "9")]
    deployment = {"replicas": [{"state": state, "node_ip": node} for state, node in replicas]}
    found = parse_status(
        {"applications": {"m": {"status": "RUNNING", "deployments": {"engine": deployment}}}}
    )
    assert found["m"].nodes == ("10.0.0.1", "10.0.0.2")
    assert set(found["m"].occupied) > set(found["m"].nodes)


def answering(status: int, body: object) -> tuple[list[httpx.Request], AsyncServeControl]:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status, json=body)

    return seen, AsyncServeControl(transport=httpx.MockTransport(answer))


async def test_many_clusters_are_told_each_at_its_own_address_with_its_own_token() -> None:
    seen, control = answering(200, {})
    await control.apply("http://one-head-svc.ns.svc:8265", "t1", {"applications": [placed()]})
    await control.document("http://two-head-svc.ns.svc:8265", "t2")
    told = [(request.method, request.url.host, request.headers["authorization"]) for request in seen]
    assert told == [
        ("PUT", "one-head-svc.ns.svc", "Bearer t1"),
        ("GET", "two-head-svc.ns.svc", "Bearer t2"),
    ]
    await control.close()


@pytest.mark.parametrize(
    ("status", "body", "said"), [(503, {}, "answered 503"), (302, {}, "answered 302"), (200, [], "no object")]
)
async def test_an_answer_that_is_none_says_so(status: int, body: object, said: str) -> None:
    _, control = answering(status, body)
    with pytest.raises(ControlError, match=said):
        await control.document("http://head", "t")
    await control.close()


async def test_a_refused_configuration_is_told_in_rays_words() -> None:
    _, control = answering(400, "ValueError: no such import path")
    with pytest.raises(ControlError, match="refused the configuration"):
        await control.apply("http://head", "t", {"applications": []})
    await control.close()

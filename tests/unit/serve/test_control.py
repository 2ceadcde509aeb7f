from __future__ import annotations

import httpx
import pytest

from tradewind.api.app_status import REASON_MARK, START_MARK, parse_status, reason
from tradewind.serve.control import ControlError, ServeControl

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

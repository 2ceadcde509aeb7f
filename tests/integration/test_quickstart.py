"""What a person sees after `make up`."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.integration.platform import QUICKSTART, Platform, wait_for
from tradewind.api.wire import GatewayConfig
from tradewind.cli import manifests
from tradewind.routing.table import RouteTable, Subject

pytestmark = pytest.mark.engine


def test_the_self_check_shows_both_engines_the_split_and_a_whole_trace(quickstart: Platform) -> None:
    shown = quickstart.output
    rows = re.findall(r"chat\s+│ (\w+)\s+│ (\d+)%\s+│.*?Paris.*?│ (\d+) ms\s+│ ([\d.]+)", shown)
    assert [(name, share) for name, share, _, _ in rows] == [("control", "80"), ("candidate", "20")]
    assert all(float(ttft) > 0 and float(rate) > 0 for _, _, ttft, rate in rows)
    order = [
        "POST /v1/chat/completions",
        "auth",
        "route",
        "admission",
        "pick",
        "upstream",
        "engine",
        "llm_request",
    ]
    places = [shown.index(f"── {name}") for name in order]
    assert places == sorted(places)


def test_the_printed_snippets_work_as_they_are(quickstart: Platform) -> None:
    curl = re.search(r"^curl .*?'\n", quickstart.output, re.M | re.S)
    python = re.search(r"^from openai.*?else None$", quickstart.output, re.M | re.S)
    assert curl is not None
    assert python is not None
    answered = subprocess.run(
        ["bash", "-c", curl[0]], capture_output=True, text=True, timeout=120, check=True
    )
    assert '"finish_reason"' in answered.stdout
    streamed = subprocess.run(
        [sys.executable, "-c", python[0]], capture_output=True, text=True, timeout=120, check=True
    )
    assert len(streamed.stdout.strip()) > 1


def test_users_stay_with_their_variant_and_split_as_computed(quickstart: Platform) -> None:
    config: GatewayConfig = manifests.load([QUICKSTART]).gateway
    table = RouteTable.build(config)
    seen: dict[str, str] = {}
    with quickstart.http() as client:
        for turn in range(2):
            for number in range(30):
                user = f"user-{number}"
                body = {"model": "chat", "user": user, "prompt": "a", "max_tokens": 1}
                response = client.post("/v1/completions", json=body)
                variant = response.headers["x-tradewind-variant"]
                subject = Subject(headers={}, user=user, session=None, tenant="quickstart", request_id="")
                assert response.headers["x-tradewind-route"] == "chat"
                assert variant == table.resolve("chat", subject).variant.name
                assert seen.setdefault(user, variant) == variant, turn
    assert set(seen.values()) == {"control", "candidate"}


def test_status_tells_models_traffic_and_split(quickstart: Platform) -> None:
    with quickstart.openai() as client:
        client.completions.create(model="chat", prompt="a", max_tokens=1, user="user-1")
    result = quickstart.cli("status")
    assert result.returncode == 0, result.stderr
    for expected in ("smollm2-bf16", "smollm2-fp32", "1/1", "ready", "control", "80%", "candidate", "20%"):
        assert expected in result.stdout


def test_chat_streams_and_names_the_variant_and_trace_finds_the_request(quickstart: Platform) -> None:
    result = quickstart.cli("chat", "Hi!", "--user", "user-1", "--max-tokens", "12")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.strip()) > 1
    request_id = re.search(r"req_[0-9a-f]{32}", result.stderr)
    assert request_id is not None
    assert re.search(r"chat → (control|candidate)", result.stderr)
    wait_for(lambda: "llm_request" in quickstart.cli("trace", request_id[0]).stdout, "the engine's span", 10)


def test_a_second_up_with_the_same_state_is_refused_at_once(quickstart: Platform) -> None:
    result = quickstart.cli("up", str(QUICKSTART), "--check")
    assert result.returncode == 1
    assert "already running at" in result.stderr


def test_one_request_id_which_is_ours(quickstart: Platform) -> None:
    with quickstart.http() as client:
        response = client.get("/v1/models", headers={"x-request-id": "mine"})
    assert re.fullmatch(r"req_[0-9a-f]{32}", response.headers["x-request-id"])

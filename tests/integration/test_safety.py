"""Threats that only a whole platform can answer to."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.platform import Platform, wait_for
from tradewind.serve.local import run_dir

pytestmark = pytest.mark.engine

CANARY = "xyzzy-canary-7f3a"
CONTROL = [
    ("POST", "/sleep"),
    ("POST", "/wake_up"),
    ("POST", "/collective_rpc"),
    ("POST", "/v1/load_lora_adapter"),
    ("GET", "/tokenizer_info"),
    ("POST", "/invocations"),
    ("POST", "/reset_prefix_cache"),
    ("GET", "/metrics"),
    ("GET", "/load"),
    ("GET", "/tradewind/stats"),
    ("GET", "/server_info"),
]


@pytest.mark.parametrize("prefix", ["", "/engines/smollm2-bf16"])
@pytest.mark.parametrize(("method", "path"), CONTROL)
def test_threat_13_no_control_endpoint_answers(
    platform: Platform, prefix: str, method: str, path: str
) -> None:
    with platform.http() as client:
        # Not even a stolen token opens anything from outside: there is no way to an engine's own paths.
        response = client.request(
            method, prefix + path, headers={"x-tradewind-token": platform.token}, json={}
        )
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_threat_13_an_engine_is_not_reached_around_the_gateway(platform: Platform) -> None:
    body = {"model": "smollm2-bf16", "prompt": "a", "max_tokens": 1}
    with platform.http() as client:
        assert client.post("/engines/smollm2-bf16/v1/completions", json=body).status_code == 404


def test_threat_19_rays_api_asks_for_its_token(platform: Platform) -> None:
    url = f"{platform.run.dashboard_url}/api/serve/applications/"
    assert httpx.get(url).status_code == 401
    assert httpx.put(url, json={"applications": []}).status_code == 401


def listening(platform: Platform) -> dict[str, str]:
    """Address and port → process, of every TCP socket on which a process of the platform listens."""
    assert platform.process is not None
    main = psutil.Process(platform.process.pid)
    found = {}
    for process in (main, *main.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            for socket in process.net_connections("tcp"):
                if socket.status == psutil.CONN_LISTEN:
                    found[f"{socket.laddr.ip} {socket.laddr.port}"] = " ".join(process.cmdline())[:100]
    return found


def test_threat_19_nothing_listens_beyond_loopback(platform: Platform) -> None:
    found = listening(platform)
    assert len(found) > 10, found
    assert f"127.0.0.1 {platform.port}" in found
    beyond = {
        at: process for at, process in found.items() if not at.startswith(("127.", "::1 ", "::ffff:127."))
    }
    assert beyond == {}


def files_below(*roots: Path) -> list[Path]:
    return [path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink()]


def test_threat_17_neither_prompt_nor_key_is_in_any_log_span_or_metric(platform: Platform) -> None:
    with platform.http() as client:
        for body in (
            {"model": "chat", "messages": [{"role": "user", "content": CANARY}], "max_tokens": 2},
            {"model": "chat", "messages": [{"role": CANARY, "content": 7}], "max_tokens": 2},
            {"model": CANARY, "messages": []},
            {"model": "chat", "messages": [{"role": "user", "content": CANARY}], "temperature": CANARY},
        ):
            last = client.post("/v1/chat/completions", json=body)
    request_id = last.headers["x-request-id"]
    traces = platform.home / "traces"
    wait_for(
        lambda: any(request_id.encode() in path.read_bytes() for path in files_below(traces)),
        "the last request's span",
        10,
    )
    metrics = httpx.get(f"{platform.run.metrics_url}/metrics").text
    assert CANARY not in metrics
    secrets = [CANARY.encode(), platform.key.encode()]
    keys = platform.home / "keys"
    looked_at = [
        path for path in files_below(platform.home, run_dir(platform.home)) if keys not in path.parents
    ]
    assert len(looked_at) > 20
    gateway_spoke = False
    for path in looked_at:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret in content], path
        gateway_spoke = gateway_spoke or b"is in force" in content
    assert gateway_spoke, "no log of the gateway was looked at"

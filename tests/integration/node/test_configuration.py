"""What the operator writes is what Ray takes: its Serve configuration on a real Ray, with an engine."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from openai import AuthenticationError

from tests.integration.node.process import (
    BASE,
    HASH,
    HASH_KEY,
    KEY,
    TOKEN,
    Node,
    compiled,
    serve_config,
)
from tests.integration.platform import wait_for
from tradewind.rayapi.app_status import deployed_configs, is_applied

pytestmark = pytest.mark.engine


def test_a_tenant_whose_key_came_as_a_hash_is_answered(node: Node) -> None:
    answer = node.openai(KEY).chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "Hello"}], max_tokens=4
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_the_hash_itself_opens_nothing(node: Node) -> None:
    for wrong in (HASH, TOKEN, HASH_KEY):
        with pytest.raises(AuthenticationError):
            node.openai(wrong).models.list()


def test_the_operator_learns_what_is_in_force(node: Node) -> None:
    told = node.readiness().json()
    assert told["revision"] == compiled().gateway.revision
    assert told["deployments"] == {"tiny": {"ready": 1, "context_length": 512}}
    assert "deployments" not in httpx.get(f"{BASE}/readyz", timeout=30).json()


def test_neither_key_nor_token_is_in_what_the_operator_writes() -> None:
    written = serve_config()
    for secret in (KEY, HASH_KEY, TOKEN):
        assert secret not in written


def test_a_killed_gateway_costs_what_it_had_and_a_caller_that_asks_again_nothing(node: Node) -> None:
    def ask(number: int) -> str:
        body = {"model": "chat", "prompt": f"{number}", "max_tokens": 8}
        headers = {"authorization": f"Bearer {KEY}"}
        for attempt in ("answered", "answered again"):
            try:
                answer = httpx.post(f"{BASE}/v1/completions", json=body, headers=headers, timeout=60)
            except httpx.ConnectError:
                return "refused"
            except httpx.TransportError:  # its connection was cut
                continue
            assert answer.status_code == httpx.codes.OK
            return attempt
        return "lost"

    wait_for(lambda: len(node.gateways()) == 2, "two gateways", 60)
    (victim, pid), (survivor, _) = node.gateways().items()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number) for number in range(40)]
        wait_for(lambda: sum(answer.done() for answer in answers) >= 8, "the first answers", 60)
        psutil.Process(pid).kill()
        found = Counter(answer.result() for answer in answers)
    print(dict(found))
    assert found["lost"] == found["refused"] == 0, "the other gateway has the same port"
    assert found["answered again"] <= 8, "no more than were under way"
    wait_for(lambda: len(node.gateways().keys() - {victim}) == 2, "the gateway replaced", 60)
    assert survivor in node.gateways()


def test_what_was_sent_is_known_again_in_what_ray_says(node: Node) -> None:
    """Else the operator would send it at every look."""
    assert is_applied(deployed_configs(node.applications()), compiled().serve_config)

"""`tradewind apply` on a running platform: what changes, how soon, and what is left alone."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures import models
from tests.integration.conftest import deployment
from tests.integration.platform import Platform, wait_for

pytestmark = pytest.mark.engine

REPLICAS = "tradewind_replicas"
ACME = """
---
apiVersion: tradewind.dev/v1alpha1
kind: Tenant
metadata: {name: acme}
spec:
  keys: [{file: keys/acme}]
  models: [tiny-llama]
"""


@pytest.fixture
def changing(platform: Platform, everything: str) -> Iterator[Platform]:
    """The platform, put back as it was afterwards."""
    yield platform
    result = platform.apply(everything)
    assert result.returncode == 0, result.stderr


def replica_ids(platform: Platform) -> set[str]:
    return {
        replica["replica_id"]
        for app in platform.applications().values()
        for entry in app["deployments"].values()
        for replica in entry["replicas"]
        if replica["state"] == "RUNNING"
    }


def variant_of(platform: Platform, user: str) -> str:
    with platform.http() as client:
        body = {"model": "chat", "prompt": "a", "max_tokens": 1, "user": user}
        return str(client.post("/v1/completions", json=body).headers["x-tradewind-variant"])


def healthy(platform: Platform, name: str) -> float:
    return platform.metric(REPLICAS, **{"tradewind.deployment": name, "tradewind.state": "healthy"})


def test_new_weights_take_effect_at_once_and_restart_nothing(changing: Platform, everything: str) -> None:
    before = replica_ids(changing)
    assert {variant_of(changing, f"user-{number}") for number in range(12)} == {"control", "candidate"}
    started = time.monotonic()
    result = changing.apply(everything.replace("weight: 80", "weight: 0"))
    told = re.search(r"In force after ([\d.]+) s", result.stdout)
    assert result.returncode == 0, result.stderr
    assert {variant_of(changing, f"user-{number}") for number in range(12)} == {"candidate"}
    assert told is not None
    # 0.2 s on a quiet machine. What restarts takes longer than this on any.
    assert float(told[1]) < 10.0, f"{time.monotonic() - started:.1f} s with the command's own start"
    assert replica_ids(changing) == before


def test_a_tenant_joins_with_its_own_key_and_models(changing: Platform, everything: str) -> None:
    assert changing.apply(everything + ACME).returncode == 0
    key = (changing.home / "keys" / "acme").read_text().strip()
    with changing.http(key) as client:
        body = {"prompt": "a", "max_tokens": 1}
        assert client.post("/v1/completions", json={"model": "tiny-llama", **body}).status_code == 200
        refused = client.post("/v1/completions", json={"model": "chat", **body})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
        assert [entry["id"] for entry in client.get("/v1/models").json()["data"]] == ["tiny-llama"]
    assert changing.apply(everything).returncode == 0
    with changing.http(key) as client:
        assert client.get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    ("found", "put", "message"),
    [
        ("deployment: smollm2-fp32", "deployment: x", r"<stdin>:\d+:\d+: spec.variants\[1\].deployment"),
        ("weight: 20", "weight: -20", r"<stdin>:\d+:\d+: spec.variants\[1\].weight: found -20; allowed"),
        ("maxModelLen", "maxModelLenn", r"<stdin>:\d+:\d+: spec.engine.args.maxModelLenn.*did you mean"),
        ("kind: ModelRoute", "kind: Route", r"<stdin>:\d+:\d+: kind"),
    ],
)
def test_a_wrong_manifest_leaves_the_platform_untouched(
    platform: Platform, everything: str, found: str, put: str, message: str
) -> None:
    with platform.http() as client:
        before = client.get("/readyz").json()
        result = platform.apply(everything.replace(found, put))
        assert result.returncode == 2
        assert re.search(message, result.stderr), result.stderr
        assert "nothing was changed" in result.stderr
        assert client.get("/readyz").json() == before


def test_an_engine_that_cannot_start_says_why_and_harms_nobody(changing: Platform, everything: str) -> None:
    broken = deployment("broken", models.llama()).replace("maxModelLen: 512", "maxModelLen: 999999")
    result = changing.apply(everything + broken)
    assert result.returncode == 1
    assert "broken did not start" in result.stderr
    assert "max_model_len" in result.stderr
    assert "Traceback" not in result.stderr
    assert variant_of(changing, "user-1") in {"control", "candidate"}
    status = changing.cli("status")
    assert status.returncode == 1
    assert "max_model_len" in status.stdout + status.stderr


ROUTE = """
---
apiVersion: tradewind.dev/v1alpha1
kind: ModelRoute
metadata: {name: tuned}
spec:
  model: tuned-chat
  variants: [{name: tuned, deployment: tuned, adapter: tone}]
"""


def with_adapters(**adapters: Path) -> str:
    """A model that takes adapters, with these."""
    args = "engine:\n    args: {maxLoras: 2, "
    listed = [{"name": name, "uri": f"file://{directory}"} for name, directory in adapters.items()]
    tuned = deployment("tuned", models.llama()).replace("engine:\n    args: {", args)
    return f"{tuned}  adapters: {json.dumps(listed)}\n"


class Traffic(threading.Thread):
    """Requests to one model, one after the other and each once, until the block ends."""

    def __init__(self, platform: Platform, model: str) -> None:
        super().__init__()
        self.statuses: Counter[int] = Counter()
        self.slowest_s = 0.0
        self._platform = platform
        self._body = {"model": model, "prompt": "a", "max_tokens": 4}
        self._over = threading.Event()

    def __enter__(self) -> Traffic:
        self.start()
        wait_for(lambda: self.statuses, "a first answer")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        with self._platform.http() as client:
            while not self._over.is_set():
                began = time.monotonic()
                self.statuses[client.post("/v1/completions", json=self._body).status_code] += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)


def test_adapters_come_and_go_in_the_running_engine_and_no_request_is_lost(
    changing: Platform, everything: str
) -> None:
    assert changing.apply(everything + with_adapters()).returncode == 0
    before = replica_ids(changing)

    def answer(model: str) -> tuple[int, object]:
        body = {"model": model, "prompt": "a", "max_tokens": 1, "temperature": 0, "logprobs": 1}
        with changing.http() as client:
            found = client.post("/v1/completions", json=body)
        return found.status_code, found.json().get("choices", [{}])[0].get("logprobs")

    with Traffic(changing, "tuned") as traffic:
        result = changing.apply(everything + with_adapters(tone=models.adapter()) + ROUTE)
        assert result.returncode == 0, result.stderr
        assert "tuned: its engines were given other adapters" in result.stdout
        toned = answer("tuned:tone")
        assert (toned[0], answer("tuned-chat")) == (200, toned)
        assert answer("tuned")[1] != toned[1]
        with Traffic(changing, "tuned-chat") as routed:
            large = with_adapters(tone=models.adapter(), large=models.adapter(rank=64))
            assert changing.apply(everything + large + ROUTE).returncode == 0
            wait_for(lambda: answer("tuned:large")[0] == 503, "a refusal of the adapter that is too large")
            assert answer("tuned:tone") == toned
        assert changing.apply(everything + with_adapters()).returncode == 0
        assert {answer(model)[0] for model in ("tuned:tone", "tuned-chat")} == {404}
        assert answer("tuned")[0] == 200
    assert (set(traffic.statuses), set(routed.statuses)) == ({200}, {200})
    assert replica_ids(changing) == before


def test_a_model_is_scaled_out_and_in_without_a_failed_request(changing: Platform, everything: str) -> None:
    head = "metadata: {name: tiny-mistral}\nspec:"
    two = everything.replace(head, f"{head}\n  replicas: 2")
    assert changing.apply(two).returncode == 0
    wait_for(lambda: healthy(changing, "tiny-mistral") == 2, "two replicas in rotation", 120)
    with changing.http() as client:
        body = {"model": "tiny-mistral", "prompt": "a", "max_tokens": 1}
        assert {client.post("/v1/completions", json=body).status_code for _ in range(20)} == {200}
        assert changing.apply(everything).returncode == 0
        wait_for(
            lambda: (
                client.post("/v1/completions", json=body).status_code == 200
                and healthy(changing, "tiny-mistral") == 1
            ),
            "one replica in rotation",
            60,
        )
        assert {client.post("/v1/completions", json=body).status_code for _ in range(20)} == {200}

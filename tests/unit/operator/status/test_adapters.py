"""What a ModelDeployment and a route say of LoRA adapters, as replicas told a gateway."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.api.builders import Data, cluster, model, route
from tests.unit.operator.policy.objects import decided
from tests.unit.operator.status.scenes import condition, live, ray, seen, statuses, text
from tradewind_operator.publish import is_settled
from tradewind_operator.status.live import AdapterLive, Live
from tradewind_operator.status.transitions import transitions

MODEL, ROUTE = ("ModelDeployment", "llama"), ("ModelRoute", "chat")
TONE = {"name": "tone", "uri": "s3://loras/tone"}
OTHER = {"name": "other", "uri": "s3://loras/other"}


def resources(*adapters: Data) -> list[Data]:
    variants = [{"name": "tuned", "deployment": "llama", "adapter": "tone"}]
    pools = {"cpu": {"cpus": 2, "memory": "4Gi", "maxNodes": 2}}
    return [
        cluster(pools=pools),
        model(adapters=list(adapters), resources={"cpus": 1, "memory": "1Gi"}),
        route(variants=variants),
    ]


def told(what: Live, **adapters: AdapterLive) -> Live:
    """The gateway tells of the adapters of `llama`."""
    assert what.gateway is not None
    llama = replace(what.gateway.deployments["llama"], adapters=adapters)
    return replace(what, gateway=replace(what.gateway, deployments={"llama": llama}))


def looked(*adapters: Data, **reports: AdapterLive) -> dict[tuple[str, str], dict[str, Any]]:
    decision = decided(*resources(*adapters))
    return statuses(seen(decision, told(live(decision), **reports), ray()))


@pytest.mark.parametrize(
    ("at", "state", "reason", "message"),
    [
        pytest.param(AdapterLive(ready=2), "Ready", "AdaptersReady", "1 adapter answers.", id="ready"),
        pytest.param(None, "Loading", "AdapterLoading", "no replica has told", id="not heard of"),
        pytest.param(
            AdapterLive(loading=1, message="fetching s3://loras/tone"),
            "Loading",
            "AdapterLoading",
            "tone: fetching s3://loras/tone",
            id="on its way",
        ),
        pytest.param(
            AdapterLive(ready=1, loading=1, message="loading into the engine"),
            "Loading",
            "AdapterLoading",
            "tone: loading into the engine",
            id="one replica is slower",
        ),
        pytest.param(
            AdapterLive(ready=1, failed=1, message="its rank is 64"),
            "Failed",
            "AdapterFailed",
            "tone: its rank is 64",
            id="one replica cannot",
        ),
    ],
)
def test_an_adapter_says_what_it_waits_for_and_why_it_failed(
    at: AdapterLive | None, state: str, reason: str, message: str
) -> None:
    reports = {} if at is None else {"tone": at}
    status = looked(TONE, **reports)[MODEL]
    (row,) = status["adapters"]
    assert (row["name"], row["state"], row["readyReplicas"]) == ("tone", state, at.ready if at else 0)
    assert condition(status, "AdaptersReady")[1] == reason
    assert message in text(status, "AdaptersReady")
    assert condition(status) == ("True", "Ready")


def test_a_failed_one_warns_and_the_others_are_told_apart() -> None:
    found = looked(TONE, OTHER, tone=AdapterLive(failed=1, message="no bucket"), other=AdapterLive(ready=1))
    status = found[MODEL]
    assert [row["state"] for row in status["adapters"]] == ["Failed", "Ready"]
    assert "other" not in text(status, "AdaptersReady").split(".")[0]
    notes = [note for note in transitions(MODEL, {}, status) if note.reason == "AdapterFailed"]
    assert [note.type for note in notes] == ["Warning"]


def test_a_model_without_adapters_says_nothing_of_them() -> None:
    plain = [resources()[0], model(resources={"cpus": 1, "memory": "1Gi"})]
    decision = decided(*plain)
    status = statuses(seen(decision, live(decision), ray()))[MODEL]
    assert "adapters" not in status
    assert {entry["type"] for entry in status["conditions"]} == {"Accepted", "Ready"}


def test_the_first_adapter_of_an_engine_without_room_says_that_a_new_engine_is_needed() -> None:
    decision = decided(*resources(TONE))
    what = live(decision, old={"llama": "another"})
    status = statuses(seen(decision, what, ray()))[MODEL]
    assert condition(status, "AdaptersReady") == ("False", "NewEngine")
    assert "maxLoras" in text(status, "AdaptersReady")


def test_without_a_gateway_nothing_is_claimed() -> None:
    decision = decided(*resources(TONE))
    status = statuses(seen(decision, replace(live(decision), gateway=None), ray()))[MODEL]
    assert condition(status, "AdaptersReady") == ("Unknown", "GatewayUnreachable")


@pytest.mark.parametrize("ready", [True, False])
def test_a_route_is_ready_when_the_adapters_of_its_variants_are(ready: bool) -> None:
    found = looked(TONE, tone=AdapterLive(ready=int(ready), loading=int(not ready)))
    status = found[ROUTE]
    assert status["variants"][0]["ready"] is ready
    assert condition(status)[1] == ("Ready" if ready else "VariantNotReady")
    if not ready:
        assert "llama:tone" in text(status)


def test_the_operator_looks_again_soon_while_one_loads_and_not_for_a_failed_one() -> None:
    assert not is_settled({MODEL: looked(TONE, tone=AdapterLive(loading=1))[MODEL]})
    assert is_settled({MODEL: looked(TONE, tone=AdapterLive(failed=1, message="x"))[MODEL]})

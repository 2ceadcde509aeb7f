"""Engines that die or hang under a real platform. They come last, for the last one is not waited for."""

from __future__ import annotations

import contextlib
import signal
import time

import psutil
import pytest

from tests.fixtures import models
from tests.integration.conftest import deployment
from tests.integration.platform import Platform, wait_for
from tradewind.rayapi.client import ControlError

pytestmark = pytest.mark.engine

VICTIM = "tiny-llama"
ROUTE = """
---
apiVersion: tradewind.dev/v1alpha1
kind: ModelRoute
metadata: {name: guarded}
spec:
  model: guarded
  variants: [{name: only, deployment: tiny-llama}]
  fallback: [{deployment: tiny-mistral}]
"""
BODY = {"model": "guarded", "prompt": "a", "max_tokens": 2}


@pytest.fixture(scope="module")
def routed(platform: Platform, everything: str) -> Platform:
    """The platform with a route that falls back."""
    assert platform.apply(everything + ROUTE).returncode == 0
    return platform


@pytest.fixture
def guarded(routed: Platform) -> Platform:
    """That platform whole, whatever the test before has done to it."""
    wait_for(lambda: well(routed) and healthy(routed) == 1, "the engine in rotation", 240)
    return routed


def healthy(platform: Platform) -> float:
    return platform.metric(
        "tradewind_replicas", **{"tradewind.deployment": VICTIM, "tradewind.state": "healthy"}
    )


def well(platform: Platform) -> bool:
    """Whether Serve says so of replicas that live: it notices a death later than the gateway does."""
    app = platform.applications()[VICTIM]
    pids = [replica.get("pid") for entry in app["deployments"].values() for replica in entry["replicas"]]
    return app["status"] == "RUNNING" and len(pids) == 1 and bool(pids[0]) and psutil.pid_exists(pids[0])


def engine_core(platform: Platform) -> psutil.Process:
    """vLLM's own process below the replica, which on a busy machine Serve may just be replacing."""
    wait_for(lambda: len(_engine_cores(platform)) == 1, "one engine process", 240)
    return _engine_cores(platform)[0]


def _engine_cores(platform: Platform) -> list[psutil.Process]:
    found = []
    for replica in platform.engine_processes(VICTIM):
        with contextlib.suppress(psutil.Error):
            below = replica.children(recursive=True)
            found += [child for child in below if "EngineCore" in " ".join(child.cmdline())]
    return found


def controllers(platform: Platform) -> list[psutil.Process]:
    """Serve's, of which there is one unless it has just died."""
    return platform.processes("ServeController")


def replicas(platform: Platform) -> dict[str, int]:
    """Process ids of the running replicas of all applications, by replica id; nothing unless all are well."""
    try:
        applications = platform.applications().values()
    except ControlError:
        return {}
    entries = [entry for app in applications for entry in app["deployments"].values()]
    found = [each for entry in entries for each in entry["replicas"]]
    if any(app["status"] != "RUNNING" for app in applications) or any(
        each["state"] != "RUNNING" for each in found
    ):
        return {}
    return {each["replica_id"]: each["pid"] for each in found}


def answered_by(platform: Platform) -> str:
    with platform.http() as client:
        response = client.post("/v1/completions", json=BODY)
    assert response.status_code == 200, response.text
    return str(response.json()["model"])


def test_a_killed_replica_costs_no_request_and_comes_back(guarded: Platform) -> None:
    assert answered_by(guarded) == VICTIM
    [replica] = guarded.engine_processes(VICTIM)
    replica.kill()
    until = time.monotonic() + 3
    answers = []
    while time.monotonic() < until:
        answers.append(answered_by(guarded))
    assert answers[-1] == "tiny-mistral"
    wait_for(lambda: answered_by(guarded) == VICTIM, "the new replica in use", 180)


def test_a_dead_engine_process_costs_no_request_and_is_replaced(guarded: Platform) -> None:
    engine_core(guarded).kill()
    for _ in range(20):
        answered_by(guarded)
    wait_for(lambda: answered_by(guarded) == VICTIM, "the new engine in use", 180)


def test_a_dead_controller_comes_back_to_the_replicas_that_there_were(guarded: Platform) -> None:
    before, [controller] = replicas(guarded), controllers(guarded)
    assert before
    controller.kill()
    wait_for(lambda: controllers(guarded) not in ([], [controller]), "another controller", 60)
    wait_for(lambda: replicas(guarded), "every replica recovered", 120)
    assert replicas(guarded) == before
    assert answered_by(guarded) == VICTIM
    # The gateway hears of what the new one does, though the old one died in the middle of a poll.
    wait_for(lambda: guarded.metric("tradewind_discovery_age_seconds") < 5, "the new controller heard", 60)
    [replica] = guarded.engine_processes(VICTIM)
    replica.kill()
    wait_for(lambda: answered_by(guarded) != VICTIM, "the fallback in use", 30)
    wait_for(
        lambda: answered_by(guarded) == VICTIM, "the replica that the new controller started in use", 180
    )


def test_a_lost_gcs_comes_back_and_everything_goes_on(guarded: Platform, everything: str) -> None:
    before, [gcs] = replicas(guarded), guarded.processes("gcs_server")
    assert before
    gcs.kill()
    answers = [answered_by(guarded)]
    wait_for(lambda: guarded.processes("gcs_server") not in ([], [gcs]), "another GCS", 30)
    answers += [answered_by(guarded) for _ in range(20)]
    assert set(answers) == {VICTIM}
    # A model that joins needs all of Ray: its GCS, its controller, a new process.
    assert guarded.apply(everything + ROUTE + deployment("joins", models.llama())).returncode == 0
    with guarded.http() as client:
        assert client.post("/v1/completions", json={**BODY, "model": "joins"}).status_code == 200
    assert before.items() <= replicas(guarded).items()
    assert guarded.apply(everything + ROUTE).returncode == 0


def test_a_stopped_engine_process_is_out_of_rotation_within_ten_seconds(guarded: Platform) -> None:
    core = engine_core(guarded)
    core.send_signal(signal.SIGSTOP)
    try:
        seconds = wait_for(lambda: healthy(guarded) == 0, "the stuck engine out of rotation", 20)
        assert seconds < 10
        assert answered_by(guarded) == "tiny-mistral"
    finally:
        if core.is_running():
            core.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("whole", [False, True], ids=["vllm's process", "the replica's process"])
def test_an_engine_that_is_frozen_for_twenty_seconds_serves_again_as_it_was(
    guarded: Platform, whole: bool
) -> None:
    wait_for(lambda: bool(replicas(guarded)), "everything runs", 60)
    before = replicas(guarded)
    [replica] = guarded.engine_processes(VICTIM)
    frozen = replica if whole else engine_core(guarded)
    frozen.send_signal(signal.SIGSTOP)
    until = time.monotonic() + 20
    try:
        wait_for(lambda: healthy(guarded) == 0, "the frozen engine out of rotation", 10)
        while time.monotonic() < until:
            assert answered_by(guarded) == "tiny-mistral"
            time.sleep(0.5)
    finally:
        if frozen.is_running():
            frozen.send_signal(signal.SIGCONT)
    seconds = wait_for(lambda: healthy(guarded) == 1, "the engine in rotation again", 60)
    assert seconds < 5, "the time between two looks at metrics included"
    assert answered_by(guarded) == VICTIM
    assert replicas(guarded) == before, "Serve has replaced nothing"


def test_a_stream_that_breaks_ends_with_an_error_event_and_no_done(guarded: Platform) -> None:
    body = {**BODY, "max_tokens": 400, "stream": True, "ignore_eos": True}
    with guarded.http() as client, client.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        [replica] = guarded.engine_processes(VICTIM)
        replica.kill()
        rest = [line for line in lines if line]
    assert '"error"' in rest[-1]
    assert '"code":"upstream_error"' in rest[-1].replace(" ", "")
    assert "data: [DONE]" not in rest

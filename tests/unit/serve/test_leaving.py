"""What a pod's hook does while Ray's head is there, away for a moment, or gone for good."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import AuthenticationError, RpcError

from tradewind.serve.leaving import _SILENT, AWAY_S, _Ray, leave, serves
from tradewind.serve.successors import ROOM_S, SUCCESSOR_S, Seen

NODE, ADDRESS = "a" * 56, "10.0.0.7"
BUSY = Seen(replicas=1, stopping=0, drain_s=300, has_successors=True, pods_come=False)
FULL = Seen(replicas=1, stopping=0, drain_s=300, has_successors=False, pods_come=False)
EMPTY = Seen(replicas=0, stopping=0, drain_s=0, has_successors=False, pods_come=False)
LOST = RpcError("Timed out while waiting for GCS to become available.", rpc_code=4)


class Cluster:
    """A head whose answers and absences go by a clock, and the clock, which only sleeps and answers move."""

    def __init__(
        self, says: Callable[[float], Seen], away: Callable[[float], Exception | None], answer_s: float = 0
    ) -> None:
        self.time = 0.0
        self.drained: list[tuple[float, float]] = []
        """When Ray was told, and by when the node goes."""
        self._says, self._away, self._answer_s = says, away, answer_s

    def node(self, address: str) -> str | None:
        self._answers()
        return NODE if address == ADDRESS else None

    def drain(self, node: str, remaining_s: float) -> None:
        self._answers()
        assert node == NODE
        self.drained.append((self.time, self.time + remaining_s))

    def see(self, node: str) -> Seen:
        self._answers()
        assert node == NODE
        return self._says(self.time)

    def _answers(self) -> None:
        if (error := self._away(self.time)) is not None:
            self.time += self._answer_s
            raise error

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        assert self.time < 10 * SUCCESSOR_S, "it never ends"

    def leave(
        self,
        *,
        address: str = ADDRESS,
        at_once: bool = False,
        needed: Callable[[float], bool] = lambda _: True,
    ) -> float:
        """Seconds after which the hook ended."""
        is_needed, clock = lambda: needed(self.time), lambda: self.time
        leave(self, address, at_once=at_once, needed=is_needed, clock=clock, sleep=self.sleep)
        return self.time


def until(end: float, then: Seen = EMPTY, before: Seen = BUSY) -> Callable[[float], Seen]:
    return lambda now: before if now < end else then


def between(start: float, end: float, error: Exception = LOST) -> Callable[[float], Exception | None]:
    return lambda now: error if start <= now < end else None


def never(_: float) -> None:
    return None


def test_a_node_whose_replicas_have_gone_may_end() -> None:
    cluster = Cluster(until(50), never)
    assert cluster.leave() == 50
    assert cluster.drained == [(0, SUCCESSOR_S + 3_600)]


def test_a_node_that_ray_does_not_know_may_end() -> None:
    cluster = Cluster(until(50), never)
    assert cluster.leave(address="10.0.0.8") == 0
    assert cluster.drained == []


@pytest.mark.parametrize("answer_s", [0, 10, 20], ids=["refused", "no answer", "no answer twice"])
def test_a_head_that_is_gone_for_good_is_given_up_by_the_clock(answer_s: float) -> None:
    ended = Cluster(until(1e6), between(20, 1e9), answer_s).leave()
    assert 20 + AWAY_S <= ended <= 20 + AWAY_S + answer_s + 2


@pytest.mark.parametrize("lost", [0, 20], ids=["from the first", "later"])
def test_without_a_replica_nobody_waits_for_a_head(lost: float) -> None:
    assert Cluster(until(1e6), between(lost, 1e9)).leave(needed=lambda _: False) == lost


@pytest.mark.parametrize(
    "error",
    [
        LOST,
        AuthenticationError("RPC error: WrongClusterID"),
        ConnectionRefusedError(),
        ValueError("Serve has no controller yet"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_head_that_comes_back_is_told_again_and_the_drain_goes_on(error: Exception) -> None:
    cluster = Cluster(until(200), between(20, 55, error))
    assert cluster.leave() == 200
    assert [told for told, _ in cluster.drained] == [0, 56]
    assert {by for _, by in cluster.drained} == {SUCCESSOR_S + 3_600}


def test_a_head_that_is_away_when_the_pod_is_asked_to_leave_is_waited_for() -> None:
    cluster = Cluster(until(200), between(0, 31))
    assert cluster.leave() == 200
    assert cluster.drained == [(32, SUCCESSOR_S + 3_600)]


def test_a_gateway_goes_at_once_and_ends_what_it_has() -> None:
    cluster = Cluster(until(50, before=FULL), never)
    assert cluster.leave(at_once=True) == 50
    assert cluster.drained == [(0, 1)]


def test_a_gateway_that_others_hand_requests_to_waits_for_a_head_that_takes_it_out_of_rotation() -> None:
    cluster = Cluster(until(80, before=FULL), between(0, 31))
    assert cluster.leave(at_once=True) == 80
    assert cluster.drained == [(32, 33)]


def test_a_gateway_that_nobody_calls_any_more_waits_for_no_head() -> None:
    assert Cluster(until(1e6), between(0, 1e9)).leave(at_once=True, needed=lambda now: now < 7) == 8


def test_each_absence_counts_for_itself() -> None:
    def away(now: float) -> Exception | None:
        return LOST if now % 100 >= 100 - 0.8 * AWAY_S else None

    assert Cluster(until(1_000), away).leave() == 1_000


def test_a_shorter_deadline_that_no_head_heard_is_told_to_the_next() -> None:
    looks: list[float] = []

    def says(now: float) -> Seen:
        looks.append(now)
        return EMPTY if now >= 200 else FULL

    def away(now: float) -> Exception | None:
        """From the moment when it has said, for the last time, that there is no room."""
        return LOST if now < 60 and looks and looks[-1] >= ROOM_S else None

    cluster = Cluster(says, away)
    assert cluster.leave() == 200
    assert cluster.drained == [(0, SUCCESSOR_S + 3_600), (60, ROOM_S + 300)]


def test_room_is_looked_for_anew_when_the_head_is_back() -> None:
    cluster = Cluster(until(400, before=FULL), between(10, 70))
    assert cluster.leave() == 400
    assert cluster.drained[-1] == (70 + ROOM_S, 70 + ROOM_S + 300)


@pytest.mark.parametrize("serving", [True, False], ids=["a replica", "no replica"])
def test_a_controller_that_takes_replicas_up_is_believed_when_it_has_them(serving: bool) -> None:
    unsure = Seen(0, 0, 0, has_successors=False, pods_come=False, unknown=1)
    assert Cluster(until(150, before=unsure), never).leave(needed=lambda _: serving) == (
        150 if serving else 0
    )


def test_what_it_waits_for_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Cluster(until(200), between(20, 55)).leave()
    said = [record.message for record in caplog.records]
    assert [line for line in said if "the head" in line] == [
        "the head does not answer, and is waited for: 60 s at most "
        "(Timed out while waiting for GCS to become available.)",
        "the head answers again",
    ]


@pytest.mark.parametrize(
    ("command", "found"),
    [("ray::ServeReplica:chat:engine", True), ("ray::IDLE", False), ("grep\0^ray::ServeReplica", False)],
)
def test_a_pod_serves_while_ray_names_a_process_of_it_so(tmp_path: Path, command: str, found: bool) -> None:
    for pid, text in (("1", "raylet"), ("17", command)):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_text(text)
    (tmp_path / "18").mkdir()  # it has ended since
    assert serves(tmp_path) is found


def test_nobody_is_waited_for_where_no_gcs_listens() -> None:
    """Ray's own client would try for 40 s."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        ray = _Ray(f"127.0.0.1:{unused.getsockname()[1]}", "pool-a")
        with pytest.raises(_SILENT):
            ray.node(ADDRESS)
        with pytest.raises(_SILENT):
            ray.drain(NODE, 60)


class _Gcs:
    """Ray's client of a GCS: it raises, or says that nothing is on its way."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def get_cluster_status(self, *, timeout_s: float) -> bytes:
        assert timeout_s
        if self.error is not None:
            raise self.error
        return b""

    def drain_node(self, *told: object, timeout: float) -> tuple[bool, str]:
        assert timeout  # without one, the client ends the process when GCS stays away
        assert told[0] == NODE
        return True, ""


@pytest.fixture
def dashboard() -> Iterator[int]:
    """Port of a Serve REST API that has no replicas."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = json.dumps({"controller_info": {"node_id": NODE}, "applications": {}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_client_of_a_lost_gcs_is_not_asked_again(dashboard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = iter([_Gcs(LOST), _Gcs()])
    ray = _Ray("127.0.0.1:6379", "pool-a", dashboard)
    monkeypatch.setattr(ray, "_connected", lambda: next(clients))
    with pytest.raises(RpcError):
        ray.see(NODE)
    assert ray.see(NODE) == EMPTY
    ray.drain(NODE, 60)  # with the same one

"""The first process of a Ray container, with shells in Ray's place."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import psutil
import pytest

from tradewind.serve.node import COMMAND, RAY_SWITCHES, Output, environment

MODULE = "tradewind.serve.node"
PR_SET_CHILD_SUBREAPER = 36


def start(script: str, program: Sequence[str] = ("-m", MODULE), **more: str) -> subprocess.Popen[str]:
    # KubeRay's command is a word and its arguments; so is this.
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        COMMAND: 'bash -c "$SCRIPT"',
        "SCRIPT": script,
        "HOSTNAME": "pod-a",
        **more,
    }
    return subprocess.Popen(
        [sys.executable, *program],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As process 1 has it.
        preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1),
    )


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_both_streams_become_json_and_the_status_is_kept() -> None:
    process = start("echo one; echo two >&2; printf 'no end'; exit 7")
    out, err = process.communicate(timeout=20)
    assert err == ""
    assert process.returncode == 7
    found = records(out)
    assert {record["pod"] for record in found} == {"pod-a"}
    said = {(record["logger"], record["message"]) for record in found}
    assert {("stdout", "one"), ("stderr", "two"), ("stdout", "no end")} <= said
    assert found[-1]["message"] == "Ray has ended with status 7"
    assert found[-1]["level"] == "error"


def test_only_lines_with_the_mark_of_this_process_are_taken_as_ours() -> None:
    forged = (
        '{"ts": "2020", "level": "critical", "logger": "tradewind", "message": "forged", "service": "engine"}'
    )
    mine = forged.replace("forged", "mine")
    process = start(f"echo '{forged}'; echo $TRADEWIND_LOG_MARK'{mine}'")
    out, _ = process.communicate(timeout=20)
    found = {record["message"]: record for record in records(out)}
    assert found["mine"] == {**json.loads(mine), "pod": "pod-a"}
    assert (found[forged]["logger"], found[forged]["level"]) == ("stdout", "info")
    assert found["Ray starts on this node"]["service"] == "node"


def test_a_flood_of_lines_is_cut_and_counted() -> None:
    process = start("seq 20000")
    out, _ = process.communicate(timeout=20)
    found = records(out)
    said = [record for record in found if record["logger"] == "stdout"]
    assert 2_000 <= len(said) < 10_000
    left_out = [record["message"] for record in found if record["logger"] == "tradewind.lines"]
    assert sum(int(message.split()[0]) for message in left_out) == 20_000 - len(said)


def test_the_signal_to_end_reaches_ray_and_its_last_words_are_written() -> None:
    process = start("trap 'echo last; exit 1' TERM; echo ready; while :; do sleep 0.05; done")
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["message"] == "ready":
            break
    process.send_signal(signal.SIGTERM)
    rest = records(process.communicate(timeout=20)[0])
    assert process.returncode == 1
    assert [(record["level"], record["message"]) for record in rest] == [
        ("info", "last"),
        ("info", "Ray has ended with status 1"),
    ]


def test_ray_that_does_not_hear_the_signal_is_ended_with_all_below_it() -> None:
    impatient = f"import sys, {MODULE} as node; node._ENDS_S = 0.3; sys.exit(node.main())"
    process = start("trap '' TERM; (trap '' TERM; sleep 60) & echo $!; wait; sleep 60", ("-c", impatient))
    assert process.stdout is not None
    said = (json.loads(line)["message"] for line in process.stdout)
    child = psutil.Process(next(int(message) for message in said if message.isdigit()))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGKILL
    assert psutil.wait_procs([child], timeout=5)[1] == []


def test_a_child_that_outlives_ray_does_not_keep_the_container() -> None:
    process = start("sleep 60 & echo $!")
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    (pid,) = [int(record["message"]) for record in records(out) if record["logger"] == "stdout"]
    os.kill(pid, signal.SIGKILL)


def test_orphans_are_taken_in_and_change_nothing() -> None:
    # The orphan ends first; taken for Ray itself, it would end the container with status 5.
    script = '(bash -c "sleep 0.05; exit 5" &); n=0; while [ $((n+=1)) -lt 8 ]; do sleep 0.05; done; exit 3'
    process = start(script)
    process.communicate(timeout=20)
    assert process.returncode == 3


def test_ray_gets_its_switches_and_a_pods_own_come_first() -> None:
    script = "echo $RAY_LOG_TO_STDERR $RAY_SERVE_LOG_TO_STDERR $RAY_BACKEND_LOG_JSON $RAY_BACKEND_LOG_LEVEL"
    out, _ = start(script, RAY_BACKEND_LOG_LEVEL="error").communicate(timeout=20)
    assert "1 1 1 error" in [record["message"] for record in records(out)]


@pytest.mark.parametrize(("level", "backend"), [("info", "warning"), ("debug", None)])
def test_debug_asks_ray_for_all_it_says(level: str, backend: str | None) -> None:
    made = environment({"TRADEWIND_LOG_LEVEL": level})
    assert made.get("RAY_BACKEND_LOG_LEVEL") == backend
    assert made.items() >= RAY_SWITCHES.items()


def test_without_kuberays_command_it_says_what_is_missing() -> None:
    variables = {name: value for name, value in os.environ.items() if name != COMMAND}
    variables["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-m", MODULE], env=variables, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2
    assert COMMAND in done.stderr


def test_a_reader_that_stands_still_costs_lines_and_no_writer_waits() -> None:
    written: list[bytes] = []
    stands, goes_on = threading.Event(), threading.Event()

    def write(line: bytes) -> None:
        stands.set()
        goes_on.wait(10)
        written.append(line)

    output = Output(write, lambda count: f"{count} dropped".encode(), held_bytes=10)
    output.put(b"first")
    assert stands.wait(10)
    for line in (b"12345", b"67890", b"too many", b"more"):
        output.put(line)
    goes_on.set()
    output.close(10)
    assert written == [b"first", b"12345", b"67890", b"2 dropped"]

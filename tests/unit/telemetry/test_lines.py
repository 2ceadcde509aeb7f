"""What Ray 2.60, Serve and vLLM 0.32 really printed, and the objects that are made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.telemetry.builders import CANARY
from tradewind.telemetry.line_budget import BURST_LINES, LINES_PER_S, LineBudget
from tradewind.telemetry.lines import LineBuffer, LineFormat

NOW = 1_795_770_579.25
FIELDS = {"pod": "default-pool-cpu-1", "model": "llama", "replica": ""}


def made(line: str, stream: str = "stderr", **options: Any) -> dict[str, Any] | None:
    found = together(line, stream=stream, **options)
    assert len(found) < 2
    return found[0] if found else None


def together(*lines: str, stream: str = "stderr", **options: Any) -> list[dict[str, Any]]:
    """Records of lines that came in one block."""
    encoded = [line.encode() for line in lines]
    found = LineFormat(FIELDS, clock=lambda: NOW, **options).format(encoded, stream)
    for line in found:
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
    return [json.loads(line) for line in found]


@pytest.mark.parametrize(
    ("line", "record"),
    [
        pytest.param(
            "(EngineCore pid=19591) ERROR 11-22 01:25:23 [core.py:1510] EngineCore failed to start.",
            {
                "level": "error",
                "logger": "vllm",
                "message": "EngineCore failed to start.",
                "process": "EngineCore",
                "pid": "19591",
                "place": "core.py:1510",
            },
            id="vllm",
        ),
        pytest.param(
            "INFO 2026-11-27 09:14:46,912 controller 10493 -- Deploying new version of Deployment(name='A').",
            {
                "level": "info",
                "logger": "ray.serve",
                "message": "Deploying new version of Deployment(name='A').",
                "component": "controller",
                "component_id": "10493",
            },
            id="serve",
        ),
        pytest.param(
            "ERROR 2026-11-27 09:14:53,212 llama_engine 141ywbzb 470afa4f-7e6c -- Request failed.",
            {
                "level": "error",
                "logger": "ray.serve",
                "message": "Request failed.",
                "component": "llama_engine",
                "component_id": "141ywbzb",
            },
            id="serve, in a request",
        ),
        pytest.param(
            "2026-11-27 09:16:34,906\tWARNING node.py:751 -- Node d00 did not finish draining.",
            {
                "level": "warning",
                "logger": "ray",
                "message": "Node d00 did not finish draining.",
                "place": "node.py:751",
            },
            id="ray's python",
        ),
        pytest.param(
            "2026-11-27 09:36:12,691\tERR scripts.py:1307 -- \x1b[31mSome processes exited\x1b[39m",
            {
                "level": "error",
                "logger": "ray",
                "message": "Some processes exited",
                "place": "scripts.py:1307",
            },
            id="ray start",
        ),
        pytest.param(
            '{"asctime":"2026-11-27 09:16:34,940","levelname":"W","message":"Failed\\nto export.",'
            '"component":"raylet","filename":"recorder.cc","lineno":67,"node_id":"d00"}',
            {
                "level": "warning",
                "logger": "ray",
                "message": "Failed\nto export.",
                "place": "recorder.cc:67",
                "component": "raylet",
                "node_id": "d00",
            },
            id="ray's native code as JSON",
        ),
        pytest.param(
            "[2026-11-27 09:14:42,252 E 10493 10493] (raylet) main.cc:115: no such thing",
            {
                "level": "error",
                "logger": "ray",
                "message": "no such thing",
                "component": "raylet",
                "place": "main.cc:115",
            },
            id="ray's native code before it has read its settings",
        ),
        pytest.param(
            "\x1b[36mplain\x1b[39m words",
            {"level": "info", "logger": "stderr", "message": "plain words"},
            id="anything",
        ),
        pytest.param(
            "Loading:   0%|          | 0/1\rLoading: 100%|##########| 1/1",
            {"level": "info", "logger": "stderr", "message": "Loading: 100%|##########| 1/1"},
            id="progress",
        ),
        pytest.param(
            "torch.cuda.OutOfMemoryError: CUDA out of memory",
            {
                "level": "error",
                "logger": "stderr",
                "message": "torch.cuda.OutOfMemoryError: CUDA out of memory",
            },
            id="exception",
        ),
    ],
)
def test_lines_of_others(line: str, record: dict[str, Any]) -> None:
    known = {"ts": "2026-11-27T09:09:39.250Z", "pod": "default-pool-cpu-1", "model": "llama"}
    assert made(line) == {**known, **record}


OURS = {
    "ts": "2026-01-01T00:00:00.000Z",
    "level": "warning",
    "logger": "tradewind.engine",
    "message": "slow",
    "service": "engine",
    "model": "phi",
}
MARK = "5f" * 16


def test_a_line_with_the_mark_stays_and_its_own_values_come_first() -> None:
    assert made(MARK + json.dumps(OURS), mark=MARK) == {**OURS, "pod": "default-pool-cpu-1"}


@pytest.mark.parametrize(
    ("line", "mark"),
    [
        pytest.param(json.dumps(OURS), MARK, id="without the mark"),
        pytest.param(json.dumps(OURS), "", id="where nobody has one"),
        pytest.param("5e" * 16 + json.dumps(OURS), MARK, id="with a wrong one"),
        pytest.param(" " + MARK + json.dumps(OURS), MARK, id="not at its beginning"),
        pytest.param(MARK + '["no object"]', MARK, id="with the mark, but no record"),
    ],
)
def test_what_only_looks_like_a_line_of_ours_is_text(line: str, mark: str) -> None:
    record = made(line, mark=mark)
    assert record is not None
    assert (record["logger"], record["level"]) == ("stderr", "info")
    assert record["message"] == line
    assert record["ts"] == "2026-11-27T09:09:39.250Z"
    assert "service" not in record
    assert record["model"] == "llama"


def test_what_looks_like_rays_own_json_says_no_more_than_plain_text_could() -> None:
    line = {
        "levelname": "gone\u0000", "message": "a\u001b[2Jb", "filename": "f" * 9_999, "lineno": 1,
        "job_id": [1], "model": "other", "ts": "2020", "tenant_id": "acme", "node_id": "\u009b" * 999,
    }  # fmt: skip
    record = made(json.dumps(line), ray_info=True)
    assert record is not None
    assert (record["level"], record["message"], record["model"]) == ("info", r"a\x1b[2Jb", "llama")
    assert record.keys() == {"ts", "level", "logger", "message", "place", "pod", "model", "node_id"}
    assert all(len(str(value)) <= 800 for value in record.values())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b]0;title\x07b", r"a\x1b]0;title\x07b"),
        ("a\x9b31mb", r"a\x9b31mb"),
        ("a\u2028b\u202ec", r"a\u2028b\u202ec"),
        ("a\tb\x00\x7f", "a\tb" + r"\x00\x7f"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    record = made(text)
    assert record is not None
    assert record["message"] == shown


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_is_cut_and_one_line_says_by_how_much() -> None:
    clock = Clock()
    lines = LineFormat(FIELDS, mark=MARK, clock=lambda: NOW, budget=LineBudget(clock))
    flood = [b"line %d" % number for number in range(100_000)]
    found = [json.loads(line) for line in lines.format(flood, "stderr")]
    assert len(found) == BURST_LINES + 1
    assert found[-1]["level"] == "warning"
    assert found[-1]["message"].startswith(f"{100_000 - BURST_LINES} lines (")
    own = lines.format([(MARK + json.dumps(OURS)).encode()], "stderr")
    assert [json.loads(line)["message"] for line in own] == ["slow"]
    assert lines.format([b"more"], "stderr") == []
    assert lines.owes
    clock.now += 1.0
    assert [json.loads(line)["message"][:8] for line in lines.overdue()] == ["1 lines "]
    assert not lines.owes
    clock.now += 1.0
    refilled = lines.format(flood[: 2 * int(LINES_PER_S) + 10], "stderr")
    assert len(refilled) - 1 == 2 * LINES_PER_S


def test_bytes_are_bounded_too_and_the_last_account_does_not_wait() -> None:
    clock = Clock()
    lines = LineFormat({}, clock=lambda: NOW, budget=LineBudget(clock))
    size = sum(len(line) for _ in range(1_000) for line in lines.format([b"x" * 65_000], "stderr"))
    assert size < 1_100_000
    assert lines.owes
    assert len(lines.overdue(last=True)) == 1
    assert lines.overdue(last=True) == []


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-27 09:14:17,706\tINFO (dashboard) head.py:262 -- DashboardHeadModules to load: None.",
        '{"asctime":"x","levelname":"I","message":"Registering actor","component":"gcs_server"}',
    ],
)
def test_what_ray_says_below_a_warning_is_left_out_unless_asked_for(line: str) -> None:
    assert made(line) is None
    kept = made(line, ray_info=True)
    assert kept is not None
    assert kept["level"] == "info"


TRACEBACK = (
    "Traceback (most recent call last):",
    '  File "a.py", line 1, in run',
    "    raise ValueError(1)",
    "ValueError: 1",
)


def test_a_traceback_belongs_to_the_record_before_it() -> None:
    failed = "ERROR 2026-11-27 09:14:53,212 controller 17 -- Deploying failed."
    record, after = together(failed, *TRACEBACK, "next")
    assert record["message"] == "\n".join(["Deploying failed.", *TRACEBACK])
    assert (record["level"], record["logger"]) == ("error", "ray.serve")
    assert after["message"] == "next"


def test_a_traceback_alone_is_one_error_and_no_part_of_other_peoples_words() -> None:
    words, record, after = together("words", *TRACEBACK, "next")
    assert (words["message"], after["message"]) == ("words", "next")
    assert (record["message"], record["level"]) == ("\n".join(TRACEBACK), "error")


def test_an_exception_in_the_handling_of_another_is_one_record_with_it() -> None:
    during = "During handling of the above exception, another exception occurred:"
    failed = "2026-11-27 09:16:34,906\tERROR node.py:751 -- Failed"
    (record,) = together(failed, *TRACEBACK, "", during, "", *TRACEBACK)
    assert record["message"].count("Traceback") == 2


def test_vllm_repeats_its_head_before_each_line_of_a_traceback() -> None:
    head = "(EngineCore pid=19591) ERROR 11-22 01:25:23 [core.py:1510] "
    record, after = together(head + "Failed.", *(head + line for line in TRACEBACK), head + "Again.")
    assert record["message"] == "\n".join(["Failed.", *TRACEBACK])
    assert (record["logger"], record["process"], after["message"]) == ("vllm", "EngineCore", "Again.")


def test_lines_of_two_processes_are_not_mixed() -> None:
    failed = "(EngineCore pid=19591) ERROR 11-22 01:25:23 [core.py:1510] Failed."
    other = "(Worker pid=7) ERROR 11-22 01:25:23 [core.py:1510]   File a"
    assert [record["message"] for record in together(failed, other)] == ["Failed.", "  File a"]


def test_the_rest_of_a_record_that_is_left_out_is_left_out_too() -> None:
    status = "2026-11-27 09:14:17,706\tINFO (dashboard) head.py:262 -- Modules:"
    (kept,) = together(status, "  one", "  two", "plain words")
    assert kept["message"] == "plain words"


@pytest.mark.parametrize("line", ["", "  ", ":job_id:01000000", ":actor_name:ServeReplica:llama:engine"])
def test_lines_that_say_nothing(line: str) -> None:
    assert made(line) is None


@pytest.mark.parametrize(
    "line",
    [
        f"(EngineCore pid=1) INFO 11-22 01:25:23 [a.py:1] token={CANARY}",
        f"api_key={CANARY}",
        '{"levelname":"E","message":"Bearer ' + CANARY + '","filename":"a.cc","lineno":1}',
    ],
)
def test_what_looks_like_a_secret_is_cut_out(line: str) -> None:
    record = made(line)
    assert record is not None
    assert CANARY not in json.dumps(record)


@given(st.binary(max_size=300))
@example(b'{"message":"\xff"}')
@example(b'{"message":"\\ud800"}')
@example(b'{"message":' + b"[" * 20_000)
@example(b'{"message":"m","level":"info","logger":["a"]}')
@example(b'{"message":"m","levelname":{}}')
def test_any_bytes_make_one_object_or_nothing(line: bytes) -> None:
    for found in LineFormat(FIELDS).format(line.split(b"\n"), "stdout"):
        record = json.loads(found)
        assert {"ts", "level", "logger", "message", "pod"} <= set(record)
        assert found.count(b"\n") == 1


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_lines_do_not_depend_on_how_blocks_were_cut(blocks: list[bytes]) -> None:
    buffer = LineBuffer()
    lines = [line for block in blocks for line in buffer.feed(block)]
    assert b"\n".join([*lines, buffer.rest()]) == b"".join(blocks)


def test_a_line_without_an_end_takes_no_more_than_its_bound() -> None:
    buffer = LineBuffer()
    lines = [line for _ in range(100) for line in buffer.feed(b"x" * 10_000)]
    assert [len(line) for line in lines] == [65_536]
    assert buffer.feed(b"tail\nnext\n") == [b"next"]

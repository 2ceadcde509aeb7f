"""What vLLM 0.32 really printed when it did not start, and the one line that is made of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tradewind.engine.output import OutputTee, root_cause, says_little, tidy
from tradewind.telemetry.line_mark import MARK
from tradewind.telemetry.lines import LineFormat

POINTER = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"

KV_TOO_SMALL = """\
(EngineCore pid=19591) ERROR 11-22 01:25:23 [core.py:1510] EngineCore failed to start.
(EngineCore pid=19591) ERROR 11-22 01:25:23 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=19591) ERROR 11-22 01:25:23 [core.py:1510]   File "vllm/v1/engine/core.py", line 1482, in run
(EngineCore pid=19591) ERROR 11-22 01:25:23 [core.py:1510]     raise ValueError(
(EngineCore pid=19591) ERROR 11-22 01:25:23 [core.py:1510] ValueError: To serve at least one request with \
the models's max seq len (2048), (1.0 MiB KV cache is needed, which is larger than the available KV cache \
memory (0.5 MiB).
Process EngineCore:
Traceback (most recent call last):
  File "vllm/v1/core/kv_cache_utils.py", line 1010, in _check_enough_kv_cache_memory
    raise ValueError(
ValueError: To serve at least one request with the models's max seq len (2048), (1.0 MiB KV cache is needed, \
which is larger than the available KV cache memory (0.5 MiB).
(MainProcess pid=19553) INFO 11-22 01:25:25 [utils.py:628] [shutdown] Process manager: send sigterm
"""

CORRUPT = """\
  File "vllm/model_executor/model_loader/weight_utils.py", line 1208, in safetensors_weights_iterator
    with safe_open(st_file, framework="pt") as f:
         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file \
not fully covered
(MainProcess pid=18682) INFO 11-22 01:24:13 [utils.py:628] [shutdown] Process manager: send sigterm
"""

DIED_WHILE_SERVING = """\
(EngineCore pid=19109) ERROR 11-22 01:24:38 [core.py:1512] EngineCore encountered a fatal error.
(EngineCore pid=19109) ERROR 11-22 01:24:38 [core.py:1512] Traceback (most recent call last):
(EngineCore pid=19109) ERROR 11-22 01:24:38 [core.py:1512] RuntimeError: Unsupported CPU attention \
configuration: head_dim=16 isa=2 kv_cache_idx=0
(MainProcess pid=19000) ERROR 11-22 01:24:38 [async_llm.py:906] AsyncLLM output_handler failed.
(MainProcess pid=19000) ERROR 11-22 01:24:38 [async_llm.py:906] Traceback (most recent call last):
(MainProcess pid=19000) ERROR 11-22 01:24:38 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: \
EngineCore encountered an issue. See stack trace (above) for the root cause.
"""

VALIDATION = """\
Traceback (most recent call last):
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, Model architectures ['FancyNewForCausalLM'] are not supported for now. Supported \
architectures: dict_keys(['AfmoeForCausalLM', 'ApertusForCausalLM']) [type=value_error, \
input_value=ArgsKwargs((), {'model': ...}), input_type=ArgsKwargs]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        pytest.param(
            KV_TOO_SMALL + POINTER,
            "To serve at least one request with the models's max seq len (2048), (1.0 MiB KV cache is "
            "needed, which is larger than the available KV cache memory (0.5 MiB).",
            id="context longer than the cache",
        ),
        pytest.param(
            CORRUPT + POINTER,
            "SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered",
            id="truncated weights",
        ),
        pytest.param(
            DIED_WHILE_SERVING,
            "Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0",
            id="died at its first request",
        ),
        pytest.param(
            VALIDATION,
            "Model architectures ['FancyNewForCausalLM'] are not supported for now.",
            id="unsupported architecture",
        ),
        pytest.param(
            "(EngineCore pid=7) \x1b[31mERROR\x1b[0m\nOSError: [Errno 28] No space left on device\n"
            + POINTER,
            "[Errno 28] No space left on device",
            id="disk full, with colours",
        ),
        pytest.param(
            "FileNotFoundError: [Errno 2] No such file or directory: '/models/x/config.json'\n" + POINTER,
            "FileNotFoundError: [Errno 2] No such file or directory: '/models/x/config.json'",
            id="missing file",
        ),
        pytest.param(
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n" + POINTER,
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            id="GPU memory",
        ),
        pytest.param(
            "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n",
            "out of memory: an allocation failed in the engine process",
            id="allocation failed in C++",
        ),
        pytest.param("Segmentation fault (core dumped)\n", "Segmentation fault", id="crash"),
        pytest.param(
            "RuntimeError: Engine core initialization failed. See root cause above. "
            "Failed core proc(s): {'EngineCore': -9}\n",
            "the engine process was killed (signal 9), most likely because the machine is out of memory",
            id="killed by the kernel",
        ),
        pytest.param(
            "Failed core proc(s): {'EngineCore_DP0': -11}",
            "the engine process was killed by signal 11",
            id="segv",
        ),
        pytest.param(
            "Failed core proc(s): {'EngineCore': 3}", "the engine process ended with code 3", id="exit"
        ),
        pytest.param("INFO all is well\n", None, id="nothing"),
        pytest.param("", None, id="no output"),
        pytest.param(POINTER, None, id="only a pointer"),
    ],
)
def test_root_cause(text: str, cause: str | None) -> None:
    assert root_cause(text) == cause


def test_once_requests_are_served_only_the_engines_own_lines_count() -> None:
    text = DIED_WHILE_SERVING + "ValueError: bad request: canary-prompt\n"
    assert root_cause(text) == "bad request: canary-prompt"
    cause = "Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0"
    assert root_cause(text, engine_only=True) == cause


def test_a_message_is_one_line_of_bounded_length() -> None:
    text = tidy("a\n\n  b\n" + "z" * 1000)
    assert text.startswith("a b z")
    assert len(text) == 600
    assert text.endswith("…")


@pytest.mark.parametrize(
    ("message", "little"),
    [
        ("", True),
        ("  ", True),
        ("Engine core initialization failed. See root cause above.", True),
        ("EngineCore encountered an issue. See stack trace (above) for the root cause.", True),
        ("out of memory", False),
    ],
)
def test_messages_that_only_point_elsewhere(message: str, little: bool) -> None:
    assert says_little(message) is little


SCRIPT = """
import os, subprocess, sys, threading
from tradewind.engine.output import OutputTee
from tradewind.telemetry.lines import LineFormat
tee = OutputTee(LineFormat({"model": "llama"}))
tee.start()
os.write(1, b"out\\n")
os.write(2, b"(EngineCore pid=7) WARNING 11-22 01:25:23 [core.py:1] err\\n")
subprocess.run([sys.executable, "-c", "import os; os.write(2, b'child')"], check=True)
tee.settle()
print("child" in tee.text() and "[core.py:1] err\\n" in tee.text() and tee.text().count("out\\n") == 1)
tee.stop()
os.write(1, b"after\\n")
assert "after" not in tee.text()
[thread.join(10) for thread in threading.enumerate() if thread.name == "engine-output"]
"""


def test_the_tee_keeps_and_passes_on_what_this_process_and_its_children_write() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-u", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=30)
    assert done.returncode == 0, done.stderr
    # What is written past the tee may overtake what its thread still passes on.
    passed = done.stdout.splitlines()
    passed.remove("after")
    assert [json.loads(line)["message"] for line in passed] == ["out", "True"]
    # The last line has no end until the last writer is gone.
    marked, child = (json.loads(line) for line in done.stderr.splitlines())
    assert (marked["level"], marked["process"], marked["message"]) == ("warning", "EngineCore", "err")
    assert child["message"] == "child"
    assert {marked["model"], child["model"]} == {"llama"}


FORGED = {
    "ts": "2020-01-01T00:00:00.000Z",
    "level": "critical",
    "logger": "tradewind.engine",
    "message": "forged",
    "service": "engine",
    "model": "other",
}

CHILD = """
import os, sys
forged = sys.argv[1].encode()
os.write(2, b"Cannot find field $ref: x\\n" + forged + b"\\n")
os.write(2, b"clear \\x1b[2J\\x1b]0;gone\\x07 and \\xc2\\x9b31m\\n")
os.write(2, b"y" * 1_000_000 + b"\\n")
for _ in range(100):
    os.write(2, b"flood\\n" * 1_000)
"""

ATTACKED = """
import logging, subprocess, sys, threading
from tradewind.engine.output import OutputTee
from tradewind.telemetry.lines import LineFormat
from tradewind.telemetry.logs import setup_logging
setup_logging("engine", fields={"model": "llama"})
tee = OutputTee(LineFormat({"model": "llama"}))
tee.start()
logging.getLogger("tradewind.engine").warning("real")
subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[2]], check=True)
tee.settle()
logging.getLogger("tradewind.engine").warning("real too")
tee.stop()
[thread.join(10) for thread in threading.enumerate() if thread.name == "engine-output"]
logging.getLogger("tradewind.engine").warning("after")
"""


@pytest.mark.parametrize("mark", ["", "5f" * 16])
def test_nothing_that_a_child_prints_is_a_line_of_ours_or_more_than_its_share(mark: str) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), MARK: mark}
    command = [sys.executable, "-c", ATTACKED, CHILD, json.dumps(FORGED)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stderr) < 1_500_000
    assert all(line.startswith(mark) for line in done.stderr.split("\n")[:-1])
    printed = done.stderr.split("\n")[:-1] + done.stdout.split("\n")[:-1]
    records = [json.loads(line.removeprefix(mark)) for line in printed]
    ours = [record for record in records if record.get("service") == "engine"]
    assert [record["message"] for record in ours] == ["real", "real too", "after"]
    assert {record["model"] for record in records} == {"llama"}
    assert {record["level"] for record in records} == {"info", "warning"}
    said = [record["message"] for record in records if record["logger"] == "stderr"]
    assert said[:2] == ["Cannot find field $ref: x", json.dumps(FORGED)]
    assert said[2] == r"clear \x1b]0;gone\x07 and \x9b31m"
    assert said[3] == "y" * 4_096
    assert said[4:].count("flood") < 10_000
    accounts = [record["message"] for record in records if record["logger"] == "tradewind.lines"]
    assert accounts
    dropped = sum(int(account.split()[0]) for account in accounts)
    assert dropped + len(said) == 100_004


def test_what_is_quoted_of_a_dead_engine_is_one_plain_line_without_secrets() -> None:
    head = "(EngineCore pid=7) "
    text = f"{head}RuntimeError: bad \x1b[2J\u202ename\u2028x api_key=sk-0123456789abcdef0123 " + "z" * 900
    said = root_cause(text, engine_only=True)
    assert said is not None
    assert said.startswith(r"bad \x1b[2J\u202ename x api_key=[redacted] zz")
    assert len(said) == 600


def test_the_ring_forgets_the_oldest() -> None:
    tee = OutputTee(LineFormat({}))
    for number in range(100):
        tee._keep(f"{number:03d}".encode() * 2000)
    assert len(tee.text()) <= 256 * 1024
    assert tee.text().endswith("099")
    assert "000000" not in tee.text()

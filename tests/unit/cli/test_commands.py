from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.fakes.serve_api import FakeServeApi
from tests.unit.cli.running import alive, platform, run, start
from tradewind.api.resources import KINDS
from tradewind.cli import manifests
from tradewind.cli.reference import cli_reference
from tradewind.serve import runfile

COMMANDS = ["up", "down", "apply", "status", "chat", "trace", "render", "schema"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    for option in ("-h", "--help"):
        result = run(command, option)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "Usage" in result.stdout


def test_alone_it_lists_the_commands_and_the_state_directory_option() -> None:
    shown = run("--help").stdout
    assert all(command in shown for command in COMMANDS)
    assert "TRADEWIND_HOME" in shown
    assert run().exit_code == 2


def test_the_version_is_a_word_for_scripts() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("tradewind ")
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["status", "--bogus"],
        ["up", "--port", "http", "x"],
        ["up", "--port", "70000", "x"],
        ["up", "--port", "0", "x"],
        ["down", "--timeout", "-1"],
        ["trace"],
        ["up"],
        ["apply"],
        ["schema", "Pod"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_are_json_for_pipes(kind: str) -> None:
    result = run("schema", kind)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["$id"].endswith(f"/{kind.lower()}.json")
    assert kind in run("schema").stdout.split()


def test_completion_knows_commands_and_kinds() -> None:
    def complete(words: str) -> str:
        environment = {"_TRADEWIND_COMPLETE": "complete_bash", "COMP_WORDS": words}
        environment["COMP_CWORD"] = str(len(words.split()) - 1)
        code = "import sys; sys.argv[0] = 'tradewind'; from tradewind.cli.main import main; main()"
        process = start(env=environment, command=[sys.executable, "-c", code])
        return process.communicate(timeout=45)[0].decode().strip()

    assert complete("tradewind sch") == "schema"
    assert complete("tradewind schema ModelD") == "ModelDeployment"


def test_down_without_a_platform_is_fine() -> None:
    result = run("down")
    assert (result.exit_code, result.stdout) == (0, "Nothing to stop: no platform is running.\n")


def sleeper(tmp_path: Path, home: Path, code: str) -> subprocess.Popen[bytes]:
    """A child that says when it is ready, put down as the platform of `home`."""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    compiled = manifests.load([platform(tmp_path)])
    started = psutil.Process(child.pid).create_time()
    alive(home, "http://127.0.0.1:1", compiled, pid=child.pid, process_started=started)
    return child


def test_down_ends_the_process_though_nobody_asks_how_it_ended(tmp_path: Path, home: Path) -> None:
    child = sleeper(tmp_path, home, "import signal; print(flush=True); signal.pause()")
    try:
        result = run("down", "--timeout", "10")
        assert (result.exit_code, result.stdout) == (0, "Stopped.\n")
    finally:
        child.kill()
        child.communicate()
    with pytest.raises(runfile.NotRunning):
        runfile.read(home)


def test_down_that_takes_too_long_says_what_can_be_done(tmp_path: Path, home: Path) -> None:
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"
    child = sleeper(tmp_path, home, deaf)
    try:
        result = run("down", "--timeout", "0.1")
        assert result.exit_code == 1
        assert f"process {child.pid} is still stopping" in result.stderr
        assert f"kill -9 {child.pid}" in result.stderr
    finally:
        child.kill()
        child.communicate()


def test_a_run_file_that_is_damaged_is_no_platform(home: Path, serve_api: FakeServeApi) -> None:
    home.mkdir(parents=True)
    (home / "run.json").write_text("{")
    assert run("status").exit_code == 1
    assert run("down").exit_code == 0


def test_every_command_and_option_is_in_the_reference() -> None:
    page = cli_reference()
    for command in COMMANDS:
        assert f"## tradewind {command}\n" in page
    for word in (
        "`--home`",
        "`--quiet`, `-q`",
        "`--filename`, `-f`",
        "`TRADEWIND_API_KEY`",
        "| 130 | Ctrl-C |",
    ):
        assert word in page
    assert "\n\n\n" not in page
    assert page == cli_reference()


def test_quiet_is_for_one_command_only(tmp_path: Path) -> None:
    assert run("--quiet", "render", "nothing.yaml").stderr.startswith("nothing.yaml: no such file")
    assert run("render", str(platform(tmp_path))).exit_code == 0

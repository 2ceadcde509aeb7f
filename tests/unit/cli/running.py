"""Runs commands: in this process, or in one of their own where signals and pipes matter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from tests.unit.api.builders import Data, model, route
from tests.unit.compiler.worlds import text
from tradewind import home
from tradewind.cli.main import app
from tradewind.compiler.compile import Compiled
from tradewind.serve import runfile

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "tradewind.cli.main"]


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False)


def start(
    *arguments: str, command: list[str] | None = None, env: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """A command in a process of its own; end it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform")} | (env or {})
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*(command or COMMAND), *arguments], env=environment, **(pipes | options))


def write(path: Path, *resources: Data) -> Path:
    """Resources as a manifest file."""
    path.write_text(text(*resources), encoding="utf-8")
    return path


def platform(tmp_path: Path) -> Path:
    """Manifests of two models behind one route."""
    return write(tmp_path / "platform.yaml", model("llama"), model("mistral"), route())


def wrong(tmp_path: Path) -> Path:
    """The same with a negative weight and a field that does not exist."""
    bad = route()
    bad["spec"]["variants"][0]["weight"] = -3
    return write(tmp_path / "wrong.yaml", model("llama", colour="red"), model("mistral"), bad)


def alive(state: Path, serve_url: str, compiled: Compiled, **changes: Any) -> runfile.RunFile:
    """Make `state` that of a running platform: this process, whose Serve API is at `serve_url`."""
    home.write_private(state / "ray-token", "ray-token\n")
    pid, started = runfile.this_process()
    facts = {
        "pid": pid,
        "process_started": started,
        "dashboard_url": serve_url,
        "host": "127.0.0.1",
        "port": 8000,
        "endpoint": "http://127.0.0.1:1",
        "metrics_url": "http://127.0.0.1:1",
        "anonymous": compiled.gateway.anonymous,
        "environment": {},
        "files": [],
    }
    made = runfile.RunFile(**(facts | changes))  # type: ignore[arg-type]
    runfile.write(state, made)
    return made

"""The shell of the preStop hooks: it is shell, it sees what it looks for, and it outlives every drain."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tradewind.serve.leaving import AWAY_S
from tradewind.serve.successors import SUCCESSOR_S
from tradewind_operator.desired import leaving, names
from tradewind_operator.desired.world import Manifest

HOOKS = {"gateway": leaving.gateway_leaves(), "engine": leaving.engine_leaves()}


def script(hook: Manifest) -> str:
    program, flag, text = hook["preStop"]["exec"]["command"]
    assert (program, flag) == ("/bin/sh", "-c")
    return str(text)


def harmless(hook: Manifest, own: Path) -> str:
    """The script with `own` for /proc and for where it tells the gateway, and without its first wait."""
    text = script(hook).replace("/proc/", f"{own}/").replace(names.LEAVING, f"{own}/leaving")
    return text.replace(f"sleep {leaving._STAYS_S}", "true")


@pytest.mark.parametrize("role", HOOKS)
def test_a_shell_can_read_it(role: str) -> None:
    subprocess.run(["/bin/sh", "-n", "-c", script(HOOKS[role])], check=True)


@pytest.mark.parametrize("role", HOOKS)
def test_it_ends_at_once_when_ray_is_gone(role: str, tmp_path: Path) -> None:
    """No `ray` on the path: there is nobody to drain the node."""
    text = harmless(HOOKS[role], tmp_path)
    found = subprocess.run(["/bin/sh", "-c", text], env={"PATH": "/usr/bin:/bin"}, capture_output=True)
    assert found.returncode == 0
    assert (tmp_path / "leaving").exists() is (role == "gateway")


@pytest.mark.parametrize(
    ("line", "calls"),
    [
        ("0: 0A00000A:1F40 0B00000A:C001 01", True),
        ("0: 0A00000A:1F40 0100007F:C001 01", False),
        ("0: 00000000:1F40 00000000:0000 0A", False),
        ("0: 0A00000A:1F40 0B00000A:C001 06", False),
        ("0: 0A00000A:1F41 0B00000A:C001 01", False),
    ],
    ids=["a caller", "the loopback", "the listener", "a closed one", "another port"],
)
def test_it_waits_for_callers_on_the_endpoint_only(line: str, calls: bool) -> None:
    _, _, program = leaving._CALLERS.partition("| ")
    found = subprocess.run(["/bin/sh", "-c", program], input=f"  sl  local_address\n   {line}\n", text=True)
    assert (found.returncode == 0) is calls
    assert names.ENDPOINT_PORT == 0x1F40


def test_the_hook_waits_until_the_gateway_listens_no_more() -> None:
    assert leaving._STAYS_S > leaving.GATEWAY_REACHABLE_S


def test_the_gateway_looks_where_the_hook_tells() -> None:
    assert names.LEAVING.startswith(f"{names.RUN_DIR}/")


def test_the_grace_outlives_the_hook() -> None:
    limits = leaving._STAYS_S + leaving.MAX_STREAM_S + leaving._MAX_DRAIN_S + leaving._MARGIN_S
    assert limits < leaving.WORKER_GRACE_S


def test_a_hook_is_not_cut_before_an_engine_gives_up_on_its_successor() -> None:
    assert leaving._SUCCESSOR_S == SUCCESSOR_S
    assert leaving._SUCCESSOR_S + leaving._MAX_DRAIN_S + leaving._MARGIN_S < leaving.WORKER_GRACE_S


def test_a_hook_that_waits_for_a_head_is_not_cut_either() -> None:
    assert leaving._HEAD_AWAY_S == AWAY_S
    assert leaving._MARGIN_S > AWAY_S

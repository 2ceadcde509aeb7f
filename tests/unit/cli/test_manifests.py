from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.fakes.endpoint import FakeEndpoint
from tests.unit.api.builders import cluster
from tests.unit.cli.running import platform, run, write, wrong
from tradewind.api.wire import GatewayConfig
from tradewind.cli import manifests
from tradewind.cli.client import Client
from tradewind.cli.errors import CommandFailed


def test_render_prints_json_that_is_the_same_from_a_file_a_directory_and_a_pipe(tmp_path: Path) -> None:
    file = platform(tmp_path)
    by_file = run("render", str(file))
    assert by_file.exit_code == 0
    assert {app["name"] for app in json.loads(by_file.stdout)["serve"]["applications"]} == {
        "gateway", "llama", "mistral",
    }  # fmt: skip
    assert by_file.stderr == ""
    assert run("render", str(tmp_path)).stdout == by_file.stdout
    assert run("render", "-", stdin=file.read_text()).stdout == by_file.stdout
    assert run("render", "-f", str(file)).stdout == by_file.stdout


def test_every_mistake_is_one_line_with_its_place_on_standard_error(tmp_path: Path) -> None:
    file = wrong(tmp_path)
    result = run("render", str(file))
    assert result.exit_code == 2
    assert result.stdout == ""
    first, second, summary = result.stderr.splitlines()
    assert first.startswith(f"{file}:2:")
    assert ": spec.colour: " in first
    assert second.startswith(f"{file}:6:")
    assert ": spec.variants[0].weight: found -3; allowed: " in second
    assert summary == "error: 2 mistakes; nothing was changed"


@pytest.mark.parametrize("columns", ["20", "80"])
def test_a_mistake_is_one_line_however_narrow_the_terminal(
    tmp_path: Path, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert len(run("render", str(wrong(tmp_path))).stderr.splitlines()) == 3


def test_markup_and_control_characters_of_a_manifest_reach_no_terminal(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text('kind: "[/red]\\e[2J\\nx"\n', encoding="utf-8")
    result = run("render", str(file))
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr
    assert "[/red]" in result.stderr
    assert all(line.startswith((f"{file}:", "error: ")) for line in result.stderr.splitlines())


def test_every_file_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (manifests.MAX_BYTES + 1))
    names = ["missing.yaml", "empty", "latin.yaml", "huge.yaml"]
    result = run("render", *(str(tmp_path / name) for name in names))
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"{tmp_path}/missing.yaml: no such file or directory",
        f"{tmp_path}/empty: no YAML file in this directory",
        f"{tmp_path}/latin.yaml: not UTF-8 text",
        f"{tmp_path}/huge.yaml: over {manifests.MAX_BYTES} bytes",
        "error: 4 mistakes; nothing was changed",
    ]


def test_a_device_without_end_is_refused(tmp_path: Path) -> None:
    result = run("render", "/dev/zero")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (2, "/dev/zero: over 4194304 bytes")


def test_a_file_that_may_not_be_read_is_a_mistake(tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    result = run("render", str(loop))
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == f"{loop}: too many levels of symbolic links"


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"\xff\xfe\x00", "<stdin>: not UTF-8 text"),
        (b"", "<stdin>:1:1: no resource in it"),
        (b"{", "<stdin>:"),
        (b"x" * (manifests.MAX_BYTES + 1), "<stdin>: over"),
    ],
    ids=["binary", "empty", "broken", "huge"],
)
def test_wrong_standard_input_is_named_stdin(stdin: bytes, message: str) -> None:
    result = run("render", "-", stdin=stdin)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)


def test_a_directory_holds_yaml_and_json_and_other_things(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    platform(folder)
    (folder / "README.md").write_text("not a manifest")
    (folder / "backup.yaml").mkdir()
    write(folder / "cluster.json", cluster())
    assert run("render", str(folder)).exit_code == 0


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "windows.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + platform(tmp_path).read_bytes().replace(b"\n", b"\r\n"))
    assert run("render", str(file)).exit_code == 0


def test_a_named_pipe_is_read_as_a_shell_gives_it(tmp_path: Path) -> None:
    read, written = os.pipe()
    os.write(written, platform(tmp_path).read_bytes())
    os.close(written)
    try:
        assert run("render", f"/dev/fd/{read}").exit_code == 0
    finally:
        os.close(read)


def test_without_a_manifest_it_says_how() -> None:
    result = run("render")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (2, "error: no manifest named")


def test_placement_moves_the_platform_with_and_without_a_cluster(tmp_path: Path) -> None:
    placement = manifests.Placement(port=9100, metrics_port=9999)
    bare = manifests.load([platform(tmp_path)], placement)
    assert (manifests.endpoint(bare), bare.gateway.metrics_port) == ("http://127.0.0.1:9100", 9999)
    own = write(tmp_path / "own.yaml", cluster(gateway={"endpoint": {"port": 9200}}))
    written = manifests.load([tmp_path / "platform.yaml", own])
    moved = manifests.load([tmp_path / "platform.yaml", own], placement)
    assert manifests.endpoint(written) == "http://127.0.0.1:9200"
    assert manifests.endpoint(moved) == "http://127.0.0.1:9100"


class Time:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("ready", "missing"),
    [
        ({"revision": "older"}, "a gateway still serves by the configuration before"),
        ({"cold_deployments": 2}, "2 of the models have no replica that a gateway can reach"),
        ({"reason": "no_replica"}, r"the gateway is not ready \(no_replica\)"),
    ],
)
def test_what_keeps_a_configuration_from_being_in_force_is_said(
    tmp_path: Path, ready: dict[str, object], missing: str
) -> None:
    compiled, time = manifests.load([platform(tmp_path)]), Time()
    with FakeEndpoint(GatewayConfig(revision=compiled.gateway.revision), ready=ready) as endpoint:
        client = Client(endpoint.url, "")
        with pytest.raises(CommandFailed, match=f"not in force after 1 s: {missing}"):
            manifests.wait_until_in_force(client, compiled, 0.2 + 0.8, clock=time, sleep=time.sleep)
        endpoint.ready = {}
        manifests.wait_until_in_force(client, compiled, 1.0, clock=time, sleep=time.sleep)
        client.close()


def test_a_gateway_that_does_not_answer_is_said(tmp_path: Path) -> None:
    compiled, client, time = manifests.load([platform(tmp_path)]), Client("http://127.0.0.1:1", ""), Time()
    with pytest.raises(CommandFailed, match="the gateway does not answer"):
        manifests.wait_until_in_force(client, compiled, 0.2, clock=time, sleep=time.sleep)
    client.close()


@pytest.mark.parametrize(
    ("ready", "seconds"),
    [({"revision": "another"}, manifests.STALE_S), ({"reason": "no_replica"}, 900.0)],
)
def test_what_time_may_mend_is_waited_for_longer(
    tmp_path: Path, ready: dict[str, object], seconds: float
) -> None:
    compiled, time = manifests.load([platform(tmp_path)]), Time()
    with FakeEndpoint(GatewayConfig(revision=compiled.gateway.revision), ready=ready) as endpoint:
        client = Client(endpoint.url, "")
        with pytest.raises(CommandFailed, match="not in force"):
            manifests.wait_until_in_force(
                client, compiled, 900.0, clock=time, sleep=lambda _: time.sleep(10.0)
            )
        client.close()
    assert seconds <= time.now <= seconds + 30


def test_a_platform_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    compiled, client, time = manifests.load([platform(tmp_path)]), Client("http://127.0.0.1:1", ""), Time()
    with pytest.raises(CommandFailed, match=r"^raylet died$"):
        manifests.wait_until_in_force(client, compiled, 900.0, gone=lambda: "raylet died", clock=time)
    client.close()
    assert time.now < 1

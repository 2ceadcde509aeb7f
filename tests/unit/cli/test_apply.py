from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.endpoint import FakeEndpoint, deployment
from tests.fakes.serve_api import FakeServeApi, State
from tests.unit.api.builders import changed, model, route, tenant
from tests.unit.cli.running import alive, platform, run, write, wrong
from tradewind.api.wire import GatewayConfig, SecretRef, TenantEntry
from tradewind.cli import manifests
from tradewind.cli.errors import CommandFailed
from tradewind.cli.keys import first_key, key_for, prepare_keys
from tradewind.cli.lock import sole
from tradewind.serve import runfile


@dataclass
class Platform:
    """A running platform: Serve's API and the gateway that follows it."""

    api: FakeServeApi
    endpoint: FakeEndpoint
    home: Path
    file: Path

    @property
    def facts(self) -> runfile.RunFile:
        return runfile.read(self.home)


@pytest.fixture
def live(tmp_path: Path, home: Path, serve_api: FakeServeApi, endpoint: FakeEndpoint) -> Platform:
    made = manifests.load([platform(tmp_path)])
    serve_api.config = made.serve_config
    alive(home, serve_api.url, made, endpoint=endpoint.url)

    def follow(config: dict[str, object]) -> None:
        gateway = json.loads(json.dumps(config))["applications"][0]
        endpoint.config = GatewayConfig.model_validate(gateway["deployments"][0]["user_config"])

    follow(made.serve_config)
    serve_api.on_put = follow
    return Platform(serve_api, endpoint, home, tmp_path / "platform.yaml")


def test_a_changed_weight_is_put_and_in_force(live: Platform) -> None:
    moved = changed(route(), "spec.variants.0.weight", 50)
    write(live.file, model("llama"), model("mistral"), moved)
    result = run("apply", str(live.file))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("In force after ")
    assert live.endpoint.config.routes[0].variants[0].weight == 50
    assert live.facts.files == [str(live.file)]


def test_a_wrong_resource_leaves_the_platform_untouched(live: Platform, tmp_path: Path) -> None:
    before = live.facts
    result = run("apply", str(wrong(tmp_path)))
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "error: 2 mistakes; nothing was changed"
    assert (live.api.puts, live.facts) == ([], before)


def roomy(*adapters: Path) -> dict[str, object]:
    """A model that takes adapters, with these."""
    listed = [{"name": at.name, "uri": f"file://{at}"} for at in adapters]
    return model("llama", engine={"args": {"maxLoras": 2}}, adapters=listed)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    directory = tmp_path / "tone"
    directory.mkdir()
    (directory / "adapter_config.json").write_text("{}")
    (directory / "adapter_model.safetensors").write_bytes(b"")
    return directory


def test_other_adapters_are_given_to_the_engines_that_run(
    live: Platform, tmp_path: Path, adapter: Path
) -> None:
    write(live.file, roomy(), model("mistral"), route())
    live.api.config = manifests.load([live.file]).serve_config
    write(live.file, roomy(adapter), model("mistral"), route())
    result = run("apply", str(live.file))
    assert result.exit_code == 0, result.stderr
    assert "  llama: its engines were given other adapters" in result.stdout
    assert "replaced" not in result.stdout
    assert live.endpoint.config.deployments[0].adapters == ("tone",)
    puts = len(live.api.puts)
    write(live.file, roomy(adapter, tmp_path / "nowhere"), model("mistral"), route())
    result = run("apply", str(live.file))
    assert (result.exit_code, len(live.api.puts)) == (1, puts)
    assert "llama:nowhere: file:///" in result.stderr


def test_a_model_that_is_gone_is_named(live: Platform) -> None:
    only = {"variants": [{"name": "control", "deployment": "llama", "weight": 1}]}
    write(live.file, model("llama"), route(**only))
    result = run("apply", "-f", str(live.file))
    assert result.exit_code == 0, result.stderr
    assert "  mistral: removed" in result.stdout


def test_what_ray_refuses_is_told_and_changes_nothing(live: Platform) -> None:
    live.api.refusal = "Traceback\nValueError: no such app"
    before = live.facts
    result = run("apply", str(live.file))
    assert result.exit_code == 1
    assert "Ray refused the configuration: ValueError: no such app" in result.stderr
    assert live.facts == before


def test_a_model_that_fails_is_told_and_the_facts_are_those_of_the_new_platform(live: Platform) -> None:
    live.api.on_put = lambda _: live.api.states.update(llama=State("DEPLOY_FAILED", "tradewind-reason: no"))
    result = run("apply", str(live.file))
    assert result.exit_code == 1
    assert "error: llama did not start: no" in result.stderr
    assert live.facts.files == [str(live.file)]


def test_two_at_a_time_are_refused(live: Platform, home: Path) -> None:
    with sole(home, "apply", "busy"):
        result = run("apply", str(live.file))
    assert (result.exit_code, live.api.puts) == (1, [])
    assert "another tradewind apply is at work" in result.stderr
    assert run("apply", str(live.file)).exit_code == 0


def test_without_a_platform_there_is_nothing_to_change(tmp_path: Path) -> None:
    result = run("apply", str(platform(tmp_path)))
    assert result.exit_code == 1
    assert "no platform is running" in result.stderr


def test_chat_finds_the_platform_and_its_key(live: Platform) -> None:
    named = tenant("acme", keys=[{"file": "keys/acme"}])
    write(live.file, model("llama"), model("mistral"), route(), named)
    assert run("apply", str(live.file)).exit_code == 0
    key = (live.home / "keys" / "acme").read_text().strip()
    live.endpoint.keys = {key: "acme"}
    result = run("chat", "hi")
    assert (result.exit_code, result.stdout) == (0, "Paris.\n")
    assert live.endpoint.seen[-1].tenant == "acme"
    assert key not in result.stderr


def test_chat_without_a_readable_key_says_how_to_give_one(
    live: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_KEY", "tw-acme-0123456789")
    write(live.file, model("llama"), model("mistral"), route(), tenant("acme"))
    assert run("apply", str(live.file)).exit_code == 0
    monkeypatch.delenv("ACME_KEY")
    result = run("chat", "hi")
    assert result.exit_code == 2
    assert "no tenant's key can be read here" in result.stderr


def entry(name: str, *keys: SecretRef, models: tuple[str, ...] = ("*",)) -> TenantEntry:
    return TenantEntry(name=name, keys=keys, models=models)


def config(*tenants: TenantEntry) -> GatewayConfig:
    return GatewayConfig(revision="r", deployments=(deployment("llama"),), tenants=tenants)


def test_a_key_file_is_made_once_and_for_its_owner_only(home: Path) -> None:
    made = config(entry("acme", SecretRef(file="keys/acme")))
    prepare_keys(made)
    path = home / "keys" / "acme"
    first = path.read_text()
    assert first.startswith("tw-")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    prepare_keys(made)
    assert path.read_text() == first


def test_every_missing_key_is_told_and_none_is_made(home: Path, tmp_path: Path) -> None:
    made = config(
        entry("ours", SecretRef(file="keys/ours")),
        entry("env", SecretRef(env="NO_SUCH_KEY")),
        entry("theirs", SecretRef(file=str(tmp_path / "theirs"))),
        entry("above", SecretRef(file="../above")),
    )
    with pytest.raises(CommandFailed) as failure:
        prepare_keys(made)
    assert failure.value.exit_code == 2
    assert all(f"tenant {name}: " in str(failure.value) for name in ("env", "theirs", "above"))
    assert not (home / "keys").exists()
    assert not (tmp_path / "theirs").exists()


def test_the_first_key_is_that_of_whoever_may_call_most(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NARROW", "tw-narrow")
    monkeypatch.setenv("WIDE", "tw-wide")
    made = config(
        entry("narrow", SecretRef(env="NARROW"), models=("llama",)),
        entry("wide", SecretRef(env="MISSING"), SecretRef(env="WIDE")),
    )
    assert first_key(made) == ("tw-wide", None)
    assert key_for(made, "llama") == ("tw-wide", "wide")
    del os.environ["WIDE"]
    assert first_key(made) == ("tw-narrow", None)
    assert key_for(made, "mistral") is None
    assert first_key(config()) == ("", None)

"""Settings: the file, the environment over it, and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tradewind_operator.errors import SettingsError
from tradewind_operator.settings import load


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "operator.yaml"
    path.write_text(text)
    return path


def test_without_anything_the_defaults_hold() -> None:
    settings = load()
    assert settings.namespaces == ()
    assert settings.serve_url("ns", "chat") == "http://chat-head-svc.ns.svc:8265"
    assert settings.endpoint("ns", "chat") == "http://chat-gateways.ns.svc:8000"
    assert settings.leader_election.duration_seconds == 10


def test_the_file_and_the_environment_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, "workers: 3\nlogLevel: warning\nleaderElection: {leaseName: mine}\n")
    monkeypatch.setenv("TRADEWIND_OPERATOR_WORKERS", "7")
    monkeypatch.setenv("TRADEWIND_OPERATOR_LEADER_ELECTION__ENABLED", "false")
    monkeypatch.setenv("TRADEWIND_OPERATOR_NAMESPACES", '["a", "b"]')
    settings = load(file)
    assert (settings.workers, settings.log_level, settings.namespaces) == (7, "warning", ("a", "b"))
    assert (settings.leader_election.lease_name, settings.leader_election.enabled) == ("mine", False)


def test_variables_of_other_programs_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NAMESPACE", "METRICS", "WORKERS", "logLevel", "KUBECONFIG"):
        monkeypatch.setenv(name, "something")
    assert load() == load()
    assert load().namespace is None
    assert load().kubeconfig is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("foo: 1", "foo: unknown field; allowed: namespaces, images"),
        ("images: {hed: x}", "images.hed: unknown field; allowed: head, gateway, engineCpu, engineCuda"),
        ("workers: 0", "workers: found 0; allowed: input should be greater than or equal to 1"),
        ("namespaces: [A_]", 'namespaces[0]: found "A_"; allowed: a namespace\'s name, or * for all'),
        ("namespaces: ['*', a]", 'found "*" beside other namespaces'),
        ("allowedImages: ['/']", "found '/' at allowedImages[0]"),
        ("leaderElection: {durationSeconds: 5}", "leaderElection: found retrySeconds 1.5, renewSeconds 7"),
        ("serveApiUrl: ftp://x", 'serveApiUrl: found "ftp://x"; allowed: an http:// or https:// URL'),
        ("a: [", "line 1: is not YAML or JSON"),
        ("- 1", "found no mapping"),
    ],
)
def test_a_mistake_says_where_what_and_what_is_allowed(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, text))
    assert said in str(caught.value)
    assert "operator.yaml" in str(caught.value)


def test_values_of_the_environment_for_pods_are_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, "environment: {OTEL_EXPORTER_OTLP_HEADERS: [canary]}"))
    assert "canary" not in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load(Path("/nowhere/operator.yaml"))

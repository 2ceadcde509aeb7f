"""What is printed to be pasted works as it is: in a real shell and in a real Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.endpoint import FakeEndpoint
from tradewind.cli.examples import curl, how_to_call, sdk

FOLDERS = ["plain", "with space", "it's", 'a "quote"', "$HOME `id`"]


@pytest.fixture(params=FOLDERS)
def key_file(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = tmp_path / request.param
    folder.mkdir()
    path = folder / "key"
    path.write_text("tw-good\n")
    return str(path)


def test_the_curl_command_works_wherever_the_key_lies(key_file: str) -> None:
    with FakeEndpoint(keys={"tw-good": "acme"}) as endpoint:
        command = curl(endpoint.url, "llama", key_file)
        assert "tw-good" not in command
        done = subprocess.run(["sh", "-c", command], capture_output=True, check=True, timeout=45)
        assert b'"content": "Paris."' in done.stdout
        (seen,) = endpoint.seen
        assert (seen.tenant, seen.body["user"], seen.body["model"]) == ("acme", "user-1", "llama")


def paste(code: str) -> str:
    """What a fresh Python prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=30)
    return done.stdout.decode()


def test_the_sdk_example_works_in_five_lines(tmp_path: Path) -> None:
    path = tmp_path / """it's a "quote\""""
    path.write_text("tw-good\n")
    with FakeEndpoint(keys={"tw-good": "acme"}) as endpoint:
        code = sdk(endpoint.url, "llama", str(path))
        assert len(code.splitlines()) == 5
        assert "tw-good" not in code
        assert paste(code) == "Paris."
        assert endpoint.seen[0].tenant == "acme"


def test_without_a_tenant_no_key_is_sent(endpoint: FakeEndpoint) -> None:
    command, code = how_to_call(endpoint.url, "llama", None).split("\n\n")
    subprocess.run(["sh", "-c", command], capture_output=True, check=True, timeout=45)
    assert endpoint.seen[0].headers["authorization"] == "Bearer none"
    assert compile(code, "example", "exec")
    assert 'api_key="none"' in code

"""hf:// sources against a local server that speaks the hub's HTTP API, with the real huggingface_hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.hub import FakeHub, Repository
from tradewind.api.wire import SecretRef, SourceSettings
from tradewind.engine.errors import SourceError
from tradewind.engine.sources.resolve import resolve

COMMIT = "c" * 40
TOKEN = "hf_" + "s" * 20
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"w" * 300_000,
    "pytorch_model.bin": b"pickle",
    "modeling_custom.py": b"print('code')",
    "original/consolidated.00.pth": b"pickle",
    "onnx/model.onnx": b"other",
    "README.md": b"words",
    ".gitattributes": b"x",
}
NEEDED = {"config.json", "tokenizer.json", "model.safetensors"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", "/nonexistent")
    with FakeHub({"meta/llama": Repository(dict(FILES))}) as server:
        yield server


def source(hub: FakeHub, uri: str = "hf://meta/llama", **changes: object) -> SourceSettings:
    return SourceSettings.model_validate({"uri": uri, "endpoint": hub.url, **changes})


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_only_what_an_engine_loads_safely_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    directory = resolve(source(hub), tmp_path, lambda *step: told.append(step))  # type: ignore[arg-type]
    assert names(directory) == NEEDED
    assert set(hub.downloads()) == NEEDED
    total = sum(len(FILES[name]) for name in NEEDED)
    assert told[0] == ("download", 0, total)
    assert told[-1] == ("download", total, total)


def test_code_is_fetched_only_when_the_resource_trusts_it(hub: FakeHub, tmp_path: Path) -> None:
    directory = resolve(source(hub, trust_remote_code=True), tmp_path)
    assert names(directory) == NEEDED | {"modeling_custom.py"}


def test_a_commit_that_is_whole_needs_no_hub(hub: FakeHub, tmp_path: Path) -> None:
    pinned = source(hub, revision=COMMIT)
    first = resolve(pinned, tmp_path)
    hub.requests.clear()
    assert resolve(pinned, tmp_path) == first
    assert hub.requests == []


def test_a_branch_downloads_again_only_what_changed(hub: FakeHub, tmp_path: Path) -> None:
    first = resolve(source(hub), tmp_path)
    hub.repositories["meta/llama"].commit = "d" * 40
    hub.repositories["meta/llama"].files["tokenizer.json"] = b'{"new": 1}'
    hub.requests.clear()
    second = resolve(source(hub), tmp_path)
    assert second != first
    assert (second / "tokenizer.json").read_bytes() == b'{"new": 1}'
    assert "model.safetensors" not in hub.downloads()


@pytest.mark.parametrize("away", ["stopped", "answers 503"])
def test_a_branch_that_was_fetched_survives_a_hub_that_is_away(
    hub: FakeHub, tmp_path: Path, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve(source(hub), tmp_path)
    wanted = source(hub)
    if away == "answers 503":
        hub.down = True
        assert resolve(wanted, tmp_path) == first
        return
    gone = SourceSettings.model_validate({"uri": "hf://meta/llama", "endpoint": hub.url})
    hub._server.server_close()
    assert resolve(gone, tmp_path) == first


def test_nothing_cached_and_no_hub_says_where_it_looked(hub: FakeHub, tmp_path: Path) -> None:
    hub.down = True
    with pytest.raises(
        SourceError, match=r"hf://meta/llama: http://127.* answered HTTP 503 and no whole copy"
    ):
        resolve(source(hub), tmp_path)


def test_a_copy_with_a_hole_is_not_used(hub: FakeHub, tmp_path: Path) -> None:
    pinned = source(hub, revision=COMMIT)
    directory = resolve(pinned, tmp_path)
    (directory / "model.safetensors").unlink()
    assert (resolve(pinned, tmp_path) / "model.safetensors").stat().st_size == 300_000


def test_an_interrupted_download_continues_where_it_stopped(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 65_536)
    hub.cut["model.safetensors"] = 200_000
    directory = resolve(source(hub), tmp_path)
    assert (directory / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    ranges = [
        headers["range"]
        for method, path, headers in hub.requests
        if method == "GET" and path.endswith("model.safetensors") and "range" in headers
    ]
    assert ranges == ["bytes=196608-"]


@pytest.mark.parametrize(
    ("repository", "changes", "message"),
    [
        pytest.param({"gated": True}, {}, "gated and no token was given", id="gated, no token"),
        pytest.param(
            {"gated": True}, {"token": True}, "account of the token has not been granted", id="gated, token"
        ),
        pytest.param({"private": True}, {}, "no such repository, or it is private", id="private"),
        pytest.param({}, {"revision": "v9"}, "no such revision", id="revision"),
        pytest.param({}, {"uri": "hf://meta/other"}, "no such repository", id="missing"),
    ],
)
def test_refusals_say_what_to_do(
    hub: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    repository: dict[str, bool],
    changes: dict[str, object],
    message: str,
) -> None:
    hub.repositories["meta/llama"] = Repository(dict(FILES), **repository)  # type: ignore[arg-type]
    if changes.get("token"):
        monkeypatch.setenv("MY_HUB_TOKEN", TOKEN)
        changes = {"token": SecretRef(env="MY_HUB_TOKEN")}
    with pytest.raises(SourceError, match=message) as caught:
        resolve(source(hub, **changes), tmp_path)
    assert TOKEN not in str(caught.value)


def test_a_token_opens_a_gated_repository(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["meta/llama"] = Repository(dict(FILES), gated=True, readers=(TOKEN,))
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    directory = resolve(source(hub, token=SecretRef(file=str(secret))), tmp_path)
    assert names(directory) == NEEDED


def test_pickled_weights_are_refused_before_anything_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    hub.repositories["meta/llama"] = Repository(files)
    with pytest.raises(SourceError, match=r"only pickled weights \(pytorch_model.bin\)"):
        resolve(source(hub), tmp_path)
    assert hub.downloads() == []


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/x.safetensors", "a/../../b.json", "a\\b.json"])
def test_a_repository_that_names_files_outside_is_refused(hub: FakeHub, tmp_path: Path, name: str) -> None:
    hub.repositories["meta/llama"] = Repository({**FILES, name: b"x"})
    with pytest.raises(SourceError, match="outside its own directory"):
        resolve(source(hub), tmp_path)
    assert hub.downloads() == []


def test_several_gguf_files_ask_for_one(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["meta/llama"] = Repository({"m.Q4.gguf": b"x", "m.Q8.gguf": b"x"})
    with pytest.raises(SourceError, match=r"several GGUF files.*m.Q4.gguf, m.Q8.gguf"):
        resolve(source(hub), tmp_path)


@pytest.mark.parametrize(
    "uri",
    ["hf://llama", "hf://", "hf://a/../b", "hf://a b/c", "hf://a/b--c", "hf://-a/b", "hf://a/b/../c.gguf"],
)
def test_bad_addresses(hub: FakeHub, tmp_path: Path, uri: str) -> None:
    with pytest.raises(SourceError):
        resolve(source(hub, uri=uri), tmp_path)
    assert hub.requests == []


def test_mistrals_double_weights_are_fetched_once(hub: FakeHub, tmp_path: Path) -> None:
    files = {"params.json": b"{}", "consolidated.safetensors": b"c", **FILES}
    hub.repositories["meta/llama"] = Repository(files)
    plain = resolve(source(hub), tmp_path)
    assert "consolidated.safetensors" not in names(plain)
    other = tmp_path / "other"
    shutil.rmtree(plain.parents[2])
    mistral = resolve(source(hub), other, consolidated=True)
    assert "consolidated.safetensors" in names(mistral)
    assert "model.safetensors" not in names(mistral)

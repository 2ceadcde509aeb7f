"""file:// and package:// sources, what a model directory may hold, conversion and the cache."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest

from tradewind.api.wire import EngineSettings, SecretRef, SourceSettings
from tradewind.engine.errors import SourceError
from tradewind.engine.sources import gguf, weights
from tradewind.engine.sources.cache import READY, ready_directory
from tradewind.engine.sources.report import ProgressFile, both, silent
from tradewind.engine.sources.resolve import prefetch, prefetch_adapter, read_token, resolve


def write(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"{}")
    return directory


def file_source(path: Path, **changes: object) -> SourceSettings:
    return SourceSettings.model_validate({"uri": f"file://{path}", **changes})


def test_a_directory_with_safetensors_is_used_where_it_is(tmp_path: Path) -> None:
    model = write(tmp_path / "model", "config.json", "model.safetensors")
    assert resolve(file_source(model), tmp_path / "cache") == model
    assert not (tmp_path / "cache").exists()


def test_a_model_and_an_adapter_are_had_each_by_itself(tmp_path: Path) -> None:
    model = write(tmp_path / "model", "config.json", "model.safetensors")
    tone = write(tmp_path / "tone", "adapter_config.json", "adapter_model.safetensors")
    settings = EngineSettings(name="m", source=file_source(model))
    assert prefetch(settings, cache_dir=tmp_path / "cache") == model
    assert prefetch_adapter(file_source(tone), cache_dir=tmp_path / "cache") == tone
    with pytest.raises(SourceError, match="adapter_config"):
        prefetch_adapter(file_source(model), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param((), "found nothing", id="empty"),
        pytest.param(
            ("config.json",), r"no safetensors and no GGUF file; found config.json", id="no weights"
        ),
        pytest.param(
            ("config.json", "pytorch_model.bin"), r"only pickled weights \(pytorch_model.bin\)", id="bin"
        ),
        pytest.param(
            ("config.json", "a.pt", "b.pth"), r"only pickled weights \(a.pt, b.pth\)", id="pt and pth"
        ),
        pytest.param(("model.safetensors",), "holds no config.json or params.json", id="no config"),
        pytest.param(("a.gguf", "b.gguf"), "several GGUF files", id="two GGUF files"),
    ],
)
def test_other_directories_are_refused_with_what_was_found(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write(model, *names)
    with pytest.raises(SourceError, match=message):
        resolve(file_source(model), tmp_path / "cache")


def test_a_model_is_no_adapter(tmp_path: Path) -> None:
    model = write(tmp_path / "model", "config.json", "model.safetensors")
    with pytest.raises(SourceError, match=r"no adapter_config\.json"):
        resolve(file_source(model), tmp_path, kind=weights.Kind.ADAPTER)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file://relative/path", "must be absolute"),
        ("file:///nowhere/at/all", "no such file or directory"),
        ("/models/llama", "not a source; use one of file://, package://, hf://, s3://, gs://"),
        ("ftp://host/model", "not a source"),
        ("oci://registry/model", "not a source"),
        ("package://not_installed_anywhere/model.gguf", "not_installed_anywhere is not installed"),
        ("package://json/nothing.gguf", "the package has no such file; it has decoder.py"),
        ("package://json/../os.py", "outside its own directory"),
        ("package://js.on/x", "is not a package name"),
        ("package:///x", "is not a package name"),
        ("package://sys/x", "is not installed"),
        ("s3://", "names no bucket"),
    ],
)
def test_bad_addresses(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        resolve(SourceSettings(uri=uri), tmp_path)


def test_a_link_out_of_a_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = write(tmp_path / "site" / "linked", "__init__.py")
    (package / "model").symlink_to("/etc")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    with pytest.raises(SourceError, match="leads out of the package"):
        resolve(SourceSettings(uri="package://linked/model"), tmp_path)


def test_a_package_may_ship_a_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = write(
        tmp_path / "site" / "shipped_model", "__init__.py", "m/config.json", "m/model.safetensors"
    )
    (package / "__init__.py").write_text("raise RuntimeError('a source must not be imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    assert resolve(SourceSettings(uri="package://shipped-model/m"), tmp_path) == package / "m"


@pytest.mark.parametrize("uri", ["file:///models/x", "package://json/x", "s3://bucket/x"])
def test_a_token_goes_with_the_hub_only(tmp_path: Path, uri: str) -> None:
    with pytest.raises(SourceError, match="a token goes with hf:// only"):
        resolve(SourceSettings(uri=uri, token=SecretRef(env="X")), tmp_path)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        (SecretRef(env="TRADEWIND_TEST_UNSET"), "environment variable TRADEWIND_TEST_UNSET is not set"),
        (SecretRef(file="/nonexistent/token"), "file /nonexistent/token cannot be read"),
        (SecretRef(), "cannot be read"),
    ],
)
def test_a_missing_token_is_named_by_its_place(ref: SecretRef, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_token(ref, "hf://a/b")


def test_a_file_that_is_no_gguf_says_so_without_a_traceback(tmp_path: Path) -> None:
    broken = tmp_path / "model.gguf"
    broken.write_bytes(b"this is no model")
    told: list[str] = []
    with pytest.raises(SourceError, match="an adapter must be safetensors"):
        resolve(file_source(broken), tmp_path / "cache", kind=weights.Kind.ADAPTER)
    assert told == []


def test_the_digest_of_a_file_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"one")
    first = gguf.content_digest(file, tmp_path / "cache", "x")
    (note,) = (tmp_path / "cache" / "digests").iterdir()
    note.write_text(json.dumps({"blake2b": "remembered"}))
    assert gguf.content_digest(file, tmp_path / "cache", "x") == "remembered"
    file.write_bytes(b"other")
    assert gguf.content_digest(file, tmp_path / "cache", "x") not in (first, "remembered")


def test_a_converter_that_dies_says_why() -> None:
    assert "out of memory" in gguf._last_line("", -9)
    assert gguf._last_line("a\rb\nValueError: not supported\n", 1) == "ValueError: not supported"
    assert gguf._last_line("", 3) == "the converter ended with code 3"


@pytest.mark.parametrize("name", ["../x", "a/../x", "/x", "a//x", "./x", "a\\x", "", "a/", "x\0y"])
def test_names_that_leave_their_directory(name: str) -> None:
    with pytest.raises(SourceError, match="outside its own directory"):
        weights.safe_names(["ok.json", name], "hf://a/b")


def test_a_directory_is_built_once_by_many(tmp_path: Path) -> None:
    built: list[Path] = []
    inside = threading.Event()

    def build(part: Path) -> None:
        built.append(part)
        inside.wait(0.05)
        (part / "model.safetensors").write_bytes(b"x")

    results: list[Path] = []
    threads = [
        threading.Thread(target=lambda: results.append(ready_directory(tmp_path / "d", build, origin="x")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert results == [tmp_path / "d"] * 4
    assert (tmp_path / "d" / READY).is_file()


def test_what_a_killed_build_left_is_never_used(tmp_path: Path) -> None:
    write(tmp_path / "d.part", "half.safetensors")
    write(tmp_path / "d", "unmarked.safetensors")
    target = ready_directory(tmp_path / "d", lambda part: write(part, "whole") and None, origin="x")
    assert {path.name for path in target.iterdir()} == {"whole", READY}


def test_a_failed_build_leaves_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    def fail(part: Path) -> None:
        write(part, "half")
        raise SourceError("x: broken")

    with pytest.raises(SourceError, match="broken"):
        ready_directory(tmp_path / "d", fail, origin="x")
    assert not (tmp_path / "d").exists()
    assert not (tmp_path / "d.part").exists()
    assert ready_directory(tmp_path / "d", lambda part: None, origin="x") == tmp_path / "d"


def test_a_disk_that_refuses_is_a_source_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="cannot write to"):
        ready_directory(tmp_path / "file" / "d", lambda part: None, origin="x")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_published_but_not_at_every_byte(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "progress" / "llama.json"
    progress = ProgressFile(path, interval_s=1, clock=clock, now=lambda: 1000.0)
    progress("download", 1, 10)
    progress("download", 2, 10)
    assert json.loads(path.read_text()) == {
        "deployment": "llama",
        "stage": "download",
        "done_bytes": 1,
        "total_bytes": 10,
        "updated": 1000.0,
    }
    clock.now = 1.0
    progress("download", 3, 10)
    assert json.loads(path.read_text())["done_bytes"] == 3
    progress("load")
    assert json.loads(path.read_text())["stage"] == "load"
    progress.failed("out of memory")
    assert json.loads(path.read_text())["message"] == "out of memory"
    assert [entry.name for entry in path.parent.iterdir()] == ["llama.json"]


def test_progress_on_a_full_disk_is_silent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ProgressFile(tmp_path / "file" / "x.json")("load")


def test_two_watchers_hear_the_same() -> None:
    heard: list[tuple[str, int, int]] = []

    def listen(stage: str, done_bytes: int = 0, total_bytes: int = 0) -> None:
        heard.append((stage, done_bytes, total_bytes))

    both(listen, both(silent, listen))("convert", 1, 2)
    assert heard == [("convert", 1, 2)] * 2

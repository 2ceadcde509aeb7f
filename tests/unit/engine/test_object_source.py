"""s3:// sources with the real s3fs against a local S3 server, and gs:// by the same code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from tradewind.api.wire import S3Key, SecretRef, SourceSettings
from tradewind.engine.errors import SourceError
from tradewind.engine.sources import objects
from tradewind.engine.sources.resolve import resolve

FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model-00001.safetensors": bytes(range(256)) * 4000,
    "model-00002.safetensors": b"second",
    "pytorch_model.bin": b"pickle",
    "code.py": b"print()",
}
WANTED = {name for name in FILES if name.endswith((".json", ".safetensors"))}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = boto3.client("s3", endpoint_url=server, region_name="us-east-1")
    client.create_bucket(Bucket="models")
    for name, content in FILES.items():
        client.put_object(Bucket="models", Key=f"llama/v1/{name}", Body=content)
    yield client
    for entry in client.list_objects_v2(Bucket="models").get("Contents", ()):
        client.delete_object(Bucket="models", Key=entry["Key"])
    client.delete_bucket(Bucket="models")
    client.close()


def source(server: str, uri: str = "s3://models/llama/v1") -> SourceSettings:
    return SourceSettings(uri=uri, endpoint=server)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.startswith(".")}


def test_a_prefix_becomes_a_directory(bucket: Any, server: str, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    directory = resolve(source(server), tmp_path, lambda *step: told.append(step))  # type: ignore[arg-type]
    assert names(directory) == WANTED
    assert (directory / "model-00001.safetensors").read_bytes() == FILES["model-00001.safetensors"]
    total = sum(len(FILES[name]) for name in WANTED)
    assert max(told) == ("download", total, total)


def test_unchanged_content_is_not_fetched_again_and_changed_content_is_new(
    bucket: Any, server: str, tmp_path: Path
) -> None:
    first = resolve(source(server), tmp_path)
    mark = (first / "config.json").stat().st_mtime_ns
    assert resolve(source(server, "s3://models/llama/v1/"), tmp_path).name != ""
    assert resolve(source(server), tmp_path) == first
    assert (first / "config.json").stat().st_mtime_ns == mark
    bucket.put_object(Bucket="models", Key="llama/v1/config.json", Body=b'{"new": 1}')
    second = resolve(source(server), tmp_path)
    assert second != first
    assert (second / "config.json").read_bytes() == b'{"new": 1}'


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://models/llama/v2", "nothing is there"),
        ("s3://no-such-bucket/llama", "nothing is there|no such bucket"),
    ],
)
def test_what_is_not_there(bucket: Any, server: str, tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        resolve(source(server, uri), tmp_path)


def test_a_name_that_leaves_the_directory_is_refused(bucket: Any, server: str, tmp_path: Path) -> None:
    bucket.put_object(Bucket="models", Key="llama/v1/../../evil.json", Body=b"x")
    with pytest.raises(SourceError, match="outside its own directory"):
        resolve(source(server), tmp_path)


def test_a_revision_belongs_into_the_path(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a revision goes with hf:// only"):
        resolve(SourceSettings(uri="s3://models/llama", revision="v1"), tmp_path)


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, str]]]:
    """A server that checks signatures and policies, with one user's key, and no key in the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    base = f"http://{host}:{port}"
    root = {
        "endpoint_url": base,
        "region_name": "us-east-1",
        "aws_access_key_id": "root",
        "aws_secret_access_key": "root",
    }
    s3, iam = boto3.client("s3", **root), boto3.client("iam", **root)
    s3.create_bucket(Bucket="private")
    for name in WANTED:
        s3.put_object(Bucket="private", Key=f"m/{name}", Body=FILES[name])
    iam.create_user(UserName="reader")
    allowed = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
    made = iam.create_access_key(UserName="reader")["AccessKey"]
    _enforce(base, after=0)
    yield base, {"id": made["AccessKeyId"], "secret": made["SecretAccessKey"]}
    _enforce(base, after=-1)
    for client in (s3, iam):
        client.close()
    moto.stop()


def _enforce(base: str, after: int) -> None:
    """Have moto check credentials from now on, or (-1) no more."""
    count = "inf" if after < 0 else str(after)
    url = f"{base}/moto-api/reset-auth"
    httpx.post(url, content=count).raise_for_status()


def keyed(base: str, folder: Path, key: dict[str, str]) -> SourceSettings:
    """A source whose key is read from files, as from a mounted Secret."""
    for name, value in key.items():
        (folder / name).write_text(value + "\n")
    at = {name: SecretRef(file=str(folder / name)) for name in key}
    return SourceSettings(
        uri="s3://private/m",
        endpoint=base,
        region="us-east-1",
        s3_key=S3Key(access_key_id=at["id"], secret_access_key=at["secret"]),
    )


def test_a_private_bucket_opens_with_the_key_of_the_resource_and_not_with_another(
    guarded: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    base, key = guarded
    found = resolve(keyed(base, tmp_path, key), tmp_path / "cache")
    assert names(found) == WANTED
    wrong = keyed(base, tmp_path, {**key, "secret": "x" * 40})
    with pytest.raises(SourceError, match="s3://private/m: ") as told:
        resolve(wrong, tmp_path / "cache")
    assert "x" * 40 not in str(told.value)


def test_a_key_that_is_not_there_is_named_by_its_place(tmp_path: Path) -> None:
    gone = SecretRef(file=str(tmp_path / "gone"))
    bucket = SourceSettings(uri="s3://b/m", s3_key=S3Key(access_key_id=gone, secret_access_key=gone))
    with pytest.raises(SourceError, match=r"s3://b/m: the access key id's file .*gone cannot be read"):
        resolve(bucket, tmp_path)


@pytest.mark.parametrize("text", ["hunter2", "[]", '{"type": "external_account", "x": "hunter2"}'])
def test_only_a_service_accounts_key_opens_a_bucket_of_google(text: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    bucket = SourceSettings(uri="gs://bucket/m", gcs_key=SecretRef(file=str(tmp_path / "key")))
    with pytest.raises(SourceError, match="gs://bucket/m: the service account key is not JSON with") as told:
        resolve(bucket, tmp_path)
    assert "hunter2" not in str(told.value)


class Recording:
    """A file system in memory that notes reads and can break one."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.reads: list[tuple[str, int]] = []
        self.break_at: tuple[str, int] | None = None

    def find(self, path: str, *, detail: bool) -> dict[str, dict[str, Any]]:
        return {
            f"{path}/{name}": {"type": "file", "size": len(content), "etag": str(hash(content))}
            for name, content in self.files.items()
        }

    def cat_file(self, path: str, *, start: int, end: int) -> bytes:
        name = path.rpartition("/")[2]
        self.reads.append((name, start))
        if self.break_at == (name, start):
            raise OSError("connection reset")
        return self.files[name][start:end]


def test_a_broken_download_continues_with_the_missing_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_CHUNK", 10)
    fs = Recording({"config.json": b"{}", "model.safetensors": b"0123456789" * 3})
    fs.break_at = ("model.safetensors", 20)
    with pytest.raises(SourceError, match="connection reset; what was fetched is kept"):
        objects.fetch(fs, "bucket/m", tmp_path, lambda *_: None, origin="gs://bucket/m")
    fs.break_at = None
    fs.reads.clear()
    directory = objects.fetch(fs, "bucket/m", tmp_path, lambda *_: None, origin="gs://bucket/m")
    assert fs.reads == [("model.safetensors", 20)]
    assert (directory / "model.safetensors").read_bytes() == b"0123456789" * 3


def test_content_that_changes_under_the_download_is_not_used(tmp_path: Path) -> None:
    class Changing(Recording):
        def cat_file(self, path: str, *, start: int, end: int) -> bytes:
            content = super().cat_file(path, start=start, end=end)
            self.files["config.json"] = b"[]"
            return content

    fs = Changing({"config.json": b"{}", "model.safetensors": b"x"})
    with pytest.raises(SourceError, match="changed while it was downloaded"):
        objects.fetch(fs, "bucket/m", tmp_path, lambda *_: None, origin="gs://bucket/m")
    assert [path for path in (tmp_path / "objects").iterdir() if path.is_dir() and path.suffix == ""] == []


def test_pickled_weights_are_refused_unfetched(tmp_path: Path) -> None:
    fs = Recording({"config.json": b"{}", "model.pt": b"x"})
    with pytest.raises(SourceError, match="only pickled weights"):
        objects.fetch(fs, "bucket/m", tmp_path, lambda *_: None, origin="gs://bucket/m")
    assert fs.reads == []

"""s3:// and gs:// sources: the files under a prefix, fetched through fsspec.

Credentials are the resource's or, where it names none, what the SDKs find in the environment (variables,
profile, workload identity); with none, the bucket is read anonymously. The directory's name holds a digest
of names, sizes and ETags, so changed content is a new directory. Files download in parallel and continue
where they stopped.
"""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tradewind.engine.errors import SourceError
from tradewind.engine.sources import weights
from tradewind.engine.sources.cache import ready_directory
from tradewind.engine.sources.report import Progress

_CHUNK = 16 * 1024 * 1024
_PARALLEL = 8


class FileSystem(Protocol):
    """The part of an fsspec file system that is used."""

    def find(self, path: str, *, detail: bool) -> dict[str, dict[str, Any]]: ...

    def cat_file(self, path: str, *, start: int, end: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class RemoteFile:
    path: str
    size: int
    version: str
    """ETag or generation: changes with the content."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An S3 access key."""

    identifier: str
    secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def open_s3(endpoint: str | None, region: str | None = None, key: AccessKey | None = None) -> FileSystem:
    """S3, or what speaks its protocol at `endpoint`.

    Without a key: what the SDK finds in the environment, else anonymously.
    """
    import botocore.session  # type: ignore[import-untyped]
    import s3fs

    anonymous = key is None and botocore.session.get_session().get_credentials() is None
    fs: FileSystem = s3fs.S3FileSystem(
        anon=anonymous,
        key=key.identifier if key else None,
        secret=key.secret if key else None,
        token=key.session_token if key else None,
        endpoint_url=endpoint,
        client_kwargs={"region_name": region} if region else {},
        config_kwargs={"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 4}},
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    return fs


def open_gcs(endpoint: str | None, account_key: str | None = None) -> FileSystem:
    """Google Cloud Storage by a service account's key (JSON), default credentials or anonymously.

    Raises:
        SourceError: the key is not a service account's. The message holds nothing of it.
    """
    import gcsfs
    import google.auth
    import google.auth.exceptions

    options: dict[str, Any] = {"endpoint_url": endpoint} if endpoint else {}
    if account_key is not None:
        options["token"] = _account(account_key)
    else:
        try:
            google.auth.default()
        except google.auth.exceptions.DefaultCredentialsError:
            options["token"] = "anon"  # noqa: S105 - gcsfs's word for no credentials
    fs: FileSystem = gcsfs.GCSFileSystem(use_listings_cache=False, skip_instance_cache=True, **options)
    return fs


def _account(text: str) -> dict[str, Any]:
    """A service account's key; other kinds of credentials may name programs to run, so they are refused."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("type") != "service_account":
        raise SourceError("the service account key is not JSON with type service_account")
    return found


def fetch(
    fs: FileSystem,
    prefix: str,
    cache_dir: Path,
    progress: Progress,
    *,
    origin: str,
    code: bool = False,
    consolidated: bool = False,
    kind: weights.Kind = weights.Kind.MODEL,
) -> Path:
    """Local directory (or GGUF file) with what lies under `prefix` (`bucket/folder`)."""
    listing = _listing(fs, prefix, origin)
    gguf = weights.only_gguf(listing, origin)
    if gguf:
        names = [gguf]
    else:
        weights.require_safetensors(listing, origin, kind)
        names = weights.wanted(listing, code=code, consolidated=consolidated)
    files = {name: listing[name] for name in names}
    target = cache_dir / "objects" / _key(origin, files)

    def build(part: Path) -> None:
        _download(fs, files, part, progress, origin)
        again = _listing(fs, prefix, origin)
        if any(again.get(name) != file for name, file in files.items()):
            raise SourceError(f"{origin}: changed while it was downloaded; try again")

    ready_directory(target, build, origin=origin, resumable=True)
    return target / gguf if gguf else target


def _listing(fs: FileSystem, prefix: str, origin: str) -> dict[str, RemoteFile]:
    """Files under the prefix by their name relative to it."""
    try:
        found = fs.find(prefix, detail=True)
    except FileNotFoundError:
        found = {}
    except Exception as error:
        raise SourceError(f"{origin}: {_reason(error)}") from error
    root = prefix.strip("/")
    files: dict[str, RemoteFile] = {}
    for path, info in found.items():
        full = path.strip("/")
        name = full.rpartition("/")[2] if full == root else full.removeprefix(root + "/")
        if info.get("type", "file") == "file" and not path.endswith("/"):
            version = info.get("ETag") or info.get("etag") or info.get("generation") or ""
            files[name] = RemoteFile(path, int(info.get("size") or 0), str(version))
    weights.safe_names(files, origin)
    if not files:
        raise SourceError(f"{origin}: nothing is there, or it may not be listed with these credentials")
    return files


def _download(
    fs: FileSystem, files: dict[str, RemoteFile], part: Path, progress: Progress, origin: str
) -> None:
    total = sum(file.size for file in files.values())
    counter = _Counter(total, progress)
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="download") as pool:
        futures = [
            pool.submit(_download_file, fs, file, part / name, counter) for name, file in files.items()
        ]
        try:
            for future in futures:
                future.result()
        except Exception as error:
            counter.stop()
            pool.shutdown(cancel_futures=True)
            raise SourceError(f"{origin}: {_reason(error)}; what was fetched is kept, try again") from error


def _download_file(fs: FileSystem, file: RemoteFile, target: Path, counter: _Counter) -> None:
    """Append what is missing. The directory belongs to this ETag, so bytes there are its first ones."""
    target.parent.mkdir(parents=True, exist_ok=True)
    done = target.stat().st_size if target.exists() else 0
    if done > file.size:
        target.unlink()
        done = 0
    counter.add(done)
    with target.open("ab") as out:
        while done < file.size and not counter.stopped:
            block = fs.cat_file(file.path, start=done, end=min(done + _CHUNK, file.size))
            if not block:
                raise OSError(f"{file.path} ended after {done} of {file.size} bytes")
            out.write(block)
            done += len(block)
            counter.add(len(block))


class _Counter:
    """Bytes fetched by all threads."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._progress = total, progress
        self._done = 0
        self._lock = threading.Lock()
        self.stopped = False
        progress("download", 0, total)

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            done = self._done
        self._progress("download", done, self._total)

    def stop(self) -> None:
        self.stopped = True


def _key(origin: str, files: dict[str, RemoteFile]) -> str:
    hashed = hashlib.blake2b(origin.encode(), digest_size=16)
    for name in sorted(files):
        hashed.update(f"\0{name}\0{files[name].size}\0{files[name].version}".encode())
    return hashed.hexdigest()


def _reason(error: Exception) -> str:
    """One line; SDK errors of these kinds hold addresses and codes, no credentials."""
    if isinstance(error, PermissionError):
        return "access denied: check the source's credentials, or the pod's role, and the bucket's policy"
    if isinstance(error, FileNotFoundError):
        return "no such bucket or object"
    text = " ".join(str(error).split())
    return text or type(error).__name__

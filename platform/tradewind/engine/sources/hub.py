"""hf:// sources: a repository of a Hugging Face hub (or a mirror), fetched with huggingface_hub.

Cached by commit; an interrupted download continues. Once everything of a commit is there, a source
that names that commit needs no network, and one that names a branch survives a hub that is away.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradewind.engine.errors import SourceError
from tradewind.engine.sources import weights
from tradewind.engine.sources.cache import disk_problem
from tradewind.engine.sources.report import Progress

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class HubSource:
    repository: str
    file: str | None
    """A GGUF file of the repository, when the address names one."""
    revision: str
    token: str | None
    endpoint: str | None
    trust_remote_code: bool
    consolidated: bool
    kind: weights.Kind

    @property
    def origin(self) -> str:
        return f"hf://{self.repository}" + ("" if self.revision == "main" else f" at {self.revision}")


def split_address(rest: str, origin: str) -> tuple[str, str | None]:
    """`owner/name[/file]` -> repository and file. SourceError when it is not one."""
    owner, _, tail = rest.partition("/")
    name, _, file = tail.partition("/")
    repository = f"{owner}/{name}"
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise SourceError(f"{origin}: a hub address is hf://owner/name or hf://owner/name/file.gguf")
    if file:
        weights.safe_names([file], origin)
    return repository, file or None


def fetch(source: HubSource, cache_dir: Path, progress: Progress) -> Path:
    """Local directory (or GGUF file) of the source. SourceError with the reason when there is none."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    root = cache_dir / "hub"
    note = root / "ready" / f"{_key(source, source.revision)}.json"
    if _COMMIT.fullmatch(source.revision) and (known := _whole(note)):
        return known
    try:
        commit, sizes = _listing(source)
    except _UnreachableError as error:
        if known := _whole(note):
            return known
        raise SourceError(f"{source.origin}: {error} and no whole copy is in {root}.") from error.__cause__
    names = _choose(source, list(sizes))
    directory = _download(source, commit, names, sum(sizes[name] for name in names), root, progress)
    result = directory / source.file if source.file else _result(directory, names, source.origin)
    for revision in {source.revision, commit}:
        _mark(root / "ready" / f"{_key(source, revision)}.json", result, names)
    return result


class _UnreachableError(Exception):
    """The hub did not answer."""


def _listing(source: HubSource) -> tuple[str, dict[str, int]]:
    """Commit and size in bytes of each file of the revision."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=source.endpoint, token=source.token)
    info = _call(
        source,
        lambda: api.model_info(source.repository, revision=source.revision, files_metadata=True, timeout=30),
    )
    if not info.sha or not _COMMIT.fullmatch(info.sha):
        raise SourceError(f"{source.origin}: the hub names no commit for this revision")
    return info.sha, {file.rfilename: int(file.size or 0) for file in info.siblings or ()}


def _choose(source: HubSource, names: list[str]) -> list[str]:
    weights.safe_names(names, source.origin)
    if source.file:
        if source.file not in names:
            raise SourceError(f"{source.origin}: has no file {source.file}")
        if not source.file.lower().endswith(".gguf"):
            raise SourceError(f"{source.origin}: only a GGUF file can be named, not {source.file}")
        return [source.file]
    if file := weights.only_gguf(names, source.origin):
        return [file]
    weights.require_safetensors(names, source.origin, source.kind)
    return weights.wanted(names, code=source.trust_remote_code, consolidated=source.consolidated)


def _result(directory: Path, names: list[str], origin: str) -> Path:
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise SourceError(f"{origin}: the download left out {missing[0]}")
    return directory / names[0] if names[0].lower().endswith(".gguf") else directory


def _download(
    source: HubSource, commit: str, names: list[str], total: int, root: Path, progress: Progress
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    root.mkdir(parents=True, exist_ok=True)
    blobs = root / f"models--{source.repository.replace('/', '--')}" / "blobs"

    def run() -> str:
        path: str = snapshot_download(
            source.repository,
            revision=commit,
            cache_dir=root,
            endpoint=source.endpoint,
            token=source.token,
            allow_patterns=[_literal(name) for name in names],
        )
        return path

    with _Watch(blobs, total, progress):
        try:
            return Path(_call(source, run))
        except _UnreachableError as error:
            raise SourceError(f"{source.origin}: {error}; what was fetched is kept, try again.") from error
        except OSError as error:
            raise SourceError(f"{source.origin}: {disk_problem(error, root)}") from error


def _literal(name: str) -> str:
    """`name` as an fnmatch pattern that matches nothing else."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _call(source: HubSource, action: Callable[[], Any]) -> Any:
    """Run one hub call; its many errors become SourceError, `_UnreachableError` or a plain OSError."""
    from huggingface_hub import errors

    where = source.endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        return action()
    except errors.GatedRepoError as error:
        known = (
            "the account of the token has not been granted access" if source.token else "no token was given"
        )
        raise SourceError(
            f"{source.origin}: the repository is gated and {known}. Accept its terms at "
            f"{where}/{source.repository} and set tokenSecret to a token of that account."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise SourceError(f"{source.origin}: the repository has no such revision") from error
    except errors.RepositoryNotFoundError as error:
        hint = "the token given may not read it" if source.token else "it is private and needs a token"
        raise SourceError(f"{source.origin}: {where} has no such repository, or {hint}.") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "?")
        if status in (401, 403):
            raise SourceError(f"{source.origin}: {where} refuses access (HTTP {status}).") from error
        raise _UnreachableError(f"{where} answered HTTP {status}") from error
    except (errors.LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise _UnreachableError(f"{where} cannot be reached") from error
    except OSError:
        raise
    except Exception as error:  # httpx's tree: which package it comes from differs by version
        raise _UnreachableError(f"{where} cannot be reached ({type(error).__name__})") from error


class _Watch:
    """While it is entered, reports how many bytes of the download are on disk."""

    def __init__(self, blobs: Path, total: int, progress: Progress) -> None:
        self._blobs, self._total, self._progress = blobs, total, progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="download-progress", daemon=True)

    def __enter__(self) -> None:
        self._progress("download", 0, self._total)
        self._thread.start()

    def __exit__(self, failed: object, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if failed is None:
            self._progress("download", self._total, self._total)

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            self._progress("download", min(_bytes_under(self._blobs), self._total), self._total)


def _bytes_under(directory: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in os.scandir(directory))
    except OSError:
        return 0


def _key(source: HubSource, revision: str) -> str:
    parts = [
        source.endpoint or "",
        source.repository,
        source.file or "",
        revision,
        str(source.trust_remote_code),
        str(source.consolidated),
    ]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _mark(note: Path, result: Path, names: list[str]) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    part = note.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"path": str(result), "names": names}))
    part.replace(note)


def _whole(note: Path) -> Path | None:
    """What an earlier download left, when all of it is still there."""
    try:
        content = json.loads(note.read_text())
        result = Path(content["path"])
        directory = result if result.is_dir() else result.parents[len(content["names"][0].split("/")) - 1]
        whole = result.exists() and all((directory / name).is_file() for name in content["names"])
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return result if whole else None

"""From a source's URI to a directory that the engine can load."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from tradewind.api.wire import EngineSettings, SecretRef, SourceSettings
from tradewind.engine.errors import SourceError
from tradewind.engine.sources import gguf, hub, objects, weights
from tradewind.engine.sources.report import Progress, silent
from tradewind.home import cache_dir as cache_home
from tradewind.secrets import SecretMissing, await_secret

SCHEMES = ("file", "package", "hf", "s3", "gs")


def prefetch(settings: EngineSettings, progress: Progress = silent, cache_dir: Path | None = None) -> Path:
    """Have the model on disk: download and convert what is missing. Its directory.

    Safe to call in several processes at once and again: what is there is used. Blocks. SourceError with
    the reason.
    """
    mistral = settings.args.get("load_format") == "mistral"
    return resolve(settings.source, cache_dir or cache_home(), progress, consolidated=mistral)


def prefetch_adapter(
    source: SourceSettings, progress: Progress = silent, cache_dir: Path | None = None
) -> Path:
    """The same for a LoRA adapter."""
    return resolve(source, cache_dir or cache_home(), progress, kind=weights.Kind.ADAPTER)


def resolve(
    source: SourceSettings,
    cache_dir: Path,
    progress: Progress = silent,
    *,
    consolidated: bool = False,
    kind: weights.Kind = weights.Kind.MODEL,
) -> Path:
    """Local directory of the source's model or adapter, in safetensors."""
    scheme, separator, rest = source.uri.partition("://")
    fetchers: dict[str, Callable[[], Path]] = {
        "file": lambda: _file(rest, source.uri),
        "package": lambda: _package(rest, source.uri),
        "hf": lambda: _hub(source, rest, cache_dir, progress, consolidated, kind),
        "s3": lambda: _objects(source, rest, cache_dir, progress, consolidated, kind),
        "gs": lambda: _objects(source, rest, cache_dir, progress, consolidated, kind),
    }
    if not separator or scheme not in fetchers:
        raise SourceError(f"{source.uri}: not a source; use one of {', '.join(f'{s}://' for s in SCHEMES)}")
    if source.token is not None and scheme != "hf":
        raise SourceError(f"{source.uri}: a token goes with hf:// only; {scheme}:// takes none")
    return _loadable(fetchers[scheme](), source, cache_dir, progress, kind)


def _loadable(
    found: Path, source: SourceSettings, cache_dir: Path, progress: Progress, kind: weights.Kind
) -> Path:
    """`found` as a directory of safetensors: converted when it is GGUF, refused when it is neither."""
    if found.is_dir():
        names = [str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()]
        file = weights.only_gguf(names, source.uri)
        if file is None:
            weights.require_safetensors(names, source.uri, kind)
            return found
        found = found / file
    if found.suffix.lower() != ".gguf":
        raise SourceError(
            f"{source.uri}: neither a directory with safetensors nor a GGUF file. Name the directory that "
            "holds config.json and *.safetensors."
        )
    if kind is weights.Kind.ADAPTER:
        raise SourceError(f"{source.uri}: an adapter must be safetensors, not GGUF")
    return gguf.converted(found, source.dtype or "bfloat16", cache_dir, progress, source.uri)


def _file(rest: str, origin: str) -> Path:
    path = Path(rest)
    if not path.is_absolute():
        raise SourceError(f"{origin}: the path must be absolute, as in file:///models/llama")
    if not path.exists():
        raise SourceError(f"{origin}: no such file or directory on this machine")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{origin}: may not be read by this process")
    return path


def _package(rest: str, origin: str) -> Path:
    """A file or directory that an installed Python package ships; the package is not imported."""
    name, _, inside = rest.partition("/")
    module = name.replace("-", "_")
    if not module.isidentifier():
        raise SourceError(f"{origin}: {name!r} is not a package name; use package://<package>/<file>")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"{origin}: the Python package {module} is not installed here")
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    if not inside:
        return root
    weights.safe_names([inside.rstrip("/")], origin)
    path = (root / inside).resolve()
    if not path.is_relative_to(root):
        raise SourceError(f"{origin}: leads out of the package")
    if not path.exists():
        shipped = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("__"))
        raise SourceError(
            f"{origin}: the package has no such file; it has {', '.join(shipped[:5]) or 'none'}"
        )
    return path


def _hub(
    source: SourceSettings,
    rest: str,
    cache_dir: Path,
    progress: Progress,
    consolidated: bool,
    kind: weights.Kind,
) -> Path:
    repository, file = hub.split_address(rest.rstrip("/"), source.uri)
    wanted = hub.HubSource(
        repository=repository,
        file=file,
        revision=source.revision or "main",
        token=read_token(source.token, source.uri) if source.token else None,
        endpoint=source.endpoint,
        trust_remote_code=source.trust_remote_code,
        consolidated=consolidated,
        kind=kind,
    )
    return hub.fetch(wanted, cache_dir, progress)


def _objects(
    source: SourceSettings,
    rest: str,
    cache_dir: Path,
    progress: Progress,
    consolidated: bool,
    kind: weights.Kind,
) -> Path:
    if source.revision is not None:
        raise SourceError(f"{source.uri}: a revision goes with hf:// only; put it into the path")
    path = rest.rstrip("/")
    if not path.partition("/")[0]:
        raise SourceError(f"{source.uri}: names no bucket")
    return objects.fetch(
        _open(source),
        path,
        cache_dir,
        progress,
        origin=source.uri.rstrip("/"),
        code=source.trust_remote_code,
        consolidated=consolidated,
        kind=kind,
    )


def _open(source: SourceSettings) -> objects.FileSystem:
    """The object store that the source names, with its credentials."""
    origin = source.uri
    if origin.startswith("gs:"):
        account = (
            None if source.gcs_key is None else read_token(source.gcs_key, origin, "service account key")
        )
        try:
            return objects.open_gcs(source.endpoint, account)
        except SourceError as error:
            raise SourceError(f"{origin}: {error}") from error
    key = None
    if (given := source.s3_key) is not None:
        session = given.session_token
        key = objects.AccessKey(
            read_token(given.access_key_id, origin, "access key id"),
            read_token(given.secret_access_key, origin, "secret access key"),
            None if session is None else read_token(session, origin, "session token"),
        )
    return objects.open_s3(source.endpoint, source.region, key)


def read_token(ref: SecretRef, origin: str, what: str = "token") -> str:
    """A source's secret; SourceError that names the place, never the value, when there is none."""
    try:
        return await_secret(ref)
    except SecretMissing as error:
        raise SourceError(f"{origin}: the {what}'s {error}") from error

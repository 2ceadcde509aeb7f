"""The state and cache directories, and the files in them that several processes share.

`$TRADEWIND_HOME` (default: the user's state directory) holds tokens, tenant keys, traces,
progress and the facts of the running platform; `$TRADEWIND_CACHE` holds model weights. Both are
private to the user (mode 0700), every secret file has mode 0600 and is created whole or not at all.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

import platformdirs

HOME = "TRADEWIND_HOME"
CACHE = "TRADEWIND_CACHE"
TOKEN = "TRADEWIND_INTERNAL_TOKEN"  # noqa: S105 - names of variables
TOKEN_FILE = "TRADEWIND_INTERNAL_TOKEN_FILE"  # noqa: S105
HASH_KEY_FILE = "TRADEWIND_HASH_KEY_FILE"


def home_dir() -> Path:
    """Directory of the platform's state. Not created here."""
    return Path(os.environ.get(HOME) or platformdirs.user_state_dir("tradewind"))


def cache_dir() -> Path:
    """Directory of model weights, which may be deleted at any time. Not created here."""
    return Path(os.environ.get(CACHE) or platformdirs.user_cache_dir("tradewind"))


def private_dir(path: Path) -> Path:
    """Create `path` (and parents) so that only the user can enter it, and return it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` atomically with mode 0600: readers see the old file or the new one."""
    private_dir(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def ensure_secret(path: Path, prefix: str = "") -> str:
    """Read the secret in `path`, or create 256 random bits there. Returns it without white space."""
    if path.exists():
        path.chmod(0o600)
        existing = path.read_text(encoding="utf-8").strip()
        if existing:
            return existing
    secret = prefix + secrets.token_hex(32)
    write_private(path, secret + "\n")
    return secret


INTERNAL_TOKEN = "internal-token"  # noqa: S105 - a file's name
"""File of a platform's state directory that holds its internal token."""


def internal_token() -> str:
    """The token that gateways show to engines.

    Raises:
        RuntimeError: neither environment variable names one, or it is shorter than 128 bits.
    """
    token = os.environ.get(TOKEN, "")
    if not token and (file := os.environ.get(TOKEN_FILE)):
        token = Path(file).read_text(encoding="utf-8").strip()
    if len(token) < 32:
        raise RuntimeError(f"no internal token: set {TOKEN_FILE} to a file with at least 32 characters")
    return token


def hash_key() -> bytes | None:
    """The key under which the configuration's API key hashes were made; None where none is shared.

    Raises:
        RuntimeError: the file has no key of 32 to 64 bytes.
    """
    file = os.environ.get(HASH_KEY_FILE)
    if not file:
        return None
    key = Path(file).read_bytes().strip()
    if not 32 <= len(key) <= 64:
        raise RuntimeError(f"no hash key: set {HASH_KEY_FILE} to a file with 32 to 64 bytes")
    return key

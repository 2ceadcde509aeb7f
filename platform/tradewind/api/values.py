"""Value types that custom resources are made of: names, durations and byte quantities.

A duration is written as in Go ("10m", "800ms", "1h30m"), a quantity as in Kubernetes ("16Gi").
Every type carries its bounds, so that the generated JSON Schemas and documentation hold them too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_UNIT_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION_PART: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(h|ms|m|s)", re.ASCII)
DURATION_PATTERN: Final = r"^([0-9]{1,9}(\.[0-9]{1,3})?(h|ms|m|s)){1,4}$"

_SUFFIX_BYTES: Final = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
QUANTITY_PATTERN: Final = r"^[0-9]{1,15}(\.[0-9]{1,3})?(k|M|G|T|Ki|Mi|Gi|Ti)?$"

NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
POOL_NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"
MODEL_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$"
ENV_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
HEADER_PATTERN: Final = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"
SECRET_KEY_PATTERN: Final = r"^[A-Za-z0-9._-]{1,253}$"  # noqa: S105 - a pattern
SECRET_NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"  # noqa: S105 - a pattern
HOST_PATTERN: Final = r"^[A-Za-z0-9:.-]{1,253}$"
TEXT_PATTERN: Final = r"^[^\x00-\x1f\x7f]*$"
IMAGE_PATTERN: Final = r"^[a-z0-9][A-Za-z0-9._/:@-]{0,511}$"
CIDR_PATTERN: Final = r"^[0-9a-fA-F.:]{2,45}/[0-9]{1,3}$"
VERSION_PATTERN: Final = r"^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}$"
RESOURCE_PATTERN: Final = r"^[a-z0-9.-]{1,200}/[A-Za-z0-9._-]{1,63}$"
PAGE_PATTERN: Final = r"^[1-9][0-9]{0,3}(Ki|Mi|Gi)$"
ADDRESS_PATTERN: Final = r"^(rediss?://)?[A-Za-z0-9._-]{1,253}:[0-9]{1,5}$"
ORIGIN_PATTERN: Final = r"^[a-z][a-z0-9+.-]{0,31}://([a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?$"
PATH_PATTERN: Final = r"^[A-Za-z0-9._][A-Za-z0-9._/-]{0,255}$"
MOUNT_PATTERN: Final = r"^/[A-Za-z0-9._/-]{0,255}$"
VOLUME_NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$"
LABEL_KEY_PATTERN: Final = r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN: Final = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"

PATTERN_MEANING: Final[dict[str, str]] = {
    NAME_PATTERN: "1 to 63 lower-case letters, digits, '-', with a letter or digit at both ends",
    POOL_NAME_PATTERN: "1 to 40 lower-case letters, digits, '-', with a letter or digit at both ends",
    MODEL_PATTERN: "1 to 128 letters, digits, '.', '_', '-', '/', with a letter or digit at both ends",
    ENV_PATTERN: "1 to 128 letters, digits and '_', not beginning with a digit",
    HEADER_PATTERN: "an HTTP header name of 1 to 64 characters",
    SECRET_KEY_PATTERN: "1 to 253 letters, digits, '.', '_' and '-'",
    SECRET_NAME_PATTERN: "the name of a Kubernetes Secret: lower-case letters, digits, '-' and '.'",
    HOST_PATTERN: "an IP address or a host name",
    TEXT_PATTERN: "text without control characters",
    IMAGE_PATTERN: "an image reference such as registry.example/tradewind/gateway@sha256:...",
    CIDR_PATTERN: "a CIDR block such as 10.0.0.0/8",
    VERSION_PATTERN: "a version such as 2.60.0",
    RESOURCE_PATTERN: "an extended resource such as nvidia.com/gpu",
    PAGE_PATTERN: "a page size such as 2Mi or 1Gi",
    ADDRESS_PATTERN: "<host>:<port>, redis://<host>:<port> or rediss://<host>:<port>",
    ORIGIN_PATTERN: "an origin such as https://chat.example.com or http://localhost:3000, in lower case, "
    "without a path",
    PATH_PATTERN: "a relative path of letters, digits, '.', '_', '-', '/'",
    MOUNT_PATTERN: "an absolute path of letters, digits, '.', '_', '-', '/'",
    VOLUME_NAME_PATTERN: "1 to 50 lower-case letters, digits, '-', with a letter or digit at both ends",
    LABEL_KEY_PATTERN: "a Kubernetes label key",
    LABEL_VALUE_PATTERN: "a Kubernetes label value of at most 63 characters",
}
"""What a pattern allows, in words, for error messages and documentation."""

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
"""RFC 1123 label."""
PoolName = Annotated[str, Field(pattern=POOL_NAME_PATTERN, max_length=40)]
"""Short enough for what Kubernetes makes of it and a cluster's name."""
ModelName = Annotated[str, Field(pattern=MODEL_PATTERN, max_length=128)]
"""What a client puts in `model`. No ':': that separates a deployment from its adapter."""
EnvName = Annotated[str, Field(pattern=ENV_PATTERN, max_length=128)]
HeaderName = Annotated[str, Field(pattern=HEADER_PATTERN, max_length=64)]
SecretName = Annotated[str, Field(pattern=SECRET_NAME_PATTERN, max_length=253)]
SecretKey = Annotated[str, Field(pattern=SECRET_KEY_PATTERN, max_length=253)]
Line = Annotated[str, Field(pattern=TEXT_PATTERN, min_length=1, max_length=1024)]
"""One line of text without control characters."""
Image = Annotated[str, Field(pattern=IMAGE_PATTERN, max_length=512)]
"""A container image by tag or digest."""
LabelKey = Annotated[str, Field(pattern=LABEL_KEY_PATTERN, max_length=317)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE_PATTERN, max_length=63)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=16)]
"""Labels that must all be there."""
Annotations = Annotated[
    dict[LabelKey, Annotated[str, Field(pattern=TEXT_PATTERN, max_length=1024)]], Field(max_length=16)
]
"""Kubernetes annotations."""
ResourceName = Annotated[str, Field(pattern=RESOURCE_PATTERN, max_length=253)]
"""An extended resource of Kubernetes."""
PageSize = Annotated[str, Field(pattern=PAGE_PATTERN, max_length=8)]
Port = Annotated[int, Field(ge=1, le=65535)]


def camel(name: str) -> str:
    """`max_model_len` → `maxModelLen`: how a Python name is written in YAML."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


class Duration(float):
    """Seconds; written, shown and serialized as a Go-style duration."""

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Seconds of "10m", "800ms" or "1h30m"; ValueError on anything else."""
        if not re.fullmatch(DURATION_PATTERN, text, re.ASCII):
            raise ValueError(f"found {text!r}; a duration is written like 30s, 800ms, 10m or 1h30m")
        return cls(sum(float(n) * _UNIT_SECONDS[unit] for n, unit in _DURATION_PART.findall(text)))

    def __str__(self) -> str:
        left = round(self * 1000)
        parts = []
        for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
            count, left = divmod(left, size)
            if count:
                parts.append(f"{count}{unit}")
        return "".join(parts) or "0s"


class Quantity(int):
    """Bytes; written and serialized as a Kubernetes quantity."""

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """Bytes of "512Mi", "16Gi" or "1000000"; ValueError on anything else."""
        if not re.fullmatch(QUANTITY_PATTERN, text, re.ASCII):
            raise ValueError(f"found {text!r}; a quantity of bytes is written like 512Ki, 10Mi or 16Gi")
        number = text.rstrip("kKMGTi")
        return cls(int(Decimal(number) * _SUFFIX_BYTES[text[len(number) :]]))

    def __str__(self) -> str:
        for suffix in ("Ti", "Gi", "Mi", "Ki"):
            if self and not self % _SUFFIX_BYTES[suffix]:
                return f"{int(self) // _SUFFIX_BYTES[suffix]}{suffix}"
        return format(int(self), "d")


@dataclass(frozen=True, slots=True)
class Between:
    """Bounds of a Duration or Quantity field, both included, and how pydantic reads the field."""

    least: str
    most: str

    def __get_pydantic_core_schema__(self, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        least, most = source.parse(self.least), source.parse(self.most)
        noun = "duration" if issubclass(source, Duration) else "quantity of bytes"

        def read(value: object) -> object:
            if not isinstance(value, str | source):
                example = "10m" if issubclass(source, Duration) else "16Gi"
                raise PydanticCustomError(
                    "bounded",
                    "expected a {noun} in quotes, such as {example}",
                    {"noun": noun, "example": example},
                )
            try:
                parsed = value if isinstance(value, source) else source.parse(value)
            except ValueError as error:
                raise PydanticCustomError("bounded", "{message}", {"message": str(error)}) from None
            if not least <= parsed <= most:
                raise PydanticCustomError(
                    "bounded",
                    "found {found}; allowed: {least} to {most}",
                    {"found": str(parsed), "least": self.least, "most": self.most},
                )
            return parsed

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        is_duration = self.most[-1] in "hms"
        return {
            "type": "string",
            "pattern": DURATION_PATTERN if is_duration else QUANTITY_PATTERN,
            "maxLength": 32,
            "x-tradewind-bounds": f"{self.least} to {self.most}",
        }

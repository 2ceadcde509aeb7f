"""The base of every custom-resource model, and how its cross-field rules are written.

Models are immutable and refuse unknown fields. A rule that needs more than one field is yielded as
a `Fault` by `faults()`; all faults of a resource are reported together, each at its own path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tradewind.api.values import (
    LABEL_KEY_PATTERN,
    LABEL_VALUE_PATTERN,
    Name,
    camel,
)

API_VERSION = "tradewind.dev/v1alpha1"
RULES_ERROR = "rules"
"""Type of the pydantic error whose context holds the `faults` of a model."""

Path = tuple[str | int, ...]
"""Where in a resource: camelCase field names and list positions."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a resource: where, what was found and what is allowed."""

    path: Path
    message: str
    hint: str = ""


class ApiModel(BaseModel):
    """camelCase in YAML, snake_case in Python."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        validate_default=False,
    )

    planned: ClassVar[Mapping[str, str]] = {}
    """Fields (as in YAML) that a later version will have, each with what this version does instead.
    For a field that this version has, it is the hint given with a value out of bounds."""

    def faults(self) -> Iterable[Fault]:
        """Cross-field rules that do not hold; paths are relative to this model."""
        return ()

    @model_validator(mode="after")
    def _hold_rules(self) -> Self:
        faults = list(self.faults())
        if faults:
            text = "; ".join(fault.message for fault in faults)
            raise PydanticCustomError(RULES_ERROR, "{text}", {"text": text, "faults": faults})
        return self


class Metadata(ApiModel):
    """Kubernetes object metadata, as far as it is written by people."""

    name: Name
    """Unique among the resources of one kind."""
    namespace: Name | None = None
    """All resources that are applied together are in one namespace."""
    labels: Annotated[
        dict[
            Annotated[str, Field(pattern=LABEL_KEY_PATTERN, max_length=317)],
            Annotated[str, Field(pattern=LABEL_VALUE_PATTERN, max_length=63)],
        ],
        Field(max_length=64),
    ] = Field(default_factory=dict)
    """For people and tools; Tradewind does not read them."""
    annotations: Annotated[
        dict[
            Annotated[str, Field(pattern=LABEL_KEY_PATTERN, max_length=317)],
            Annotated[str, Field(max_length=4096)],
        ],
        Field(max_length=64),
    ] = Field(default_factory=dict)
    """For people and tools; Tradewind does not read them."""


class ResourceModel(ApiModel):
    """What all kinds have in common."""

    api_version: Literal["tradewind.dev/v1alpha1"]
    """Always `tradewind.dev/v1alpha1`."""
    kind: Any
    metadata: Metadata


def repeated(values: Iterable[str], at: Path, what: str, field: str | None = None) -> Iterable[Fault]:
    """A fault for every value that was there before; `field` is the name's own key in each item."""
    first: dict[str, int] = {}
    for position, value in enumerate(values):
        if value in first:
            path = (*at, position) if field is None else (*at, position, field)
            yield Fault(path, f"found {what} {value!r} a second time; allowed: each once")
        first.setdefault(value, position)

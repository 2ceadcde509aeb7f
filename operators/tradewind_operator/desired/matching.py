"""Whether an object is as it was wanted, without asking the API server to apply it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tradewind.api.wire import digest
from tradewind_operator.desired import names
from tradewind_operator.desired.world import Manifest


def digest_of(manifest: Manifest) -> str:
    """Of everything in the manifest but the digest itself."""
    about = manifest["metadata"]
    annotations = {
        name: value
        for name, value in (about.get("annotations") or {}).items()
        if name != names.DIGEST_ANNOTATION
    }
    return digest({**manifest, "metadata": {**about, "annotations": annotations}})


def matches(there: Mapping[str, Any], manifest: Manifest) -> bool:
    """Every wanted field has its value, and nothing was applied before that is no longer wanted."""
    return _contains(there, manifest)


def _contains(there: Any, wanted: Any) -> bool:
    if there is None and wanted == []:
        return True  # the API server leaves out empty lists
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(
            _contains(there.get(key), value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        same_length = isinstance(there, list) and len(there) == len(wanted)
        return same_length and all(map(_contains, there, wanted))
    return bool(there == wanted)

"""Write the images that a release built into the chart's values, by digest. Standard library only.

    python3 deploy/images/pin.py --values deploy/helm/tradewind/values.yaml digests/*.txt

Each file holds one reference, `<registry>/<path>/tradewind-<target>:<tag>@sha256:<64 hex digits>`. Only the
keys `registry`, `repository`, `tag` and `digest` of that component's `image` change; every comment stays.
Errors are one sentence; exit 1, and nothing is written.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

COMPONENTS = {
    "operator": "operator",
    "gateway": "gateway",
    "engine-cpu": "engineCpu",
    "engine-cuda": "engineCuda",
}
"""Target of the Dockerfile to top-level key of the chart's values."""
REFERENCE = re.compile(
    r"(?P<registry>[a-z0-9.-]+(:\d+)?)/(?P<repository>[a-z0-9._/-]*tradewind-(?P<target>[a-z-]+))"
    r":(?P<tag>[A-Za-z0-9._-]+)@(?P<digest>sha256:[0-9a-f]{64})"
)
KEY = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z]+):(?P<value>[^#\n]*?)(?P<comment>\s+#.*)?$")


class PinError(Exception):
    """Why the values cannot be written, in words for the person who releases."""


@dataclass(frozen=True)
class Image:
    """Where one image of this release is."""

    target: str
    registry: str
    repository: str
    tag: str
    digest: str


def parse(reference: str) -> Image:
    """The image that a line `<registry>/<repository>:<tag>@<digest>` names. Raises PinError."""
    match = REFERENCE.fullmatch(reference.strip())
    if match is None or match["target"] not in COMPONENTS:
        allowed = ", ".join(f"tradewind-{target}" for target in COMPONENTS)
        raise PinError(f"found {reference.strip()!r}; allowed: <registry>/<path>:<tag>@sha256:… of {allowed}")
    return Image(**{name: match[name] for name in ("target", "registry", "repository", "tag", "digest")})


def pin(values: str, images: list[Image]) -> str:
    """`values` (YAML in block style) with `images` in it. Raises PinError unless there is one for each."""
    wanted = {COMPONENTS[image.target]: image for image in images}
    if sorted(wanted) != sorted(COMPONENTS.values()) or len(images) != len(wanted):
        found = ", ".join(sorted(image.target for image in images)) or "none"
        raise PinError(f"found images for {found}; allowed: one each for {', '.join(COMPONENTS)}")
    missing = {(name, key) for name in wanted for key in ("registry", "repository", "tag", "digest")}
    lines: list[str] = []
    path: tuple[str, ...] = ()
    for line in values.splitlines():
        written = line
        if match := KEY.match(line):
            path = (*path[: len(match["indent"]) // 2], match["name"])
            place = (path[0], path[-1])
            if len(path) == 3 and path[1] == "image" and place in missing:
                missing.remove(place)
                value = getattr(wanted[place[0]], place[1])
                written = f"{match['indent']}{place[1]}: {value}{match['comment'] or ''}"
        lines.append(written)
    if missing:
        places = ", ".join(f"{name}.image.{key}" for name, key in sorted(missing))
        raise PinError(f"the values have no {places}")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when the values are written, 1 with a reason when they cannot be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--values", type=Path, required=True, help="values.yaml of the chart")
    parser.add_argument("references", type=Path, nargs="+", help="files with one reference each")
    given = parser.parse_args(arguments)
    try:
        images = [parse(path.read_text(encoding="utf-8")) for path in given.references]
        given.values.write_text(pin(given.values.read_text(encoding="utf-8"), images), encoding="utf-8")
    except (PinError, OSError) as error:
        print(f"pin.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

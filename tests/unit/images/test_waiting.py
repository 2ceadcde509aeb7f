"""A bash that waits for Ray's head leaves when it is told to; any other is as it was."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.unit.images.dockerfile import DOCKERFILE, ROOT, stages

FILE = ROOT / "platform" / "tradewind" / "serve" / "waiting.bash"
WAITS = "while true; do if ray health-check --address a:6379; then break; fi; sleep 0.1; done"
STAGES = stages(DOCKERFILE.read_text())


@pytest.mark.parametrize("target", ["gateway", "engine-cpu", "engine-cuda"])
def test_every_ray_image_has_it_where_bash_looks(target: str) -> None:
    (path,) = [each.removeprefix("BASH_ENV=") for each in STAGES[target].values("ENV") if "BASH_ENV" in each]
    assert path == f"/opt/tradewind/lib/python3.11/site-packages/{FILE.relative_to(ROOT / 'platform')}"


@pytest.mark.parametrize(
    ("command", "ends"),
    [
        # As KubeRay 1.6 and 1.7 write it.
        (f"echo on; {WAITS}", 143),
        (f"HANGS=1; export HANGS; echo on; {WAITS}", 143),
        # Without a trap the signal ends it; as process 1 of a container it would be ignored.
        ("echo on; while true; do sleep 0.1; done", -15),
    ],
    ids=["waits for the head", "asks a head that is not there", "another"],
)
def test_it_heeds_the_signal_where_it_waits_and_nowhere_else(command: str, ends: int, tmp_path: Path) -> None:
    (tmp_path / "ray").write_text("#!/bin/sh\n[ -z $HANGS ] || exec sleep 5\nexit 1\n")
    (tmp_path / "ray").chmod(0o755)
    environment = {"BASH_ENV": str(FILE), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    with subprocess.Popen(
        ["/bin/bash", "-c", "--", command], env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        process.terminate()
        assert process.wait(3) == ends


def test_a_head_that_answers_ends_the_waiting(tmp_path: Path) -> None:
    (tmp_path / "ray").write_text(
        f"#!/bin/sh\n[ -e {tmp_path}/there ] || {{ touch {tmp_path}/there; exit 1; }}\n"
    )
    (tmp_path / "ray").chmod(0o755)
    environment = {"BASH_ENV": str(FILE), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    waits = ["/bin/bash", "-c", "--", f"{WAITS}; echo on"]
    done = subprocess.run(waits, env=environment, capture_output=True, timeout=10, check=True)
    assert (done.stdout, done.stderr) == (b"on\n", b"")

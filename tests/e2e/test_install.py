"""From an empty cluster to the first token, by the tutorial's commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.release import MODEL, Phases, installed
from tests.e2e.site import Site

pytestmark = pytest.mark.e2e
FIRST_TOKEN_S = 300


def test_install_to_first_token_in_five_minutes(cluster: Site, tmp_path: Path) -> None:
    cluster.own()
    phases = Phases()
    with installed(cluster, tmp_path, phases) as release:
        release.kubectl("rollout", "status", "deployment/tradewind-operator", "--timeout=120s")
        phases.reached("operator ready")
        release.kubectl("apply", f"--filename={MODEL}")
        phases.reached("model applied")
        release.wait_ready("scl/default", 300)
        phases.reached("ServingCluster ready")
        release.wait_ready("md/smollm2", 300)
        release.wait_ready("mr/chat", 60)
        phases.reached("model and route ready")
        first, answer = release.first_token_s("What is the capital of France?")
        phases.reached(f"first token, {first:.2f} s after the question")
        assert "[DONE]" in answer
    assert phases.at["model and route ready"] + first < FIRST_TOKEN_S

"""Models that cannot start say why, harm nobody, and start once they are mended."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.e2e.bed.plan import HOST
from tests.e2e.models import applied, model, with_arguments
from tests.e2e.release import Condition, Release
from tests.fakes.hub import FakeHub, Repository

pytestmark = pytest.mark.e2e
FAILS_S = 240


def test_a_model_that_fits_no_pool_is_refused_with_its_size_and_theirs(release: Release) -> None:
    with applied(release, model("large", resources={"cpus": 1, "memory": "64Gi"})):
        said = says(release, "large", "Accepted", lambda found: found.status == "False", 20)
        assert "64Gi" in said.message
        assert "cpu" in said.message
    serves(release)


def test_a_wrong_argument_is_told_in_the_engines_words_and_can_be_mended(release: Release) -> None:
    with applied(release, with_arguments("wrong", maxModelLen=1_000_000)):
        said = says(release, "wrong", "Ready", failed, FAILS_S)
        assert "max_model_len" in said.message or "maxModelLen" in said.message
        assert release.get("md/wrong")["status"]["lastError"]
        serves(release)
        release.apply(model("wrong"))
        release.wait_ready("md/wrong", 240)
        assert release.ask(model="wrong").status_code == httpx.codes.OK


def test_an_engine_that_needs_more_memory_than_it_has_says_so(release: Release) -> None:
    with applied(release, with_arguments("hungry", kvCacheMemoryBytes=64 * 2**30)):
        said = says(release, "hungry", "Ready", failed, FAILS_S)
        assert "memory" in said.message.lower()
    serves(release)


def test_a_gated_source_says_what_is_missing(release: Release) -> None:
    release.site.own()  # pods of another cluster do not reach this machine
    gated = {"acme/gated": Repository({"config.json": b"{}"}, gated=True)}
    engine = release.own_pod("engine")
    with FakeHub(gated, address=HOST) as hub:
        port = int(hub.url.rpartition(":")[2])
        # The network policy lets engines go where a model comes from, and as long as there is one.
        assert not engine.connects(HOST, port)
        source = {"uri": "hf://acme/gated", "endpoint": hub.url}
        with applied(release, model("gated", source=source)):
            said = says(release, "gated", "Ready", failed, FAILS_S)
            assert "gated" in said.message
            assert "tokenSecret" in said.message
            assert engine.connects(HOST, port)
        release.wait("the port is closed again", lambda: not engine.connects(HOST, port), 15)
    serves(release)


def test_an_image_that_is_not_there_is_named(release: Release) -> None:
    cluster = release.get("scl/default")["spec"]["pools"]
    # Small enough for the room beside the engine that serves, and beside one that idles.
    small = {"cpus": 0.2, "memory": "1Gi", "sharedMemory": "64Mi"}
    odd = {**cluster["cpu"], **small, "engineImage": "localhost/not-there:e2e"}
    release.patch("scl/default", {"spec": {"pools": {"odd": odd}}})
    try:
        with applied(release, model("image", resources={"cpus": 0.2, "memory": "1Gi", "pool": "odd"})):
            said = says(release, "image", "Ready", lambda found: "not-there" in found.message, 120)
            assert said.status == "False"
            serves(release)
    finally:
        release.patch("scl/default", {"spec": {"pools": {"odd": None}}})


def failed(found: Condition) -> bool:
    return found.reason == "Failed"


def says(
    release: Release, name: str, condition: str, true: Callable[[Condition], bool], timeout_s: float
) -> Condition:
    """A model's condition once it is as wanted. Raises AssertionError."""
    found = Condition()

    def looks() -> bool:
        nonlocal found
        found = release.condition(f"md/{name}", condition)
        return true(found)

    took = release.wait(f"md/{name} says it", looks, timeout_s)
    print(f"md/{name} after {took:.1f} s: {found.reason}: {found.message}")
    return found


def serves(release: Release) -> None:
    """The model beside it answers, and is Ready."""
    assert release.ask().status_code == httpx.codes.OK
    assert release.condition("md/smollm2").status == "True"

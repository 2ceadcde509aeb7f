"""What was accepted is read back by its version, and no version is guessed."""

from __future__ import annotations

import copy
from datetime import UTC, datetime

import pytest

from tests.unit.api.builders import Data
from tests.unit.operator.policy.objects import cluster, decided, edited, model, platform, route
from tradewind_operator.kinds import MODEL_DEPLOYMENT
from tradewind_operator.policy.accepted import AcceptedBlock
from tradewind_operator.policy.verdict import Reason
from tradewind_operator.publish import statuses_of
from tradewind_operator.status.observation import Observation

LLAMA = (MODEL_DEPLOYMENT.kind, "llama")
CLUSTER = ("ServingCluster", "default")
LATER = "tradewind.dev/v1beta1"


def kept(data: Data, version: str | None) -> Data:
    """Accepted once, by an operator that wrote this version; None: by one that wrote none."""
    block = AcceptedBlock(data["metadata"]["generation"], copy.deepcopy(data["spec"])).written()
    block |= {"apiVersion": version}
    if version is None:
        del block["apiVersion"]
    return data | {"status": {"accepted": block}}


def refused(data: Data) -> Data:
    """Somebody wrote what cannot be read since then."""
    return edited(data, "spec.bogus", 1)


@pytest.mark.parametrize("version", ["tradewind.dev/v1alpha1", None], ids=["said", "of a release before"])
def test_what_was_accepted_goes_on_whoever_wrote_it(version: str | None) -> None:
    decision = decided(cluster(), refused(kept(model(), version)))
    verdict = decision.verdicts[LLAMA]
    assert (verdict.accepted, verdict.from_generation) == (False, 1)
    assert decision.in_force[LLAMA].generation == 1
    assert "What was accepted as generation 1 stays in force." in verdict.message


def test_a_block_of_a_later_version_is_told_of_and_left_as_it_is() -> None:
    found = refused(kept(model(), LATER))
    decision = decided(cluster(), found)
    verdict = decision.verdicts[LLAMA]
    assert (verdict.accepted, verdict.reason, verdict.from_generation) == (False, Reason.INVALID, None)
    assert LLAMA not in decision.in_force
    assert verdict.message.endswith(
        f"Nothing of this resource is in force: what was accepted as generation 1 is written in {LATER!r}, "
        "which this operator does not read; allowed: tradewind.dev/v1alpha1."
    )
    status = statuses_of(Observation(decision, datetime.now(UTC)))[LLAMA]
    assert status["accepted"] == found["status"]["accepted"]


def test_a_serving_cluster_is_told_of_too() -> None:
    decision = decided(refused(kept(cluster(), LATER)))
    assert LATER in decision.verdicts[CLUSTER].message
    assert decision.compiled is None


def test_a_block_that_nobody_needs_is_replaced_by_one_of_now() -> None:
    """What is written can be read and is right, so it is in force whatever stood in the status."""
    decision = decided(cluster(), edited(kept(model(), LATER), "spec.limits.maxOngoingRequests", 7))
    assert decision.verdicts[LLAMA].accepted
    status = statuses_of(Observation(decision, datetime.now(UTC)))[LLAMA]
    assert (status["accepted"]["apiVersion"], status["accepted"]["generation"]) == (
        "tradewind.dev/v1alpha1",
        2,
    )


def test_a_block_that_breaks_the_rules_of_now_is_told_of() -> None:
    older = model(source={"uri": "ftp://once.allowed"})
    decision = decided(cluster(), refused(kept(older, None)))
    assert "what was accepted as generation 1 breaks the rules of this operator" in (
        decision.verdicts[LLAMA].message
    )


def test_every_kind_writes_the_version_of_its_spec() -> None:
    decision = decided(*platform(), route("more", "llama"))
    statuses = statuses_of(Observation(decision, datetime.now(UTC))).values()
    assert {status["accepted"]["apiVersion"] for status in statuses} == {"tradewind.dev/v1alpha1"}


@pytest.mark.parametrize("block", [None, "text", {}, {"generation": "1"}, {"spec": {}}])
def test_what_is_no_block_is_none(block: object) -> None:
    assert AcceptedBlock.of(block) is None

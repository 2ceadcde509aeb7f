"""Weights and adapters from a bucket that asks who reads it."""

from __future__ import annotations

import httpx
import pytest

from tests.e2e.bed.plan import HOST
from tests.e2e.models import applied, model
from tests.e2e.release import Release
from tests.fakes.bucket import private_bucket
from tests.fixtures import models

pytestmark = pytest.mark.e2e
KEYS = "bucket-keys"


def test_a_model_and_its_adapter_come_from_a_private_bucket(release: Release) -> None:
    release.site.own()  # pods of another cluster do not reach this machine
    names = {"accessKeyId": {"name": KEYS, "key": "id"}, "secretAccessKey": {"name": KEYS, "key": "secret"}}
    with private_bucket({"tiny": models.llama(), "tone": models.adapter()}, HOST) as bucket:
        keys = {"id": bucket.key_id, "secret": bucket.secret}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYS}, "stringData": keys}
        source = {"uri": bucket.uri("tiny"), "endpoint": bucket.url, "credentials": {"s3": names}}
        adapter = {"name": "tone", "uri": bucket.uri("tone"), "endpoint": bucket.url}
        with applied(release, secret, model("private", source=source, adapters=[adapter])):
            release.wait_ready("md/private", 240)
            assert release.ask(model="private").status_code == httpx.codes.OK
            adapters = release.condition("md/private", "AdaptersReady")
            assert (adapters.status, adapters.reason) == ("True", "AdaptersReady"), adapters
            assert release.ask(model="private:tone").status_code == httpx.codes.OK
            shown = release.kubectl("get", "md,scl,rayclusters,pods,configmaps,events", "--output=yaml")
            assert bucket.secret not in shown

from __future__ import annotations

import pytest

from tests.unit.operator.policy.objects import (
    ALLOWED,
    accepted,
    cluster,
    documents,
    edited,
    model,
    route,
    tenant,
)
from tradewind.api.key_hash import key_hash
from tradewind_operator.policy.images import AllowedImages
from tradewind_operator.policy.namespace import Namespace
from tradewind_operator.policy.secrets import State, WantedSecret, value_of, wanted_secrets

HASH_KEY = b"k" * 32
TOKEN = {"uri": "hf://org/model", "tokenSecret": {"name": "hf", "key": "token"}}


def test_secrets_of_what_is_written_and_of_what_was_accepted_are_read() -> None:
    redis = {
        "backend": "redis",
        "redis": {"address": "redis:6379", "password": {"name": "redis", "key": "password"}},
    }
    moved = edited(accepted(tenant()), "spec.keys.0.secret.name", "new")
    given = {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "licence", "key": "id"}}}]}
    own = cluster(gcsFaultTolerance=redis, gateway={"pod": given})
    found = wanted_secrets(Namespace.of(documents(own, model(source=TOKEN), moved)))
    assert found == {
        WantedSecret("hf", "token", "TOKEN"),
        WantedSecret("acme", "key", "API_KEY"),
        WantedSecret("new", "key", "API_KEY"),
        WantedSecret("redis", "password", "PASSWORD"),
        WantedSecret("licence", "id", "PASSWORD"),
    }


def test_of_a_value_only_its_keyed_digest_is_known() -> None:
    value = value_of(b" sk-0123456789abcdef\n", HASH_KEY)
    assert (value.state, value.hash) == (State.PRESENT, key_hash("sk-0123456789abcdef", HASH_KEY))
    assert "sk-" not in repr(value)


@pytest.mark.parametrize(
    "raw", [b"", b"short", b"with a space in it and long", b"x" * 513, "ü".encode() * 20]
)
def test_what_the_gateway_would_refuse_is_no_api_key(raw: bytes) -> None:
    assert value_of(raw, HASH_KEY).state is State.UNUSABLE


def test_images_are_allowed_by_prefix_or_in_whole() -> None:
    listed = AllowedImages(("ghcr.io/team/", "quay.io/ray:", "docker.io/one@sha256:ab"))
    for image in ("ghcr.io/team/a:1", "quay.io/ray:2.60", "docker.io/one@sha256:ab"):
        assert listed.allows(image)
    for image in ("ghcr.io/team2/a", "quay.io/ray-evil:1", "docker.io/one@sha256:abc", "evil/ghcr.io/team/a"):
        assert not listed.allows(image)
    assert "none" in str(AllowedImages())
    assert str(ALLOWED) == "ghcr.io/tradewind/*"


def test_an_edit_that_mixes_clusters_leaves_the_route_where_it_was() -> None:
    was = accepted(route("chat", "y"))
    mixed = edited(was, "spec.variants", [{"name": each, "deployment": each} for each in ("x", "y")])
    models = (model("x", cluster="a"), model("y", cluster="b"))
    namespace = Namespace.of(documents(cluster("a"), cluster("b"), *models, mixed))
    assert namespace.home(namespace.routes["chat"]) == "b"
    assert namespace.homes() == {"a", "b"}

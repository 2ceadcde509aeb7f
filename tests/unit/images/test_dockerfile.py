"""What the images promise: numeric user, hashed wheels only, one base, nothing fetched by hand, no secret."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from typing import Any

import pytest

from tests.unit.images.dockerfile import DOCKERFILE, ROOT, Stage, arguments, ingredients, stages
from tools import lock as locks
from tradewind_operator.desired import names
from tradewind_operator.settings import Images

TEXT = DOCKERFILE.read_text()
STAGES = stages(TEXT)
RELEASE = (ROOT / ".github" / "workflows" / "release.yml").read_text()
TARGETS = ("operator", "gateway", "engine-cpu", "engine-cuda")
NETWORK = re.compile(r"\b(curl|wget|git clone)\b|https?://")
SECRET = re.compile(r"TOKEN|PASSWORD|SECRET|CREDENTIAL|(^|_)KEY", re.IGNORECASE)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def copies(stage: Stage) -> list[tuple[list[str], str | None]]:
    """(sources, the stage they come from or None for the checkout) of every COPY of the stage itself."""
    found = []
    for word, rest in stage.instructions:
        if word == "COPY":
            words = shlex.split(rest)
            origin = next((word.partition("=")[2] for word in words if word.startswith("--from=")), None)
            found.append(([word for word in words if not word.startswith("--")][:-1], origin))
    return found


def test_the_targets_are_the_last_stages() -> None:
    assert tuple(STAGES)[-len(TARGETS) :] == TARGETS


def test_every_stage_begins_with_the_one_base_or_an_earlier_stage() -> None:
    assert {stage.base for stage in STAGES.values() if stage.parent is None} == {"${BASE}"}


def test_the_base_is_an_argument_with_an_exact_tag_or_a_digest() -> None:
    base = arguments(TEXT)["BASE"]
    assert re.search(r":[^/:]*\d|@sha256:[0-9a-f]{64}$", base)
    assert "latest" not in base


def test_the_base_has_the_python_that_the_locks_are_made_for() -> None:
    assert "python:3.11-" in arguments(TEXT)["BASE"]


@pytest.mark.parametrize("target", TARGETS)
def test_runs_as_the_user_whom_the_operator_names(target: str) -> None:
    assert STAGES[target].values("USER")[-1] == f"{names.USER_ID}:{names.USER_ID}"
    assert STAGES[target].instructions[-2][0] == "USER"  # nothing but the command comes after it


@pytest.mark.parametrize("target", TARGETS)
def test_holds_the_environment_that_the_lock_of_its_name_describes(target: str) -> None:
    assert STAGES[target].base == f"{target}-base"
    (copied,) = (sources for sources, origin in copies(STAGES[f"{target}-base"]) if origin is None)
    assert copied[0] == f"requirements/{target}.lock"
    (install,) = (rest for rest in STAGES[f"{target}-base"].values("RUN") if "pip" in rest)
    for lock in copied:
        assert f"{names.PREFIX}/{lock.removeprefix('requirements/')}" in install


@pytest.mark.parametrize("target", TARGETS)
def test_the_project_is_a_layer_of_its_own_after_the_packages(target: str) -> None:
    """An upgrade pulls that layer, not gigabytes; and no stage with packages is built again for it."""
    assert copies(STAGES[target]) == [(["/project"], "project")]
    assert [origin for _, origin in copies(STAGES[f"{target}-base"])] == [None]
    releases = {
        word for word, rest in STAGES[f"{target}-base"].lineage if word == "ARG" and "PYTORCH" not in rest
    }
    assert releases == set()


@pytest.mark.parametrize("target", TARGETS)
def test_what_installs_the_packages_is_one_of_their_ingredients(target: str) -> None:
    known = ingredients(TEXT, f"{target}-base")
    assert ("COPY", "requirements/bootstrap.lock requirements/") in known
    assert [rest for word, rest in known if word == "COPY" and "platform" in rest] == []


@pytest.mark.parametrize("target", TARGETS)
def test_writes_nothing_outside_tmp(target: str) -> None:
    environment = " ".join(STAGES[target].values("ENV"))
    assert "HOME=/tmp" in environment
    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert environment.count("PATH=/opt/tradewind/bin:") == 1
    assert STAGES[target].values("VOLUME") == []


@pytest.mark.parametrize("target", TARGETS)
def test_has_labels_and_a_way_to_stop(target: str) -> None:
    labels = " ".join(STAGES[target].values("LABEL")) + RELEASE
    wanted = ("title", "description", "licenses", "version", "revision", "created", "source", "base.digest")
    assert [name for name in wanted if f"org.opencontainers.image.{name}=" not in labels] == []
    assert f'image.title="tradewind-{target}"' in labels
    assert STAGES[target].values("STOPSIGNAL") == ["SIGTERM"]


def test_only_the_gpu_image_has_a_compiler() -> None:
    """Triton compiles on the node; everything else that an image needs is a wheel."""
    compilers = re.compile(r"(?<![\w-])(gcc|g\+\+|build-essential|clang|cargo|rustc)(?!\w)")
    with_one = {name for name, stage in STAGES.items() if compilers.search(" ".join(stage.values("RUN")))}
    assert with_one == {"engine-cuda-base", "engine-cuda"}


def test_every_installation_is_of_wheels_by_hash() -> None:
    installs = [
        part
        for stage in STAGES.values()
        for rest in stage.values("RUN")
        for part in re.split(r"&&|\|\||;", rest)
    ]
    installs = [part for part in installs if re.search(r"pip .*\binstall\b", part)]
    assert installs
    for part in installs:
        if "/wheels/*.whl" in part:
            assert "--no-index --no-compile" in part  # the project itself, just built
        else:
            assert "--require-hashes --no-deps" in part
            assert "--only-binary :all:" in part
            assert part.rstrip().endswith(".lock")


@pytest.mark.parametrize("name", ["bootstrap", *TARGETS])
def test_its_locks_are_among_those_that_are_checked(name: str) -> None:
    assert name in {lock.name for lock in locks.LOCKS}


def test_nothing_is_fetched_by_hand() -> None:
    for stage in STAGES.values():
        assert "ADD" not in {word for word, _ in stage.instructions}
        assert [rest for rest in stage.values("RUN") if NETWORK.search(rest)] == []


def test_every_source_is_in_the_checkout_and_in_the_build_context() -> None:
    sources = [
        path for stage in STAGES.values() for paths, origin in copies(stage) if not origin for path in paths
    ]
    assert sources
    assert [path for path in sources if not (ROOT / path).exists()] == []
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert [path for path in sources if path.split("/")[0] not in allowed] == []


def test_the_build_context_holds_no_history_and_no_key() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"  # everything is left out but what is named
    assert not any(fnmatch(name, rule[1:]) for rule in rules if rule[0] == "!" for name in (".git", "tests"))
    assert {"**/*.key", "**/.env"} <= set(rules)


def test_no_layer_and_no_setting_holds_a_secret() -> None:
    settings = [rest for stage in STAGES.values() for word in ("ARG", "ENV") for rest in stage.values(word)]
    assert [rest for rest in settings if SECRET.search(re.sub(r"=\S+", "", rest))] == []
    copied = [path for stage in STAGES.values() for paths, _ in copies(stage) for path in paths]
    assert [path for path in copied if path in {".", "./", "/"}] == []


def test_the_commands_that_pods_start_are_console_scripts() -> None:
    scripts = project()["scripts"]
    entry = [rest for word, rest in STAGES["operator"].instructions if word == "ENTRYPOINT"]
    assert [json.loads(rest) for rest in entry] == [["tradewind-operator"]]
    assert "tradewind-operator" in scripts


def test_the_operators_defaults_name_images_that_are_built() -> None:
    named = {image.rsplit("/", 1)[1].split(":")[0].split("@")[0] for image in Images().model_dump().values()}
    assert named <= {f"tradewind-{target}" for target in TARGETS}

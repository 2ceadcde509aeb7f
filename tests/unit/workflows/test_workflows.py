"""What the workflows promise: pinned actions, only the rights a job needs, no expression in a shell."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.images.pin import COMPONENTS

ROOT = Path(__file__).resolve().parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"^\s*(?:- )?uses: (?P<action>[\w./-]+)@(?P<commit>[0-9a-f]{40}) # v\d+\.\d+\.\d+$")
WRITES = {
    ("release", "images"): {"packages", "id-token"},
    ("release", "chart"): {"packages", "id-token", "contents"},
}
"""Every right to write that a job has; what is not here may read only."""
TRIGGERS = {"push", "pull_request"}


def read(path: Path) -> dict[str, Any]:
    """A workflow; YAML 1.1 takes its key `on` for true."""
    workflow = yaml.safe_load(path.read_text())
    return {"on" if key is True else key: value for key, value in workflow.items()}


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in read(path)["jobs"].items():
            yield path.stem, name, job


JOBS = list(jobs())
EACH_JOB = pytest.mark.parametrize(
    ("workflow", "name", "job"), JOBS, ids=[f"{workflow}-{name}" for workflow, name, _ in JOBS]
)
EACH_WORKFLOW = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def job_of(workflow: str, name: str) -> dict[str, Any]:
    return next(job for where, called, job in JOBS if (where, called) == (workflow, name))


@EACH_WORKFLOW
def test_every_action_is_pinned_to_a_commit_and_says_its_version(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if re.match(r"^\s*(- )?uses:", line)]
    assert lines
    assert [line.strip() for line in lines if not PINNED.match(line)] == []


def test_an_action_has_one_commit_everywhere() -> None:
    matches = [PINNED.match(line) for path in WORKFLOWS for line in path.read_text().splitlines()]
    pins = {(match["action"], match["commit"]) for match in matches if match}
    assert len(pins) == len({action for action, _ in pins})


@EACH_WORKFLOW
def test_only_pushes_and_pull_requests_start_it(path: Path) -> None:
    assert (
        set(read(path)["on"]) <= TRIGGERS
    )  # never pull_request_target: it runs with a fork's code and our rights


@EACH_WORKFLOW
def test_a_workflow_itself_has_no_rights(path: Path) -> None:
    assert read(path)["permissions"] == {}


@EACH_WORKFLOW
def test_a_step_fails_when_the_first_command_of_a_pipe_does(path: Path) -> None:
    assert read(path)["defaults"] == {"run": {"shell": "bash"}}


@EACH_JOB
def test_a_job_has_the_rights_it_needs_and_a_time(workflow: str, name: str, job: dict[str, Any]) -> None:
    rights = job["permissions"]
    assert {right for right, level in rights.items() if level == "write"} == WRITES.get(
        (workflow, name), set()
    )
    assert set(rights.values()) <= {"read", "write"}
    assert 0 < job["timeout-minutes"] <= 120
    assert not job["runs-on"].endswith("latest")


@EACH_JOB
def test_a_checkout_leaves_no_token_behind(workflow: str, name: str, job: dict[str, Any]) -> None:
    checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@EACH_JOB
def test_no_expression_is_pasted_into_a_shell(workflow: str, name: str, job: dict[str, Any]) -> None:
    assert [step["run"] for step in job["steps"] if "${{" in step.get("run", "")] == []


@EACH_JOB
def test_the_only_secret_is_the_jobs_own_token(workflow: str, name: str, job: dict[str, Any]) -> None:
    assert set(re.findall(r"secrets\.(\w+)", yaml.safe_dump(job))) <= {"GITHUB_TOKEN"}


@EACH_JOB
def test_every_file_that_a_step_names_is_there(workflow: str, name: str, job: dict[str, Any]) -> None:
    named = re.findall(r"(?:deploy|tools|\.ci)/[\w./-]+", yaml.safe_dump(job, width=1_000))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_changes_pass_what_a_developer_runs() -> None:
    assert "bash .ci/run" in [step.get("run") for step in job_of("ci", "check")["steps"]]
    # Which leaves the real cluster to a job that has one.
    assert "make e2e" in [step.get("run") for step in job_of("ci", "cluster")["steps"]]


def test_a_release_passes_it_too_before_anything_is_published() -> None:
    assert "bash .ci/run" in [step.get("run") for step in job_of("release", "test")["steps"]]
    assert "test" in job_of("release", "images")["needs"]
    assert "images" in job_of("release", "chart")["needs"]
    assert list(read(ROOT / ".github" / "workflows" / "release.yml")["on"]) == ["push"]
    assert set(read(ROOT / ".github" / "workflows" / "release.yml")["on"]["push"]) == {"tags"}


def test_a_release_builds_every_image() -> None:
    assert job_of("release", "images")["strategy"]["matrix"]["target"] == list(COMPONENTS)


def test_changes_build_every_image_that_needs_no_gpu() -> None:
    built = [entry["target"] for entry in job_of("ci", "images")["strategy"]["matrix"]["include"]]
    assert built == [target for target in COMPONENTS if target != "engine-cuda"]


def test_the_python_is_the_one_that_the_locks_are_made_for() -> None:
    steps = [step for _, _, job in JOBS for step in job["steps"] if "setup-python@" in step.get("uses", "")]
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert {step["with"]["python-version"] for step in steps} == {"3.11"}
    assert required.startswith(">=3.11")


def test_the_release_builds_on_the_base_that_the_dockerfile_names() -> None:
    dockerfile = (ROOT / "deploy" / "images" / "Dockerfile").read_text()
    assert f"ARG BASE={read(ROOT / '.github' / 'workflows' / 'release.yml')['env']['BASE']}\n" in dockerfile

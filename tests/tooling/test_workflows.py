"""What the workflows in .github and .gitlab-ci.yml call, and what they may; `make lint` has zizmor look at them too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent.parent
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40}")
TARGET = re.compile(r"\bmake ([a-z-]+)")


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def test_actions_of_others_are_pinned_to_a_commit(workflow: dict[str, Any]) -> None:
    used = [step["uses"] for step in steps(workflow) if not step.get("uses", "./").startswith("./")]
    assert not [name for name in used if not PINNED.fullmatch(name)]


def test_nothing_may_write_but_the_comment(workflow: dict[str, Any]) -> None:
    granted = [workflow["permissions"], *(job.get("permissions", {}) for job in workflow["jobs"].values())]
    writes = {name for permissions in granted for name, value in permissions.items() if value != "read"}
    assert writes == ({"pull-requests"} if workflow["name"] == "Comment" else set())


def test_no_token_stays_in_a_checkout(workflow: dict[str, Any]) -> None:
    for step in steps(workflow):
        if "actions/checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_no_step_has_what_others_write_in_its_script(workflow: dict[str, Any]) -> None:
    assert not [step["run"] for step in steps(workflow) if "${{" in step.get("run", "")]


def test_every_job_ends(workflow: dict[str, Any]) -> None:
    assert all("timeout-minutes" in job for job in workflow["jobs"].values() if "steps" in job)


def test_secrets_reach_no_pull_request_but_its_preview() -> None:
    for path in WORKFLOWS:
        found: dict[Any, Any] = dict(read(path))
        if "pull_request" in found.get(True, {}):  # YAML 1.1 takes `on` for that
            with_secrets = {name for name, job in found["jobs"].items() if "secrets." in str(job)}
            assert with_secrets <= {"preview"}, path


def test_each_step_calls_a_target_that_there_is() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+): ##", makefile, re.MULTILINE))
    for path in (*WORKFLOWS, REPOSITORY / ".gitlab-ci.yml"):
        called = set(TARGET.findall("\n".join(line.partition("#")[0] for line in path.read_text().splitlines())))
        assert called <= targets, path


def test_gitlab_runs_what_github_runs() -> None:
    """The swarm alone has a job of its own there only: `make test` has it in it, as root."""
    on_github = {target for path in WORKFLOWS for step in steps(read(path)) for target in targets_of(step.get("run"))}
    jobs = [job for job in read(REPOSITORY / ".gitlab-ci.yml").values() if isinstance(job, dict)]
    lines = [line for job in jobs for line in (*job.get("script", []), *job.get("after_script", []))]
    assert {target for line in lines for target in targets_of(line)} == on_github - {"test-swarm"}


def targets_of(script: str | None) -> list[str]:
    return TARGET.findall(script or "")

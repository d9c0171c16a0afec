"""From a clone to a pull request with a preview: the steps of the workflows, as GitHub runs them, on the real engine.

What only GitHub has is played here: it merges the branch, fills in the expressions, keeps the artifact, and its API
takes the comment. Every `run` is the workflow's own text. GitLab's job is played likewise.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from tests.live.stack import ROOT, free_port
from tests.tooling.forge import Forge, serving
from tooling.stack import environment

STEP_TIMEOUT = 900  # seconds
EXPRESSION = re.compile(r"\$\{\{ *(.*?) *\}\}")
# What a runner has of us; nothing that says which backend or which passphrase.
OWN = ("PATH", "HOME", "LANG", "DOCKER_HOST")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A Stranger", "-c", "user.email=stranger@example.org", "-c", "init.defaultBranch=main"]
    command = ["git", *who, *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@dataclass
class GitHub:
    """A repository there, and a runner.

    Attributes:
        folder: everything of it.
        expressions: what stands for each, by its text; for those of secrets and variables that are not set, nothing.
        output: what the steps of the last job printed.
        summary: what stands in the summary of the runs.
    """

    folder: Path
    expressions: dict[str, str] = field(default_factory=dict)
    output: str = ""

    @property
    def origin(self) -> Path:
        return self.folder / "origin.git"

    @property
    def runner(self) -> Path:
        return self.folder / "runner"

    @property
    def artifact(self) -> Path:
        return self.folder / "artifact" / "review.md"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.md"

    def check_out(self, commit: str) -> None:
        """As actions/checkout does: nothing of an earlier run is left, but for the packages, which are the same."""
        shutil.rmtree(self.runner, ignore_errors=True)
        git(self.folder, "clone", "--quiet", str(self.origin), str(self.runner))
        git(self.runner, "checkout", "--quiet", "--detach", commit)
        (self.runner / ".venv").symlink_to(ROOT / ".venv")

    def run(self, workflow: str, job: str, commit: str, more: Mapping[str, str] | None = None) -> int:
        """The steps of a job, up to the first that fails; its exit status.

        Args:
            workflow: the name of its file.
            job: of the workflow.
            commit: that is checked out first.
            more: environment that GitHub gives to each step.
        """
        self.check_out(commit)
        self.output = ""
        text: dict[str, Any] = yaml.safe_load((self.runner / ".github/workflows" / workflow).read_text())
        temporary = self.folder / "temp"
        self.expressions["runner.temp"] = str(temporary)
        given = {**(more or {}), "GITHUB_STEP_SUMMARY": str(self.summary), "RUNNER_TEMP": str(temporary)}
        code = 0
        for step in text["jobs"][job]["steps"]:
            action = str(step.get("uses", ""))
            if action.startswith("actions/upload-artifact@"):
                self.artifact.parent.mkdir(exist_ok=True)
                shutil.copy(self.runner / step["with"]["path"], self.artifact)
            elif action.startswith("actions/download-artifact@"):
                target = Path(self._filled(step["with"]["path"]))
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.artifact, target)
            elif action == "./.github/actions/docker-host":
                assert self._filled(step["with"]["key"]) == "", "no ssh here: test_remote_host.py"
            elif "run" in step and not code:
                variables = {**text.get("env", {}), **step.get("env", {})}
                code = self.shell(
                    step["run"], given | {name: self._filled(str(value)) for name, value in variables.items()}
                )
            else:
                assert code or action.startswith("actions/checkout@"), step
        return code

    def shell(self, script: str, environment: Mapping[str, str]) -> int:
        """Runs it as runners do; its exit status."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.runner,
            env={**{name: os.environ[name] for name in OWN if name in os.environ}, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=STEP_TIMEOUT,
            check=False,
        )
        self.output += done.stdout
        return done.returncode

    def _filled(self, text: str) -> str:
        return EXPRESSION.sub(lambda found: self._value(found[1]), text)

    def _value(self, expression: str) -> str:
        if expression in self.expressions:
            return self.expressions[expression]
        assert re.fullmatch(r"(?:secrets|vars)\.\w+", expression), f"what is {expression}?"
        return ""

    def report(self) -> Iterator[tuple[str, str]]:
        yield "the last job", self.output


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a stack that stands for a team's; its images are gone afterwards, and whatever else is left."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    client = docker.from_env(use_context=False)
    for container in client.containers.list(all=True, sparse=True, filters={"label": f"uwsgi-nginx.stack={name}"}):
        container.remove(force=True, v=True)
    for image in client.images.list(filters={"reference": f"{name}/*"}):
        for tag in (tag for tag in image.tags if tag.startswith(f"{name}/")):
            client.images.remove(tag, force=True)
    client.close()


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory, production: str) -> GitHub:
    """The repository, with all that is in this clone, committed or not."""
    folder = tmp_path_factory.mktemp("github")
    upstream = folder / "upstream"
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (ROOT / name).is_file():
            (upstream / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, upstream / name)
    settings = {"port": free_port(), "appImageName": f"{production}/app", "nginxImageName": f"{production}/nginx"}
    lines = [f'  uwsgi-nginx:{key}: "{value}"\n' for key, value in settings.items()]
    (upstream / f"Pulumi.{production}.yaml").write_text("".join(["config:\n", *lines]))
    git(upstream, "init", "--quiet")
    git(upstream, "add", "--all")
    git(upstream, "commit", "--quiet", "--message", "All of it")
    git(folder, "clone", "--quiet", "--bare", str(upstream), str(folder / "origin.git"))
    return GitHub(folder)


@pytest.fixture(scope="module")
def pull_request(github: GitHub) -> str:
    """What a stranger does after reading the README, and what GitHub makes of it: the merge commit."""
    clone = github.folder / "stranger"
    git(github.folder, "clone", "--quiet", str(github.origin), str(clone))
    git(clone, "switch", "--quiet", "--create", "hallo")
    page = clone / "app" / "webapp.py"
    page.write_text(page.read_text().replace("Hello, World!", "Hallo, Welt!"))
    for file in clone.glob("Pulumi.*.yaml"):
        file.write_text(f'{file.read_text()}  uwsgi-nginx:compression: "true"\n')
    git(clone, "commit", "--quiet", "--all", "--message", "In German, and smaller")
    git(clone, "push", "--quiet", "origin", "hallo")
    git(clone, "switch", "--quiet", "--detach", "origin/main")
    git(clone, "merge", "--quiet", "--no-ff", "--message", "Merge", "hallo")
    git(clone, "push", "--quiet", "origin", "HEAD:refs/heads/merged")
    return git(clone, "rev-parse", "HEAD")


def shows_the_change(text: str) -> None:
    assert "- ✅ policy" in text
    assert re.search(r"^\| replace \| uwsgi-1 \(Container\) \| .*image", text, re.MULTILINE)
    assert "| update | release (Release) | " in text
    assert "```diff\n--- a/nginx.conf\n+++ b/nginx.conf\n" in text
    assert re.search(r"^\+\s+gzip on;$", text, re.MULTILINE)


def test_a_pull_request_of_a_stranger_gets_a_comment_with_its_preview(github: GitHub, pull_request: str) -> None:
    """Without any secret: the branch that it is for is deployed, and taken away again."""
    github.expressions = {
        "github.base_ref": "main",
        "secrets.PULUMI_BACKEND_URL && vars.PULUMI_STACK || 'dev'": "dev",
    }
    assert github.run("pull-request.yml", "preview", pull_request) == 0, github.output
    text = github.artifact.read_text()
    shows_the_change(text)
    assert "Compared with `origin/main`, deployed for this preview alone." in text
    assert github.summary.read_text() == text
    assert len(git(github.runner, "worktree", "list").splitlines()) == 1
    client = docker.from_env(use_context=False)
    assert not client.containers.list(all=True, sparse=True, filters={"label": "uwsgi-nginx.stack=review"})
    client.close()

    with serving() as forge:
        assert comment(github, forge) == 0, github.output
        assert [body for _, body in forge.asked("POST")] == [{"body": text}]
        assert comment(github, forge) == 0, github.output
        assert len(forge.comments) == 1, "the second preview takes the place of the first"


def comment(github: GitHub, forge: Forge) -> int:
    """The run of comment.yml that follows: with the code of main, and a token."""
    head = {"head_branch": "hallo", "head_sha": "abc", "head_repository": {"owner": {"login": "stranger"}}}
    forge.pulls = [{"number": 7, "head": {"sha": "abc", "label": "stranger:hallo"}}]
    event = github.folder / "event.json"
    event.write_text(json.dumps({"workflow_run": head}))
    github.expressions["github.token"] = "token"
    given = {"GITHUB_EVENT_PATH": str(event), "GITHUB_API_URL": forge.url, "GITHUB_REPOSITORY": "owner/project"}
    return github.run("comment.yml", "comment", "origin/main", given)


def test_a_team_deploys_previews_and_finds_drift(github: GitHub, pull_request: str, production: str) -> None:
    """With the secrets of a shared backend, as a team has them."""
    shared = github.folder / "shared"
    shared.mkdir()
    github.expressions = {
        "github.base_ref": "main",
        "secrets.PULUMI_BACKEND_URL && vars.PULUMI_STACK || 'dev'": production,
        "vars.PULUMI_STACK": production,
        "secrets.PULUMI_BACKEND_URL": f"file://{shared}",
        "secrets.PULUMI_CONFIG_PASSPHRASE": "of the team",
    }
    try:
        assert github.run("deploy.yml", "up", "origin/main") == 0, github.output
        url = github.output.strip().splitlines()[-1]
        assert "Hello, World!" in fetched(url)

        assert github.run("pull-request.yml", "preview", pull_request) == 0, github.output
        text = github.artifact.read_text()
        shows_the_change(text)
        assert f"Compared with the state of stack `{production}`." in text

        with serving() as forge:
            assert merge_request(github, forge, pull_request) == 0, github.output
            assert [body["body"] for _, body in forge.asked("POST")] == [text]

        assert github.run("deploy.yml", "preview", pull_request) == 0, github.output
        assert github.run("deploy.yml", "up", pull_request) == 0, github.output
        assert "Hallo, Welt!" in fetched(url)
        assert github.run("drift.yml", "drift", pull_request) == 0, github.output

        # Somebody lends a hand.
        labels = [f"uwsgi-nginx.stack={production}", "uwsgi-nginx.replica=uwsgi-2"]
        client = docker.from_env(use_context=False)
        client.containers.list(filters={"label": labels}, sparse=True)[0].remove(force=True)
        client.close()
        assert github.run("drift.yml", "drift", pull_request) != 0
        assert "uwsgi-2" in github.output
        assert "Hallo, Welt!" in fetched(url)
    finally:
        environment_of_the_team = {
            **os.environ,
            **environment(ROOT),
            "PULUMI_BACKEND_URL": f"file://{shared}",
            "PULUMI_CONFIG_PASSPHRASE": "of the team",
        }
        subprocess.run(
            ["pulumi", "destroy", "--yes", "--skip-preview", "--stack", production],
            cwd=github.runner,
            env=environment_of_the_team,
            check=True,
            capture_output=True,
        )


def merge_request(github: GitHub, forge: Forge, commit: str) -> int:
    """The same by GitLab's job."""
    github.check_out(commit)
    job = yaml.safe_load((github.runner / ".gitlab-ci.yml").read_text())["preview"]
    environment = {
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
        "CI_MERGE_REQUEST_IID": "3",
        "CI_PROJECT_ID": "42",
        "CI_API_V4_URL": forge.url,
        "GITLAB_TOKEN": "token",
        "STACK": github.expressions["vars.PULUMI_STACK"],
        **{name: github.expressions[f"secrets.{name}"] for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE")},
    }
    return github.shell("\n".join([*job["script"], *job["after_script"]]), environment)


def fetched(url: str) -> str:
    done = subprocess.run(["curl", "-fsS", "--max-time", "10", url], capture_output=True, text=True, check=True)
    return done.stdout

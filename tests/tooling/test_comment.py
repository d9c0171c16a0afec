"""Comments on pull requests, posted to something that answers as GitHub and GitLab do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tooling.forge import Forge, serving
from tooling import comment
from tooling.console import Failure

MARKER = "<!-- uwsgi-nginx: preview of dev -->"


@pytest.fixture
def forge() -> Iterator[Forge]:
    with serving() as served:
        yield served


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "review.md"
    path.write_text(f"{MARKER}\n## Preview\n")
    return path


def post(written: Path) -> None:
    assert comment.run(written.parent, [str(written)]) == 0


# GitHub


@pytest.fixture
def github(forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forge:
    """A job for the pull request 7 of a fork."""
    monkeypatch.delenv("CI_MERGE_REQUEST_IID", raising=False)
    event: dict[str, Any] = {
        "workflow_run": {
            "head_branch": "blue",
            "head_sha": "abc",
            "head_repository": {"owner": {"login": "stranger"}},
            "pull_requests": [],
        }
    }
    (tmp_path / "event.json").write_text(json.dumps(event))
    for name, value in {
        "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
        "GITHUB_API_URL": forge.url,
        "GITHUB_REPOSITORY": "owner/project",
        "GITHUB_TOKEN": "token",
    }.items():
        monkeypatch.setenv(name, value)
    forge.pulls = [
        {"number": 5, "head": {"sha": "old", "label": "stranger:blue"}},
        {"number": 7, "head": {"sha": "abc", "label": "stranger:blue"}},
    ]
    return forge


def test_a_first_preview_is_a_new_comment(github: Forge, written: Path) -> None:
    post(written)
    assert github.asked("POST") == [("/repos/owner/project/issues/7/comments", {"body": f"{MARKER}\n## Preview\n"})]
    assert github.tokens == {"Bearer token"}


def test_a_second_one_takes_the_place_of_the_first(github: Forge, written: Path) -> None:
    post(written)
    written.write_text(f"{MARKER}\nsecond\n")
    post(written)
    assert len(github.asked("POST")) == 1
    assert github.asked("PATCH") == [("/repos/owner/project/issues/comments/1", {"body": f"{MARKER}\nsecond\n"})]


def test_comments_of_people_are_left_alone_whatever_is_in_them(github: Forge, written: Path) -> None:
    github.comments = [{"id": 1, "body": MARKER, "user": {"type": "User"}}]
    post(written)
    assert github.asked("PATCH") == []
    assert len(github.asked("POST")) == 1


def test_one_of_another_stack_is_another_comment(github: Forge, written: Path) -> None:
    post(written)
    written.write_text(MARKER.replace("dev", "prod"))
    post(written)
    assert len(github.asked("POST")) == 2


def test_it_is_found_among_hundreds(github: Forge, written: Path) -> None:
    github.comments = [{"id": n, "body": "", "user": {"type": "Bot"}} for n in range(1, 251)]
    github.comments[230]["body"] = MARKER
    post(written)
    assert github.asked("PATCH")[0][0] == "/repos/owner/project/issues/comments/231"


def test_a_pull_request_that_went_on_gets_nothing_old(
    github: Forge, written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    github.pulls = github.pulls[:1]
    post(written)
    assert github.asked("POST") == []
    assert "nothing is posted" in capsys.readouterr().err


def test_the_event_of_a_pull_request_names_it(github: Forge, written: Path, tmp_path: Path) -> None:
    (tmp_path / "event.json").write_text('{"pull_request": {"number": 9}}')
    post(written)
    assert github.asked("POST")[0][0] == "/repos/owner/project/issues/9/comments"


def test_a_token_that_may_not_is_told_what_it_lacks(github: Forge, written: Path) -> None:
    github.status = 403
    with pytest.raises(Failure, match="answers 403") as failure:
        post(written)
    assert "pull-requests: write" in failure.value.todo


def test_without_a_token_it_says_so(github: Forge, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del github
    monkeypatch.delenv("GITHUB_TOKEN")
    with pytest.raises(Failure, match="no GITHUB_TOKEN"):
        post(written)


def test_a_text_that_is_no_preview_is_not_posted(github: Forge, written: Path) -> None:
    written.write_text("Please approve.")
    with pytest.raises(Failure, match="is no preview"):
        post(written)
    written.unlink()
    with pytest.raises(Failure, match="cannot be read"):
        post(written)
    assert github.asked("POST") == []


# GitLab


@pytest.fixture
def gitlab(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> Forge:
    monkeypatch.delenv("GITHUB_EVENT_PATH", raising=False)
    for name, value in {
        "CI_MERGE_REQUEST_IID": "3",
        "CI_PROJECT_ID": "42",
        "CI_API_V4_URL": forge.url,
        "GITLAB_TOKEN": "token",
    }.items():
        monkeypatch.setenv(name, value)
    return forge


def test_a_note_of_a_merge_request_is_posted_and_replaced(gitlab: Forge, written: Path) -> None:
    post(written)
    post(written)
    assert [path for path, _ in gitlab.asked("POST")] == ["/projects/42/merge_requests/3/notes"]
    assert [path for path, _ in gitlab.asked("PUT")] == ["/projects/42/merge_requests/3/notes/1"]
    assert gitlab.tokens == {"token"}


def test_a_fork_without_a_token_has_the_preview_in_its_log(
    gitlab: Forge, written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITLAB_TOKEN")
    post(written)
    assert gitlab.asked("POST") == []
    assert "There is no GITLAB_TOKEN" in capsys.readouterr().err


def test_outside_of_a_pull_request_it_says_where_to_run_it(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_EVENT_PATH", "CI_MERGE_REQUEST_IID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Failure, match="no job of a pull request"):
        post(written)

"""`make comment`: posts what `make review` wrote on its pull request, in place of what it posted there before.

It runs in CI with the code of the main branch, never with that of the pull request: it holds a token that may write.
What it posts is another's text; it is only ever handed on.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from tooling import files
from tooling.console import Failure, say
from tooling.review import LONGEST, MARKER

SECONDS = 30.0
PAGE = 100  # comments a request
MOST_PAGES = 20
_MARKER = re.compile(re.escape(MARKER).replace(r"\{stack\}", r"[\w.-]+"))


class Forge(Protocol):
    """Where pull requests are."""

    def comments(self) -> Iterator[tuple[int, str]]:
        """Those that are ours: number and text."""

    def post(self, text: str) -> None:
        """A new one."""

    def replace(self, number: int, text: str) -> None:
        """Another text for it."""


def run(root: Path, rest: Sequence[str]) -> int:
    """Posts the comment, if there is a pull request and a token.

    Args:
        root: the clone.
        rest: the file; else where `make review` writes it.
    """
    path = Path(rest[0]) if rest else files.local(root) / "review.md"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")[:LONGEST]
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", "make review") from error
    marker = _MARKER.match(text)
    if not marker:
        raise Failure(f"{path} is no preview: its first line is not the one that says so.", "make review")
    forge = _forge(os.environ)
    if forge is None:
        return 0
    for number, posted in forge.comments():
        if posted.startswith(marker[0]):
            forge.replace(number, text)
            say(f"The comment {number} has the new preview.")
            return 0
    forge.post(text)
    say("The preview is posted as a comment.")
    return 0


def _forge(env: Mapping[str, str]) -> Forge | None:
    if env.get("GITHUB_EVENT_PATH"):
        return GitHub.of(env)
    if env.get("CI_MERGE_REQUEST_IID"):
        if not env.get("GITLAB_TOKEN"):
            say("There is no GITLAB_TOKEN (api scope), so the preview is in this job's log alone.")
            return None
        return GitLab(env)
    raise Failure("This is no job of a pull request on GitHub or GitLab.", "Run it in CI: docs/pull-requests.md.")


class GitHub:
    """Its API for pull requests.

    https://docs.github.com/en/rest/issues/comments
    """

    def __init__(self, env: Mapping[str, str], number: int) -> None:
        self._api = f"{env.get('GITHUB_API_URL', 'https://api.github.com')}/repos/{env['GITHUB_REPOSITORY']}"
        self._headers = {"Authorization": f"Bearer {env['GITHUB_TOKEN']}", "Accept": "application/vnd.github+json"}
        self._number = number

    @classmethod
    def of(cls, env: Mapping[str, str]) -> GitHub | None:
        """Of the event that this job is about: a pull request, or a workflow that ran for one."""
        if not env.get("GITHUB_TOKEN"):
            raise Failure("There is no GITHUB_TOKEN.", "Give the step one with the permission pull-requests: write.")
        event = json.loads(Path(env["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
        if "pull_request" in event:
            return cls(env, int(event["pull_request"]["number"]))
        ran = event["workflow_run"]
        # Of a fork's, the event names no pull request: it is the one with that branch, and at that very commit.
        head = f"{ran['head_repository']['owner']['login']}:{ran['head_branch']}"
        seeking = cls(env, 0)
        query = urlencode({"head": head, "state": "open", "per_page": PAGE})
        for found in seeking._call("GET", f"/pulls?{query}"):
            if found["head"]["sha"] == ran["head_sha"]:
                return cls(env, int(found["number"]))
        say(f"No open pull request of {head} is at {ran['head_sha']} any more: nothing is posted.")
        return None

    def comments(self) -> Iterator[tuple[int, str]]:
        for page in range(1, MOST_PAGES + 1):
            found = self._call("GET", f"/issues/{self._number}/comments?per_page={PAGE}&page={page}")
            # Anybody may write the marker into a comment of their own.
            yield from ((comment["id"], comment["body"]) for comment in found if comment["user"]["type"] == "Bot")
            if len(found) < PAGE:
                return

    def post(self, text: str) -> None:
        self._call("POST", f"/issues/{self._number}/comments", {"body": text})

    def replace(self, number: int, text: str) -> None:
        self._call("PATCH", f"/issues/comments/{number}", {"body": text})

    def _call(self, method: str, path: str, body: object = None) -> Any:
        return _call(method, self._api + path, self._headers, body)


class GitLab:
    """Its API for merge requests.

    https://docs.gitlab.com/api/notes/#merge-requests
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        project, request = quote(env["CI_PROJECT_ID"], safe=""), env["CI_MERGE_REQUEST_IID"]
        self._notes = f"{env['CI_API_V4_URL']}/projects/{project}/merge_requests/{request}/notes"
        self._api = env["CI_API_V4_URL"]
        self._headers = {"PRIVATE-TOKEN": env["GITLAB_TOKEN"]}

    def comments(self) -> Iterator[tuple[int, str]]:
        me = self._call("GET", f"{self._api}/user")["id"]
        for page in range(1, MOST_PAGES + 1):
            found = self._call("GET", f"{self._notes}?per_page={PAGE}&page={page}")
            yield from ((note["id"], note["body"]) for note in found if note["author"]["id"] == me)
            if len(found) < PAGE:
                return

    def post(self, text: str) -> None:
        self._call("POST", self._notes, {"body": text})

    def replace(self, number: int, text: str) -> None:
        self._call("PUT", f"{self._notes}/{number}", {"body": text})

    def _call(self, method: str, url: str, body: object = None) -> Any:
        return _call(method, url, self._headers, body)


def _call(method: str, url: str, headers: Mapping[str, str], body: object) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - the address is the CI system's own
        url, data, {**headers, "Content-Type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:  # noqa: S310
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:300]
        todo = "The token lacks a permission: pull-requests: write on GitHub, the scope api on GitLab."
        raise Failure(
            f"{method} {url} answers {error.code}: {said}", todo if error.code in (401, 403, 404) else "Try again."
        ) from error
    except OSError as error:
        raise Failure(f"{url} is not reached: {error}", "Try again.") from error

"""`make review`: what a pull request gets. Lint, unit tests, and a comment: what `up` would change, how NGINX's
configuration would differ, and whether the stack may be declared so.

Where the stack is at hand, in a shared backend or in this clone's, the preview compares with that. The pull request of
a fork has no secrets to reach it; then `--base REF` deploys that commit while the preview lasts, from a worktree of its
own, to an ephemeral backend and the Docker daemon that is there.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import difflib
import json
import os
import re
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tooling import base_images, bootstrap, console, files, hints, policy, stack
from tooling.console import Exited, Failure, step

MARKER = "<!-- uwsgi-nginx: preview of {stack} -->"  # by which a comment is found again
LONGEST = 60_000  # characters; GitHub takes 65,536
MOST_DIFF = 40_000
PREVIEW_SECONDS = 600.0
DEPLOY_SECONDS = 1800.0
EPHEMERAL = "review"  # the stack that is deployed for the comparison
RELEASE = "pulumi-python:dynamic:Release"
SERVICE_CONFIG = "docker:index/serviceConfig:ServiceConfig"
OPERATIONS = {  # of the engine → what people read; those that come with them are left out
    "create": "create",
    "update": "update",
    "replace": "replace",
    "delete": "delete",
    "read": "read",
    "import": "import",
}
_MARKUP = re.compile(r"<\{%.*?%\}>|\x1b\[[0-9;]*m")
_SECURE = re.compile(r"^\s+secure:", re.MULTILINE)
_SALT = re.compile(r"^(?:encryptionsalt|encryptedkey|secretsprovider):.*\n", re.MULTILINE)
_DOCKER = re.compile(r"^\s+docker:\w+:.*\n", re.MULTILINE)
_PORT = re.compile(r"^(\s+[\w-]+:port:\s*)\S+", re.MULTILINE)


@dataclass(frozen=True)
class Previewed:
    """What `pulumi preview` found.

    Attributes:
        compared_with: in words.
        found: as it printed it; empty if it failed.
        problem: why it failed; empty if it did not.
    """

    compared_with: str
    found: Mapping[str, Any]
    problem: str = ""


def run(root: Path, name: str, rest: Sequence[str], checks: Mapping[str, Callable[[], int]]) -> int:
    """Everything, and the comment; fails if any of it does.

    Args:
        root: the clone.
        name: the stack.
        rest: options; see `_options`.
        checks: by what they are called in the comment.
    """
    options = _options(rest)
    codes = {} if options.preview_only else {what: check() for what, check in checks.items()}
    # Asked after the checks, so that a machine on which nothing is installed yet shows those first.
    try:
        if options.base and stack.is_local(root):
            previewed = _against_base(root, name, options.base)
        else:
            bootstrap.ensure(root, name)
            environment = stack.full_environment(root, name)
            previewed = _preview(root, name, [], environment, f"the state of stack `{name}`")
    except Failure as failure:
        # Those who read the comment do not see this terminal.
        previewed = Previewed("", {}, f"{failure.what}\n\n{failure.todo}".strip())
    broken = policy.violations(previewed.found)
    text = comment(name, previewed, broken, codes)
    files.write(options.out or files.local(root) / "review.md", text)
    print(text)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(text)
    return int(bool(previewed.problem or broken or any(codes.values())))


def _options(rest: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make review", usage='make review [STACK=…] [ARGS="OPTIONS"]')
    parser.add_argument("--base", default="", metavar="REF", help="compare with that commit, where no stack is at hand")
    parser.add_argument("--preview-only", action="store_true", help="without lint and unit tests")
    parser.add_argument("--out", type=Path, metavar="FILE", help="of the comment (.local/review.md)")
    return parser.parse_args(rest)


# -- the preview


def _preview(
    root: Path, name: str, options: Sequence[str], environment: Mapping[str, str], compared_with: str
) -> Previewed:
    command = ["pulumi", "--non-interactive", "preview", "--json", "--stack", name, *options]
    done = subprocess.run(
        command, cwd=root, env=dict(environment), capture_output=True, text=True, timeout=PREVIEW_SECONDS, check=False
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = {}
    if not done.returncode:
        return Previewed(compared_with, found)
    told = [str(message["message"]) for message in found.get("diagnostics") or [] if message["severity"] == "error"]
    problem = _MARKUP.sub("", "\n".join(told) or done.stderr or done.stdout).strip()
    todo = hints.advice(f"{problem}\n{done.stderr}", name)
    return Previewed(compared_with, {}, f"{problem}\n\n{todo}".strip())


def _against_base(root: Path, name: str, reference: str) -> Previewed:
    """The preview against a commit that is deployed for it."""
    head = _without_place(root / f"Pulumi.{name}.yaml")
    bootstrap.ensure(root, None)
    log = files.local(root) / "log" / "review.log"
    with (
        tempfile.TemporaryDirectory(prefix="review-") as temporary,
        _worktree(root, reference, Path(temporary)) as base,
    ):
        (Path(temporary) / "state").mkdir()
        ephemeral = {
            "PULUMI_BACKEND_URL": f"file://{temporary}/state",
            "PULUMI_CONFIG_PASSPHRASE": secrets.token_hex(16),
        }
        settings = base / f"Pulumi.{EPHEMERAL}.yaml"
        text = _without_place(base / f"Pulumi.{name}.yaml")
        port = str(_free_port())
        # A port that the pull request changes stays as it is there, to be seen.
        settings.write_text(_PORT.sub(rf"\g<1>{port}", text), encoding="utf-8")
        same = _PORT.findall(text) == _PORT.findall(head)
        # What this `make` was given is not for the other one.
        ours = ("ARGS", "STACK", "MFLAGS")
        make = {k: v for k, v in os.environ.items() if k not in ours and not k.startswith("MAKE")} | ephemeral
        with step(reference, "deployed for the comparison", log) as current:
            _make("up", base, make, current)
        try:
            config_file = Path(temporary) / settings.name
            salt = "".join(found[0] for found in _SALT.finditer(settings.read_text(encoding="utf-8")))
            config_file.write_text((_PORT.sub(rf"\g<1>{port}", head) if same else head) + salt, encoding="utf-8")
            environment = {**stack.full_environment(root, EPHEMERAL), **ephemeral}
            for key, value in base_images.settings(root).items():
                command = [
                    "pulumi",
                    "config",
                    "set",
                    key,
                    value,
                    f"--config-file={config_file}",
                    f"--stack={EPHEMERAL}",
                ]
                console.run(command, timeout=60, env=environment, cwd=root)
            compared = f"`{reference}`, deployed for this preview alone"
            return _preview(root, EPHEMERAL, [f"--config-file={config_file}"], environment, compared)
        finally:
            with step(reference, "taken away again", log) as current:
                _make("destroy", base, make, current)


def _without_place(source: Path) -> str:
    """A stack's configuration without what it says of where it is kept and where it runs."""
    text = source.read_text(encoding="utf-8") if source.exists() else "config: {}\n"
    if _SECURE.search(text):
        raise Failure(
            f"{source.name} has secrets, which cannot be read here, and there is no backend with the stack.",
            "Name a stack without secrets (STACK=dev), or say where the stack is kept: export PULUMI_BACKEND_URL=…",
        )
    return _DOCKER.sub("", _SALT.sub("", text))


@contextlib.contextmanager
def _worktree(root: Path, reference: str, temporary: Path) -> Iterator[Path]:
    folder = temporary / "base"
    try:
        console.run(["git", "worktree", "add", "--detach", str(folder), reference], timeout=120, cwd=root)
    except Exited as exited:
        raise Failure(
            f"{reference} cannot be checked out: {exited}", "git fetch origin\nThen name a commit that is there."
        ) from exited
    try:
        yield folder
    finally:
        console.run(["git", "worktree", "remove", "--force", str(folder)], timeout=120, cwd=root)


def _make(target: str, folder: Path, environment: Mapping[str, str], current: console.Step) -> None:
    command = ["make", target, f"STACK={EPHEMERAL}"]
    try:
        console.run(command, timeout=DEPLOY_SECONDS, cwd=folder, env=environment, current=current)
    except Exited as exited:
        raise Failure(
            f"{' '.join(command)} failed there: {exited}", "Mend the commit that is compared with."
        ) from exited


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- the comment


def comment(name: str, previewed: Previewed, broken: Sequence[str], codes: Mapping[str, int]) -> str:
    """What stands in the pull request, in Markdown.

    Args:
        name: the stack.
        previewed: what would change.
        broken: the policy's words.
        codes: exit status of each check that was run.
    """
    parts = [MARKER.format(stack=name), f"## Preview of stack `{name}`"]
    parts += [f"- {'✅' if code == 0 else '❌'} `{what}`" for what, code in codes.items()]
    if previewed.problem:
        parts += ["", "❌ **The preview failed. What runs goes on running.**", "", _fenced(previewed.problem, "text")]
        return _bounded("\n".join(parts))
    steps = _steps(previewed.found)
    parts += [f"- {'❌' if broken else '✅'} policy" + "".join(f"\n  - {words}" for words in broken), ""]
    parts.append(f"**{_summary(previewed.found, steps)}** Compared with {previewed.compared_with}.")
    if steps:
        parts += ["", "| | resource | what changes |", "|---|---|---|"]
        parts += [f"| {operation} | {_cell(resource)} | {_cell(what)} |" for operation, resource, what in steps]
    difference = _difference(previewed.found)
    parts += ["", "### NGINX configuration", ""]
    parts.append(_fenced(difference, "diff") if difference else "No change.")
    return _bounded("\n".join(parts))


def _steps(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is done to which resource, and what of it changes."""
    rows = []
    for taken in found.get("steps") or []:
        operation = OPERATIONS.get(taken["op"])
        if operation:
            kind, _, logical = taken["urn"].split("::", 2)[2].rpartition("::")
            changed = sorted(set(taken.get("diffReasons") or _changed(taken)))
            what = ", ".join(changed) if operation in ("update", "replace") else ""
            rows.append((operation, f"{logical} ({kind.rpartition(':')[2]})", what))
    return sorted(rows)


def _changed(taken: Mapping[str, Any]) -> list[str]:
    """Dynamic resources do not say what differs."""
    before, after = (dict((taken.get(state) or {}).get("inputs") or {}) for state in ("oldState", "newState"))
    names = {*before, *after} - {"__provider", "__defaults"}
    return [name for name in names if before.get(name) != after.get(name)]


def _summary(found: Mapping[str, Any], steps: Sequence[tuple[str, str, str]]) -> str:
    if not steps:
        return "Nothing changes."
    operations = [operation for operation, _, _ in steps]
    counts = [f"{operations.count(each)} to {each}" for each in dict.fromkeys(operations)]
    unchanged = (found.get("changeSummary") or {}).get("same", 0)
    return ", ".join([*counts, f"{unchanged} unchanged."])


def _difference(found: Mapping[str, Any]) -> str:
    """Of all files that NGINX reads, as a unified diff."""
    before, after = _files(found, "oldState"), _files(found, "newState")
    lines: list[str] = []
    for file in sorted({*before, *after}):
        old, new = (text.get(file, "").splitlines() for text in (before, after))
        lines += difflib.unified_diff(old, new, f"a/{file}", f"b/{file}", lineterm="")
    text = "\n".join(lines)
    return text if len(text) <= MOST_DIFF else f"{text[:MOST_DIFF]}\n… and more: `make preview ARGS=--diff` shows all."


def _files(found: Mapping[str, Any], when: str) -> dict[str, str]:
    """By name; before the update or after it. What is secret is not in there."""
    texts: dict[str, str] = {}
    for taken in found.get("steps") or []:
        state = taken.get(when) or {}
        inputs = state.get("inputs") or {}
        if state.get("type") == RELEASE:
            texts["nginx.conf"] = str(inputs.get("configuration", ""))
            texts |= {str(name): str(text) for name, text in policy.mapping(inputs.get("files")).items()}
        elif state.get("type") == SERVICE_CONFIG and not (when == "newState" and taken["op"] in policy.GONE):
            texts[str(state["urn"]).rsplit("::", 1)[-1]] = _decoded(inputs)
    return texts


def _decoded(inputs: Mapping[str, Any]) -> str:
    if "dataRaw" in inputs:
        return str(inputs["dataRaw"])
    with contextlib.suppress(ValueError):
        return base64.b64decode(str(inputs.get("data", ""))).decode(errors="replace")
    return ""


def _fenced(text: str, language: str) -> str:
    """In a fence that nothing in it can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _bounded(text: str) -> str:
    return (text if len(text) <= LONGEST else f"{text[:LONGEST]}\n…") + "\n"

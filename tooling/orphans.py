"""`make orphans`: what of this project is on a daemon and in no state, as after a state was lost; and its removal.

Containers and services carry labels that say project and stack. Networks, volumes, configs and secrets do not (labels
would replace those of stacks that run): they are told by their names, PROJECT-STACK-NAME-HEX. Nothing of it tells what
another clone has, or another backend, with a state of its own. So all is listed, and only what is asked for goes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tooling import configuration, console, stack, state
from tooling.console import Exited, Failure, say
from tooling.containers import DOCKER_SECONDS
from tooling.recover import LABELS, ORDER, Found, State, as_found, remove

# The logical names of networks and volumes (infra/); those of configs and secrets are names of files.
NAMES = r"network|overlay|sockets|metrics|nginx-live(?:-[0-9a-f]+)?|\w+\.\w+"
YES = ("y", "yes")


@dataclass(frozen=True)
class Orphan:
    """Something that no state knows.

    Attributes:
        found: it.
        stack: whose it is, by its label; else by that of who uses it, as a renamed stack keeps its networks and
            volumes; else by its name.
        what: what it is there, in words.
        uses: names of networks and volumes.
    """

    found: Found
    stack: str
    what: str
    uses: frozenset[str] = frozenset()


class Docker:
    """The client, on the daemon that the stack is or was on."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __call__(self, *command: str) -> str:
        try:
            return console.run(["docker", *command], timeout=DOCKER_SECONDS, env=self._environment)
        except Exited as exited:
            raise Failure(
                f"docker {command[0]} did not work: {exited}", "Mend what it names, then try again."
            ) from exited

    def lines(self, *command: str) -> list[str]:
        """Of what it prints."""
        return self(*command).splitlines()

    def inspect(self, kind: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """What it says of each that is still there."""
        try:
            return list(json.loads(self(kind, "inspect", *ids))) if ids else []
        except Failure:
            if len(ids) == 1:
                return []
        # One of them has just gone, and Docker's word on that stands among what it says of the others.
        return [described for identity in ids for described in self.inspect(kind, [identity])]


def run(root: Path, name: str, rest: list[str]) -> int:
    """Lists them all, and with `--remove` removes those of the stack `name`."""
    if not set(rest) <= {"--remove", "--yes"} or ("--yes" in rest and "--remove" not in rest):
        raise Failure(f"make orphans knows no {' '.join(rest)}.", 'make orphans\nmake orphans ARGS="--remove [--yes]"')
    docker, lost = find(root, name)
    if not lost:
        say("There is nothing that no state knows.")
        return 0
    for of in sorted({orphan.stack for orphan in lost}):
        _show(of, [orphan for orphan in lost if orphan.stack == of])
    say(
        "No stack of this backend knows these. Another clone or another backend may: then they are no orphans, and "
        "removing them takes its site down."
    )
    own = [orphan for orphan in lost if orphan.stack == name]
    return _remove(docker, name, own, ask="--yes" not in rest) if "--remove" in rest else 0


def find(root: Path, name: str) -> tuple[Docker, list[Orphan]]:
    """The daemon that the stack is or was on, and what on it no state of this backend knows."""
    listed = json.loads(state.pulumi(root, name, "stack", "ls", "--json"))
    states = {found["name"]: State.of(state.export(root, found["name"]) or {}) for found in listed}
    docker = Docker({**stack.full_environment(root, name), **_daemon(root, name, states)})
    return docker, orphans(docker, stack.project(root), states)


def _daemon(root: Path, name: str, states: Mapping[str, State]) -> dict[str, str]:
    """Where the stack's state says that it is; without a state, its configuration."""
    if name in states and states[name].known:
        return dict(states[name].environment)
    url = configuration.read(root, name).get("docker:host", "")
    return {"DOCKER_HOST": url} if url else {}


def orphans(docker: Docker, project: str, states: Mapping[str, State]) -> list[Orphan]:
    """What on the daemon is of this project, and of none of these states."""
    known = {identity for found in states.values() for identity in found.known}
    volumes = {volume for found in states.values() for volume in found.volumes}
    there = [*_containers(docker, project, volumes), *_named(docker, project, ("network", "volume"))]
    if docker("info", "--format={{.Swarm.ControlAvailable}}").strip() == "true":
        there += [*_services(docker, project), *_named(docker, project, ("config", "secret"))]
    owners = {used: orphan.stack for orphan in there for used in orphan.uses}
    there = [replace(orphan, stack=owners.get(orphan.found.name, orphan.stack)) for orphan in there]
    lost = [orphan for orphan in there if not {orphan.found.id, orphan.found.name} & known]
    return sorted(lost, key=lambda orphan: (orphan.stack, ORDER.index(orphan.found.kind), orphan.found.name))


def _containers(docker: Docker, project: str, volumes: set[str]) -> list[Orphan]:
    ids = docker.lines("ps", "--all", "--quiet", "--no-trunc", f"--filter=label={LABELS[0]}={project}")
    made = []
    for described in docker.inspect("container", ids):
        found = as_found(described)
        what = f"{_role(found.labels)}, {described['State']['Status']}"
        if found.volumes & volumes:
            what += "; on volumes of a stack that is known here: `make recover` removes it"
        uses = found.volumes | {*described["NetworkSettings"]["Networks"]}
        made.append(Orphan(found, found.labels.get(LABELS[1], ""), what, uses))
    return made


def _services(docker: Docker, project: str) -> list[Orphan]:
    ids = docker.lines("service", "ls", "--quiet", f"--filter=label={LABELS[0]}={project}")
    made = []
    for described in docker.inspect("service", ids):
        labels = described["Spec"].get("Labels") or {}
        found = Found("service", str(described["ID"]), str(described["Spec"]["Name"]), labels)
        made.append(Orphan(found, labels.get(LABELS[1], ""), _role(labels)))
    return made


def _role(labels: Mapping[str, str]) -> str:
    replica = labels.get("uwsgi-nginx.replica", "")
    release = labels.get("uwsgi-nginx.release", "")
    return " ".join(
        [labels.get(LABELS[2], ""), *([replica] if replica else []), *(["of release", release] if release else [])]
    )


def _named(docker: Docker, project: str, kinds: tuple[str, ...]) -> list[Orphan]:
    pattern = re.compile(rf"{re.escape(project)}-(?P<stack>.+?)-(?P<what>{NAMES})-[0-9a-f]{{7}}")
    made = []
    for kind in kinds:
        row = "{{.Name}} {{.Name}}" if kind == "volume" else "{{.ID}} {{.Name}}"
        full = ["--no-trunc"] if kind == "network" else []
        for line in docker.lines(kind, "ls", *full, f"--format={row}"):
            identity, _, name = line.partition(" ")
            if found := pattern.fullmatch(name):
                made.append(Orphan(Found(kind, identity, name), found["stack"], found["what"]))
    return made


def _show(of: str, lost: list[Orphan]) -> None:
    print(f"Stack {of}:")
    width = max(len(orphan.found.name) for orphan in lost)
    for orphan in lost:
        print(f"  {orphan.found.kind:<9}  {orphan.found.name:<{width}}  {orphan.what}")
    sys.stdout.flush()


def _remove(docker: Docker, name: str, own: list[Orphan], *, ask: bool) -> int:
    if not own:
        say(f"None of them is of the stack {name}: nothing was removed. STACK=… names another one.")
        return 0
    if ask:
        if not sys.stdin.isatty():
            raise Failure("Nothing was removed: there is nobody to ask.", 'make orphans ARGS="--remove --yes"')
        if input(f"Remove these {len(own)} of the stack {name}? [y/N] ").strip().lower() not in YES:
            say("Nothing was removed.")
            return 0
    left = 0
    patient = any(orphan.found.kind == "service" for orphan in own)
    for found in (orphan.found for orphan in own):
        try:
            remove(docker, found, patient=patient)
        except Failure as failure:
            left += 1
            say(f"left: the {found.kind} {found.name}: {failure.what}")
            continue
        say(f"removed: the {found.kind} {found.name}")
    return 1 if left else 0

"""The images that a stack builds on: the official ones where they can be had, else stand-ins."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tooling import console, docker_engine, files, machine, venv
from tooling.console import Exited, Failure, loud, step
from tooling.docker_engine import Host

# Setting → what stands in for it, by its name in airgap.build_images.
KINDS = {"pythonImage": "python", "nginxImage": "nginx"}
PULL_SECONDS = 600.0
ANSWER_SECONDS = 45.0

_READ = """
import json, sys
import yaml
project = yaml.safe_load(open(sys.argv[1])) or {}
try:
    stack = yaml.safe_load(open(sys.argv[2])) or {}
except OSError:
    stack = {}
space = project["name"] + ":"
def plain(config):
    return {key.removeprefix(space): value for key, value in (config or {}).items()}
found = {"declared": plain(project.get("config")), "stack": plain(stack.get("config"))}
print(json.dumps(found, default=str))
"""


@dataclass(frozen=True)
class Wanted:
    """The image that a stack wants for a setting, and the one that every stack wants unless it says otherwise."""

    name: str
    default: str


def settings(root: Path) -> dict[str, str]:
    """What every stack on this machine's daemon needs: keys and stand-in images. Cheap: a record is read."""
    return dict(machine.load(root).stand_ins or {})


def wanted(root: Path, stack: str) -> dict[str, Wanted]:
    """What the stack's settings, or else the project's defaults, ask for."""
    command = [str(venv.python(root)), "-c", _READ, str(root / "Pulumi.yaml"), str(root / f"Pulumi.{stack}.yaml")]
    try:
        read = json.loads(console.run(command, timeout=60))
        declared = {key: read["declared"][key]["default"] for key in KINDS}
    except (Exited, ValueError, KeyError, TypeError) as error:
        raise Failure(
            f"Pulumi.yaml or Pulumi.{stack}.yaml cannot be read, or has no default for {' and '.join(KINDS)}: {error}",
            "See with `git diff` what has changed in them.",
        ) from error
    own: Mapping[str, object] = read["stack"]
    return {key: Wanted(str(own.get(key, default)), str(default)) for key, default in declared.items()}


@dataclass(frozen=True)
class StandIns:
    """What stands in on this machine for the project's defaults, and what a stack has still to be told of it."""

    machine: dict[str, str]
    stack: dict[str, str]


def ensure(root: Path, stack: str, where: Host) -> StandIns:
    """Sees that the images a stack builds on are to be had: the official ones, or else stand-ins, built here."""
    from airgap import build_images

    missing: dict[str, str] = {}
    needed: set[str] = set()
    unset: dict[str, str] = {}
    official: dict[str, str] = {}
    for key, image in wanted(root, stack).items():
        stand_in = build_images.STAND_INS[KINDS[key]]
        if not _available(root, image.default, where):
            missing[key] = stand_in
            official[key] = image.default
        if image.name == stand_in or (image.name == image.default and key in missing):
            needed.add(KINDS[key])
        elif image.name != image.default and not _available(root, image.name, where):
            raise Failure(
                f"Pulumi.{stack}.yaml asks for {key} {image.name}, which is not on {where.url} and cannot be pulled.",
                f"Bring it there (docker load), or take the setting back:\npulumi config rm {key} --stack {stack}",
            )
        if image.name == image.default and key in missing:
            unset[key] = stand_in
    needed |= {KINDS[key] for key in missing}
    if needed:
        build_images.ensure(root, sorted(needed), where.environment)
    if official:
        loud(
            "Official base images cannot be pulled from here; images of Debian and PyPI packages do duty for them.",
            [f"{missing[key]} stands in for {name} ({key})" for key, name in official.items()]
            + ["See docs/airgap.md."],
        )
    return StandIns(missing, unset)


def are_present(images: Mapping[str, str], where: Host) -> bool:
    """Whether the daemon still has the stand-ins."""
    return _present(sorted(set(images.values())), where)


def _present(names: list[str], where: Host) -> bool:
    if where.url.startswith("unix://"):
        try:
            return all(docker_engine.request(f"/images/{name}/json", where) == 200 for name in names)
        except (OSError, ValueError, IndexError):
            return False
    if not names:
        return True
    try:
        # One call for all: by ssh each is a login.
        console.run(["docker", "image", "inspect", *names], timeout=60, env={**os.environ, **where.environment})
    except Exited:
        return False
    return True


def _available(root: Path, name: str, where: Host) -> bool:
    if _present([name], where):
        return True
    with step(name, "docker pull", files.local(root) / "log" / "pull.log") as current:
        try:
            # A firewall that drops packets would have the client wait for minutes; the first answer comes in seconds.
            console.run(
                ["docker", "pull", name],
                timeout=PULL_SECONDS,
                first_line_within=ANSWER_SECONDS,
                current=current,
                env={**os.environ, **where.environment},
            )
        except Exited as exited:
            current.outcome = f"not to be had from here: {exited.last_words or exited.reason}"
            return False
    return True

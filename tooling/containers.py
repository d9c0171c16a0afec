"""The containers of a stack: which they are, and how they are (`make ps`)."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tooling import console, stack
from tooling.console import Exited, Failure, say
from tooling.recover import LABELS, SOCKET_VARIABLE, State
from tooling.state import export as exported

IMAGE = "docker:index/image:Image"
SERVICE = "docker:index/service:Service"
RELEASE = "pulumi-python:dynamic:Release"
DOCKER_SECONDS = 60.0
UWSGI_SECONDS = 1  # for one replica's statistics
ROLES = ("nginx", "exporter", "replica")  # in the order in which they are shown; others follow
NOTHING = "-"


@dataclass(frozen=True)
class Known:
    """How to find a stack's containers.

    Attributes:
        environment: what the Docker client needs to reach the daemon that the plugin uses.
        filters: of `docker ps`. Labels alone will not do: another clone may have a stack of the same name there.
        images: the names of the images that it has built, by their ids, which is all that containers know.
        services: ids of the stack's services, by logical name, where it is on a swarm.
        drained: names of the replicas that get no request.
    """

    environment: Mapping[str, str]
    filters: Sequence[str]
    images: Mapping[str, str]
    services: Mapping[str, str]
    drained: Collection[str]

    @classmethod
    def of(cls, root: Path, name: str) -> Known:
        """Reads it from the stack's state, which also names what an update under way has made so far."""
        environment = stack.full_environment(root, name)
        export = exported(root, name)
        if export is None:
            raise Failure(f"There is no stack {name}.", "make up")
        state = State.of(export)
        project, own = stack.project(root), LABELS[:2]
        labels = [f"--filter=label={label}={value}" for label, value in zip(own, (project, name), strict=True)]
        volumes = [f"--filter=volume={volume}" for volume in sorted(state.volumes)]
        return cls(
            {**environment, **state.environment},
            [*labels, *volumes] if volumes else [],
            _images(export),
            _services(export),
            _drained(export),
        )

    def docker(self, *command: str) -> str:
        """What a `docker` command prints."""
        try:
            return console.run(["docker", *command], timeout=DOCKER_SECONDS, env=self.environment)
        except Exited as exited:
            raise Failure(
                f"docker {command[0]} did not work: {exited}", "Mend what it names, then try again."
            ) from exited


def _services(export: Mapping[str, Any]) -> dict[str, str]:
    resources = (export.get("deployment") or {}).get("resources") or []
    made = (found for found in resources if found["type"] == SERVICE and found.get("id") and not found.get("delete"))
    return {str(found["urn"]).rsplit("::", 1)[-1]: str(found["id"]) for found in made}


def _drained(export: Mapping[str, Any]) -> list[str]:
    resources = (export.get("deployment") or {}).get("resources") or []
    releases = (found.get("outputs") or {} for found in resources if found["type"] == RELEASE)
    return [str(name) for release in releases for name in release.get("drained") or []]


def _images(export: Mapping[str, Any]) -> dict[str, str]:
    resources = (export.get("deployment") or {}).get("resources") or []
    built = (found.get("outputs") or {} for found in resources if found["type"] == IMAGE)
    return {str(image.get("repoDigest")): str(image.get("imageName")) for image in built}


@dataclass(frozen=True)
class Container:
    """A container, as Docker describes it.

    Attributes:
        name: what it is in its stack: `nginx`, or the replica's name.
        full_name: Docker's own.
        socket: where it listens, if it is a replica.
        since: when it started, or ended.
    """

    id: str
    name: str
    full_name: str
    role: str
    release: str
    image: str
    socket: str
    state: str
    health: str
    since: datetime | None

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Container:
        """Reads what `docker inspect` says."""
        state, configuration = description["State"], description["Config"]
        labels = configuration.get("Labels") or {}
        role = labels.get(LABELS[2], "")
        variables = (variable.partition(SOCKET_VARIABLE) for variable in configuration.get("Env") or [])
        status = str(state["Status"])
        running = status == "running"
        return cls(
            id=str(description["Id"]),
            name=labels.get("uwsgi-nginx.replica") or role or description["Name"].removeprefix("/"),
            full_name=description["Name"].removeprefix("/"),
            role=role,
            release=labels.get("uwsgi-nginx.release", ""),
            image=str(description["Image"]),
            socket=next((path for before, found, path in variables if found and not before), ""),
            state=status if running or status == "created" else f"{status} ({state['ExitCode']})",
            health=str((state.get("Health") or {}).get("Status", "")) if running else "",
            since=_moment(str(state["StartedAt" if running else "FinishedAt"])),
        )

    @property
    def order(self) -> tuple[int, list[tuple[int, str]], str]:
        """By role, then as people count: uwsgi-2 before uwsgi-10."""
        place = ROLES.index(self.role) if self.role in ROLES else len(ROLES)
        parts = [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", self.name)]
        return place, parts, self.full_name


def of_stack(known: Known) -> list[Container]:
    """All of them, also those that are down."""
    if not known.filters:
        return []
    ids = known.docker("ps", "--all", "--quiet", "--no-trunc", *known.filters).split()
    if not ids:
        return []
    try:
        text = console.run(["docker", "inspect", *ids], timeout=DOCKER_SECONDS, env=known.environment)
    except Exited:
        # One of them has just gone.
        return [found for identity in ids for found in _one(known, identity)]
    return sorted((Container.of(description) for description in json.loads(text)), key=lambda found: found.order)


def _one(known: Known, identity: str) -> list[Container]:
    try:
        text = console.run(["docker", "inspect", identity], timeout=DOCKER_SECONDS, env=known.environment)
    except Exited:
        return []
    return [Container.of(json.loads(text)[0])]


def ps(root: Path, name: str, rest: list[str]) -> int:
    """State, health, requests and image of every container."""
    if rest:
        raise Failure(f"make ps knows no {' '.join(rest)}.", "make ps")
    known = Known.of(root, name)
    if known.services:
        from tooling import services

        return services.ps(known)
    found = of_stack(known)
    if not found:
        say(f"Stack {name} has no containers.")
        return 0
    requests = _requests(known, found)
    rows = [("CONTAINER", "STATE", "SINCE", "HEALTH", "REQUESTS", "RELEASE", "IMAGE", "DOCKER'S NAME")]
    for container in found:
        answered = requests.get(container.socket)
        rows.append(
            (
                container.name,
                f"{container.state}, drained" if container.name in known.drained else container.state,
                _ago(container.since),
                container.health or NOTHING,
                NOTHING if answered is None else f"{answered:,}",
                container.release or NOTHING,
                known.images.get(container.image, container.image.removeprefix("sha256:")[:12]),
                container.full_name,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    sys.stdout.flush()
    return 0


def _requests(known: Known, found: Sequence[Container]) -> dict[str, int]:
    """How many requests each replica has answered, by its socket: uWSGI says so on one beside it, to NGINX too."""
    sockets = [container.socket for container in found if container.socket and container.state == "running"]
    nginx = [container.id for container in found if container.role == "nginx" and container.state == "running"]
    if not sockets or not nginx:
        return {}
    # One `docker exec` for all. What a replica says becomes one line: it holds headers of requests as they came.
    script = (
        'for socket; do printf "%s " "$socket"; '
        f'curl -s --max-time {UWSGI_SECONDS} --unix-socket "$socket.stats" http://uwsgi/ | tr -d "[:cntrl:]"; '
        "echo; done"
    )
    command = ["docker", "exec", nginx[0], "sh", "-c", script, "sh", *sockets]
    try:
        text = console.run(command, timeout=DOCKER_SECONDS, env=known.environment)
    except Exited:
        return {}
    answers = (line.partition(" ") for line in text.splitlines())
    return {socket: count for socket, _, answer in answers if (count := _answered(answer)) is not None}


def _answered(answer: str) -> int | None:
    try:
        return sum(int(worker["requests"]) for worker in json.loads(answer, strict=False)["workers"])
    except (ValueError, KeyError, TypeError):
        return None


def _moment(text: str) -> datetime | None:
    """Docker's nanoseconds are too many for Python; its year 1 stands for never."""
    moment = datetime.fromisoformat(re.sub(r"\.\d+", "", text))
    return moment if moment.year > 1 else None


def _ago(moment: datetime | None) -> str:
    if moment is None:
        return NOTHING
    seconds = max(int((datetime.now(UTC) - moment).total_seconds()), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"

"""What no stack may declare, whatever its program says: checked in what a preview is going to bring about.

It reads what `pulumi preview --json` prints, so that it needs no service and no policy pack, and holds for any program
of pulumi-docker. A new rule is a function below with its words; tests/live/test_policy.py has a program that breaks it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

CONTAINER = "docker:index/container:Container"
SERVICE = "docker:index/service:Service"
VOLUME = "docker:index/volume:Volume"
IMAGE = "docker:index/image:Image"
GONE = ("delete", "delete-replaced", "discard", "discard-replaced", "remove-pending-replace")
ROLE_LABEL = "uwsgi-nginx.role"
PUBLISHED_ROLES = ("nginx", "exporter")  # what people and monitors ask; a replica is asked by NGINX alone
SOCKETS = tuple(map(PurePosixPath, ("/var/run/docker.sock", "/run/docker.sock")))
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"  # what stands in a preview for what an update finds out
# https://github.com/pulumi/pulumi/blob/v3.272.0/sdk/go/common/resource/plugin/rpc.go, `UnknownStringValue`
DIGEST = re.compile(r"(?:^|@)sha256:[0-9a-f]{64}$")
BASE_ARGUMENT = re.compile(r"_IMAGE$")  # of a build: what the Dockerfile starts from


@dataclass(frozen=True)
class Workload:
    """A container, or the service of a swarm: what of either a rule looks at.

    Attributes:
        name: its logical name.
        image: as it is declared.
        image_is_built: whether the image is an output of another resource of the program.
        user: empty: whatever the image says.
        memory: the limit in whatever unit; 0: none.
        is_privileged: or has been given more capabilities than Docker gives by itself.
        sources: paths of the host that it sees.
        is_published: whether clients of the host or the swarm reach it.
        role: its label.
    """

    name: str
    image: str
    image_is_built: bool
    user: str
    memory: float
    is_privileged: bool
    sources: Sequence[str]
    is_published: bool
    role: str


def violations(preview: Mapping[str, Any]) -> list[str]:
    """What is not allowed, in words; nothing if all is well.

    Args:
        preview: what `pulumi preview --json` printed.
    """
    return [problem for state in _declared(preview) for problem in _problems(state)]


def _declared(preview: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The resources that are to be there after the update."""
    seen = set()
    for step in preview.get("steps") or []:
        state = step.get("newState") or {}
        # A replacement has several steps.
        if step["op"] not in GONE and state and step["urn"] not in seen:
            seen.add(step["urn"])
            yield state


def _problems(state: Mapping[str, Any]) -> Iterator[str]:
    name, inputs = str(state["urn"]).rsplit("::", 1)[-1], state.get("inputs") or {}
    if state["type"] == IMAGE:
        yield from _moving_bases(name, inputs)
    elif state["type"] == VOLUME and (words := _shown_socket([str(mapping(inputs.get("driverOpts")).get("device"))])):
        yield f"{name} {words}"
    elif state["type"] in WORKLOADS:
        workload = WORKLOADS[state["type"]](name, inputs, state.get("propertyDependencies") or {})
        yield from (f"{name} {words}" for rule in RULES if (words := rule(workload)))


def _container(name: str, inputs: Mapping[str, Any], dependencies: Mapping[str, Any]) -> Workload:
    capabilities = mapping(inputs.get("capabilities"))
    volumes = [volume.get("hostPath") for volume in _list(inputs.get("volumes"))]
    mounts = [mount.get("source") for mount in _list(inputs.get("mounts")) if mount.get("type") == "bind"]
    on_host = inputs.get("networkMode") == "host"
    return Workload(
        name=name,
        image=str(inputs.get("image", "")),
        image_is_built=bool(dependencies.get("image")),
        user=str(inputs.get("user") or ""),
        memory=float(inputs.get("memory") or 0),
        is_privileged=bool(inputs.get("privileged") or capabilities.get("adds")),
        sources=[str(path) for path in (*volumes, *mounts) if path],
        is_published=bool(inputs.get("ports") or inputs.get("publishAllPorts") or on_host),
        role=_role(inputs),
    )


def _service(name: str, inputs: Mapping[str, Any], dependencies: Mapping[str, Any]) -> Workload:
    task = mapping(inputs.get("taskSpec"))
    container = mapping(task.get("containerSpec"))
    limits = mapping(mapping(task.get("resources")).get("limits"))
    networks = [str(network.get("name")) for network in _list(task.get("networksAdvanceds"))]
    return Workload(
        name=name,
        image=str(container.get("image", "")),
        # The engine knows on what the whole task depends, not which part of it.
        image_is_built=container.get("image") == UNKNOWN
        and any(IMAGE in urn for urn in dependencies.get("taskSpec", ())),
        user=str(container.get("user") or ""),
        memory=float(limits.get("memoryBytes") or 0),
        is_privileged=bool(container.get("capAdds")),
        sources=[str(mount.get("source")) for mount in _list(container.get("mounts")) if mount.get("type") == "bind"],
        is_published=bool(mapping(inputs.get("endpointSpec")).get("ports") or "host" in networks),
        role=_role(inputs),
    )


WORKLOADS: Mapping[str, Callable[[str, Mapping[str, Any], Mapping[str, Any]], Workload]] = {
    CONTAINER: _container,
    SERVICE: _service,
}


def _list(value: object) -> list[Mapping[str, Any]]:
    """Of what may be secret, or unknown yet."""
    return [part for part in value if isinstance(part, Mapping)] if isinstance(value, list) else []


def mapping(value: object) -> Mapping[str, Any]:
    """The value, if it is one: what is secret or unknown yet is a text in its place."""
    return value if isinstance(value, Mapping) else {}


def _role(inputs: Mapping[str, Any]) -> str:
    found = (label.get("value") for label in _list(inputs.get("labels")) if label.get("label") == ROLE_LABEL)
    return str(next(found, ""))


# -- the rules: what is wrong with it, after its name; nothing if it is not


def no_published_replica(workload: Workload) -> str:
    if workload.is_published and workload.role not in PUBLISHED_ROLES:
        return (
            "is published, past NGINX: no limit, no log and no release gate is in between. Take its ports away, or put "
            f"it behind NGINX (only those with the label {ROLE_LABEL} {' or '.join(PUBLISHED_ROLES)} may have any)."
        )
    return ""


def no_root(workload: Workload) -> str:
    name = workload.user.partition(":")[0]
    if name in ("", "root") or (name.isdigit() and int(name) == 0):
        stated = f"user: {workload.user}" if workload.user else "no user, so the image decides"
        return f'runs as root, or may ({stated}). Set another one, such as user="10001:10001".'
    return ""


def no_unbounded_memory(workload: Workload) -> str:
    if workload.memory <= 0:
        return "may use all memory of its host, and take the others down with it. Set memory."
    return ""


def no_mutable_tag(workload: Workload) -> str:
    if workload.image_is_built or DIGEST.search(workload.image):
        return ""
    return (
        f"runs {workload.image or 'an image without a name'}, which may be another image tomorrow. Take the digest of "
        "one that the program builds (Image.repo_digest), or NAME@sha256:…"
    )


def no_privileged_mode(workload: Workload) -> str:
    if workload.is_privileged:
        return "is privileged or adds capabilities: whoever breaks into it owns the host. Take that away."
    return ""


def no_docker_socket(workload: Workload) -> str:
    return _shown_socket(workload.sources)


def _shown_socket(sources: Sequence[str]) -> str:
    for source in sources:
        path = PurePosixPath(source)
        if any(path == socket or path in socket.parents for socket in SOCKETS) or path.name == "docker.sock":
            return f"sees Docker's socket ({source} of the host), which is as good as root there. Take that away."
    return ""


RULES = (no_published_replica, no_root, no_unbounded_memory, no_mutable_tag, no_privileged_mode, no_docker_socket)


def _moving_bases(name: str, inputs: Mapping[str, Any]) -> Iterator[str]:
    for argument, image in mapping(mapping(inputs.get("build")).get("args")).items():
        tag = str(image).rpartition("/")[2].partition(":")[2]
        if BASE_ARGUMENT.search(argument) and not DIGEST.search(str(image)) and tag in ("", "latest"):
            yield f"{name} is built on {image} ({argument}), which may be anything tomorrow. Name a version."

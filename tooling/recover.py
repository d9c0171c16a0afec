"""`make recover`: the one step after an update that was killed, or that failed in whatever way.

What the engine leaves behind when it is killed, and what is done about each:

- plugins and programs that go on without it, a release gate among them, which could still swap: they are ended first;
- files beside the state that were being written just then, which keep every command from reading it: removed;
- its lock, and operations whose outcome it does not know: `pulumi cancel`, `pulumi refresh --clear-pending-creates`;
- containers, networks, volumes, and on a swarm services, configs and secrets that it was just creating, which no `up`
  and no `refresh` finds again: removed;
- half a release: `pulumi up`;
- sockets and configurations of replicas that are gone, and a probe in NGINX: swept.

What the state knows is the engine's affair alone. An orphan is what was there before this began, is not in the state
after it was refreshed, and either has the name under which the state says that it was being created, or carries this
stack's labels and uses a volume of this very stack: another clone may have a stack of the same name on the same daemon.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tooling import console, files, stack, venv
from tooling.console import Exited, Failure, say, step

CONTAINER = "docker:index/container:Container"
VOLUME = "docker:index/volume:Volume"
# In the order in which they can be removed: each may use what comes after it.
KINDS = {
    "docker:index/service:Service": "service",
    CONTAINER: "container",
    "docker:index/network:Network": "network",
    VOLUME: "volume",
    "docker:index/serviceConfig:ServiceConfig": "config",
    "docker:index/secret:Secret": "secret",
}
ORDER = [*KINDS.values()]
# What `docker KIND inspect` calls their ids, where it is not Id; volumes have no id but their name.
ID_FIELDS = {"volume": "Name", "service": "ID", "config": "ID", "secret": "ID"}
PROVIDER = "pulumi:providers:docker"
LABELS = ("uwsgi-nginx.project", "uwsgi-nginx.stack", "uwsgi-nginx.role")
SOCKET_VARIABLE = "REPLICA_SOCKET="  # as in infra/layout.py

COMMAND_SECONDS = 600.0
DOCKER_SECONDS = 120.0
ENDING_SECONDS = 5.0
DRAIN_SECONDS = 40
HANDOVER_SECONDS = 60.0
POLL_SECONDS = 0.1
PROC = Path("/proc")

_LOCKED = re.compile(r"currently locked by|another update is currently in progress", re.IGNORECASE)
_HOLDER = re.compile(r"created by \S+@(\S+) \(pid (\d+)\)")
_ENGINE = re.compile(r"127\.0\.0\.1:(\d+)")
_SWEEP = """
import sys
from infra.docker_host import connect
from infra.gate import Gate
print(*Gate(connect()).sweep(sys.argv[1]), sep="\\n")
"""


@dataclass(frozen=True)
class State:
    """What a stack's state says of Docker.

    Attributes:
        known: ids of all that it has, replicas on their way out included; networks and volumes are known by name too.
        names: logical name → id, of the containers that are to stay.
        volumes: names of the stack's volumes.
        pending: name → kind, of what was being created when the engine ended.
        environment: what the Docker client needs to reach the daemon that the plugin uses.
    """

    known: frozenset[str]
    names: Mapping[str, str]
    volumes: frozenset[str]
    pending: Mapping[str, str]
    environment: Mapping[str, str]

    @classmethod
    def of(cls, export: Mapping[str, Any]) -> State:
        """Reads an exported state."""
        deployment = export.get("deployment") or {}
        resources: list[dict[str, Any]] = deployment.get("resources") or []
        docker = [resource for resource in resources if resource["type"] in KINDS and resource.get("id")]
        known = {str(resource["id"]) for resource in docker}
        known |= {str((resource.get("outputs") or {}).get("name", "")) for resource in docker} - {""}
        pending = {}
        for operation in deployment.get("pending_operations") or []:
            resource = operation["resource"]
            name = (resource.get("inputs") or {}).get("name")
            if operation["type"] == "creating" and resource["type"] in KINDS and name:
                pending[str(name)] = KINDS[resource["type"]]
        provider = next((found.get("inputs") or {} for found in resources if found["type"] == PROVIDER), {})
        environment = {"DOCKER_HOST": str(provider["host"])} if provider.get("host") else {}
        if provider.get("certPath"):
            environment |= {"DOCKER_CERT_PATH": str(provider["certPath"]), "DOCKER_TLS_VERIFY": "1"}
        return cls(
            known=frozenset(known),
            names={
                resource["urn"].rsplit("::", 1)[-1]: str(resource["id"])
                for resource in docker
                if resource["type"] == CONTAINER and not resource.get("delete")
            },
            volumes=frozenset(str(found["id"]) for found in docker if found["type"] == VOLUME),
            pending=pending,
            environment=environment,
        )


@dataclass(frozen=True)
class Found:
    """A container, network or whatever else of KINDS on the daemon."""

    kind: str
    id: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    volumes: frozenset[str] = frozenset()
    socket: str = ""
    started: str = ""


def run(root: Path, name: str, get_ready: Callable[[], None], up: Callable[[], int]) -> int:
    """Brings the stack to what is declared, and leaves nothing else of it.

    Args:
        root: the clone.
        name: the stack.
        get_ready: prepares the machine; called once nothing is in its way.
        up: runs `pulumi up` and returns its exit status.
    """
    backend = stack.backend(root)
    if backend.startswith("file://"):
        folder = Path(backend.removeprefix("file://").split("?")[0]).expanduser()
        mend_records(folder, stack.project(root), name)
    end_lingering(root)
    get_ready()
    return Recovery(root, name).run(up)


class Recovery:
    """One run of it."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self._log = files.local(root) / "log" / "recover.log"
        self._environment = stack.full_environment(root, name)

    def run(self, up: Callable[[], int]) -> int:
        before = self._state()
        self._environment = {**self._environment, **before.environment}
        # Looked for before the lock is known to be free: what an update of somebody else's makes after it is not ours.
        there = self._there(before)
        self._refresh(before)
        now = self._state()
        lost = orphans(there, now, before, stack.project(self.root), self.name)
        # A replica that listens where one of the state's does may have taken its place: it goes last. So do those that
        # may serve alone, because the state, one of an old backup, has none any more.
        in_use = {found.socket for found in there if found.id in now.known} - {""}
        late = [found for found in lost if found.socket and (found.socket in in_use or not in_use)]
        self._remove([found for found in lost if found not in late])
        code = up()
        if code:
            say("The update did not succeed; what ran goes on running. Mend what it names, then `make recover` again.")
            return code
        self._remove_late(late)
        self._sweep()
        return 0

    # -- the state
    def _state(self) -> State:
        try:
            return State.of(json.loads(self._pulumi("stack", "export")))
        except Exited as exited:
            raise Failure(f"The state cannot be read: {exited}", "See what `make preview` says.", self._log) from exited

    def _refresh(self, before: State) -> None:
        command = ["refresh", "--clear-pending-creates", "--yes", "--skip-preview"]
        with step("State", "comparing it with what really runs", self._log) as current:
            try:
                self._pulumi(*command, current=current)
            except Exited as exited:
                said = self._log.read_text(encoding="utf-8", errors="replace")[-4000:]
                if not _LOCKED.search(said) or "$ pulumi" not in said:
                    raise _cannot_refresh(exited) from exited
                check_that_nobody_updates(said[said.rfind("$ pulumi") :], self.name)
                self._pulumi("cancel", "--yes")
                current.note("the lock of an update that is no more is removed")
                try:
                    self._pulumi(*command, current=current)
                except Exited as again:
                    raise _cannot_refresh(again) from again
            for name, kind in before.pending.items():
                current.note(f"cleared: the {kind} {name} was being created when the update ended")

    def _pulumi(self, *command: str, current: console.Step | None = None) -> str:
        arguments = ["pulumi", "--non-interactive", *command, "--stack", self.name]
        if command[0] == "cancel":  # its argument is the stack
            arguments = ["pulumi", "--non-interactive", *command, self.name]
        return console.run(arguments, timeout=COMMAND_SECONDS, current=current, env=self._environment, cwd=self.root)

    # -- the daemon
    def _docker(self, *command: str) -> str:
        try:
            return console.run(["docker", *command], timeout=DOCKER_SECONDS, env=self._environment)
        except Exited as exited:
            raise Failure(
                f"docker {command[0]} did not work: {exited}", "Mend what it names, then run `make recover` again."
            ) from exited

    def _there(self, state: State) -> list[Found]:
        """All containers that may be the stack's, and what the state says was being created."""
        project = stack.project(self.root)
        filters = [f"--filter=label={LABELS[0]}={project}", f"--filter=label={LABELS[1]}={self.name}"]
        ids = self._docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()
        # One that was just being created has its name, and perhaps no labels of ours.
        ids += [self._id(name, "container") for name, kind in state.pending.items() if kind == "container"]
        found = [as_found(self._inspect(identity)) for identity in sorted(set(ids) - {""})]
        for name, kind in state.pending.items():
            identity = self._id(name, kind) if kind != "container" else ""
            if identity:
                found.append(Found(kind, identity, name))
        return found

    def _inspect(self, identity: str) -> dict[str, Any]:
        return dict(json.loads(self._docker("container", "inspect", identity))[0])

    def _id(self, name: str, kind: str) -> str:
        """The id of what has that name; empty where nothing has."""
        command = ["docker", kind, "inspect", "--format", f"{{{{.{ID_FIELDS.get(kind, 'Id')}}}}}", name]
        with contextlib.suppress(Exited):
            return console.run(command, timeout=DOCKER_SECONDS, env=self._environment).strip()
        return ""

    def _remove(self, lost: Sequence[Found]) -> None:
        for found in lost:
            try:
                remove(self._docker, found, patient=any(other.kind == "service" for other in lost))
            except Failure as failure:
                if found.kind == "container" and self._id(found.id, "container"):
                    raise
                say(f"left: the {found.kind} {found.name}: {failure.what}")
                continue
            say(f"removed: the {found.kind} {found.name}, which the state does not know")

    def _remove_late(self, late: Sequence[Found]) -> None:
        """Orphans that listen where a declared replica does: it takes its place back before they go."""
        if not late:
            return
        state = self._state()
        declared = [as_found(self._inspect(identity)) for identity in state.names.values()]
        by_socket = {found.socket: found for found in declared if found.socket}
        nginx = next((found for found in declared if found.labels.get(LABELS[2]) == "nginx"), None)
        for found in late:
            heir = by_socket.get(found.socket)
            if heir and nginx and heir.started < found.started:
                self._take_back(heir, nginx)
            # Requests may be in flight there.
            self._docker("stop", "--time", str(DRAIN_SECONDS), found.id)
            self._remove([found])

    def _take_back(self, heir: Found, nginx: Found) -> None:
        """Restarts a replica, whose socket then stands where another one's stood, without a moment in between."""
        look = ("exec", nginx.id, "stat", "-c", "%i %Z", heir.socket)
        before = self._docker(*look)
        self._docker("restart", "--time", str(DRAIN_SECONDS), heir.id)
        deadline = time.monotonic() + HANDOVER_SECONDS
        while self._docker(*look) == before:
            if time.monotonic() > deadline:
                raise Failure(
                    f"{heir.name} was restarted, and does not listen at {heir.socket} after {HANDOVER_SECONDS:.0f} s. "
                    "A container that the state does not know still answers in its place.",
                    "See `make logs`, mend it, then run `make recover` again.",
                )
            time.sleep(POLL_SECONDS)
        say(f"restarted: {heir.name}, so that it listens in place of a container that the state does not know")

    def _sweep(self) -> None:
        state = self._state()
        nginx = [identity for logical, identity in state.names.items() if logical.startswith("nginx")]
        for identity in nginx:
            try:
                swept = console.run(
                    [str(venv.python(self.root)), "-c", _SWEEP, identity],
                    timeout=DOCKER_SECONDS,
                    env=self._environment,
                    cwd=self.root,
                )
            except Exited as exited:
                raise Failure(f"Nothing could be swept: {exited}", "Run `make recover` again.") from exited
            for path in swept.split():
                say(f"swept: {path}, which nothing uses")


def orphans(there: Sequence[Found], now: State, before: State, project: str, name: str) -> list[Found]:
    """What of `there` is this stack's and not in its state."""
    labels = dict(zip(LABELS, (project, name), strict=False))
    lost = []
    for found in there:
        if found.id in now.known or (found.kind != "container" and found.name in now.known):
            continue
        was_being_created = before.pending.get(found.name) == found.kind
        is_labelled = found.kind == "container" and labels.items() <= found.labels.items()
        if was_being_created or (is_labelled and found.volumes & (now.volumes | before.volumes)):
            lost.append(found)
        elif is_labelled:
            say(f"left: the container {found.name}, of a stack of the same name that is kept elsewhere")
    return sorted(lost, key=lambda found: ORDER.index(found.kind))


def remove(docker: Callable[..., str], found: Found, *, patient: bool) -> None:
    """Removes it; `patient`: a service went just before, whose tasks hold on to what they use until they have ended."""
    force = ["--force", "--volumes"] if found.kind == "container" else []
    deadline = time.monotonic() + (DRAIN_SECONDS if patient else 0)
    while True:
        try:
            # Without force Docker itself refuses to remove a network or a volume that something uses.
            docker(found.kind, "rm", *force, found.id)
        except Failure:
            if found.kind == "container" or time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


def check_that_nobody_updates(said: str, name: str) -> None:
    """Fails if the lock's holder is a process of this machine that still runs."""
    for host, pid in _HOLDER.findall(said):
        if host == socket.gethostname() and is_pulumi(int(pid)):
            raise Failure(
                f"An update of stack {name} runs right now (process {pid}). Nothing was changed.",
                f"Wait until it ends, or stop it with Ctrl-C where it runs (kill -INT {pid}); then run this again.",
            )


def is_pulumi(pid: int) -> bool:
    """Whether that process of this machine still runs, and is one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    with contextlib.suppress(OSError):
        return "pulumi" in (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    return not PROC.is_dir()


def _cannot_refresh(exited: Exited) -> Failure:
    return Failure(f"The state could not be refreshed: {exited}", "Mend what it names, then run `make recover` again.")


def as_found(inspected: Mapping[str, Any]) -> Found:
    """A container, as `docker inspect` describes it."""
    variables = inspected["Config"].get("Env") or []
    return Found(
        kind="container",
        id=str(inspected["Id"]),
        name=str(inspected["Name"]).lstrip("/"),
        labels=inspected["Config"].get("Labels") or {},
        volumes=frozenset(mount["Name"] for mount in inspected.get("Mounts") or [] if mount.get("Name")),
        socket=next((text.removeprefix(SOCKET_VARIABLE) for text in variables if text.startswith(SOCKET_VARIABLE)), ""),
        started=str(inspected["State"].get("StartedAt", "")),
    )


def mend_records(folder: Path, project: str, name: str) -> None:
    """Removes what a backend of files was just writing when it was killed.

    Beside each of its files it keeps another, `.attrs`, with a checksum that nobody reads. It is not written in one go:
    an empty one has every command fail with "failed to load checkpoint: EOF". Without it all is well.
    """
    base = folder / ".pulumi"
    beside = [
        *(base / "stacks" / project).glob(f"{name}.json*.attrs"),
        *(base / "locks" / "organization" / project / name).glob("*.attrs"),
    ]
    for path in beside:
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            path.unlink(missing_ok=True)
            say(f"removed: {path.name}, half written; nothing but a checksum would be in it")


def end_lingering(root: Path) -> None:
    """Ends the plugins and programs whose engine is no more; they would go on with what it had asked for."""
    left = dict(_engines_children(root.resolve()))
    for pid, what in left.items():
        say(f"ended: process {pid}, {what}, whose engine is no more")
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, sign)
        deadline = time.monotonic() + ENDING_SECONDS
        while left and time.monotonic() < deadline:
            left = {pid: what for pid, what in left.items() if _lives(pid)}
            time.sleep(POLL_SECONDS if left else 0)
        if not left:
            return


def _lives(pid: int) -> bool:
    try:
        # One that nobody has waited for yet has ended all the same.
        return (PROC / str(pid) / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _engines_children(root: Path) -> Iterator[tuple[int, str]]:
    """Processes in the clone's folder that were started for an engine, none of which answers any more. Linux only."""
    for path in PROC.glob("[0-9]*"):
        try:
            if path.stat().st_uid != os.geteuid() or (path / "cwd").readlink() != root:
                continue
            arguments = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        ports = [int(found[1]) for found in map(_ENGINE.search, arguments) if found]
        what = next((word for word in arguments if re.search(r"airgap|pulumi", word.rsplit("/", 1)[-1])), "")
        what = what or next((word for word in arguments if "airgap" in word), "")
        if ports and what and not any(map(_answers, ports)):
            yield int(path.name), what.rsplit("/", 1)[-1]


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True

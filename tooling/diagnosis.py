"""What the checks of `make doctor` look at, and what they say."""

from __future__ import annotations

import email.utils
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from tooling import configuration, machine, recover, stack
from tooling.console import Failure

OK, WARN, FAIL, UNKNOWN = "ok", "warn", "FAIL", "-"

COMMAND_SECONDS = 8.0
REGISTRY_SECONDS = 3.0

Value = TypeVar("Value")


@dataclass(frozen=True)
class Finding:
    """What a check has found: OK, WARN, FAIL or UNKNOWN, the facts, and what to do where something is to be done."""

    status: str
    facts: str
    todo: str = ""


class Unknown(Exception):
    """Why something could not be looked at; where that is somebody's fault, another check says so."""


class Fact(Generic[Value]):
    """Found out by whoever asks first; the others wait for it."""

    def __init__(self, find: Callable[[], Value]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._found: list[Value] = []
        self._error: Exception | None = None

    def __call__(self) -> Value:
        with self._lock:
            if self._error:
                raise self._error
            if not self._found:
                try:
                    self._found.append(self._find())
                except Exception as error:
                    self._error = error
                    raise
            return self._found[0]


@dataclass(frozen=True)
class Lock:
    """Of an update, in a backend of files."""

    user: str
    host: str
    pid: int
    since: str

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def lives(self) -> bool:
        """Whether its holder does, as far as this machine can tell."""
        return not self.is_here or recover.is_pulumi(self.pid)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, process {self.pid}, since {self.since}"


class Context:
    """What the checks look at. What several of them need is found out once.

    Attributes:
        settings: the stack's configuration (tooling/configuration.py); declared: what it is by default.
        environment: of commands.
        where: the daemon that the stack is for.
        is_installed: whether `make up` has got this machine ready before.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        self.declared = configuration.defaults(root)
        self.settings = configuration.read(root, name)
        self.is_installed = bool(machine.load(root).pulumi)
        self.environment = stack.full_environment(root, name)
        self.where = Fact(lambda: configuration.daemon(root, name))
        self.info = Fact(self._info)
        self.export = Fact(self._export)
        self.locks = Fact(self._locks)
        self._registries: dict[str, Fact[float | None]] = {}
        self._lock = threading.Lock()

    @property
    def is_swarm(self) -> bool:
        return self.settings.get("orchestrator") == "swarm"

    @property
    def has_tls(self) -> bool:
        return bool({"tls.certificate", "tls.certificateFile"} & self.settings.keys())

    @property
    def is_daemon_here(self) -> bool:
        """Whether the daemon's ports, disk and clock are this machine's own."""
        return self.where().url.startswith("unix://") and self.info().get("Name") == socket.gethostname()

    def run(self, *command: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> str:
        """What a command prints; Failure with its own words where it fails, Unknown where it is not there."""
        path = shutil.which(command[0], path=self.environment["PATH"])
        if not path:
            raise Unknown(f"there is no `{command[0]}`")
        process = subprocess.Popen(
            [path, *command[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment or self.environment,
            cwd=self.root,
            start_new_session=True,
        )
        try:
            said, complaint = process.communicate(stdin, COMMAND_SECONDS)
        except subprocess.TimeoutExpired as expired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Failure(f"`{command[0]} {command[1]}` has not ended after {COMMAND_SECONDS:.0f} s") from expired
        if process.returncode:
            raise Failure((complaint or said).strip().removeprefix("error: "))
        return said

    def docker(self, *command: str) -> str:
        """What `docker` says about the stack's daemon."""
        self.info()  # if it is not reached, one check says so, and none waits for it
        return self._docker(*command)

    def pulumi(self, *command: str, stdin: str = "") -> str:
        """What `pulumi` says."""
        return self.run("pulumi", "--non-interactive", *command, "--stack", self.name, stdin=stdin)

    def state(self) -> recover.State:
        """What the stack's state says; an empty one where there is none."""
        return recover.State.of(self.export() or {})

    def ahead(self, registry: str) -> float | None:
        """How many seconds a registry's clock is ahead, if it says so: it is reached. OSError where it is not."""
        with self._lock:
            fact = self._registries.setdefault(registry, Fact(partial(self._ask, registry)))
        return fact()

    def _docker(self, *command: str) -> str:
        environment = {**self.environment, **self.where().environment}
        environment.pop("DOCKER_CONTEXT", None)
        return self.run("docker", *command, environment=environment)

    def _info(self) -> dict[str, Any]:
        before = time.time()
        try:
            found: dict[str, Any] = json.loads(self._docker("info", "--format={{json .}}"))
            if found.get("ServerErrors"):  # older clients take that for a success
                raise Failure(" ".join(found["ServerErrors"]))
        except Failure as failure:
            raise Unknown("the daemon is not reached") from failure
        return {**found, "Asked": (before + time.time()) / 2}

    def _export(self) -> dict[str, Any] | None:
        if not self.is_installed:
            raise Unknown("`make up` has not run here yet")
        if stack.is_local(self.root) and not stack.exists(self.root, self.name):
            return None
        try:
            return dict(json.loads(self.pulumi("stack", "export")))
        except Failure as failure:
            if "no stack named" in failure.what:
                return None
            raise

    def _locks(self) -> list[Lock]:
        backend = stack.backend(self.root)
        if not backend.startswith("file://"):
            raise Unknown("only an update itself tells, where the state is not in files")
        folder = Path(backend.removeprefix("file://").split("?")[0]).expanduser()
        found = []
        for file in (folder / ".pulumi/locks/organization" / stack.project(self.root) / self.name).glob("*.json"):
            try:
                held = json.loads(file.read_text(encoding="utf-8"))
            except FileNotFoundError:  # the update has just ended
                continue
            except ValueError as error:
                raise Failure(f"{file.name} is half written", f"make recover STACK={self.name}") from error
            since = str(held.get("timestamp", ""))[:19].replace("T", " ")
            found.append(Lock(held.get("username", ""), held.get("hostname", ""), int(held.get("pid", 0)), since))
        return found

    def _ask(self, registry: str) -> float | None:
        host = registry.partition(":")[0]
        known = (self.info().get("RegistryConfig") or {}).get("IndexConfigs") or {}
        is_plain = host in ("localhost", "127.0.0.1") or not known.get(registry, {}).get("Secure", True)
        request = urllib.request.Request(  # noqa: S310
            f"http{'' if is_plain else 's'}://{registry}/v2/", method="HEAD"
        )
        try:
            with urllib.request.urlopen(request, timeout=REGISTRY_SECONDS) as answer:  # noqa: S310
                date = answer.headers["Date"]
        except urllib.error.HTTPError as error:  # it wants to know who asks
            date = error.headers["Date"]
            error.close()
        except urllib.error.URLError as error:
            raise OSError(f"{registry}: {error.reason}") from error
        return email.utils.parsedate_to_datetime(date).timestamp() - time.time() if date else None

"""One run of the bench: what it makes is its own, and goes again however the run ends."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.models.networks import Network

from tests.live.stack import PROJECT, Stack
from tooling import base_images, files
from tooling.console import say

ROOT = Path(__file__).resolve().parent.parent
LABEL = "uwsgi-nginx.bench"
PATIENCE = 30  # seconds for a command to end that was interrupted


class OwnStack(Stack):
    """A stack whose commands can be ended: they are in sessions of their own, where Ctrl-C does not reach them.

    With `docker_host` it is on a daemon of the run's own, and goes with it.
    """

    def __init__(self, folder: Path, docker_host: str = "") -> None:
        self._commands: list[subprocess.Popen[str]] = []
        self._goes_by_itself = bool(docker_host)
        super().__init__(folder, docker_host)

    def start(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        process = super().start(*arguments, environment=environment)
        self._commands = [process, *(command for command in self._commands if command.poll() is None)]
        return process

    def remove(self) -> None:
        for process in (command for command in self._commands if command.poll() is None):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            try:
                process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self._goes_by_itself:
            self.docker.close()
        else:
            super().remove()


class Session:
    """Containers, networks, images and stacks of one run.

    There is one at a time, because two would measure each other. A file in `.local/bench` says what there is: the next
    run removes what one left behind that was killed.
    """

    def __init__(self) -> None:
        self.name = f"bench-{secrets.token_hex(4)}"
        self.docker = docker.from_env(use_context=False)
        self.images = {"pythonImage": "python:3.13-slim", "nginxImage": "nginx:1.31", **base_images.settings(ROOT)}
        self.undo = ExitStack()
        self._stacks: dict[str, OwnStack] = {}
        self._made = 0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._alone = ExitStack()
        self._alone.enter_context(files.lock(files.cache() / "bench.lock", "the bench"))
        for record in sorted(_records().glob("bench-*.json")):
            _sweep_dead(self.docker, record)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.say("removing what this run has made")
        try:
            self.undo.close()
            with ThreadPoolExecutor() as pool:
                list(pool.map(OwnStack.remove, self._stacks.values()))
        finally:
            _sweep(self.docker, self.name, list(self._stacks), self.folder)
            self._record.unlink(missing_ok=True)
            self.docker.close()
            self._alone.close()

    def say(self, text: str) -> None:
        """A line of progress."""
        say(f"[{time.monotonic() - self._began:5.0f}s] {text}")

    # -- what is made
    def stack(self, settings: Mapping[str, str], docker_host: str = "") -> Stack:
        """A stack of the program with the bench's app in it, not yet up; on the machine's daemon, or another one."""
        self._made += 1
        folder = self.folder / f"stack-{self._made}"
        folder.mkdir()
        stack = OwnStack(folder, docker_host)
        self._stacks[stack.name] = stack
        self._write()
        shutil.copy2(ROOT / "bench" / "bench_app.py", stack.folder / "app")
        stack.port = free_port()
        stack.configure(appModule="bench_app", port=str(stack.port))
        self.configure(stack, settings)
        return stack

    def remove(self, stack: Stack) -> None:
        """Takes a stack away before the run ends."""
        self._stacks[stack.name].remove()
        del self._stacks[stack.name]
        self._write()

    def configure(self, stack: Stack, settings: Mapping[str, str]) -> None:
        """Sets keys, which may be paths such as tls.port."""
        plain = [f"--plaintext={key}={value}" for key, value in settings.items()]
        if plain:
            stack.pulumi("config", "set-all", "--path", *plain)

    def build(self, name: str, context: Path, dockerfile: str = "Dockerfile", **arguments: str) -> str:
        """An image of this run's own; its id."""
        tag = f"{self.name}/{name}"
        image, _ = self.docker.images.build(
            path=str(context), dockerfile=dockerfile, buildargs=arguments, tag=tag, rm=True, forcerm=True
        )
        return str(image.id)

    def network(self, name: str) -> Network:
        return self.docker.networks.create(f"{self.name}-{name}", labels={LABEL: self.name})

    def run(self, image: str, name: str, network: Network, **options: Any) -> Container:
        """Starts a container that is called `name` on its network."""
        container = self.create(image, name, network, **options)
        container.start()
        return container

    def create(self, image: str, name: str, network: Network, **options: Any) -> Container:
        """As `run`, not yet started."""
        return self.docker.containers.create(
            image,
            name=f"{network.name}-{name}",
            hostname=name,
            network=network.name,
            networking_config={str(network.name): self.docker.api.create_endpoint_config(aliases=[name])},
            labels={LABEL: self.name},
            log_config=docker.types.LogConfig(type="json-file", config={"max-size": "10m", "max-file": "3"}),
            **options,
        )

    @property
    def _record(self) -> Path:
        return _records() / f"{self.name}.json"

    def _write(self) -> None:
        known = {"name": self.name, "stacks": list(self._stacks), "folder": str(self.folder)}
        files.write(self._record, json.dumps(known))


def free_port() -> int:
    """A port on which nothing listens, and from which no client of the bench will connect somewhere."""
    first_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = list(range(10000, max(first_of_clients, 20000)))
    random.shuffle(candidates)
    for port in candidates:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("0.0.0.0", port))  # noqa: S104 - as the contenders listen
            return port
    raise RuntimeError("no port is free")


def _records() -> Path:
    return files.local(ROOT) / "bench"


def _sweep_dead(client: docker.DockerClient, record: Path) -> None:
    """Removes what a run has left behind that is no more."""
    known = json.loads(record.read_text(encoding="utf-8"))
    say(f"Removing what {known['name']} has left behind.")
    _sweep(client, known["name"], known["stacks"], Path(known["folder"]))
    record.unlink()


def _sweep(client: docker.DockerClient, name: str, stacks: list[str], folder: Path) -> None:
    labels = [f"{LABEL}={name}", *(f"uwsgi-nginx.stack={stack}" for stack in stacks)]
    prefixes = tuple(f"{PROJECT}-{stack}-" for stack in stacks)
    for label in labels:
        for container in client.containers.list(all=True, sparse=True, filters={"label": label}):
            with suppress(APIError):
                container.remove(force=True, v=True)
    for network in client.networks.list():
        if str(network.name).startswith((f"{name}-", *prefixes)):
            with suppress(APIError):
                network.remove()
    for volume in client.volumes.list():
        if str(volume.name).startswith((f"{name}-", *prefixes)):
            with suppress(APIError):
                volume.remove(force=True)
    for owner in (name, *stacks):
        for image in client.images.list(filters={"reference": f"{owner}/*"}):
            # By tag: another run may have built the very same image.
            for tag in (tag for tag in image.tags if tag.startswith(f"{owner}/")):
                with suppress(NotFound, APIError):
                    client.images.remove(tag, force=True)
    if Path("/run/netns", name).exists():
        # The interface outside goes with the one inside.
        subprocess.run(["ip", "netns", "delete", name], check=False, timeout=30)
    shutil.rmtree(folder, ignore_errors=True)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))

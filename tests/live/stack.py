"""A stack of a test's own: a copy of the project, a state, a name and a port that nothing else has."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import docker
from docker.errors import DockerException
from docker.models.containers import Container
from requests import RequestException

from tooling import base_images
from tooling.stack import environment

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "uwsgi-nginx"
COPIED = ("__main__.py", "Pulumi.yaml", "infra", "app", "nginx", "uwsgi", "exporter")
COMMAND_TIMEOUT = 420  # seconds; a build with cold caches is part of the first `up`
REQUEST_TIMEOUT = 15  # seconds
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Result:
    """What a `pulumi` command answered."""

    code: int
    output: str
    seconds: float

    @property
    def changes(self) -> dict[str, int]:
        """How many resources were created, updated, replaced, deleted or unchanged, as the summary counts them."""
        summary = self.output[self.output.rfind("\nResources:") :]
        words = {"+": "create", "~": "update", "+-": "replace", "-": "delete"}
        lines = re.findall(r"^\s+(\+-|\+|~|-) ?(\d+) ", summary, re.MULTILINE)
        found = {words[sign]: int(number) for sign, number in lines}
        unchanged = re.search(r"(\d+) unchanged", summary)
        return found | ({"unchanged": int(unchanged[1])} if unchanged else {})


class Stack:
    """One stack of the program, driven as a person would: with the `pulumi` command.

    With `docker_host` it is deployed to the daemon there, which its configuration names; else to the machine's.
    """

    def __init__(self, folder: Path, docker_host: str = "") -> None:
        self.name = f"test-{secrets.token_hex(4)}"
        self.folder = folder / "project"
        self.port = free_port()
        self.log: list[str] = []
        self.docker = docker.DockerClient(docker_host) if docker_host else docker.from_env(use_context=False)
        self.folder.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, self.folder / name)
        (self.folder / ".venv").symlink_to(ROOT / ".venv")
        (folder / "state").mkdir()
        self.environment = {
            **os.environ,
            **environment(ROOT),
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_STACK": self.name,
        }
        self.pulumi("stack", "init", self.name)
        # Images of their own, so that a test neither takes nor removes those of another stack.
        settings = {
            "port": str(self.port),
            **{f"{image}ImageName": f"{self.name}/{image}" for image in ("app", "nginx", "exporter")},
        }
        self.configure(**settings, **base_images.settings(ROOT))
        if docker_host:
            self.configure(**{"docker:host": docker_host})

    # -- the program's commands
    def pulumi(self, *arguments: str, check: bool = True, environment: dict[str, str] | None = None) -> Result:
        """Runs `pulumi …` to its end; a failure fails the test unless `check` is off."""
        process = self.start(*arguments, environment=environment)
        begin = time.monotonic()
        try:
            output, _ = process.communicate(timeout=COMMAND_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            command = f"pulumi {' '.join(arguments)}"
            raise AssertionError(f"{command} took longer than {COMMAND_TIMEOUT} s:\n{output}") from None
        result = Result(process.returncode, output, time.monotonic() - begin)
        self.log.append(f"$ pulumi {' '.join(arguments)}   [{result.code}, {result.seconds:.1f} s]\n{output}")
        if check and result.code:
            raise AssertionError(f"pulumi {' '.join(arguments)} failed with {result.code}:\n{output}")
        return result

    def start(self, *arguments: str, environment: dict[str, str] | None = None) -> "subprocess.Popen[str]":
        """Starts `pulumi …` in a process group of its own."""
        return subprocess.Popen(
            ["pulumi", "--non-interactive", *arguments],
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def up(self, *arguments: str, check: bool = True) -> Result:
        return self.pulumi("up", "--yes", "--skip-preview", *arguments, check=check)

    def preview(self, *arguments: str, check: bool = True) -> Result:
        return self.pulumi("preview", *arguments, check=check)

    def refresh(self) -> Result:
        return self.pulumi("refresh", "--yes", "--skip-preview")

    def destroy(self) -> Result:
        return self.pulumi("destroy", "--yes", "--skip-preview")

    def configure(self, **settings: str) -> None:
        """Sets keys of the stack's configuration; an empty value removes the key."""
        for key, value in settings.items():
            if value:
                self.pulumi("config", "set", key, "--", value)
            else:
                self.pulumi("config", "rm", key)

    def outputs(self) -> dict[str, Any]:
        result = self.pulumi("stack", "output", "--json")
        return dict(json.loads(result.output))

    # -- the app's source
    def edit(self, path: str, old: str, new: str) -> None:
        """Replaces `old`, which must be there, by `new` in a file of the project's copy."""
        file = self.folder / path
        text = file.read_text()
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new))

    # -- what it looks like from outside
    @property
    def url(self) -> str:
        return self._url(LOOPBACK)

    def _url(self, host: str) -> str:
        return f"http://{host}:{self.port}"

    def get(self, path: str = "/", headers: dict[str, str] | None = None, host: str = LOOPBACK) -> str:
        request = urllib.request.Request(self._url(host) + path, headers=headers or {})
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT) as response:
            return str(response.read().decode())

    def status(self, path: str = "/", headers: dict[str, str] | None = None, host: str = LOOPBACK) -> int:
        try:
            self.get(path, headers, host)
        except urllib.error.HTTPError as error:
            return error.code
        return 200

    def is_up(self) -> bool:
        """Whether anything answers well."""
        try:
            return self.status() == 200
        except OSError:
            return False

    def answering(self, requests: int = 20) -> list[str]:
        """Which replicas answer `requests` requests in a row, in order."""
        return [re.findall(r"uwsgi-\d+", self.get())[0] for _ in range(requests)]

    def containers(self, role: str = "", *, stopped: bool = True) -> list[Container]:
        labels = [f"uwsgi-nginx.stack={self.name}", *([f"uwsgi-nginx.role={role}"] if role else [])]
        found = self.docker.containers.list(all=stopped, filters={"label": labels}, ignore_removed=True)
        return sorted(found, key=lambda container: str(container.name))

    def replica(self, name: str) -> Container:
        return next(found for found in self.containers("replica") if found.labels["uwsgi-nginx.replica"] == name)

    @property
    def nginx(self) -> Container:
        return self.containers("nginx")[0]

    def run_in(self, container: Container, script: str, user: str = "") -> tuple[int, str]:
        """Exit code and output of a shell script in a container."""
        result = container.exec_run(["sh", "-c", script], user=user)
        return int(result.exit_code or 0), cast(bytes, result.output).decode(errors="replace")

    def leftovers(self) -> dict[str, list[str]]:
        """What of this stack is still known to Docker, images apart."""
        prefix = f"{PROJECT}-{self.name}-"
        found = {
            "containers": [str(container.name) for container in self.containers()],
            "networks": [
                str(network.name) for network in self.docker.networks.list() if str(network.name).startswith(prefix)
            ],
            "volumes": [
                str(volume.name) for volume in self.docker.volumes.list() if str(volume.name).startswith(prefix)
            ],
        }
        return {kind: names for kind, names in found.items() if names}

    def report(self) -> Iterable[tuple[str, str]]:
        """What a person would look at first when a test fails."""
        yield "pulumi", "\n".join(self.log[-4:])
        try:
            self.docker.ping()
        except (DockerException, RequestException) as error:
            yield "the Docker daemon does not answer", str(error)
            return
        for container in self.containers():
            state = container.attrs["State"]
            yield (
                f"{container.name} is {state['Status']}, {state.get('Health', {}).get('Status', '')}",
                container.logs(tail=30).decode(errors="replace"),
            )
        for nginx in self.containers("nginx", stopped=False):
            yield "configuration in force", self.run_in(nginx, "cat /etc/nginx/live/current/nginx.conf")[1]

    def remove(self) -> None:
        """Takes everything away, even what the state does not know."""
        self.pulumi("cancel", "--yes", check=False)
        self.pulumi("destroy", "--yes", "--skip-preview", check=False)
        for container in self.containers():
            container.remove(force=True, v=True)
        left = self.leftovers()
        for name in left.get("networks", []):
            self.docker.networks.get(name).remove()
        for name in left.get("volumes", []):
            self.docker.volumes.get(name).remove(force=True)
        for image in self.docker.images.list(filters={"reference": f"{self.name}/*"}):
            # By tag: other stacks may have built the very same image.
            for tag in (tag for tag in image.tags if tag.startswith(f"{self.name}/")):
                self.docker.images.remove(tag, force=True)
        self.docker.close()


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def eventually(condition: Any, seconds: float, what: str) -> Any:
    """Polls until `condition()` is true and returns what it gave; fails after `seconds`, saying `what` did not come."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)

"""The original, deployed as Docker Compose does it: by `docker compose` where it is installed, else by the same steps.

The steps in Python have neither the start of a program nor its reading of YAML in them: to be measured by them is no
advantage.
"""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
from docker.models.containers import Container
from docker.models.networks import Network

from bench.contenders import Field
from bench.session import Session, free_port

READY_SECONDS = 180
SECOND = 10**9  # in nanoseconds
# As cheap as a check over HTTP can be, and asked as soon as Docker can: what waits for it waits no longer than it must.
CHECK = (
    "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && read -r line <&3 "
    "&& [[ $line == *200* ]]"
)


class Compose:
    """So many replicas of the original and its proxy; gone again at the end of the `with`.

    Attributes:
        how: what deploys it.
    """

    def __init__(self, session: Session, contenders: Field, replicas: int) -> None:
        self._session, self._replicas = session, replicas
        self._port = free_port()
        self._names = [f"uwsgi-{number}" for number in range(1, replicas + 1)]
        self._context = _context(session, contenders, self._names)
        self._python, self._nginx = contenders.full_python, session.images["nginxImage"]
        self._project = f"{session.name}-compose-{replicas}"
        self.how = "docker compose" if is_installed() else "Docker's API, the same steps"
        self._made: list[Container | Network] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if is_installed():
            self._compose("down", "--volumes", "--timeout", "0")
            return
        with ThreadPoolExecutor() as pool:
            list(
                pool.map(
                    lambda made: made.remove(force=True), [one for one in self._made if isinstance(one, Container)]
                )
            )
        for made in self._made:
            if isinstance(made, Network):
                made.remove()

    def up(self) -> float:
        """Deploys it and waits until all are healthy; the seconds that it took."""
        begin = time.monotonic()
        if is_installed():
            self._compose("up", "--detach", "--build", "--wait")
        else:
            self._up()
        return time.monotonic() - begin

    def _compose(self, *arguments: str) -> None:
        (self._context / "compose.json").write_text(json.dumps(self._file()))
        command = ["docker", "compose", "--project-name", self._project, "--file", "compose.json", *arguments]
        done = subprocess.run(command, cwd=self._context, timeout=READY_SECONDS, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")

    def _file(self) -> dict[str, Any]:
        build = {"context": ".", "args": {"PYTHON_FULL_IMAGE": self._python}}
        check = {"test": ["CMD", "bash", "-c", CHECK.replace("$", "$$")], "interval": "1s", "timeout": "5s"}
        replica = {"build": build, "image": f"{self._session.name}/original", "healthcheck": check}
        return {
            "services": {
                "nginx": {
                    "image": self._nginx,
                    "volumes": [f"./{name}:/etc/nginx/{name}" for name in _MOUNTED],
                    "ports": [f"127.0.0.1:{self._port}:8080"],
                    "labels": {"uwsgi-nginx.bench": self._session.name},
                    "depends_on": {name: {"condition": "service_healthy"} for name in self._names},
                },
                **{
                    name: {**replica, "hostname": name, "labels": {"uwsgi-nginx.bench": self._session.name}}
                    for name in self._names
                },
            },
        }

    def _up(self) -> None:
        image = self._session.build("original", self._context, PYTHON_FULL_IMAGE=self._python)
        network = self._session.network(f"compose-{self._replicas}")
        self._made.append(network)

        def start(name: str) -> Container:
            return self._session.run(image, name, network, healthcheck=check)

        check = docker.types.Healthcheck(test=["CMD", "bash", "-c", CHECK], interval=SECOND, timeout=5 * SECOND)
        with ThreadPoolExecutor(self._replicas) as pool:
            started = list(pool.map(start, self._names))
        self._made += started
        self._wait_until_healthy(len(started), str(network.name))
        mounts = {str(self._context / name): {"bind": f"/etc/nginx/{name}", "mode": "ro"} for name in _MOUNTED}
        ports = {"8080/tcp": ("127.0.0.1", self._port)}
        self._made.append(self._session.run(self._nginx, "nginx", network, volumes=mounts, ports=ports))

    def _wait_until_healthy(self, number: int, network: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            filters = {"network": network, "health": "healthy"}
            if len(self._session.docker.api.containers(filters=filters)) == number:
                return
            if time.monotonic() > deadline:
                raise TimeoutError("the original's replicas did not get healthy")
            time.sleep(0.05)


_MOUNTED = ("nginx.conf", "certificate.pem", "key.pem")


def is_installed() -> bool:
    """Whether this machine's Docker client has `compose`."""
    try:
        return not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    except OSError:
        return False


def _context(session: Session, contenders: Field, names: list[str]) -> Path:
    """The original's folder, its proxy made for these replicas."""
    folder = f"compose-{len(names)}"
    if (session.folder / folder).exists():
        return session.folder / folder
    context = contenders.original_context(folder)
    text = (context / "nginx.conf").read_text()
    servers = "".join(f"        server {name}:8000;\n" for name in names)
    before, _, rest = text.partition("    upstream uwsgi {\n")
    after = rest.partition("    }\n")[2]
    (context / "nginx.conf").write_text(f"{before}    upstream uwsgi {{\n{servers}    }}\n{after}")
    return context

"""A Docker daemon of a test's own, which may be stopped, killed and starved without anybody else noticing.

It lives in namespaces of its own: processes, so that nothing of it outlives the test; network, so that it leaves the
machine's bridges and iptables alone (a second dockerd would flush the rules of the first); mounts, so that its data, on
a small file system in memory, and its /run vanish with it. From there nothing leads outside: images are brought in.
"""

import ctypes
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import pytest

from tests.live.stack import Stack, eventually
from tooling import docker_engine
from tooling.docker_engine import Host

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
TOOLS = ("dockerd", "containerd", "iptables", "ip", "mount", "nsenter", "setpriv", "unshare")
START_TIMEOUT = 60  # seconds
STOP_TIMEOUT = 60  # seconds; a daemon that is told to stop stops its containers first
CLONE_NEWNET = 0x40000000
# All stages of the app image but the last one.
BUILDERS = re.compile(r"^FROM \S+ AS builder\n.*(?=^FROM )", re.MULTILINE | re.DOTALL)
MADE = {"builder": "/opt/venv", "healthcheck": "/healthcheck"}  # by stage

# Process 1 of the namespace. It takes in what the daemon's death orphans, and its own death ends all of it.
INIT = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=711,size="$2" tmpfs "$1"
ip link set lo up
echo ready
while :; do sleep 1 & wait; done
"""


class OwnDaemon:
    """A dockerd with `size` bytes (as `mount` writes them) to keep its data in, and more `flags` if it takes any.

    Attributes:
        host: its address, as in DOCKER_HOST.
        log: the file with what it says.
        cgroup: the name of its control group, which its containers are in.
    """

    def __init__(self, folder: Path, size: str, *flags: str) -> None:
        missing = [tool for tool in TOOLS if not shutil.which(tool, path=PATH)]
        if os.geteuid() != 0 or missing:
            pytest.skip(f"a daemon of the test's own takes root and {', '.join(missing or TOOLS)} on this machine")
        self.host = f"unix://{folder / 'docker.sock'}"
        self.log = folder / "dockerd.log"
        self._data = folder / "data"
        self._data.mkdir()
        self._settings = folder / "daemon.json"
        self._settings.write_text("{}")
        self.cgroup = f"uwsgi-nginx-{secrets.token_hex(4)}"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._flags = flags
        apart = ["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
        self._namespace = subprocess.Popen(
            # Should the tests themselves be killed, this goes with them, and everything in it.
            ["setpriv", "--pdeathsig", "KILL", "unshare", *apart, "sh", "-c", INIT, "init", str(self._data), size],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, "PATH": PATH},
        )
        assert self._namespace.stdout
        with self._namespace.stdout as said:
            assert said.readline() == b"ready\n", "the namespaces could not be made"
        self._init = child_of(self._namespace.pid)

    def start(self) -> None:
        """Starts it, and returns when it answers."""
        command = ["dockerd", "--host", self.host, "--data-root", str(self._data), "--config-file", str(self._settings)]
        groups = ["--cgroup-parent", f"/{self.cgroup}", "--exec-opt", "native.cgroupdriver=cgroupfs"]
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [*self.inside, *command, *groups, *self._flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": PATH},
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not docker_engine.answer(Host(self.host)).ok:
            assert self._daemon.poll() is None, f"dockerd ended; its last words:\n{self.last_words()}"
            assert time.monotonic() < deadline, f"dockerd does not answer; its last words:\n{self.last_words()}"
            time.sleep(0.1)

    def stop(self) -> None:
        """SIGTERM, as an init system sends it."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to dockerd alone: what becomes of its containers is its own affair."""
        self._signal(signal.SIGKILL)

    def power_off(self) -> None:
        """SIGKILL to dockerd, containerd, their shims and all containers at once; /run is empty after."""
        assert self._daemon
        self._run("kill -KILL -1; umount --recursive --lazy /run; mount -t tmpfs -o mode=755 tmpfs /run")
        self._daemon.wait(STOP_TIMEOUT)
        self._daemon = None

    @property
    def inside(self) -> list[str]:
        """What goes before a command that is to run on its machine, so to speak."""
        return ["nsenter", "--target", str(self._init), "--net", "--mount", "--pid", "--ipc", "--uts"]

    @property
    def is_on(self) -> bool:
        """Whether it was started, and not ended since."""
        return self._daemon is not None

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:]) if self.log.exists() else ""

    @contextmanager
    def network(self) -> Iterator[None]:
        """For the calling thread, and whatever it starts inside, the loopback is the one where containers publish."""
        with enter_network(self._init):
            yield

    def load(self, images: Iterable[str]) -> None:
        """Brings images over from the machine's daemon."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as save:
            subprocess.run(
                ["docker", "--host", self.host, "load", "--quiet"], stdin=save.stdout, check=True, capture_output=True
            )
        assert save.returncode == 0

    def fill(self) -> None:
        """Leaves not one free byte on its file system."""
        filler = f"{self._data}/filler"
        self._run(f"for size in 1M 4k; do dd if=/dev/zero bs=$size >>{filler} 2>/dev/null || true; done")

    def free(self) -> None:
        """Takes back what `fill` took."""
        self._run(f"rm -f {self._data}/filler")

    def remove(self) -> None:
        """Leaves nothing of it."""
        self._namespace.kill()
        self._namespace.wait()
        if self._daemon:
            self._daemon.wait(STOP_TIMEOUT)
        # Below each controller, or below the only one.
        groups = [*Path("/sys/fs/cgroup").glob(self.cgroup), *Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}")]
        for group in groups:
            folders = [Path(folder) for folder, _, _ in os.walk(group, topdown=False)]
            for folder in folders:
                eventually(lambda folder=folder: _removed(folder), 10, f"{folder} is empty")

    def _signal(self, number: signal.Signals) -> None:
        assert self._daemon
        os.kill(child_of(self._daemon.pid), number)
        self._daemon.wait(STOP_TIMEOUT)
        self._daemon = None

    def _run(self, script: str) -> None:
        inside = ["nsenter", "--target", str(self._init), "--mount", "--pid"]
        subprocess.run([*inside, "sh", "-c", script], check=True)


def bring_images(stack: Stack, daemon: OwnDaemon) -> None:
    """Gives the daemon what its builds start from.

    It has no way out to a package index: what is compiled and downloaded in a build is brought along, ready made.
    """
    python, nginx = (
        stack.pulumi("config", "get", key).output.strip().splitlines()[-1] for key in ("pythonImage", "nginxImage")
    )
    file = stack.folder / "uwsgi" / "Dockerfile"
    text = file.read_text()
    ready = f"{stack.name}/ready"
    builders = BUILDERS.search(text)
    assert builders, "the Dockerfile has stages that build"
    recipe = file.with_name("Dockerfile.ready")
    copies = [f"COPY --from={stage} {path} {path}\n" for stage, path in MADE.items()]
    recipe.write_text("".join([text[: builders.end()], "FROM scratch\n", *copies]))
    machine = docker.from_env(use_context=False)
    try:
        machine.images.build(
            path=str(Path(__file__).parent / "app"),
            dockerfile=str(recipe),
            buildargs={
                "PYTHON_IMAGE": python,
                "HEALTHCHECK_C": (stack.folder / "uwsgi" / "healthcheck.c").read_text(),
            },
            tag=ready,
            rm=True,
        )
        daemon.load([python, nginx, ready])
        machine.images.remove(ready)
    finally:
        machine.close()
    stages = [f"FROM {ready} AS {stage}\n" for stage in MADE]
    file.write_text("".join([text[: builders.start()], *stages, text[builders.end() :]]))
    recipe.unlink()


def child_of(process: int) -> int:
    """The one child of a process, which `unshare` and `nsenter` have."""
    children = Path(f"/proc/{process}/task/{process}/children")
    return int(eventually(children.read_text, 10, f"process {process} has a child").split()[0])


@contextmanager
def enter_network(process: int) -> Iterator[None]:
    """For the calling thread, and whatever it starts inside, the network is the one of that process."""
    with open("/proc/thread-self/ns/net") as here, open(f"/proc/{process}/ns/net") as there:  # noqa: PTH123
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(here.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _removed(folder: Path) -> bool:
    with suppress(OSError):
        folder.rmdir()
    return not folder.exists()

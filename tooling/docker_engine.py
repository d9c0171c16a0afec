"""A Docker daemon that answers: the one that is there, else one that is started, else Debian's, installed first."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tooling import console, debian, files
from tooling.console import Exited, Failure, Step, step

DEFAULT_HOST = "unix:///var/run/docker.sock"
START_SECONDS = 90.0
PID_FILES = {
    Path("/var/run/docker.pid"): "dockerd",
    Path("/var/run/docker/containerd/containerd.pid"): "containerd",
}
STARTED_BY_PACKAGE_SECONDS = 3.0
ANSWER_SECONDS = 20.0
# Not every user's PATH has the folders of the system's daemons.
SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/sbin"
SYSTEMD = Path("/run/systemd/system")

_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Host:
    """Where the user's Docker is.

    Attributes:
        url: as in DOCKER_HOST.
        chosen_by: the user's own choice, in words; empty for the machine's default.
        cert_path: the folder with the certificates, as in DOCKER_CERT_PATH, where it is not the environment's.
    """

    url: str
    chosen_by: str = ""
    cert_path: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What Docker's own client needs to reach it, on top of its environment."""
        tls = {"DOCKER_CERT_PATH": self.cert_path, "DOCKER_TLS_VERIFY": "1"} if self.cert_path else {}
        return {"DOCKER_HOST": self.url, **tls}

    @property
    def login(self) -> str:
        """What ssh takes to get there; empty where ssh is not the way."""
        url = urlsplit(self.url)
        if url.scheme != "ssh":
            return ""
        return f"{f'-p {url.port} ' if url.port else ''}{f'{url.username}@' if url.username else ''}{url.hostname}"

    @property
    def by_hand(self) -> str:
        """The command with which a person sees whether it is reached."""
        if self.login:
            return f"ssh {self.login} docker version   (it must ask for nothing)"
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        return f"{variables} docker version"


@dataclass(frozen=True)
class Answer:
    """Whether the daemon answers, and if not, why."""

    ok: bool
    why: str = ""


def host(env: Mapping[str, str] | None = None) -> Host:
    """Where Docker's own client would look: DOCKER_HOST, then the context that the user is in, then the default."""
    env = os.environ if env is None else env
    if env.get("DOCKER_HOST"):
        return Host(env["DOCKER_HOST"], "DOCKER_HOST")
    context = env.get("DOCKER_CONTEXT") or _current_context(env)
    if context in ("", "default"):
        return Host(DEFAULT_HOST)
    try:
        template = "{{.Endpoints.docker.Host}}"
        url = console.run(["docker", "context", "inspect", context, "--format", template], timeout=30, env=env).strip()
    except Exited as exited:
        raise Failure(
            f"Docker's context is {context}, and docker cannot read it: {exited}",
            "docker context use default\nor mend it; then run this again.",
        ) from exited
    return Host(url, f"Docker's context {context}")


def _current_context(env: Mapping[str, str]) -> str:
    folder = Path(env.get("DOCKER_CONFIG") or Path(env.get("HOME", str(Path.home()))) / ".docker")
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("currentContext", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def answer(where: Host) -> Answer:
    """Asks the daemon for a sign of life."""
    if where.url.startswith("unix://"):
        return _ping(where.url.removeprefix("unix://"))
    try:
        console.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            timeout=ANSWER_SECONDS,
            env={**os.environ, **where.environment},
        )
    except Exited as exited:
        return Answer(False, str(exited))
    return Answer(True)


def request(path: str, where: Host) -> int:
    """The status with which the daemon behind a unix socket answers GET; a client process costs fifty times as much."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(where.url.removeprefix("unix://"))
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        return int(connection.recv(64).split(b" ")[1])


def _ping(path: str) -> Answer:
    try:
        status = request("/_ping", Host(f"unix://{path}"))
    except PermissionError:
        return Answer(False, f"this user may not use {path}")
    except FileNotFoundError:
        return Answer(False, f"there is no {path}")
    except (OSError, ValueError, IndexError) as error:
        return Answer(False, f"{path} does not answer ({error})")
    return Answer(status == 200, "" if status == 200 else f"{path} answers with status {status}")


def ensure(root: Path, where: Host | None = None) -> Host:
    """The host of a daemon that answers. Only a machine's own default daemon is ever started, and none ever changed.

    Args:
        root: the clone.
        where: the daemon that a stack names; None for the one that Docker's own client would ask.
    """
    where = where or host()
    state = answer(where)
    if not state.ok:
        with step("Docker", f"no daemon answers: {state.why}", files.local(root) / "log" / "docker.log") as current:
            _bring_up(root, where, state, current)
    if shutil.which("docker") is None:
        with step("Docker", "its command-line client is missing") as current:
            _install_client(where, current)
    return where


def _bring_up(root: Path, where: Host, state: Answer, current: Step) -> None:
    if where.chosen_by:
        raise Failure(
            f"{where.url}, which {where.chosen_by} points to, does not answer: {state.why}",
            f"See that it runs and can be reached, or choose another ({where.chosen_by}). Nothing was started here.\n"
            f"{where.by_hand}",
        )
    if "may not use" in state.why:
        raise Failure(
            f"A Docker daemon is there, but {state.why}.",
            "Run this as root, or be added to the group docker and log in again.",
        )
    if sys.platform != "linux":
        raise Failure(
            "Docker does not answer.", "Start Docker Desktop (or what runs Docker here), then run this again."
        )
    if _which("dockerd") is None:
        debian.install(["docker.io", "iptables"], "Docker is not installed", current)
        # Debian's package may have started it.
        if _wait(where, STARTED_BY_PACKAGE_SECONDS, None):
            return
    if os.geteuid() != 0:
        raise Failure(
            "Docker is installed but does not run, and only root can start it.",
            "sudo systemctl start docker\nThen run this again.",
        )
    if SYSTEMD.is_dir():
        _start_by_systemd(where, current)
    else:
        _start_in_background(where, files.local(root) / "log" / "dockerd.log", current)


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=SYSTEM_FOLDERS)


def _start_by_systemd(where: Host, current: Step) -> None:
    current.note("systemctl start docker")
    try:
        console.run(["systemctl", "start", "docker"], timeout=START_SECONDS, current=current)
    except Exited as exited:
        raise Failure(
            f"systemctl start docker did not work: {exited}",
            "journalctl -u docker says why. Mend it, then run this again.",
        ) from exited
    if not _wait(where, START_SECONDS, None):
        raise Failure(
            "systemd says that Docker runs, but it does not answer.",
            "journalctl -u docker says why. Mend it, then run this again.",
        )


def _start_in_background(where: Host, log: Path, current: Step) -> None:
    dockerd = _which("dockerd")
    if dockerd is None:
        raise Failure(
            "Debian's docker.io is installed, but there is no dockerd.",
            "Reinstall it: apt-get install --reinstall docker.io",
        )
    if _which("iptables") is None:
        debian.install(["iptables"], "dockerd needs iptables", current)
    _remove_stale_pid_files(current)
    log.parent.mkdir(parents=True, exist_ok=True)
    current.log = log
    current.note(f"starting {dockerd} in the background; it stays when this ends, and logs to {log}")
    path = os.environ.get("PATH", "")
    with log.open("ab") as out:
        # A session of its own: closing the terminal or Ctrl-C must not take every container on the machine with it.
        daemon = subprocess.Popen(
            [dockerd],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            start_new_session=True,
            env={**os.environ, "PATH": f"{path}:{SYSTEM_FOLDERS}"},
        )
    # Held on to: it outlives this process, and Python warns about a running child that it forgets.
    _started.append(daemon)
    if _wait(where, START_SECONDS, daemon):
        return
    last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
    ended = "ended" if daemon.poll() is not None else "does not answer"
    raise Failure(
        f"dockerd was started and {ended}; its last words:\n{last}",
        "Mend what it names, see that `dockerd` starts by hand, then run this again.",
    )


def _remove_stale_pid_files(current: Step) -> None:
    """
    Of a daemon that was killed. dockerd takes whatever process has that number now for its predecessor, and for a
    containerd that still runs; then it does not start.
    """
    for path, name in PID_FILES.items():
        try:
            running = Path(f"/proc/{int(path.read_text(encoding='utf-8'))}/comm").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            continue
        if running != name:
            current.note(f"{path} is stale: its number is now that of {running}")
            path.unlink(missing_ok=True)


def _wait(where: Host, seconds: float, daemon: subprocess.Popen[bytes] | None) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer(where).ok:
            return True
        if daemon is not None and daemon.poll() is not None:
            # It may have lost a race against another daemon that is just coming up.
            return answer(where).ok
        time.sleep(0.2)
    return False


def _install_client(where: Host, current: Step) -> None:
    try:
        # Newer Debian releases have the client in a package of its own; on older ones it comes with the daemon.
        console.run(["apt-cache", "show", "docker-cli"], timeout=60)
        package = "docker-cli"
    except Exited:
        package = "docker.io"
    if where.chosen_by and package == "docker.io":
        raise Failure(
            "There is no `docker` command on this machine.",
            "Install Docker's command-line client, then run this again.",
        )
    debian.install([package], "Docker's command-line client is missing", current)

"""What tests start beside Docker, from Debian's packages: a registry that a swarm pulls from, sshd on a Docker host."""

from __future__ import annotations

import shutil
from pathlib import Path

from tooling import console, debian, docker_engine, files
from tooling.console import step

PROGRAM = "docker-registry"
SSHD = "sshd"


def ensure(root: Path) -> None:
    """Sees that the registry is there."""
    _ensure(root, PROGRAM, PROGRAM, PROGRAM, "the swarm's tests push their images to one")


def ensure_sshd(root: Path) -> None:
    """Sees that sshd is there."""
    _ensure(root, SSHD, "openssh-server", "ssh", "the tests of a remote Docker host log in to one")


def _ensure(root: Path, program: str, package: str, service: str, why: str) -> None:
    """Installs it, and sees that the package's own service does not run because of that."""
    if shutil.which(program) or shutil.which(program, path=docker_engine.SYSTEM_FOLDERS):
        return
    log = files.local(root) / "log" / f"{program}.log"
    with step(program, why, log) as current:
        debian.install([package], f"There is no {program} for the tests", current)
        if docker_engine.SYSTEMD.is_dir():
            console.run(["systemctl", "disable", "--now", service], timeout=60, current=current)

"""The registry that the swarm's tests push to: Debian's, installed where they run and started by them."""

from __future__ import annotations

import shutil
from pathlib import Path

from tooling import console, debian, docker_engine, files
from tooling.console import step

PROGRAM = "docker-registry"


def ensure(root: Path) -> None:
    """Sees that the program is there, and that the package's own service does not run because of it."""
    if shutil.which(PROGRAM):
        return
    log = files.local(root) / "log" / "registry.log"
    with step(PROGRAM, "the swarm's tests push their images to one", log) as current:
        debian.install([PROGRAM], "There is no registry for the swarm's tests", current)
        if docker_engine.SYSTEMD.is_dir():
            console.run(["systemctl", "disable", "--now", PROGRAM], timeout=60, current=current)

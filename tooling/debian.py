"""Packages of the machine's own distribution, for what no Python package can bring."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from tooling import console
from tooling.console import Exited, Failure, Step


def install(packages: Sequence[str], why: str, current: Step) -> None:
    """Installs Debian packages, or says why it cannot and what a person can do."""
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise Failure(
            f"{why}, and this is no Debian: there is no apt-get.",
            f"Install what your system calls {names}, then run this again.",
        )
    if os.geteuid() != 0:
        raise Failure(f"{why}, and only root can install it.", f"sudo apt-get install {names}\nThen run this again.")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # A dead third-party source must not hang the run, nor end it: whether the packages are to be had decides.
    bounded = ["-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20", "-o", "Acquire::Retries=1"]
    current.note(f"apt-get install {names}")
    try:
        console.run(["apt-get", *bounded, "update"], timeout=300, current=current, env=env)
    except Exited as exited:
        current.note(f"apt-get update was not content ({exited.reason}); going on with the lists there are")
    options = [*bounded, "-o", "DPkg::Lock::Timeout=120", "-y", "--no-install-recommends"]
    try:
        console.run(["apt-get", *options, "install", *packages], timeout=900, current=current, env=env)
    except Exited as exited:
        raise Failure(
            f"{why}, and apt-get install {names} did not work: {exited}",
            "See that `apt-get update` and that command work, then run this again.",
        ) from exited

"""The executables through which the engine starts the stand-ins: it knows plugins by their file names alone."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from tooling import console, files, venv
from tooling.console import Exited, Failure, loud, step

LANGUAGE_HOST_FILES = ("pulumi-language-python", "pulumi-resource-pulumi-python")


def warn_language_host() -> None:
    """Says that the CLI at hand has no Python support beside it."""
    loud(
        "This Pulumi CLI comes without its Python language host.",
        ["airgap/language_host stands in for it; the CLI warns about that at each run.", "See docs/airgap.md."],
    )


def write_language_host(root: Path, folder: Path) -> None:
    """Writes what runs the Python program, and what runs its dynamic resources."""
    _write(root, folder / LANGUAGE_HOST_FILES[0], "-m airgap.language_host", sees_clone=True)
    # The engine starts this one in the program's folder, and it must find the program's own modules there.
    _write(root, folder / LANGUAGE_HOST_FILES[1], "-u -m pulumi.dynamic", sees_clone=False)


def install_docker_provider(root: Path, pulumi: Path, home: Path) -> None:
    """Installs the Docker plugin's stand-in into a PULUMI_HOME of its own, as the version that the program asks for."""
    from tooling import pulumi_cli

    version = pulumi_cli.pinned(root, "pulumi-docker")
    name = "pulumi-resource-docker"
    installed = home / "plugins" / f"resource-docker-v{version}" / name
    source = files.local(root) / "plugin" / name
    _write(root, source, "-m airgap.docker_provider", sees_clone=True)
    if not installed.exists() or installed.read_text(encoding="utf-8") != source.read_text(encoding="utf-8"):
        env = {**os.environ, "PULUMI_HOME": str(home), "PULUMI_SKIP_UPDATE_CHECK": "true"}
        command = [str(pulumi), "plugin", "install", "resource", "docker", version, "-f", str(source), "--reinstall"]
        with step(
            "Docker plugin", f"installing its stand-in as v{version}", files.local(root) / "log" / "plugin.log"
        ) as current:
            try:
                console.run(command, timeout=120, current=current, env=env)
            except Exited as exited:
                raise Failure(
                    f"The stand-in for the Docker plugin could not be installed: {exited}",
                    "make clean, then run this again.",
                ) from exited
    loud(
        f"The official Docker plugin v{version} cannot be downloaded from here.",
        [f"airgap/docker_provider stands in for it, in a PULUMI_HOME of its own: {home}", "See docs/airgap.md."],
    )


def _write(root: Path, path: Path, arguments: str, *, sees_clone: bool) -> None:
    lines = ["#!/bin/sh", "# Written by tooling; see docs/airgap.md."]
    if sees_clone:
        lines.append(f'export PYTHONPATH={shlex.quote(str(root))}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    lines.append(f'exec {shlex.quote(str(venv.python(root)))} {arguments} "$@"')
    files.write(path, "\n".join(lines) + "\n", mode=0o755)

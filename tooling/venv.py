"""`.venv`: the Python that the program, the stand-ins and the tests run on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tooling import console, debian, files
from tooling.console import Exited, Failure, Step, step

REQUIREMENTS = ("requirements-dev.txt", "requirements.txt", "app/requirements.txt", "exporter/requirements.txt")
_STAMP = ".uwsgi-nginx-stamp"


def python(root: Path) -> Path:
    """The interpreter in `.venv`."""
    return root / ".venv" / "bin" / "python"


def fingerprint(root: Path) -> str:
    """What `.venv` has to have been made from."""
    return files.digest([sys.version, str(root), *(root / name for name in REQUIREMENTS)])


def is_current(root: Path) -> bool:
    """Whether `.venv` was made, to the end, from today's requirements by today's Python."""
    try:
        return (root / ".venv" / _STAMP).read_text(encoding="utf-8") == fingerprint(root) and python(root).exists()
    except OSError:
        return False


def ensure(root: Path) -> None:
    """Creates or mends `.venv`; costs nothing when there is nothing to do."""
    if is_current(root):
        return
    log = files.local(root) / "log" / "venv.log"
    with step("Python packages", "into .venv, from requirements-dev.txt", log) as current:
        if not _works(root):
            _create(root, current)
        try:
            console.run(
                [
                    str(python(root)),
                    "-m",
                    "pip",
                    "install",
                    "--disable-pip-version-check",
                    "--progress-bar=off",
                    "-r",
                    str(root / REQUIREMENTS[0]),
                ],
                timeout=1800,
                current=current,
                cwd=root,
            )
        except Exited as exited:
            raise Failure(
                f"pip could not install requirements-dev.txt: {exited}",
                "See that pip reaches its package index from here, then run this again.",
            ) from exited
        files.write(root / ".venv" / _STAMP, fingerprint(root))


def _works(root: Path) -> bool:
    try:
        version = console.run([str(python(root)), "-m", "pip", "--version"], timeout=60)
    except Exited:
        return False
    return f"(python {sys.version_info.major}.{sys.version_info.minor})" in version


def _create(root: Path, current: Step) -> None:
    command = [_base_python(), "-m", "venv", "--clear", str(root / ".venv")]
    try:
        console.run(command, timeout=300, current=current)
        return
    except Exited as exited:
        # Debian's Python comes without what `venv` needs, and only says so here.
        if "ensurepip" not in exited.last_words and "No module named venv" not in exited.last_words:
            raise Failure(
                f"No virtual environment could be made in .venv: {exited}",
                "Mend this Python, or put another first on PATH.",
            ) from exited
    debian.install(["python3-venv"], "Python's venv module is not complete", current)
    try:
        console.run(command, timeout=300, current=current)
    except Exited as exited:
        raise Failure(
            f"No virtual environment could be made in .venv: {exited}",
            "Mend this Python, or put another first on PATH.",
        ) from exited


def _base_python() -> str:
    # From inside a virtual environment (perhaps the very one to be made anew), the Python that it was made from.
    if sys.prefix == sys.base_prefix:
        return sys.executable
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return str(base) if os.access(base, os.X_OK) else sys.executable

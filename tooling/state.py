"""A stack's state and its configuration, wherever its backend keeps them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tooling import hints, stack
from tooling.console import Failure

SECONDS = 120.0


def pulumi(root: Path, name: str, *command: str, stdin: str = "") -> str:
    """What `pulumi COMMAND --stack NAME` prints; a failure is told in its own words."""
    try:
        # Its stderr is kept apart: a warning there would spoil JSON.
        done = subprocess.run(
            ["pulumi", "--non-interactive", *command, "--stack", name],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            cwd=root,
            env=stack.full_environment(root, name),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Failure(
            f"pulumi {' '.join(command[:2])} did not work: {error}", "See what `make preview` says."
        ) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().removeprefix("error: ")
        todo = hints.advice(said, name) or "See what `make preview` says."
        raise Failure(f"pulumi {' '.join(command[:2])} did not work: {said}", todo)
    return done.stdout


def export(root: Path, name: str) -> dict[str, Any] | None:
    """The state, its secrets encrypted; None where the backend has no such stack."""
    try:
        return dict(json.loads(pulumi(root, name, "stack", "export")))
    except Failure as failure:
        if "no stack named" in failure.what:
            return None
        raise


def resources(exported: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What a state knows."""
    return list(((exported or {}).get("deployment") or {}).get("resources") or [])


def configuration(root: Path, name: str) -> Path:
    """The file of the stack's configuration, which also holds the salt of its secrets."""
    return root / f"Pulumi.{name}.yaml"

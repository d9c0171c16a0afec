"""`make backup` and `make restore`: a stack's state and its configuration, in one file.

They belong together: the configuration's file holds the salt of its secrets, and the state holds what the containers,
volumes and networks are called. Secrets stay encrypted in both, so the passphrase is needed beside the file.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tooling import files, stack, state
from tooling.console import Failure, say
from tooling.recover import KINDS

FORMAT = "uwsgi-nginx backup 1"


def folder(root: Path) -> Path:
    """Where backups are put that are given no other place."""
    return files.local(root) / "backups"


def save(root: Path, name: str, rest: list[str]) -> int:
    """Writes a file that nobody else may read, and prints its path."""
    if len(rest) > 1 or any(word.startswith("-") for word in rest):
        raise Failure(f"make backup knows no {' '.join(rest)}.", "make backup\nmake backup ARGS=FILE")
    exported = state.export(root, name)
    if exported is None:
        raise Failure(f"There is no stack {name}.", "make up")
    now = datetime.now(UTC)
    file = Path(rest[0]).expanduser() if rest else folder(root) / f"{name}-{now:%Y%m%dT%H%M%S.%f}Z.json"
    configuration = state.configuration(root, name)
    text = configuration.read_text(encoding="utf-8") if configuration.exists() else ""
    content = {
        "format": FORMAT,
        "project": stack.project(root),
        "stack": name,
        "taken": now.isoformat(timespec="seconds"),
        "configuration": text,
        "state": exported,
    }
    _write(file, json.dumps(content, indent=1) + "\n")
    say(
        f"{len(state.resources(exported))} resources and {configuration.name}; secrets are encrypted by the passphrase."
    )
    print(file)
    return 0


def _write(file: Path, text: str) -> None:
    """Whole or not at all, and never readable by others."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        # Not over a backup that is there already.
        os.link(temporary, file)
    except FileExistsError as error:
        raise Failure(f"{file} is there already.", "Choose another name, or leave it to `make backup`.") from error
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}.", "make backup ARGS=FILE") from error
    finally:
        temporary.unlink(missing_ok=True)


def restore(root: Path, name: str, rest: list[str]) -> int:
    """Puts both back as they were; what would be lost by that is said first, and takes `--force`."""
    names = [word for word in rest if word != "--force"]
    if len(names) != 1 or names[0].startswith("-"):
        raise Failure("make restore takes the backup's file.", "make restore ARGS=FILE")
    content = _read(Path(names[0]).expanduser(), stack.project(root), name)
    exported, text = content["state"], str(content["configuration"])
    file = state.configuration(root, name)
    present = state.export(root, name)
    lost = _lost(present, exported)
    if file.exists() and text and file.read_text(encoding="utf-8") != text:
        lost.append(f"{file.name}, which is not the backup's (see `diff`, or `git diff`)")
    if lost and "--force" not in rest:
        raise Failure(
            f"This would be lost by the backup of {content['taken']}:\n" + "\n".join(f"- {what}" for what in lost),
            f'make restore ARGS="{names[0]} --force"     (what is there now becomes another backup first)',
        )
    if lost and present is not None:
        save(root, name, [])
    if text:
        files.write(file, text, file.stat().st_mode & 0o777 if file.exists() else 0o644)
    if present is None:
        stack.ensure(root, name, {})
    state.pulumi(root, name, "stack", "import", stdin=json.dumps(exported))
    option = "" if name == stack.DEV else f" STACK={name}"
    say(f"The stack {name} is as of {content['taken']}. Look what that changes, then put what runs in order:")
    say(f"make preview{option}\nmake recover{option}")
    return 0


def _read(file: Path, project: str, name: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}.", "ls .local/backups") from error
    except ValueError as error:
        raise Failure(f"{file} is no backup: {error}", "ls .local/backups") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise Failure(f"{file} is no backup of `make backup`.", "ls .local/backups")
    if (content["project"], content["stack"]) != (project, name):
        raise Failure(
            f"{file} is a backup of the stack {content['stack']} of the project {content['project']}, "
            f"and this is {name} of {project}.",
            f"make restore STACK={content['stack']} ARGS={file}",
        )
    return content


def _lost(present: dict[str, Any] | None, backup: dict[str, Any]) -> list[str]:
    """What the state there is knows and the backup does not; nothing would know it then."""
    known = {(resource["urn"], resource.get("id")) for resource in state.resources(backup)}
    return [
        f"{resource['urn'].rsplit('::', 1)[-1]} ({resource['type'].rsplit(':', 1)[-1]} {str(resource['id'])[:12]}), "
        "which the state has now"
        for resource in state.resources(present)
        if resource["type"] in KINDS and resource.get("id") and (resource["urn"], resource["id"]) not in known
    ]

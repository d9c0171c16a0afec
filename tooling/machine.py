"""What a bootstrap found out about this machine, kept in `.local/machine.json` so that it need not be found again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tooling import files


@dataclass
class Machine:
    """The outcome of a bootstrap. A missing or unreadable record is an empty one: all is then found out again."""

    # What the record was made from; where it differs now, the record says nothing any more.
    made_from: str = ""
    # Folder of the `pulumi` to use, its origin (path, official, airgap), and folders that stand in for missing plugins.
    pulumi: str = ""
    origin: str = ""
    pulumi_home: str = ""
    helpers: str = ""
    # Where DOCKER_HOST has to say so because the Pulumi plugin knows no Docker contexts.
    docker_host: str = ""
    # Setting → what stands in on the machine's own daemon for the official image; None where nobody has looked yet.
    stand_ins: dict[str, str] | None = None
    # The same on daemons that stacks name, by address.
    elsewhere: dict[str, dict[str, str]] = field(default_factory=dict)
    # Stack → fingerprint of the configuration that was found to be in order.
    stacks: dict[str, str] = field(default_factory=dict)


def _path(root: Path) -> Path:
    return files.local(root) / "machine.json"


def load(root: Path) -> Machine:
    """The record of this clone's last bootstrap."""
    try:
        return Machine(**json.loads(_path(root).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Machine()


def save(root: Path, machine: Machine) -> None:
    """Keeps the record."""
    files.write(_path(root), json.dumps(asdict(machine), indent=2) + "\n")

"""The figures of the fault tests: what was sent, what failed, how long the longest wait was."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.live.load import Load

FILE = Path(__file__).resolve().parents[2] / ".local" / "reliability.json"

Record = Callable[..., None]


class Figures:
    """Collects a row a fault."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(self, fault: str, load: Load, note: str = "") -> None:
        """Adds the figures of `load`, under which `fault` happened, and prints them."""
        row = {
            "fault": fault,
            "sent": load.sent,
            "failed": len(load.failures),
            "longest_wait_seconds": round(load.longest, 1),
            "note": note,
        }
        self.rows.append(row)
        print(f"\n{fault}: {load.figures}{f'; {note}' if note else ''}", file=sys.stderr)

    def write(self) -> None:
        """Writes all rows to `.local/reliability.json`; rows of faults that did not run this time are kept."""
        FILE.parent.mkdir(exist_ok=True)
        known = json.loads(FILE.read_text()) if FILE.exists() else []
        fresh = {str(row["fault"]) for row in self.rows}
        FILE.write_text(json.dumps([row for row in known if row["fault"] not in fresh] + self.rows, indent=1) + "\n")

"""The figures of the fault tests: what was sent, what failed, how long the longest wait was.

`python -m tests.live.figures` writes those of the last run into docs/reliability.md, and what happened to a swarm into
docs/scaling.md; `make reliability` runs the tests first.
"""

import inspect
import json
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.live.load import Load

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / ".local" / "reliability.json"
DOCUMENT, SWARM_DOCUMENT = ROOT / "docs" / "reliability.md", ROOT / "docs" / "scaling.md"
OF_SWARM = "swarm: "  # begins the name of a fault of one
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

Record = Callable[..., None]


class Figures:
    """Collects a row a fault."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(self, test: pytest.Function, fault: str, load: Load, note: str = "") -> None:
        """Adds the figures of `load`, under which `fault` happened in `test`, and prints them."""
        row = {
            "fault": fault,
            "test": f"{test.path.name}::{test.originalname}",
            "does": inspect.getdoc(test.function) or "",
            "sent": load.sent,
            "failed": len(load.failures),
            "longest_wait_seconds": round(load.longest, 1),
            "note": note,
        }
        self.rows.append(row)
        print(f"\n{fault}: {load.figures}{f'; {note}' if note else ''}", file=sys.stderr)

    def write(self) -> None:
        """Writes all rows to `.local/reliability.json`; rows of faults that did not run this time are kept."""
        if not self.rows:
            return
        FILE.parent.mkdir(exist_ok=True)
        known = json.loads(FILE.read_text()) if FILE.exists() else []
        fresh = {str(row["fault"]) for row in self.rows}
        FILE.write_text(json.dumps([row for row in known if row["fault"] not in fresh] + self.rows, indent=1) + "\n")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = ["| fault | what the test does | sent | failed | longest wait |", "|---|---|--:|--:|--:|"]
    for row in rows:
        does = " ".join(str(row["does"]).split())
        note = f" ({row['note']})" if row["note"] else ""
        failed = f"{row['failed']:,}{note}"
        wait = f"{row['longest_wait_seconds']} s"
        lines.append(f"| {row['fault']} | {does} `{row['test']}` | {row['sent']:,} | {failed} | {wait} |")
    return "\n".join(lines)


def main() -> None:
    """Puts the tables of the last run where the documents have places for them."""
    rows = json.loads(FILE.read_text())
    of_swarm = [row for row in rows if row["fault"].startswith(OF_SWARM)]
    put(DOCUMENT, [row for row in rows if row not in of_swarm])
    put(SWARM_DOCUMENT, [{**row, "fault": row["fault"].removeprefix(OF_SWARM)} for row in of_swarm])


def put(document: Path, rows: list[dict[str, Any]]) -> None:
    """Puts the table of `rows`, if there are any, into a document."""
    if not rows:
        return
    before, _, rest = document.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    kernel = platform.release().split("-")[0]
    machine = f"Measured on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Linux {kernel}."
    document.write_text(f"{before}{BEGIN}\n\n{machine}\n\n{table(rows)}\n\n{END}{after}")


if __name__ == "__main__":
    main()

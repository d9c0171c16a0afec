"""What a container said last, for people: the messages among the lines of its log."""

import json
from collections.abc import Iterable

LINES = 12


def of(lines: Iterable[bytes]) -> str:
    """The end of `lines`, without those about requests."""
    words = [said for said in (_words(line.decode(errors="replace")) for line in lines) if said is not None]
    return "\n".join(["Its last words:", *words[-LINES:]]) if words else "It has said nothing."


def _words(line: str) -> str | None:
    """What a line of a log says to a person; None for one about a request, which has no words."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if not isinstance(record, dict) or "source" not in record:
        return line
    return str(record["message"]) if "message" in record else None

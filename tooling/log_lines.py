"""Lines of the containers' logs as people read them. NGINX and the replicas write an object of JSON a line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_SOCKET = re.compile(r"unix:\S*/(?P<name>[^/\s,]+?)(?:-[0-9a-f]+)?\.sock")
_RED, _YELLOW, _FAINT, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"
# Colours by which names are told apart on a terminal: neither red, nor what dark and light ones cannot both show.
_NAMES = ("\x1b[36m", "\x1b[35m", "\x1b[34m", "\x1b[32m")


def readable(line: str, *, colours: bool = False) -> str:
    """A line for people; one that is no JSON of ours is left as it is, what could steer a terminal apart."""
    record = _record(line)
    if record is None:
        return visible(line)
    time = _time(str(record.get("time", "")))
    if "status" not in record:
        return visible(f"{time} {record.get('message', '')}".strip())
    return _request(time, record, colours)


def as_json(line: str, moment: str, name: str) -> str:
    """The line if it is an object of JSON; else one that holds it, so that what reads them need not know the others."""
    if _record(line) is not None:
        return line
    return json.dumps({"time": moment, "source": name, "message": line}, ensure_ascii=False)


def prefix(name: str, width: int, *, colours: bool = False) -> str:
    """Whose line it is."""
    text = f"{name:<{width}} | "
    return f"{_NAMES[sum(name.encode()) % len(_NAMES)]}{text}{_PLAIN}" if colours else text


def visible(text: str) -> str:
    """The text without anything that a terminal would obey: clients choose much of what is logged."""
    return "".join(
        character if character.isprintable() or character == "\t" else character.encode("unicode_escape").decode()
        for character in text
    )


def _record(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "time" in found else None


def _request(time: str, record: Mapping[str, Any], colours: bool) -> str:
    status = str(record["status"])
    what = visible(f"{record.get('method', '')} {record.get('uri', '')}".strip())
    facts = [_seconds(record.get("request_time"))]
    if record.get("bytes"):
        facts.append(f"{record['bytes']} bytes")
    if record.get("upstream"):
        replicas = _SOCKET.sub(r"\g<name>", str(record["upstream"]))
        facts.append(f"by {replicas} in {_seconds(record.get('upstream_time'))}")
    if record.get("cache"):
        facts.append(f"cache {record['cache']}")
    if record.get("client"):
        facts.append(f"for {record['client']}")
    if record.get("request_id"):
        facts.append(f"id {record['request_id']}")
    told = visible(", ".join(facts))
    if colours:
        alarm = {"5": _RED, "4": _YELLOW}.get(status[:1], "")
        status = f"{alarm}{visible(status)}{_PLAIN}" if alarm else visible(status)
        return f"{time} {status} {what} {_FAINT}{told}{_PLAIN}"
    return f"{time} {visible(status)} {what} ({told})"


def _seconds(value: object) -> str:
    """As milliseconds; several tries stay as they are written."""
    try:
        return f"{round(float(str(value)) * 1000)} ms"
    except ValueError:
        return f"{value} s" if value else "no time"


def _time(text: str) -> str:
    """The time of day: who follows a log knows which day it is."""
    found = re.fullmatch(r"\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)\S*", text)
    return found[1] if found else visible(text)

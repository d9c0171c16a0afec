"""`make drain` and `make resume`: replicas that get no request any more, and that get them again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from tooling import change, stack, state
from tooling.console import Failure, say

KEY = "balancing.drain"


def drain(root: Path, name: str, replicas: list[str], pulumi: Callable[[list[str]], int]) -> int:
    """Takes them out: they finish what they have, run on, and get no new request; see `change.make`."""
    if not replicas:
        raise Failure(
            "make drain takes the names of replicas.", "make drain ARGS=uwsgi-2\nmake ps   (shows which there are)"
        )
    drained = _drained(root, name)
    new = [replica for replica in dict.fromkeys(replicas) if replica not in drained]
    commands = [["set", "--path", f"{KEY}[{place}]", replica] for place, replica in enumerate(new, len(drained))]
    code = change.make(root, name, commands, pulumi)
    if not code:
        say(f"Out: {', '.join([*drained, *new])}. Back in: make resume ARGS=NAME   (without a name, all)")
    return code


def resume(root: Path, name: str, replicas: list[str], pulumi: Callable[[list[str]], int]) -> int:
    """Puts them back in, or all; the release gate asks first whether they are healthy."""
    drained = _drained(root, name)
    left = [replica for replica in drained if replicas and replica not in replicas]
    # From the end, so that each removal leaves the places of those before it as they are.
    places = [place for place, replica in enumerate(drained) if replica not in left][::-1]
    commands = [["rm", "--path", f"{KEY}[{place}]"] for place in places] if left else [["rm", "--path", KEY]]
    code = change.make(root, name, commands if drained else [], pulumi)
    if code and drained:
        back = " ".join(replica for replica in drained if replica not in left)
        say(f"Out again, so that no `up` waits for it to be well: make drain ARGS={shlex.quote(back)}")
    elif not code:
        say(f"Still out: {', '.join(left)}." if left else "All replicas are in.")
    return code


def _drained(root: Path, name: str) -> list[str]:
    """Those that the stack's configuration takes out."""
    known = json.loads(state.pulumi(root, name, "config", "--json"))
    balancing = known.get(f"{stack.project(root)}:balancing", {})
    return list((balancing.get("objectValue") or json.loads(balancing.get("value") or "{}")).get("drain") or [])

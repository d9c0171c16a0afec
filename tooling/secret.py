"""`make secret`: another value of a secret, and the release that has it."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from pathlib import Path

from tooling import change
from tooling.console import Failure

USAGE = "make secret ARGS=environment.API_TOKEN          (asks for the value)\nmake secret ARGS=tls.key < key.pem"


def run(root: Path, name: str, rest: list[str], pulumi: Callable[[list[str]], int]) -> int:
    """Sets it and updates; see `change.make`.

    Args:
        root: the clone.
        name: the stack.
        rest: the key.
        pulumi: runs such a command in the foreground and returns its exit status.
    """
    if len(rest) != 1 or rest[0].startswith("-"):
        # Never as an argument: those are in the shell's history, and everybody on the machine sees them (ps).
        raise Failure("make secret takes the key alone; the value comes from a prompt or standard input.", USAGE)
    key = rest[0]
    return change.make(root, name, [["set", "--secret", "--path", key]], pulumi, stdin=_value(key))


def _value(key: str) -> str:
    if sys.stdin.isatty():
        value = getpass.getpass(f"New value of {key} (it is not shown): ")
    else:
        value = sys.stdin.read().removesuffix("\n")
    if not value:
        raise Failure(f"There is no new value of {key}. Nothing was changed.", USAGE)
    return value

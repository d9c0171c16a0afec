"""`make rename`: another name for a stack."""

from __future__ import annotations

import re
from pathlib import Path

from tooling import machine, stack, state
from tooling.console import Failure, say


def run(root: Path, name: str, rest: list[str]) -> int:
    """Renames it in its backend, and the file of its configuration with it."""
    if len(rest) != 1 or not re.fullmatch(r"[A-Za-z0-9_.-]+", rest[0]) or rest[0].startswith("-"):
        raise Failure("make rename takes the new name alone.", "make rename ARGS=NEWNAME")
    (new,) = rest
    file = state.configuration(root, new)
    if file.exists() or state.export(root, new) is not None:
        raise Failure(f"There is a stack {new} already, or a {file.name}.", "Choose another name.")
    state.pulumi(root, name, "stack", "rename", new)
    known = machine.load(root)
    known.stacks.pop(name, None)
    machine.save(root, known)
    say(f"The stack {name} is now {new}; nothing else has changed yet. From now on: make up STACK={new}")
    say("The next `up` replaces its containers, whose labels carry the name: docs/operations.md says what is noticed.")
    if stack.is_local(root) and name == stack.DEV:
        say(
            f"Its passphrase is the one it had. Only {stack.DEV} has a default one, so from now on:\n"
            f"export PULUMI_CONFIG_PASSPHRASE={stack.DEV_PASSPHRASE}   (or what you have chosen)"
        )
    return 0

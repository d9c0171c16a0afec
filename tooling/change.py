"""A change of a stack's configuration, and the update that it is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tooling import files, state
from tooling.console import Failure, say


def make(
    root: Path, name: str, commands: Sequence[Sequence[str]], pulumi: Callable[[list[str]], int], *, stdin: str = ""
) -> int:
    """Changes it, looks whether the program takes it, and only then updates.

    Args:
        root: the clone.
        name: the stack.
        commands: arguments of `pulumi config`, one after the other.
        pulumi: runs such a command in the foreground and returns its exit status.
        stdin: for each of them.
    """
    file = state.configuration(root, name)
    before = file.read_text(encoding="utf-8") if file.exists() else None
    for command in commands:
        state.pulumi(root, name, "config", *command, stdin=stdin)
    if pulumi(["preview"]):
        if before is None:
            file.unlink()
        else:
            files.write(file, before, file.stat().st_mode & 0o777)
        raise Failure(
            f"The program does not take that. Nothing was changed; {file.name} is as before.",
            "Mend what it names above, then run this again.",
        )
    code = pulumi(["up", "--yes", "--skip-preview"])
    if code:
        say(f"{file.name} has been changed already; what is in force stays so until an `up` succeeds.")
    return code

"""`.dockerignore`, as moby/patternmatcher v0.6 reads it, and what it leaves of a folder."""

import os
import posixpath
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

IGNORE_FILE: Final = ".dockerignore"

_SPECIAL: Final = frozenset("*?[]\\")
"""Characters without which a pattern is plain text, but for a leading or trailing `**`."""
_ESCAPED: Final = frozenset(".+()|{}$")
"""Characters that mean something in a regular expression and nothing in a pattern."""


@dataclass(frozen=True)
class Pattern:
    """One line of an ignore file."""

    regex: re.Pattern[str]
    exception: bool
    """The line starts with `!`: what it matches stays in."""


class Entry(NamedTuple):
    """Something in a folder."""

    path: str
    """Relative to the folder, with slashes."""
    mode: int
    ignored: bool


def walk(folder: Path, patterns: Sequence[Pattern], below: str = "", parent: tuple[bool, ...] = ()) -> Iterator[Entry]:
    """Everything in the folder, in lexical order; only what is ignored for good is not looked into."""
    exceptions = any(pattern.exception for pattern in patterns)
    for found in sorted(os.scandir(folder / below), key=lambda found: found.name):
        path = f"{below}/{found.name}" if below else found.name
        ignored, applies = match(patterns, path, parent)
        mode = found.stat(follow_symlinks=False).st_mode
        yield Entry(path, mode, ignored)
        if stat.S_ISDIR(mode) and (exceptions or not ignored):
            yield from walk(folder, patterns, path, applies)


def read(path: Path) -> list[Pattern]:
    """The patterns of an ignore file; none where there is no such file. Raises ValueError with file and line."""
    try:
        return parse(path.read_text(encoding="utf-8")) if path.exists() else []
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def parse(text: str) -> list[Pattern]:
    """The patterns of an ignore file. Raises ValueError with the line that is none."""
    return [_pattern(line) for line in lines(text)]


def lines(text: str) -> list[str]:
    """The lines of an ignore file that count, cleaned, with paths relative to the context."""
    cleaned = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        exception, path = line.strip().startswith("!"), line.strip().removeprefix("!").strip()
        if path:
            path = posixpath.normpath(path).replace("//", "/")
            path = path[1:] if len(path) > 1 and path.startswith("/") else path
        cleaned.append(f"!{path}" if exception else path)
    return cleaned


def _pattern(line: str) -> Pattern:
    exception, path = line.startswith("!"), line.removeprefix("!")
    try:
        return Pattern(re.compile(_translate(path), re.DOTALL), exception)
    except (re.error, ValueError) as error:
        raise ValueError(f"{line!r} is no pattern: {error}") from error


def _translate(path: str) -> str:
    """The regular expression that moby makes of a pattern, or that amounts to what it does without one."""
    if not path:
        raise ValueError("there is nothing after the exclamation mark")
    leading, trailing = path.startswith("**"), path.endswith("**") and path != "**"
    text = path[2 * leading : len(path) - 2 * trailing]
    if not _SPECIAL.intersection(text) and not (leading and trailing):
        if leading:  # the end of the path counts, also in the middle of a name
            return rf"(.*{re.escape(text)}|{re.escape(text.removeprefix('/'))})\Z"
        return re.escape(text) + (r".*\Z" if trailing else r"\Z")
    result, rest = "", path
    while rest:
        char, rest = rest[0], rest[1:]
        if char == "*" and rest.startswith("*"):
            rest = rest.removeprefix("*").removeprefix("/")
            result += "(.*/)?" if rest else ".*"
        elif char == "*":
            result += "[^/]*"
        elif char == "?":
            result += "[^/]"
        elif char == "\\":
            if not rest:
                raise ValueError("there is nothing after the backslash")
            # Not the character itself: moby hands the escape on, and `\d` is a digit.
            result, rest = result + char + rest[0], rest[1:]
        else:
            result += "\\" + char if char in _ESCAPED else char
    return result + r"\Z"


def match(patterns: Sequence[Pattern], path: str, parent: Sequence[bool]) -> tuple[bool, tuple[bool, ...]]:
    """Whether the path is ignored, and which patterns apply to what is below it.

    `parent` is the second answer for the folder that the path is in; empty for the context itself.
    """
    ignored, applies = False, list[bool]()
    for i, pattern in enumerate(patterns):
        matched = bool(parent) and parent[i]
        if not matched and pattern.exception == ignored:
            matched = pattern.regex.match(path) is not None
        applies.append(matched)
        if matched:
            ignored = not pattern.exception
    return ignored, tuple(applies)

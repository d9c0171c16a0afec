"""The folder that an image is built from: what of it counts, its digest, and the archive that the daemon gets."""

import hashlib
import io
import os
import stat
import tarfile
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Final

from airgap.docker_provider.errors import UserError
from infra import dockerignore
from infra.dockerignore import IGNORE_FILE

LINKS: Final = 255
"""Symbolic links that are followed before it must be a loop; as in Go's filepath.EvalSymlinks."""

_TYPE_LETTERS: Final = (
    (stat.S_ISDIR, "d"),
    (stat.S_ISLNK, "L"),
    (stat.S_ISBLK, "D"),
    (stat.S_ISCHR, "Dc"),
    (stat.S_ISFIFO, "p"),
    (stat.S_ISSOCK, "S"),
)


@dataclass(frozen=True)
class BuildContext:
    """A folder and a Dockerfile, both relative to the project. The Dockerfile may lie outside the folder."""

    folder: Path
    dockerfile: Path

    @cached_property
    def _patterns(self) -> list[dockerignore.Pattern]:
        """The ignore file's: the Dockerfile's own if there is one, else the folder's."""
        own = self.dockerfile.with_name(self.dockerfile.name + IGNORE_FILE)
        try:
            return dockerignore.read(own if own.exists() else self.folder / IGNORE_FILE)
        except ValueError as error:
            raise UserError(str(error)) from error

    @cached_property
    def relative_dockerfile(self) -> str:
        """The Dockerfile seen from the folder; starts with ../ if it lies outside."""
        return os.path.relpath(self.dockerfile.resolve(), self.folder.resolve())

    def digest(self) -> str:
        """The digest that tells whether a build is due, as `hashContext` of pulumi-docker computes it.

        It covers names, modes and contents of the files that are not ignored. The Dockerfile comes first, under one
        name wherever it lies; of a symbolic link it is the path it leads to that counts.
        """
        total = hashlib.sha256()

        def add(name: str, mode: str, content: bytes) -> None:
            total.update(name.encode() + mode.encode() + hashlib.sha256(content).digest() + b"\0")

        add("Dockerfile", go_mode(0), self.dockerfile.read_bytes())
        for path, mode, ignored in dockerignore.walk(self.folder, self._patterns):
            if not ignored and not stat.S_ISDIR(mode):
                add(path, go_mode(mode), _hashed_content(self.folder / path, mode))
        return total.hexdigest()

    def archive(self, target: IO[bytes]) -> str:
        """Write the archive for the daemon; the Dockerfile's name in it.

        A Dockerfile from outside gets a name that nothing else has. The official plugin makes it random; here it comes
        from the content, because a random one in a `COPY . .` would cost the daemon's build cache at every build.
        """
        name, added = self.relative_dockerfile, {}
        if name.startswith("../"):
            content = self.dockerfile.read_bytes()
            name = f".dockerfile.{hashlib.sha256(content).hexdigest()[:20]}"
            in_folder = self.folder / IGNORE_FILE
            patterns = in_folder.read_bytes() if in_folder.exists() else b""
            # The daemon takes out of the context what this file names: no COPY sees the Dockerfile.
            added = {name: content, IGNORE_FILE: patterns + f"\n{name}\n".encode()}
        needed = {IGNORE_FILE, self.relative_dockerfile}
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path, mode, ignored in dockerignore.walk(self.folder, self._patterns):
                if path not in added and (not ignored or path in needed) and not stat.S_ISSOCK(mode):
                    self._add(tar, path)
            for path, content in added.items():
                header = tarfile.TarInfo(path)
                header.size, header.mode = len(content), 0o600
                tar.addfile(header, io.BytesIO(content))
        return name

    def _add(self, tar: tarfile.TarFile, path: str) -> None:
        header = tar.gettarinfo(self.folder / path, arcname=path)
        # Who owns the files here is no matter of the image.
        header.uid = header.gid = 0
        header.uname = header.gname = ""
        if header.isreg():
            with (self.folder / path).open("rb") as file:
                tar.addfile(header, file)
        else:
            tar.addfile(header)


def go_mode(mode: int) -> str:
    """The mode as Go's fs.FileMode writes it, which is not how `ls` does: `Lrwxrwxrwx`, `urwxr-xr-x`."""
    letters = "".join(letter for is_type, letter in _TYPE_LETTERS if is_type(mode))
    letters += "u" * bool(mode & stat.S_ISUID) + "g" * bool(mode & stat.S_ISGID)
    letters += "t" * bool(mode & stat.S_ISVTX)
    bits = "".join(letter if mode & (1 << 8 - i) else "-" for i, letter in enumerate("rwxrwxrwx"))
    return (letters or "-") + bits


def _hashed_content(path: Path, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return str(_link_target(path)).encode()
    return path.read_bytes() if stat.S_ISREG(mode) else b""


def _link_target(path: Path) -> Path:
    """Where the link leads in the end, as Go's filepath.EvalSymlinks has it: a relative path stays relative."""
    resolved, rest, links = Path(), deque(path.parts), 0
    while rest:
        part = rest.popleft()
        candidate = resolved / part
        if part == "..":
            resolved = candidate if resolved.name in ("", "..") else resolved.parent
        elif candidate.is_symlink():
            links += 1
            if links > LINKS:
                raise UserError(f"{path}: too many symbolic links")
            rest.extendleft(reversed(candidate.readlink().parts))
        elif candidate.exists():
            resolved = candidate
        else:
            raise UserError(f"{path} is a symbolic link that leads nowhere: {candidate} does not exist")
    return resolved

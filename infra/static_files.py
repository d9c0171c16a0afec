"""Static files: the gate takes them out of a release's image and puts them where NGINX serves them.

Each release has a folder of its own, complete or not there, and beside it a link to that of the release before it: what
a page asks for that was loaded before is still found.
"""

import io
import re
import shlex
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import cast

from docker.errors import NotFound
from docker.models.containers import Container

from infra.layout import APP_FOLDER, CONFIGURATION_FILE, CURRENT, NGINX_USER, SOCKET_GROUP, STATIC_BEFORE, STATIC_FOLDER

PART = ".part"  # ends the name of a folder that is not complete
CHUNK = 1 << 20  # bytes
# A line for each name in the folder: where it leads, if it is a link, after a space.
LIST = f'ls {STATIC_FOLDER} 2>/dev/null | while read -r name; do echo "$name $(readlink {STATIC_FOLDER}/$name)"; done'

Shell = Callable[[str], tuple[int, str]]  # runs a script in NGINX's container: exit code and output


@dataclass(frozen=True)
class StaticFiles:
    """The static files of a release.

    Attributes:
        name: of their folder.
        container: id of a replica that has them.
        folders: of the app, by the path of the site.
    """

    name: str
    container: str
    folders: Mapping[str, str]


def put(nginx: Container, run: Shell, replica: Container, files: StaticFiles) -> list[str]:
    """Copies the files, unless they are there already.

    Returns:
        the folders that the replica does not have: the app answers for them.
    """
    folder = f"{STATIC_FOLDER}/{files.name}"
    if run(f"test -d {folder}")[0] == 0:
        return []
    part = folder + PART
    # A path below another one comes later: what is the same file there is its own.
    places = {f"{part}{path.rstrip('/')}": source for path, source in sorted(files.folders.items())}
    run(f"rm -rf {part} && mkdir -p {shlex.join(places)}")
    missing = []
    for place, source in places.items():
        try:
            archive, _ = replica.get_archive(f"{APP_FOLDER}/{source}", chunk_size=CHUNK)
        except NotFound:
            missing.append(source)
            continue
        nginx.put_archive(place, repacked(archive))
    run(f"mv -T {part} {folder}")
    return missing


def remember_the_release_before(run: Shell, names: Sequence[str]) -> None:
    """Links each of the releases `names`, which go live, to the one in force that goes."""
    if not names:
        return
    _, configuration = run(f"cat {CURRENT}/{CONFIGURATION_FILE}")
    goes = [name for name in _in_force(configuration) if name not in names]
    for name in names if goes else ():
        link = f"{STATIC_FOLDER}/{name}{STATIC_BEFORE}"
        run(f"ln -sfn {goes[0]} {link}.next && mv -T {link}.next {link}")


def stale(listed: str, configuration: str) -> list[str]:
    """The paths of what neither the configuration in force nor the one before it needs.

    Args:
        listed: what `LIST` says.
        configuration: text of the one in force.
    """
    targets = {name: target for name, _, target in (line.partition(" ") for line in listed.splitlines())}
    needed = {part for name in _in_force(configuration) for part in (name, name + STATIC_BEFORE)}
    needed |= {target for name, target in targets.items() if name in needed}
    return [f"{STATIC_FOLDER}/{name}" for name in targets if name not in needed]


def _in_force(configuration: str) -> list[str]:
    """The releases in whose folders NGINX looks, the first one first."""
    return list(dict.fromkeys(re.findall(r"[ ]/([0-9a-f]+-[0-9a-f]+)\$uri", configuration)))


def repacked(archive: Iterator[bytes]) -> Iterator[bytes]:
    """A tar of what may be served of another one, which came from `docker cp`, piece by piece.

    Plain files and folders, which belong to NGINX. Links could lead out of the folder, and devices have no business
    there: the app answers for them. Names that begin with a dot are nobody's, .well-known apart.
    """
    left_out: set[str] = set()
    with tarfile.open(fileobj=_Reader(archive), mode="r|", bufsize=CHUNK) as tar:
        for member in tar:
            member.name = _below(member.name)
            if not member.name:
                continue
            served = member.isdir() or member.isreg()
            if member.islnk():  # the same file under another name, which came before
                member.linkname = _below(member.linkname)
                served = member.linkname not in left_out
            if not served or _is_hidden(member.name):
                left_out.add(member.name)
                continue
            member.mode = 0o755 if member.isdir() else 0o644
            member.uid, member.gid, member.uname, member.gname = NGINX_USER, SOCKET_GROUP, "", ""
            member.pax_headers = {}
            yield member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
            if member.isreg():
                content = cast(io.BufferedReader, tar.extractfile(member))
                while piece := content.read(CHUNK):
                    yield piece
                yield bytes(-member.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _below(name: str) -> str:
    """The path below the archive's own folder."""
    return "/".join(PurePosixPath(name).parts[1:])


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part != ".well-known" for part in PurePosixPath(name).parts)


class _Reader(io.RawIOBase):
    """A file to read of pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def read(self, size: int = -1) -> bytes:
        """As many bytes, fewer at the end."""
        data = bytearray(self._rest)
        while len(data) < size and (piece := next(self._pieces, b"")):
            data += piece
        self._rest = bytes(data[size:])
        return bytes(data[:size])

"""Fingerprints: what a release is made of, known before anything is built.

A preview must name the sockets, so that the configuration's difference shows in it; the digest of an image that is not
built yet cannot do that, the content of its build can.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from infra import dockerignore

SENT = {dockerignore.IGNORE_FILE, "Dockerfile"}  # to the daemon, whatever the former says
LENGTH = 8  # hexadecimal digits: enough to tell one stack's releases apart


def files(folder: Path) -> set[str]:
    """The names of all files and folders that a Docker build in `folder` sees.

    Raises:
        ValueError: its ignore file has a line that is no pattern.
    """
    patterns = dockerignore.read(folder / dockerignore.IGNORE_FILE)
    return {path for path, _, ignored in dockerignore.walk(folder, patterns) if not ignored or path in SENT}


def of_folder(folder: Path) -> str:
    """SHA-256 of the files that a Docker build in `folder` sees: names, contents, executable bits, links' targets."""
    digest = hashlib.sha256()
    for name in sorted(files(folder)):
        path = folder / name
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        content = os.fsencode(path.readlink()) if stat.S_ISLNK(mode) else path.read_bytes()
        kind = "link" if stat.S_ISLNK(mode) else "executable" if mode & stat.S_IXUSR else "file"
        digest.update(os.fsencode(f"{name}\0{kind}\0{hashlib.sha256(content).hexdigest()}\n"))
    return digest.hexdigest()


def of_values(*values: object) -> str:
    """A short fingerprint of anything that JSON can hold."""
    return hashlib.sha256(_canonical(values)).hexdigest()[:LENGTH]


def of_secrets(values: Mapping[str, str]) -> str:
    """As `of_values`, made slow (scrypt, some 50 ms): it is seen, and must not help to guess what it was made of."""
    return hashlib.scrypt(_canonical(values), salt=b"uwsgi-nginx", n=2**14, r=8, p=1, dklen=LENGTH // 2).hex()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()

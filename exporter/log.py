"""The file in which NGINX writes a line a request: it is read as it grows, and what was read is given back.

Why a file, in memory, and not syslog, which NGINX has too: for that it makes a system call a request, and where nobody
listens, or somebody too slow (ten datagrams wait, net.unix.max_dgram_qlen), it adds up to two lines to its error log a
request. A file with a buffer costs it next to nothing and keeps what comes while nobody reads; where its space is used
up, NGINX goes on without, and says so once a second. https://nginx.org/en/docs/http/ngx_http_log_module.html#access_log
"""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

CHUNK = 2**20  # bytes that are read at once; longer than any line
PUNCH_HOLE = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE of linux/falloc.h, which `os` does not know

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Log:
    """The log at `path`, to which other processes append.

    It is never truncated, which would lose what is written meanwhile: a hole takes the place of what was read, while
    the file's size grows on.

    Attributes:
        overflows: how many times its space was found used up: lines were lost then.
    """

    def __init__(self, path: Path) -> None:
        self.overflows = 0
        self._path = path
        self._file: int | None = None
        self._position = 0
        self._is_full = False

    def read(self) -> Iterator[list[bytes]]:
        """The complete lines that nobody has read yet, in portions of about a megabyte.

        Raises:
            OSError: the file is there and cannot be read, or what was read not given back.
        """
        file = self._open()
        if file is None:
            return
        self._look_at_space(file)
        while data := os.pread(file, CHUNK, self._position):
            text = data.lstrip(b"\0")  # a hole that somebody before this process has left
            self._position += len(data) - len(text)
            end = text.rfind(b"\n") + 1
            if not end:
                if len(data) < CHUNK:
                    return  # half a line; the rest is on its way
                end = len(text)
            yield text[:end].removesuffix(b"\n").split(b"\n")
            self._position += end
            self._give_back(file)

    def close(self) -> None:
        """Lets go of the file; a later `read` opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int | None:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return self._file
        if self._file is not None:
            mine = os.fstat(self._file)
            if mine.st_ino == there.st_ino and mine.st_size >= self._position:
                return self._file
            self.close()
        self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._position = os.lseek(self._file, 0, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but hole
            self._position = there.st_size
        return self._file

    def _look_at_space(self, file: int) -> None:
        was_full, self._is_full = self._is_full, os.fstatvfs(file).f_bfree == 0
        self.overflows += self._is_full and not was_full

    def _give_back(self, file: int) -> None:
        if _libc.fallocate(file, PUNCH_HOLE, 0, self._position):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(self._path))

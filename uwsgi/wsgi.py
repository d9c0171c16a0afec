"""What uWSGI loads: the app, which need not read its requests' bodies to the end.

uWSGI closes a connection whatever was left unread on it. To NGINX, which may still be sending, that is a broken pipe:
where the app refused a large upload with 401 or 405 the client got 502, and answers of unknown length were cut short.
(uWSGI's `post-buffering` ends that as well, but writes every large body to /tmp.)
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

CHUNK = 65536  # bytes
PATIENCE = 5  # seconds until NGINX has closed a connection that it knows to be done


class Request:
    """A request whose body may not have been read when its answer is complete."""

    def __init__(self, environ: dict[str, Any], length: int) -> None:
        self._body, self._length = environ["wsgi.input"], length  # the app may put something else there
        self._has_answer = False

    @property
    def is_read(self) -> bool:
        return bool(self._body.tell() >= self._length)

    def noting(self, start_response: Callable[..., Any]) -> Callable[..., Any]:
        """`start_response`, whose result, WSGI's old way to send an answer, notes that there is one."""

        def start(*arguments: Any) -> Callable[[bytes], object]:
            write = start_response(*arguments)

            def noted(data: bytes) -> None:
                self._has_answer = True
                write(data)

            return noted

        return start

    def sending(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks of the answer, as they are sent."""
        for chunk in chunks:
            self._has_answer = self._has_answer or bool(chunk)
            yield chunk

    def read_to_the_end(self) -> None:
        """Reads what is left, and forgets it."""
        with suppress(OSError):
            if not self._has_answer:  # uWSGI sends the headers of an empty one last, so NGINX sends all of the body
                while self._body.read(CHUNK):
                    pass
            elif not self.is_read:
                self._linger()

    def _linger(self) -> None:
        """Says that the answer is complete. NGINX, which need not send more now, closes the connection."""
        deadline = time.monotonic() + PATIENCE
        with socket.socket(fileno=os.dup(self._body.fileno())) as connection:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(PATIENCE)
            while time.monotonic() < deadline and connection.recv(CHUNK):
                pass


class Answer:
    """The chunks of an answer. The app may still read while they are sent."""

    def __init__(self, chunks: Iterable[bytes], request: Request) -> None:
        self._chunks, self._request = chunks, request

    def __iter__(self) -> Iterator[bytes]:
        return self._request.sending(self._chunks)

    def close(self) -> None:
        try:
            if hasattr(self._chunks, "close"):
                self._chunks.close()
        finally:
            self._request.read_to_the_end()


def reading_to_the_end(app: Callable[..., Any]) -> Callable[..., Any]:
    """`app`, but what it leaves unread of a request's body is read."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        length = environ.get("CONTENT_LENGTH") or ""
        if not length.isdecimal():
            return app(environ, start_response)
        request = Request(environ, int(length))
        answer = app(environ, request.noting(start_response))
        if request.is_read:
            return answer
        if hasattr(answer, "read"):  # uWSGI looks for the very object that it returned from `wsgi.file_wrapper`
            request.read_to_the_end()
            return answer
        return Answer([answer] if isinstance(answer, bytes) else answer, request)

    return application


# As `import` does it; importlib.import_module would stand in the traceback of an app that cannot be imported.
module = __import__(os.environ["UWSGI_APP"], fromlist=["__name__"])
application = reading_to_the_end(getattr(module, os.environ["UWSGI_CALLABLE"]))

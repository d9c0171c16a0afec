"""A connection to the Docker daemon that the pulumi-docker plugin uses: `docker:host`, or DOCKER_HOST."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import docker
import urllib3
from docker.errors import DockerException
from docker.transport.basehttpadapter import BaseHTTPAdapter
from requests import RequestException
from urllib3.connection import HTTPConnection

LOCAL = "unix:///var/run/docker.sock"
TIMEOUT = 120  # seconds for one call
CONNECTIONS = 10  # kept open
DAEMON_ERRORS = (DockerException, RequestException)  # the SDK lets the HTTP library's own through

SSH_TIMEOUT = 30  # seconds until the host must answer; as the plugin has it
LOGINS = 4  # at a time: sshd refuses some of more than ten that are not through yet (MaxStartups)
OLDEST_API = "1.24"  # that the SDK speaks; which one the daemon speaks is not known before it was asked
PING = b"HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"
END_TIMEOUT = 2  # seconds for ssh to end once it has said why
WORDS = 2  # lines of what ssh says that an error repeats

Client = TypeVar("Client", docker.DockerClient, docker.APIClient)


def connect(host: str | None = None, cert_path: str | None = None) -> docker.DockerClient:
    """A client of the daemon at `host` (unix://, tcp://, ssh://), or at the one that the environment names.

    Args:
        host: as in the `docker:host` setting; None for DOCKER_HOST or the local socket. The Docker CLI's contexts are
            not looked at, as the plugin does not know them where it builds images.
        cert_path: as in `docker:certPath`: a folder with ca.pem, cert.pem and key.pem, for a TCP host with TLS; None
            for DOCKER_CERT_PATH.
    """
    host = host or os.environ.get("DOCKER_HOST") or LOCAL
    return client(docker.DockerClient, host, cert_path or os.environ.get("DOCKER_CERT_PATH"), TIMEOUT, CONNECTIONS)


def client(
    kind: Callable[..., Client], host: str, cert_path: str | Path | None, timeout: int, connections: int
) -> Client:
    """A client of that kind of the daemon at `host`.

    Args:
        kind: `docker.DockerClient`, or `docker.APIClient`.
        host: unix://, tcp://, ssh://.
        cert_path: the folder with the certificates, where there is TLS.
        timeout: seconds for one call.
        connections: kept open.
    """
    adapter: BaseHTTPAdapter | None = None
    tls, address, prefix = None, host, "http+docker://"
    if host.startswith("ssh:"):
        adapter, address = SshAdapter(host, timeout, connections), LOCAL
    elif cert_path and not host.startswith("unix:"):
        tls = _tls(cert_path)
        adapter, prefix = TlsAdapter(tls), "https://"

    def speaking(version: str) -> Client:
        made = kind(base_url=address, tls=tls, version=version, timeout=timeout, max_pool_size=connections)
        if adapter:
            getattr(made, "api", made).mount(prefix, adapter)
        return made

    if not adapter:
        return speaking("auto")
    try:
        version = speaking(OLDEST_API).version(api_version=False)["ApiVersion"]
    except RequestException as error:
        adapter.close()
        raise DockerException(in_words(error)) from error
    return speaking(version)


def _tls(cert_path: str | Path) -> docker.TLSConfig:
    folder = Path(cert_path).expanduser()
    files = [folder / name for name in ("ca.pem", "cert.pem", "key.pem")]
    for file in files:
        if not file.is_file():
            raise DockerException(f"docker:certPath: there is no {file}")
    ca, certificate, key = map(str, files)
    return docker.TLSConfig(ca_cert=ca, client_cert=(certificate, key), verify=True)


class TlsAdapter(BaseHTTPAdapter):
    """Believes the authority in `docker:certPath` alone: else REQUESTS_CA_BUNDLE would take its place."""

    def __init__(self, tls: docker.TLSConfig) -> None:
        super().__init__()
        self._tls = tls

    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        """As the HTTP library's own."""
        return super().send(request, *arguments, **{**options, "verify": self._tls.ca_cert, "cert": self._tls.cert})


class SshAdapter(BaseHTTPAdapter):
    """Speaks to a daemon by `ssh HOST docker system dial-stdio`, as the plugin and Docker's own client do.

    The SDK's own logs in anew for each call, knows no timeouts, and does not tell what ssh said.
    """

    def __init__(self, host: str, timeout: int, connections: int) -> None:
        self._command = _ssh(host)
        self._timeout = timeout
        self._logins = threading.BoundedSemaphore(LOGINS)
        self._running: list[subprocess.Popen[bytes]] = []
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - of as many processes as there will be
        self._pool = _Pool(self.dial, connections)
        super().__init__()

    def get_connection(self, url: Any, proxies: Any = None) -> urllib3.HTTPConnectionPool:  # noqa: ARG002
        """One pool for all calls."""
        return self._pool

    def request_url(self, request: Any, proxies: Any) -> str:  # noqa: ARG002
        """As a daemon's socket takes it."""
        return str(request.path_url)

    def dial(self) -> socket.socket:
        """A connection through which the daemon has answered.

        Raises:
            ConnectionError: ssh, or Docker there, ended; with its last words.
        """
        ours, theirs = socket.socketpair()
        ours.settimeout(self._timeout)
        with self._logins:
            with theirs:
                # A session of its own: Ctrl-C lets a running step end, and nobody is asked for a password.
                end = theirs.fileno()
                ssh = subprocess.Popen(self._command, stdin=end, stdout=end, stderr=self._said, start_new_session=True)
            self._running.append(ssh)
            problem = _ping(ours)
        if problem:
            ours.close()
            raise ConnectionError(self._last_words(ssh) or f"ssh: {problem}")
        return ours

    def close(self) -> None:
        """Ends the connections, and waits for the processes that held them."""
        super().close()
        self._pool.close()
        for process in self._running:
            process.terminate()
            process.wait()
        self._said.close()

    def _last_words(self, ssh: subprocess.Popen[bytes]) -> str:
        with suppress(subprocess.TimeoutExpired):
            ssh.wait(END_TIMEOUT)
        # Not `read`: the place in the file is that of all processes that write to it.
        text = os.pread(self._said.fileno(), 1 << 16, 0).decode(errors="replace")
        return " ".join([line.strip() for line in text.splitlines() if line.strip()][-WORDS:])


class _Pool(urllib3.HTTPConnectionPool):
    def __init__(self, dial: Callable[[], socket.socket], connections: int) -> None:
        super().__init__("localhost", maxsize=connections)
        self._dial = dial

    def _new_conn(self) -> HTTPConnection:
        return _Connection(self._dial)


class _Connection(HTTPConnection):
    def __init__(self, dial: Callable[[], socket.socket]) -> None:
        super().__init__("localhost")
        self._dial = dial

    def connect(self) -> None:
        self.sock = self._dial()


def _ping(connection: socket.socket) -> str:
    """Why there is no answer; empty if there is one."""
    answer = b""
    try:
        connection.sendall(PING)
        while not answer.endswith(b"\r\n\r\n"):
            received = connection.recv(4096)
            if not received:
                return "it ended"
            answer += received
    except OSError as error:
        return str(error)
    return ""


def _ssh(host: str) -> list[str]:
    url = urlsplit(host)
    if not url.hostname or url.path or url.password:
        raise DockerException(f"{host} should be ssh://HOST, ssh://USER@HOST or ssh://USER@HOST:PORT")
    if not shutil.which("ssh"):
        raise DockerException("there is no ssh on this machine")
    return [
        *("ssh", "-T", "-o", f"ConnectTimeout={SSH_TIMEOUT}"),
        *(["-l", url.username] if url.username else []),
        *(["-p", str(url.port)] if url.port else []),
        *("--", url.hostname, "docker system dial-stdio"),
    ]


def in_words(error: BaseException) -> str:
    """The error without class names, addresses of objects and HTTP, as far as it can be said."""
    explanation = getattr(error, "explanation", None)
    if isinstance(explanation, bytes):
        explanation = explanation.decode(errors="replace")
    if explanation:
        return str(explanation)
    roots = [cause for cause in _causes(error) if isinstance(cause, OSError)]
    root = roots[-1] if roots else error
    return getattr(root, "strerror", None) or str(root) or type(root).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__

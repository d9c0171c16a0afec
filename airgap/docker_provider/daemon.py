"""The Docker daemon: which one, whether it answers, and its refusals in words for a person.

The Docker SDK takes as long to import as everything else together, and an update without changes does not need it: only
`Daemon.api` imports it.
"""

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from airgap.docker_provider.errors import UserError

DEFAULT_HOST: Final = "unix:///var/run/docker.sock"
USER_SOCKETS: Final = (".docker/run/docker.sock", ".docker/desktop/docker.sock")
"""Below the home directory; where Docker Desktop listens without an administrator's rights."""

PROBE_TIMEOUT: Final = 5.0
"""Seconds to wait for a connection before the daemon counts as unreachable."""
CALL_TIMEOUT: Final = 120
"""Seconds to wait for an answer of the daemon."""
POLL_INTERVAL: Final = 0.1
"""Seconds between two looks at something that takes its time."""
CONNECTIONS: Final = 32
"""Kept open to the daemon: one for each operation that the engine may have under way."""


@dataclass(frozen=True)
class Connection:
    """Where the daemon is and how to reach it: the plugin's configuration, then the environment, then the default."""

    host: str = DEFAULT_HOST
    explicit: bool = False
    """The user chose the host: no other one is tried."""
    cert_path: Path | None = None
    """Folder with ca.pem, cert.pem and key.pem; None for a connection without TLS."""
    auth: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Registry host -> username and password."""

    @classmethod
    def of(cls, config: Mapping[str, Any], environ: Mapping[str, str]) -> "Connection":
        """The connection that the configuration asks for (keys host, certPath, registryAuth)."""
        host = config.get("host") or environ.get("DOCKER_HOST") or ""
        cert_path = Path(config.get("certPath") or environ.get("DOCKER_CERT_PATH") or "").expanduser()
        auth = {
            entry["address"].removeprefix("https://").rstrip("/"): {
                "username": entry.get("username", ""),
                "password": entry.get("password", ""),
            }
            for entry in config.get("registryAuth", [])
        }
        return cls(host or DEFAULT_HOST, bool(host), cert_path if cert_path != Path() else None, auth)

    def reachable(self) -> "Connection":
        """This connection, or that to the user's own daemon if the system-wide one was not asked for and is not there.

        Raises UserError with the host and what to do if nothing answers. Over ssh nothing is tried, as in the official
        plugin: each try is a login.
        """
        reason = probe(self.host)
        if not reason:
            return self
        if not self.explicit:
            for path in USER_SOCKETS:
                host = f"unix://{Path.home() / path}"
                if not probe(host):
                    return Connection(host, False, self.cert_path, self.auth)
        raise UserError(unreachable(self.host, reason))


def probe(host: str) -> str:
    """Why nothing can be reached at the host; empty if something can, or if it would take a login to know."""
    url = urlsplit(host)
    try:
        if url.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PROBE_TIMEOUT)
                connection.connect(url.path)
        elif url.scheme in ("tcp", "http", "https"):
            socket.create_connection((url.hostname or "localhost", url.port or 2375), PROBE_TIMEOUT).close()
        elif url.scheme != "ssh":
            return f"{url.scheme or host} is not accepted; unix://, tcp://, http://, https:// and ssh:// are"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def unreachable(host: str, reason: str) -> str:
    """What to tell the user about a daemon that does not answer."""
    url = urlsplit(host)
    if url.scheme == "ssh":
        port = f" -p {url.port}" if url.port else ""
        advice = f"Check that `ssh{port} {url.netloc.partition(':')[0]} docker version` works without a password."
    elif re.search("cert|ssl|alert", reason, re.IGNORECASE):
        advice = "Check the certificates in docker:certPath: the daemon's is checked, and so is yours."
    elif "ermission" in reason:
        advice = "This user may not use the daemon's socket: join the docker group, or run as root."
    else:
        advice = "Start the daemon, or name another one in docker:host or DOCKER_HOST."
    return f"The Docker daemon at {host} cannot be reached: {reason}. {advice}"


class Daemon:
    """One Docker daemon, shared by all threads."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._lock = threading.Lock()
        self._api: Any = None

    @property
    def api(self) -> Any:
        """The Docker SDK's low-level client, which asks the daemon for its version first. Raises UserError."""
        with self._lock:
            if self._api is None:
                self._api = self._connect()
            return self._api

    def _connect(self) -> Any:
        from docker import APIClient

        from infra import docker_host

        host = self.connection.host
        try:
            return docker_host.client(APIClient, host, self.connection.cert_path, CALL_TIMEOUT, CONNECTIONS)
        except docker_host.DAEMON_ERRORS as error:
            raise UserError(unreachable(host, in_words(error))) from error

    def close(self) -> None:
        """Close the connections to the daemon."""
        with self._lock:
            if self._api is not None:
                self._api.close()
                self._api = None

    def explain(self, error: BaseException) -> str:
        """The error in words; with host and advice if the daemon did not answer, rather than refuse."""
        from requests import exceptions

        lost = isinstance(error, exceptions.ConnectionError | exceptions.Timeout)
        return unreachable(self.connection.host, in_words(error)) if lost else in_words(error)

    def found(self, call: Callable[..., Any], *args: Any) -> Any:
        """What the call answers; None if the daemon does not know the object."""
        from docker.errors import NotFound

        try:
            return call(*args)
        except NotFound:
            return None

    def unless(self, text: str, call: Callable[[], object]) -> bool:
        """Whether the call succeeded; False if the daemon refused it with that text in its answer."""
        from docker.errors import APIError

        try:
            call()
        except APIError as error:
            if text not in str(error):
                raise
            return False
        return True

    def remove(self, call: Callable[[], object], busy: str, limit: float = 30.0) -> None:
        """Remove something that may be busy for a moment or gone already.

        `busy` is in the daemon's refusal while it pays to try again, for at most `limit` seconds.
        """
        deadline = time.monotonic() + limit
        while not self.unless(busy if time.monotonic() < deadline else "\0", lambda: self.found(call)):
            time.sleep(POLL_INTERVAL)

    def fetch_image(self, name: str, platform: str | None = None) -> None:
        """Pull the image unless the daemon has it. Raises UserError if there is no way to get it."""
        if self.found(self.api.inspect_image, name) is not None:
            return
        if name.startswith("sha256:"):
            raise UserError(f"The image {name} is not on the Docker daemon at {self.connection.host}. Build it again.")
        reference = name if "@" in name or ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"
        auth = next((auth for registry, auth in self.connection.auth.items() if reference.startswith(registry)), None)
        try:
            for line in self.api.pull(reference, stream=True, decode=True, platform=platform, auth_config=auth):
                if "error" in line:
                    raise UserError(line["error"])
        except Exception as error:
            raise UserError(
                f"The image {name} is not on the Docker daemon at {self.connection.host}, and it could not be pulled:"
                f" {self.explain(error)}"
            ) from error

    def post(
        self, path: str, body: Mapping[str, Any], auth: Mapping[str, str], params: Mapping[str, Any] | None = None
    ) -> Any:
        """What the daemon answers to a call for which the Docker SDK has no method that would send the body as it is.

        The SDK's own for services also take logins from the user's Docker configuration, which the official plugin
        does not.
        """
        header = base64.urlsafe_b64encode(json.dumps(dict(auth)).encode()).decode()
        api = self.api
        response = api._post_json(
            api._url(path),
            data=dict(body),
            params=params,
            headers={"X-Registry-Auth": header},
        )
        return api._result(response, True)

    def at_the_registry(self, image: str, auth: Mapping[str, str]) -> Any:
        """What its registry tells the daemon about the image; None if it does not."""
        from docker.errors import APIError

        try:
            return self.api.inspect_distribution(image, auth_config=dict(auth))
        except APIError:
            return None

    def wait_until(self, seconds: float, ready: Callable[[], bool]) -> bool:
        """Whether it got ready in time."""
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_INTERVAL)
        return True

    def log_lines(self, container_id: str, count: int) -> list[str]:
        """The last lines that a container printed."""
        text = self.api.logs(container_id, tail=count)
        return [line for line in text.decode(errors="replace").splitlines() if line.strip()]


def in_words(error: BaseException) -> str:
    """The error without class names, addresses of objects and HTTP, as far as it can be said."""
    from infra import docker_host

    return docker_host.in_words(error)

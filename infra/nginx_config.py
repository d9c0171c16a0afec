"""Renders NGINX's configuration: plain values in, text out. The templates in `nginx/` hold the configuration itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent.parent / "nginx"

PORT = 8080  # inside the container, which is nobody in particular and cannot bind a port below 1024
RUNTIME_FOLDER = "/run/nginx"  # a tmpfs
PROBE_SOCKET = f"{RUNTIME_FOLDER}/probe.sock"
LISTEN_FILE = "listen.conf"
KEEPALIVE_MIN_TIMEOUT = 5  # seconds


@dataclass(frozen=True)
class Upstream:
    """A replica as NGINX sees it: its name and the path of its socket."""

    name: str
    socket: str


def render(replicas: Sequence[Upstream], drain_timeout: int) -> str:
    """The configuration, which an instance completes with the `listen` file beside it.

    Args:
        replicas: those that share the requests; at least one.
        drain_timeout: how long a reload keeps old workers, in seconds.
    """
    return _render(
        "nginx.conf.j2",
        replicas=replicas,
        drain_timeout=drain_timeout,
        keepalive_min_timeout=KEEPALIVE_MIN_TIMEOUT,
        runtime_folder=RUNTIME_FOLDER,
        listen_file=LISTEN_FILE,
    )


def render_listen(endpoint: str = str(PORT), *, shared: bool = False) -> str:
    """What the live instance listens on.

    Args:
        endpoint: a port, or an address and a port.
        shared: whether another instance may listen there too (SO_REUSEPORT), so that one can take over from the other.
    """
    return _render("listen.conf.j2", probe=False, endpoint=endpoint, shared=shared)


def render_probe_listen(replicas: Sequence[Upstream]) -> str:
    """What the probe instance listens on; under `/.probe/NAME/…` it asks the replica of that name."""
    return _render("listen.conf.j2", probe=True, probe_socket=PROBE_SOCKET, replicas=replicas)


def _render(template: str, **values: object) -> str:
    # Nothing to escape: this is no HTML.
    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined)  # noqa: S701
    return environment.get_template(template).render(values) + "\n"

"""Renders NGINX's configuration: plain values in, text out. The templates in `nginx/` hold the configuration itself."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from infra.layout import LIVE_FOLDER, PORT, PROBE_SOCKET, RUNTIME_FOLDER

TEMPLATES = Path(__file__).parent.parent / "nginx"

LISTEN_FILE = "listen.conf"
KEEPALIVE_MIN_TIMEOUT = 5  # seconds
MAX_ANSWER_FILE = 64  # MiB of an answer that wait for a slow reader


@dataclass(frozen=True)
class Upstream:
    """A replica as NGINX sees it: its name and the path of its socket."""

    name: str
    socket: str


@dataclass(frozen=True)
class Options:
    """What a stack can set of NGINX.

    Attributes:
        drain_timeout: how long a reload keeps old workers, in seconds.
        request_timeout: how long the app may be silent, in seconds.
        client_timeout: how long a client may be silent, in seconds.
        max_body_size: of a request's body, in MiB.
        trusted_proxies: addresses and networks of the proxies in front, whose X-Forwarded-For and -Proto count.
    """

    drain_timeout: int
    request_timeout: int
    client_timeout: int
    max_body_size: int
    trusted_proxies: Sequence[str]


def render(replicas: Sequence[Upstream], options: Options) -> str:
    """The configuration, which an instance completes with the `listen` file beside it.

    Args:
        replicas: those that share the requests; at least one.
        options: as the stack sets them.
    """
    trusts = bool(options.trusted_proxies)
    return _render(
        "nginx.conf.j2",
        replicas=replicas,
        **asdict(options),
        # Old workers live until the last of their clients has completed its headers: no timeout of theirs ends that.
        header_timeout=min(options.client_timeout, options.drain_timeout),
        scheme="$client_scheme" if trusts else "$scheme",
        https="$client_https" if trusts else "$https",
        keepalive_min_timeout=KEEPALIVE_MIN_TIMEOUT,
        max_answer_file=MAX_ANSWER_FILE,
        runtime_folder=RUNTIME_FOLDER,
        live_folder=LIVE_FOLDER,
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

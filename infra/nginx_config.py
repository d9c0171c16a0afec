"""Renders NGINX's configuration: plain values in, text out. The templates in `nginx/` hold the configuration itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from infra.layout import CURRENT, LIVE_FOLDER, PORT, PROBE_SOCKET, RUNTIME_FOLDER
from infra.site import Site

TEMPLATES = Path(__file__).parent.parent / "nginx"

LISTEN_FILE = "listen.conf"
INSTANCE_FILE = "instance.conf"
KEEPALIVE_MIN_TIMEOUT = 5  # seconds
MAX_ANSWER_FILE = 64  # MiB of an answer that wait for a slow reader


@dataclass(frozen=True)
class Upstream:
    """A replica as NGINX sees it: its name and the path of its socket."""

    name: str
    socket: str


@dataclass(frozen=True)
class Endpoints:
    """Where the live instance listens.

    Attributes:
        http, https: a port, or an address and a port; https only with TLS.
        shared: whether another instance may listen there too (SO_REUSEPORT), so that one can take over from the other.
    """

    http: str = str(PORT)
    https: str = ""
    shared: bool = False


def render(stable: Sequence[Upstream], canary: Sequence[Upstream] = (), *, site: Site, release: str) -> str:
    """The configuration, which an instance completes with the files beside it: `live_files` or `probe_files`.

    Args:
        stable: the replicas that share the requests; at least one.
        canary: those that take `site.canary.share` of them.
        site: as the stack sets it.
        release: fingerprint of what the stable ones run.
    """
    trusts = bool(site.trusted_proxies)
    return _render(
        "nginx.conf.j2",
        stable=stable,
        canary=canary,
        release=release,
        site=site,
        locations=site.locations(),
        upstream="app",
        # Old workers live until the last of their clients has completed its headers: no timeout of theirs ends that.
        header_timeout=min(site.client_timeout, site.drain_timeout),
        scheme="$client_scheme" if trusts else "$scheme",
        https="$client_https" if trusts else "$https",
        keepalive_min_timeout=KEEPALIVE_MIN_TIMEOUT,
        max_answer_file=MAX_ANSWER_FILE,
        runtime_folder=RUNTIME_FOLDER,
        live_folder=LIVE_FOLDER,
        current=CURRENT,
        listen_file=LISTEN_FILE,
        instance_file=INSTANCE_FILE,
    )


def live_files(site: Site, endpoints: Endpoints) -> dict[str, str]:
    """What the configuration includes in the live instance: texts by name."""
    values = {"probe": False, "site": site, "endpoints": endpoints, "live_folder": LIVE_FOLDER}
    return {
        LISTEN_FILE: _render("listen.conf.j2", **values),
        INSTANCE_FILE: _render("instance.conf.j2", **values),
    }


def secret_files(site: Site) -> dict[str, str]:
    """What the configuration reads that nobody else may: texts by name."""
    del site
    return {}


def probe_files(replicas: Sequence[Upstream]) -> dict[str, str]:
    """The same in the gate's probe, which is asked over a socket; under `/.probe/NAME/…` it asks that replica alone."""
    values = {"probe": True, "probe_socket": PROBE_SOCKET, "replicas": replicas, "runtime_folder": RUNTIME_FOLDER}
    return {
        LISTEN_FILE: _render("listen.conf.j2", **values),
        INSTANCE_FILE: _render("instance.conf.j2", **values),
    }


def _render(template: str, **values: object) -> str:
    # Nothing to escape: this is no HTML.
    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined)  # noqa: S701
    return _tidy(environment.get_template(template).render(values))


def _tidy(text: str) -> str:
    """Without the gaps that a feature leaves which is off."""
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\n{3,}", "\n\n", text)
    text = re.sub(r"\{\n\n+", "{\n", text)
    return re.sub(r"\n\n( *\})", r"\n\1", text).strip("\n") + "\n"

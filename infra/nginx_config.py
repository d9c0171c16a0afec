"""Renders NGINX's configuration: plain values in, text out. The templates in `nginx/` hold the configuration itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from infra import fingerprint, headers, pages, passwords
from infra.layout import (
    CACHE_FOLDER,
    CURRENT,
    LIVE_FOLDER,
    PORT,
    PROBE_SOCKET,
    REQUEST_LOG,
    RUNTIME_FOLDER,
    STATIC_BEFORE,
    STATIC_FOLDER,
)

if TYPE_CHECKING:
    from infra.site import Site

TEMPLATES = Path(__file__).parent.parent / "nginx"

LISTEN_FILE = "listen.conf"
INSTANCE_FILE = "instance.conf"
CERTIFICATE_FILE = "tls/certificate.pem"
KEY_FILE = "tls/key.pem"
PASSWORD_FILE = "htpasswd"  # noqa: S105 - its name
AUTH_PATH = "/.auth-request"
SIGN_IN_PATH = "/.sign-in+"
TRUSTED_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
KEEPALIVE_MIN_TIMEOUT = 5  # seconds
DOCKER_DNS = "127.0.0.11"  # in every container on a network of its own
MAX_ANSWER_FILE = 64  # MiB of an answer that wait for a slow reader


@dataclass(frozen=True)
class Upstream:
    """A replica as NGINX sees it: its name and the path of its socket."""

    name: str
    socket: str

    @property
    def address(self) -> str:
        """As a `server` of NGINX's upstream."""
        return f"unix:{self.socket}"


@dataclass(frozen=True)
class ServiceUpstream:
    """All replicas of a swarm's service: Docker's DNS says, each second anew, at which addresses they are."""

    name: str
    port: int

    @property
    def address(self) -> str:
        """As a `server` of NGINX's upstream."""
        return f"{self.name}:{self.port}"


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


def render(
    stable: Sequence[Upstream | ServiceUpstream],
    canary: Sequence[Upstream] = (),
    *,
    site: Site,
    release: str,
    canary_release: str = "",
    folder: str = CURRENT,
) -> str:
    """The configuration, which an instance completes with the files beside it: `live_files` or `probe_files`.

    Args:
        stable: the replicas that share the requests; at least one.
        canary: those that take `site.canary.share` of them.
        site: as the stack sets it.
        release, canary_release: fingerprints of what they run.
        folder: where the configuration stands.
    """
    trusts = bool(site.trusted_proxies)
    return _render(
        "nginx.conf.j2",
        stable=stable,
        canary=canary,
        canary_shares=_even_shares(canary),
        stable_release=release,
        canary_release=canary_release,
        # What templates take for the group that is asked, and for the release that answers.
        upstream="$upstream_group" if canary else "app",
        release="$release" if canary else release,
        site=site,
        locations=site.locations(),
        auth={location.auth for location in site.locations()} - {"none"},
        password_file=PASSWORD_FILE,
        auth_path=AUTH_PATH,
        sign_in_path=SIGN_IN_PATH,
        trusted_certificates=TRUSTED_CERTIFICATES,
        static_folder=STATIC_FOLDER,
        static_names=_static_names(site, release, canary_release),
        added_headers=[
            {"name": name, "variable": name.lower().replace("-", "_"), "text": headers.quoted(value)}
            for name, value in site.added_headers.items()
        ],
        error_pages=pages.by_status(maintenance=site.maintenance.enabled),
        # Old workers live until the last of their clients has completed its headers: no timeout of theirs ends that.
        header_timeout=min(site.client_timeout, site.drain_timeout),
        scheme=_scheme(site),
        https="$client_https" if trusts else "$https",
        certificate_file=CERTIFICATE_FILE,
        key_file=KEY_FILE,
        keepalive_min_timeout=KEEPALIVE_MIN_TIMEOUT,
        max_answer_file=MAX_ANSWER_FILE,
        runtime_folder=RUNTIME_FOLDER,
        live_folder=LIVE_FOLDER,
        folder=folder,
        resolver=DOCKER_DNS if isinstance(stable[0], ServiceUpstream) else "",
        listen_file=LISTEN_FILE,
        instance_file=INSTANCE_FILE,
    )


def live_files(site: Site, endpoints: Endpoints) -> dict[str, str]:
    """What the configuration includes in the live instance: texts by name."""
    # Here, because a gate has no use for it: reading the settings' models takes a tenth of a second.
    from infra.site import in_url

    values = {
        "probe": False,
        "site": site,
        "endpoints": endpoints,
        "hosts": [in_url(host) for host in site.tls.hosts],
        "scheme": _scheme(site),
        "cache_folder": CACHE_FOLDER,
        "request_log": REQUEST_LOG,
    }
    return {
        LISTEN_FILE: _render("listen.conf.j2", **values),
        INSTANCE_FILE: _render("instance.conf.j2", **values),
        **pages.files(site.error_pages, lambda page: _render("page.html.j2", page=page, request_id=pages.REQUEST_ID)),
    }


def secret_files(site: Site, stack: str = "") -> dict[str, str]:
    """What the configuration reads that nobody else may: texts by name.

    Args:
        site: as the stack sets it.
        stack: its name, so that the same password has another hash elsewhere.
    """
    files: dict[str, str] = {}
    if site.tls.enabled:
        files |= {CERTIFICATE_FILE: site.tls.certificate, KEY_FILE: site.tls.key}
    if site.basic_auth.users:
        # Also where no path asks for a password any more: workers of the configuration before may still look it up.
        files[PASSWORD_FILE] = passwords.htpasswd(site.basic_auth.users, stack)
    return files


def probe_files(replicas: Sequence[Upstream]) -> dict[str, str]:
    """The same in the gate's probe, which is asked over a socket; under `/.probe/NAME/…` it asks that replica alone."""
    values = {"probe": True, "probe_socket": PROBE_SOCKET, "replicas": replicas, "runtime_folder": RUNTIME_FOLDER}
    return {
        LISTEN_FILE: _render("listen.conf.j2", **values),
        INSTANCE_FILE: _render("instance.conf.j2", **values),
    }


def canary_headers(site: Site) -> list[str]:
    """Headers with which a request takes one release and the other; none where there is one alone."""
    if site.canary.share is None:
        return []
    return [f"{site.canary.header}: {value}" for value in ("never", "always")]


def static_name(site: Site, release: str) -> str:
    """The folder, below STATIC_FOLDER, of a release's static files: what is where in it depends on the settings."""
    return f"{release}-{fingerprint.of_values(site.served_files)}"


def _static_names(site: Site, release: str, canary_release: str) -> list[str]:
    """The folders in which NGINX looks for a static file, in that order."""
    names = [static_name(site, known) for known in (release, canary_release) if known]
    # Of two releases, first the one that would be asked for the page.
    first = [static_name(site, "$release")] if canary_release else []
    return [*first, *names, names[0] + STATIC_BEFORE]


def _scheme(site: Site) -> str:
    """The variable that tells how the client came: here, or at the proxy before that is believed."""
    return "$client_scheme" if site.trusted_proxies else "$scheme"


def _even_shares(replicas: Sequence[Upstream]) -> list[tuple[str, Upstream]]:
    """The same part for each, as `split_clients` takes them; the last one has the rest."""
    percent = f"{10000 // max(len(replicas), 1) / 100:g}%"
    return [(percent if replica is not replicas[-1] else "*", replica) for replica in replicas]


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

"""Who is compared: this stack, the setup that it replaces, other proxies, and uWSGI with nothing in front."""

from __future__ import annotations

import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trustme
from docker.errors import DockerException, ImageNotFound, NotFound
from docker.models.containers import Container

from airgap import build_images
from bench.session import ROOT, Session, free_port
from infra.layout import SOCKET_FOLDER
from infra.settings import Settings
from tests.live.stack import Stack

FOLDER = Path(__file__).resolve().parent / "contenders"
REPLICAS = 2
PORT, TLS_PORT = 8080, 8443  # in the proxies' containers
READY_SECONDS = 60
# On all of the machine's addresses: the loopback's clients and those in the namespace ask the same port.
EVERYWHERE = "0.0.0.0"  # noqa: S104


@dataclass(frozen=True)
class Contender:
    """One that answers the load.

    Attributes:
        port, tls_port: of the machine; 0 where there is none.
        parts: ids of its containers, by what they are.
        sockets: of uWSGI, where it is asked itself.
    """

    key: str
    title: str
    port: int = 0
    tls_port: int = 0
    parts: dict[str, list[str]] = field(default_factory=dict)
    sockets: tuple[str, ...] = ()

    @property
    def ports(self) -> list[int]:
        return [port for port in (self.port, self.tls_port) if port]


# Key → what it is called; in the order of tables and plots.
TITLES = {
    "port": "this stack",
    "host": "this stack, publish: host",
    "no_log": "this stack, no access log",
    "original": "original (NGINX over HTTP)",
    "haproxy": "HAProxy",
    "caddy": "Caddy",
    "traefik": "Traefik",
    "ceiling": "uWSGI asked directly",
}
PEERS = ("original", "haproxy", "caddy", "traefik")


class Field:
    """All contenders, each started when it is first asked for, all on the same session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.stacks: dict[str, Stack] = {}
        self.certificate, self.key = _certificate()
        self._ready: dict[str, Contender] = {}
        self._proxied: list[Container] = []

    def __getitem__(self, key: str) -> Contender:
        if key not in self._ready:
            begin = time.monotonic()
            self._ready[key] = self._starters[key]()
            self.session.say(f"{TITLES[key]} is up after {time.monotonic() - begin:.1f} s")
        return self._ready[key]

    @property
    def ready(self) -> list[Contender]:
        """Those that are up."""
        return list(self._ready.values())

    def close(self) -> None:
        """Takes all away before the run ends, so that what follows has the machine to itself."""
        for stack in self.stacks.values():
            self.session.remove(stack)
        self.stacks.clear()
        for contender in self._ready.values():
            for identity in (one for ids in contender.parts.values() for one in ids):
                with suppress(NotFound):
                    self.session.docker.containers.get(identity).remove(force=True)
        self._ready.clear()

    @property
    def _starters(self) -> dict[str, Callable[[], Contender]]:
        return {
            "port": partial(self._stack, "port", {}),
            "host": partial(self._stack, "host", {"publish": "host"}),
            "no_log": partial(self._stack, "no_log", {"accessLog": "false"}),
            "original": self._original,
            "haproxy": partial(self._proxy, "haproxy"),
            "caddy": partial(self._proxy, "caddy"),
            "traefik": partial(self._proxy, "traefik"),
            "ceiling": self._ceiling,
        }

    def with_tls(self, key: str) -> Contender:
        """The contender that answers HTTPS under this name: of this stack another one, so that `port` has defaults."""
        if key != "port":
            return self[key]
        if "tls" not in self._ready:
            tls_port = str(free_port())
            settings = {
                "tls.port": tls_port,
                "tls.certificate": self.certificate,
                "tls.keyFile": "bench-key.pem",
                "tls.redirect": "false",
            }
            self._ready["tls"] = self._stack("port", settings, tls_port=int(tls_port), name="tls")
        return self._ready["tls"]

    # -- this stack
    def _stack(self, key: str, settings: dict[str, str], *, tls_port: int = 0, name: str = "") -> Contender:
        stack = self.session.stack({})
        (stack.folder / "bench-key.pem").write_text(self.key)
        self.session.configure(stack, {"publishAddress": EVERYWHERE, **settings})
        stack.up()
        self.stacks[name or key] = stack
        parts = {role: [str(found.id) for found in stack.containers(role)] for role in ("nginx", "replica")}
        contender = Contender(
            key, TITLES[key], stack.port, tls_port, {"NGINX": parts["nginx"], "uWSGI": parts["replica"]}
        )
        _wait_until_it_answers(contender)
        return contender

    def _ceiling(self) -> Contender:
        """The very replicas of `port`, over the sockets that NGINX asks them by."""
        replicas = self["port"].parts["uWSGI"]
        client = self.session.docker
        mounts = client.containers.get(replicas[0]).attrs["Mounts"]
        folder = next(Path(mount["Source"]) for mount in mounts if mount["Destination"] == SOCKET_FOLDER)
        sockets = tuple(str(path) for path in sorted(folder.glob("*.sock")))
        return Contender("ceiling", TITLES["ceiling"], parts={"uWSGI": replicas}, sockets=sockets)

    @property
    def app_image(self) -> str:
        """What the replicas of `port` run."""
        container = self.session.docker.containers.get(self["port"].parts["uWSGI"][0])
        return str(container.attrs["Image"])

    # -- the others
    def _proxy(self, key: str) -> Contender:
        """A proxy of its own in front of replicas that all proxies share: as many processes and threads as `port` has,
        of the same image, asked over HTTP."""
        network, replicas = self._proxied_replicas()
        context = self._context(key)
        (context / "both.pem").write_text(self.certificate + self.key)
        images = {"DEBIAN_IMAGE": self.debian, "PYTHON_IMAGE": self.session.images["pythonImage"]}
        image = self.session.build(key, context, **images)
        return self._published(key, image, network, {"uWSGI": replicas})

    def _proxied_replicas(self) -> tuple[str, list[str]]:
        if not self._proxied:
            network = self.session.network("peers")
            defaults = Settings.parse({})
            environment = {
                "UWSGI_PROCESSES": str(defaults.uwsgi_processes),
                "UWSGI_THREADS": str(defaults.uwsgi_threads),
            }
            image = self.app_image
            self._network = network
            for number in range(1, REPLICAS + 1):
                self._proxied.append(self.session.run(image, f"uwsgi-{number}", network, environment=environment))
        return str(self._network.name), [str(replica.id) for replica in self._proxied]

    def _original(self) -> Contender:
        network = self.session.network("original")
        context = self.original_context("original")
        image = self.session.build("original", context, PYTHON_FULL_IMAGE=self.full_python)
        environment = {"UWSGI_APP": "bench_app"}
        replicas = [
            self.session.run(image, f"uwsgi-{number}", network, environment=environment)
            for number in range(1, REPLICAS + 1)
        ]
        nginx = self.session.images["nginxImage"]
        proxy = self.session.build("original-proxy", context, "proxy.Dockerfile", NGINX_IMAGE=nginx)
        return self._published("original", proxy, str(network.name), {"uWSGI": [str(found.id) for found in replicas]})

    def _published(self, key: str, image: str, network: str, parts: dict[str, list[str]]) -> Contender:
        port, tls_port = free_port(), free_port()
        ports = {f"{PORT}/tcp": (EVERYWHERE, port), f"{TLS_PORT}/tcp": (EVERYWHERE, tls_port)}
        proxy = self.session.run(image, key, self.session.docker.networks.get(network), ports=ports)
        contender = Contender(key, TITLES[key], port, tls_port, {"proxy": [str(proxy.id)], **parts})
        try:
            _wait_until_it_answers(contender)
        except TimeoutError as error:
            said = proxy.logs(tail=20).decode(errors="replace")
            raise TimeoutError(f"{error}; it says:\n{said}") from None
        return contender

    def original_context(self, name: str) -> Path:
        """A folder of this name with the original's files, its app and the certificate."""
        context = self._context("original", name)
        shutil.copytree(ROOT / "app", context / "app", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(ROOT / "bench" / "bench_app.py", context / "app")
        shutil.copy2(ROOT / "app" / "requirements.txt", context)
        return context

    def _context(self, key: str, name: str = "") -> Path:
        """A folder to build in: the contender's files and the certificate."""
        context = self.session.folder / (name or key)
        shutil.copytree(FOLDER / key, context)
        (context / "certificate.pem").write_text(self.certificate)
        (context / "key.pem").write_text(self.key)
        return context

    @property
    def debian(self) -> str:
        """Debian's official image, or what stands in for it."""
        return self._first_of(f"debian:{build_images.SUITE}-slim", build_images.DEBIAN)

    @property
    def full_python(self) -> str:
        """The full Python image, or the slim one, which then gets a compiler."""
        slim = self.session.images["pythonImage"]
        return self._first_of(slim.removesuffix("-slim"), slim)

    def _first_of(self, *images: str) -> str:
        client = self.session.docker
        for image in images:
            try:
                client.images.get(image)
                return image
            except ImageNotFound:
                pass
            try:
                client.images.pull(image)
                return image
            except DockerException:
                continue
        raise RuntimeError(f"none of these images can be had: {', '.join(images)}")


def _wait_until_it_answers(contender: Contender) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{contender.port}/", timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{contender.title} does not answer: {error}") from None
            time.sleep(0.1)


def _certificate() -> tuple[str, str]:
    """A certificate for the loopback and its key; ECDSA, as certificates of today have it."""
    issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
    chain = "".join(blob.bytes().decode() for blob in issued.cert_chain_pems)
    return chain, issued.private_key_pem.bytes().decode()

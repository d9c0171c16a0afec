"""What a stack can set: one typed, validated, immutable model. `pulumi.Config` is read here and nowhere else.

`Pulumi.yaml` declares the same keys to the engine; a test keeps the two alike.
"""

import difflib
import ipaddress
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, get_config_secret_keys_env, is_config_secret
from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from infra import dockerignore, fingerprint, pages
from infra.site import Canary, Location, Model, Port, Seconds, Site, as_texts

IMAGE_REFERENCE = r"^[a-z0-9]+(([._/:@]|__|-+)[A-Za-z0-9_]+)*$"
PINNED_IMAGE = r"([a-z0-9]+(([._/:-]|__|-+)[A-Za-z0-9_]+)*@)?sha256:[0-9a-f]{64}"
REGISTRY = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[1-9]\d{0,4})?(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*"
NODE_LABEL = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62}=[A-Za-z0-9][A-Za-z0-9._-]{0,62})?$"
MAX_REPLICAS = 100
MAX_REPLICAS_IN_SWARM = 1000
MAX_SHOWN = 300  # characters of a value that an error repeats
MIN_HIDDEN = 3  # characters of a secret that is taken out of a reason; shorter ones are parts of its own words
RESERVED_VARIABLES = (
    *("REPLICA_SOCKET", "REPLICA_PORT", "REPLICA_ADDRESS", "REPLICA_STOP_DELAY"),
    *("LIVE_RELOAD", "UWSGI_WORKER_RELOAD_MERCY"),
    *("UWSGI_APP", "UWSGI_CALLABLE", "UWSGI_PROCESSES", "UWSGI_THREADS"),
)

DOCKER_HOST = "docker:host"
# Settings of the plugin by which it would reach another daemon than the program and the tooling do, or reach it alone.
NOT_TAKEN = {
    "context": "the plugin would make containers there, and build their images at docker:host. Set docker:host alone",
    "sshOpts": "only the plugin reads it. Write the options into ~/.ssh/config, which all of ssh reads",
    **dict.fromkeys(
        ("caMaterial", "certMaterial", "keyMaterial"),
        "only the plugin reads it. Write ca.pem, cert.pem and key.pem into a folder, and set docker:certPath to that",
    ),
}
LOOPBACK = "127.0.0.1"
SPARE_ADDRESSES = 32  # of a swarm's network, for NGINX and what Docker itself takes on each node
LONGEST_NAME = 64  # characters of a config or a secret in a swarm
LONGEST_FILE = f"{pages.MAINTENANCE}.json"  # that becomes one
LOGINS = "docker:registryAuth"

ImageReference = Annotated[str, Field(pattern=IMAGE_REFERENCE, max_length=255)]


class SettingsError(pulumi.RunError):
    """The stack's configuration is refused. The message names each key, its value and what is accepted."""


@dataclass(frozen=True)
class Registry:
    """Where images go that other machines are to have.

    Attributes:
        address: as image names begin with it, such as registry.example/team.
        username, password: empty for what the machine is logged in to.
    """

    address: str
    username: str = ""
    password: str = ""

    @property
    def host(self) -> str:
        """What one logs in to."""
        return self.address.partition("/")[0]


class Swarm(Model):
    """What a stack on a Docker Swarm has beyond one on a single host: docs/scaling.md."""

    publish: Literal["host", "mesh"] = Field(
        default="host",
        description="Who answers on the port: `host`: each node that runs NGINX; `mesh`: every node of the swarm, by "
        "Docker's routing mesh, which takes IPVS in the kernel, and hides the clients' addresses.",
    )
    nginx_nodes: str = Field(
        default="",
        pattern=NODE_LABEL,
        description="A label, with its value, of the nodes that run NGINX, such as edge=true (`docker node update "
        "--label-add`); empty: all do.",
    )
    app_nodes: str = Field(
        default="", pattern=NODE_LABEL, description="The same of those that run the app; empty: all do."
    )
    subnet: str = Field(
        default="",
        description="The network of the stack, such as 10.20.0.0/20: it must hold two releases of all replicas, and "
        "cannot be changed without a new one. Empty: one of Docker's, mostly of 254 addresses.",
    )
    reserved_memory: int = Field(
        default=0,
        ge=0,
        le=1048576,
        description="Memory that a node must have to spare for each replica, in MiB (0 to 1048576); 0: as much as "
        "`memory`, so that no node is promised twice.",
    )
    reserved_cpus: Decimal = Field(
        default=Decimal(0),
        ge=0,
        le=512,
        decimal_places=2,
        description="CPUs that a node must have to spare for each replica, such as 0.5; 0: none.",
    )

    @field_validator("subnet")
    @classmethod
    def _is_network(cls, value: str) -> str:
        try:
            return value and str(ipaddress.IPv4Network(value))
        except ValueError as error:
            raise ValueError(f"should be an IPv4 network, such as 10.20.0.0/20 ({error})") from None


class Settings(Site):
    """The settings of one stack: its site, and what serves it. Read it with `Settings.load()`."""

    _secret_keys: frozenset[str] = PrivateAttr(default=frozenset())
    _docker_host: str = PrivateAttr(default="")
    _logins: Mapping[str, tuple[str, str]] = PrivateAttr(default={})
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    orchestrator: Literal["containers", "swarm"] = Field(
        default="containers",
        description="Where the stack runs: `containers` on the Docker host; `swarm`: on a Docker Swarm, of which that "
        "host is a manager (docs/scaling.md).",
    )
    replicas: int = Field(
        default=2,
        ge=1,
        le=MAX_REPLICAS_IN_SWARM,
        description="How many app containers, uwsgi-1 to uwsgi-N, share the requests (1 to 100; in a swarm 1 to 1000).",
    )
    port: Port = Field(default=8080, description="The port of the host on which NGINX answers.")
    publish_address: str = Field(
        default=LOOPBACK,
        description="The host's address on which it answers: 127.0.0.1 for this machine alone, 0.0.0.0 for everybody.",
    )
    publish: Literal["port", "host"] = Field(
        default="port",
        description="How NGINX is reached: `port` has Docker publish its port; `host` puts it on the network of the "
        "host (Linux, ports from 1024): faster, with the clients' own addresses, and replaced without a gap. To go "
        "from one to the other, change the port as well.",
    )
    app_folder: str = Field(
        default="app",
        description="The folder of the WSGI app, with its requirements.txt; relative to the project, so that the state "
        "is the same on every machine.",
    )
    app_image: str = Field(
        default="",
        pattern=rf"^({PINNED_IMAGE})?$",
        description="An image that was built before, such as the output `image` of another time (sha256:…, in a swarm "
        "name@sha256:…), in the place of one built from appFolder: to go back to it, or to hold it while a canary "
        "takes its share.",
    )
    app_module: str = Field(
        default="webapp",
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$",
        description="The Python module, importable from that folder, which holds the WSGI callable.",
    )
    app_callable: str = Field(
        default="app", pattern=r"^[A-Za-z_]\w*$", description="The name of the WSGI callable in that module."
    )
    import_check: bool = Field(
        default=True,
        description="Import the app while its image is built, so that one which cannot start never becomes a "
        "container. Turn it off for an app that needs its environment to be imported.",
    )
    environment: dict[str, str] = Field(
        default={},
        repr=False,
        description="Environment variables of the app. Set secret ones with `pulumi config set --secret --path "
        "environment.NAME`: then all of them are ciphertext in the state.",
    )
    health_path: str = Field(
        default="/health",
        pattern=r"^/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*$",
        max_length=255,
        description="A path that the app answers with a status from 200 to 399 when it is fit to take requests.",
    )
    health_timeout: Seconds = Field(
        default=60, description="How long a release may take to get all its replicas healthy, in seconds (1 to 3600)."
    )
    live_reload: bool = Field(
        default=False,
        description="For development: mount appFolder into the replicas, which follow its changes at once. Only with a "
        "Docker daemon on this machine.",
    )
    uwsgi_processes: int = Field(
        default=2, ge=1, le=64, description="uWSGI worker processes in each replica (1 to 64)."
    )
    uwsgi_threads: int = Field(default=8, ge=1, le=256, description="Threads in each uWSGI process (1 to 256).")
    memory: int = Field(
        default=256, ge=32, le=1048576, description="Memory of each replica, without swap, in MiB (32 to 1048576)."
    )
    cpus: Decimal = Field(
        default=Decimal(0),
        ge=0,
        le=512,
        decimal_places=2,
        description="CPUs that each replica may use, such as 1.5; 0: no limit.",
    )
    nginx_memory: int = Field(
        default=256,
        ge=32,
        le=1048576,
        description="Memory of the NGINX container, without swap, in MiB (32 to 1048576).",
    )
    app_image_name: ImageReference = Field(
        default="uwsgi-nginx/app", description="Name of the built app image, without a tag."
    )
    nginx_image_name: ImageReference = Field(
        default="uwsgi-nginx/nginx", description="Name of the built NGINX image, without a tag."
    )
    exporter_image_name: ImageReference = Field(
        default="uwsgi-nginx/exporter", description="Name of the built image of the metrics exporter, without a tag."
    )
    python_image: ImageReference = Field(
        default="python:3.13-slim",
        description="The Python image on which those of the app and of the metrics exporter are built.",
    )
    nginx_image: ImageReference = Field(
        default="nginx:1.31", description="The NGINX image on which the load balancer is built (1.30 or newer)."
    )
    platform: Literal["linux/amd64", "linux/arm64"] = Field(
        default="linux/amd64",
        description="What the machine of the Docker daemon is, and the images are built for: `linux/arm64` on ARM, "
        "also on a Mac with Apple's own processor.",
    )

    registry: str = Field(
        default="",
        pattern=rf"^({REGISTRY})?$",
        max_length=200,
        description="For `orchestrator: swarm`: where images are pushed, and all nodes pull them from, such as "
        "registry.example/team. A login goes into `docker:registryAuth`, as a secret.",
    )
    swarm: Swarm = Field(default=Swarm(), description="For `orchestrator: swarm`: who runs what there.")

    @field_validator("publish_address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            raise ValueError("should be an IP address, such as 127.0.0.1, 0.0.0.0 or ::") from None

    @field_validator("publish")
    @classmethod
    def _can_be_bound(cls, value: str, info: ValidationInfo) -> str:
        if value == "host" and info.data.get("port", 1024) < 1024:
            raise ValueError("should not be host with a port below 1024: NGINX is not root, and cannot listen there")
        return value

    @field_validator("app_folder")
    @classmethod
    def _holds_an_app(cls, value: str) -> str:
        folder = Path(value)
        if folder.is_absolute():
            raise ValueError("should be relative to the project's folder")
        if not value or not _is_folder(folder):
            raise ValueError("should be a folder; there is none of that name")
        if not (folder / "requirements.txt").is_file():
            raise ValueError("should hold a requirements.txt (an empty one will do); it has none")
        dockerignore.read(folder / dockerignore.IGNORE_FILE)
        return folder.as_posix()

    @field_validator("canary")
    @classmethod
    def _canary_holds_an_app(cls, value: Canary) -> Canary:
        if not value.app_folder:
            return value
        try:
            return value.model_copy(update={"app_folder": cls._holds_an_app(value.app_folder)})
        except ValueError as error:
            raise ValueError(f"its appFolder {error}") from None

    @field_validator("error_pages")
    @classmethod
    def _holds_pages(cls, value: str) -> str:
        if not value:
            return value
        if Path(value).is_absolute() or not _is_folder(Path(value)):
            raise ValueError("should be a folder, relative to the project's; there is none of that name")
        pages.check(Path(value))
        return value

    @field_validator("environment", mode="before")
    @classmethod
    def _as_strings(cls, value: object) -> object:
        return as_texts(value)

    @field_validator("environment")
    @classmethod
    def _are_variables(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                shown = name.partition("=")[0]  # some write the value behind it
                raise ValueError(
                    f"{shown!r} is no name of a variable: letters, digits and _ are, not starting with a digit"
                )
            if name in RESERVED_VARIABLES:
                raise ValueError(f"{name} is set by the stack itself; use the setting for it")
            if "\0" in text:
                raise ValueError(f"the value of {name} has a NUL character")
        return value

    @field_validator("app_image_name", "nginx_image_name", "exporter_image_name")
    @classmethod
    def _has_no_tag(cls, value: str) -> str:
        if ":" in value.rsplit("/", 1)[-1] or "@" in value:
            raise ValueError("should have no tag: the stack tags each image with its content's fingerprint")
        return value

    @model_validator(mode="after")
    def _https_has_a_port_of_its_own(self) -> Self:
        if not self.tls.enabled:
            return self
        if self.tls.port == self.port:
            raise ValueError(f"tls.port is {self.tls.port}, as port is: HTTP and HTTPS need one each")
        if self.publish == "host" and self.tls.port < 1024:
            raise ValueError(
                f"tls.port is {self.tls.port}, and publish is host: NGINX is not root, and cannot listen below 1024"
            )
        return self

    @model_validator(mode="after")
    def _metrics_have_a_port_of_their_own(self) -> Self:
        taken = {self.port: "port", **({self.tls.port: "tls.port"} if self.tls.enabled else {})}
        if self.metrics.enabled and self.metrics.port in taken:
            raise ValueError(f"metrics.port is {self.metrics.port}, as {taken[self.metrics.port]} is: it needs another")
        return self

    @model_validator(mode="after")
    def _balancing_is_of_replicas(self) -> Self:
        known = [f"uwsgi-{number}" for number in range(1, self.replicas + 1)]
        there = known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}"
        for key, names in (("weights", self.balancing.weights), ("drain", self.balancing.drain)):
            for name in names:
                if name not in known:
                    raise ValueError(f"balancing.{key} has {name}, but replicas is {self.replicas}: {there}")
        if self.orchestrator == "containers" and set(known) <= set(self.balancing.drain):
            raise ValueError(f"balancing.drain has all replicas ({there}): nobody would be left to answer")
        return self

    @model_validator(mode="after")
    def _canary_is_another_release(self) -> Self:
        canary = self.canary
        folder = Path(canary.app_folder or self.app_folder).resolve()
        if canary.share is not None and not self.app_image and folder == Path(self.app_folder).resolve():
            raise ValueError(
                f"canary.share is {canary.share}, but the canary and the first release are both built from "
                f"{self.app_folder}. Set appImage to the first one's image (`pulumi stack output image`), or "
                "canary.appFolder to another folder"
            )
        return self

    @model_validator(mode="after")
    def _live_reload_has_one_folder(self) -> Self:
        if self.live_reload and (self.app_image or self.canary.share is not None):
            other = "appImage" if self.app_image else "canary.share"
            raise ValueError(f"liveReload is on, and {other} is set: replicas that follow appFolder run nothing else")
        return self

    @model_validator(mode="after")
    def _static_files_are_in_the_images(self) -> Self:
        canary = self.canary
        built = {self.app_folder} if not self.app_image else set()
        if canary.share is not None:
            built.add(canary.app_folder or self.app_folder)
        for app in sorted(built) if self.static else ():
            _look_for_static_files(Path(app), self.static)
        return self

    @model_validator(mode="after")
    def _fits_the_orchestrator(self) -> Self:
        if self.orchestrator == "swarm":
            self._fits_a_swarm()
        elif self.replicas > MAX_REPLICAS:
            raise ValueError(
                f"replicas is {self.replicas}, and orchestrator is containers: one host takes up to {MAX_REPLICAS}; "
                "more take a swarm (docs/scaling.md)"
            )
        elif "@" in self.app_image:
            raise ValueError("appImage should be sha256:…, without a name: the image is on the Docker host")
        return self

    def _fits_a_swarm(self) -> None:
        why = {
            "publish": self.publish == "host" and "swarm.publish says how NGINX is reached there",
            "liveReload": self.live_reload and "a node has no folder of this machine",
            "static": self.static
            and "NGINX and the replicas are on different machines. Have the app serve them "
            "(WhiteNoise does it well), and set paths.….cache to keep them in NGINX",
            "balancing.weights": self.balancing.weights and "its replicas come and go, and have no names",
            "balancing.drain": self.balancing.drain
            and "its replicas come and go. `docker node update --availability drain NODE` moves those of a node",
            "canary.share": self.canary.share is not None and "a swarm has one release; its rollout is gradual",
            "metrics.enabled": self.metrics.enabled and "the exporter reads what NGINX writes on the same machine",
        }
        for key, reason in why.items():
            if reason:
                raise ValueError(f"{key} is set, and orchestrator is swarm: {reason}")
        if self.publish_address not in ("0.0.0.0", "::"):  # noqa: S104 - named, not bound
            raise ValueError(
                f"publishAddress is {self.publish_address}, and orchestrator is swarm: nodes answer on all of their "
                "addresses. Set it to 0.0.0.0 to say that they may"
            )
        if not self.registry:
            raise ValueError("orchestrator is swarm, and there is no registry: the nodes pull their images from one")
        for key in ("app_image_name", "nginx_image_name"):
            if re.match(r"[^/]*[.:][^/]*/|localhost/", getattr(self, key)):
                raise ValueError(
                    f"{to_camel(key)} is {getattr(self, key)}, which begins with a registry: in a swarm that stands in "
                    "registry"
                )
        network = ipaddress.IPv4Network(self.swarm.subnet or "0.0.0.0/0")
        if network.num_addresses < 2 * self.replicas + SPARE_ADDRESSES:
            raise ValueError(
                f"swarm.subnet is {network}, with {network.num_addresses} addresses: two releases of {self.replicas} "
                f"replicas and NGINX on each node take {2 * self.replicas + SPARE_ADDRESSES} or more"
            )
        if self.app_image and "@" not in self.app_image:
            raise ValueError(
                "appImage should be name@sha256:…, as orchestrator is swarm: the nodes pull it from a registry"
            )

    @property
    def docker_address(self) -> str:
        """The address of the Docker host, in a swarm of the manager: 127.0.0.1 where that is this machine."""
        return urlsplit(self._docker_host).hostname or LOOPBACK

    @property
    def docker_is_remote(self) -> bool:
        """Whether the Docker host is another machine. By ssh it always is: nobody logs in to where they are."""
        return urlsplit(self._docker_host).scheme == "ssh" or self.docker_address not in (LOOPBACK, "::1", "localhost")

    @property
    def pushes_to(self) -> Registry | None:
        """Where images go; None where they stay on the daemon."""
        if self.orchestrator == "containers":
            return None
        registry = Registry(self.registry)
        return Registry(self.registry, *self._logins.get(registry.host, ()))

    @property
    def served_files(self) -> dict[str, str]:
        """None with liveReload: they change while the app runs."""
        return {} if self.live_reload else super().served_files

    def locations(self) -> list[Location]:
        """With liveReload no answer is kept, for the same reason."""
        found = super().locations()
        return [location._replace(cache=0) for location in found] if self.live_reload else found

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is accepted, and will not stay so."""
        return self._warnings

    def is_secret(self, key: str) -> bool:
        """Whether `key`, as written in the configuration, holds a secret anywhere inside."""
        return key in self._secret_keys

    @classmethod
    def load(cls) -> Self:
        """The settings of the running stack.

        Raises:
            SettingsError: a key is unknown, or its value of the wrong type or out of range.
        """
        raw = {**get_config_env(), **CONFIG.get()}
        prefix = pulumi.get_project() + ":"
        values = {key.removeprefix(prefix): value for key, value in raw.items() if key.startswith(prefix)}
        secret = {key for key in values if _is_secret(prefix + key)}
        settings = cls.parse(values, secret)
        settings._docker_host = raw.get(DOCKER_HOST) or os.environ.get("DOCKER_HOST", "")
        settings._check_docker(raw)
        if settings.orchestrator == "swarm":
            _check_names_fit()
            settings._logins = _logins(raw.get(LOGINS, ""), secret=_is_secret(LOGINS))
        for warning in settings.warnings:
            pulumi.log.warn(warning)
        return settings

    @classmethod
    def parse(cls, values: dict[str, str], secret: set[str] | frozenset[str] = frozenset()) -> Self:
        """The settings written as `values`: strings by key, as the engine hands them over, JSON where they are objects.

        Raises:
            SettingsError: as `load`.
        """
        decoded = {key: _decoded(cls, key, value) for key, value in values.items()}
        try:
            settings = cls.model_validate(decoded, by_alias=True, by_name=False)
        except ValidationError as error:
            hidden = {text for key in secret & decoded.keys() for text in _texts(decoded[key])}
            lines = [_in_words(cls, problem, secret, hidden) for problem in error.errors(include_url=False)]
            raise SettingsError("The configuration is refused, nothing was changed:\n  " + "\n  ".join(lines)) from None
        settings._secret_keys = frozenset(secret)
        settings._check_passwords_are_secret()
        return settings._with_certificate()

    def _check_docker(self, raw: Mapping[str, str]) -> None:
        for key, reason in NOT_TAKEN.items():
            if raw.get(f"docker:{key}"):
                raise SettingsError(f"The configuration is refused, nothing was changed:\n  docker:{key}: {reason}.")
        if self.live_reload and self.docker_is_remote:
            raise SettingsError(
                "The configuration is refused, nothing was changed:\n  liveReload is true, and the Docker host is "
                f"{self.docker_address}, which has no folder of this machine. Turn it off, or docker:host."
            )

    def _with_certificate(self) -> Self:
        """With the texts of certificate and key, wherever they come from, checked."""
        if not self.tls.model_fields_set:
            return self
        # What reads certificates takes a tenth of a second to import.
        from infra.certificate import CertificateRefused, check

        try:
            checked = check(self.tls, key_is_secret=self.is_secret("tls"))
        except CertificateRefused as refused:
            raise SettingsError(
                "The configuration is refused, nothing was changed:\n  " + "\n  ".join(refused.problems)
            ) from None
        texts = {"certificate": checked.certificate, "key": checked.key}
        settings = self.model_copy(update={"tls": self.tls.model_copy(update=texts)})
        settings._warnings = checked.warnings
        return settings

    def _check_passwords_are_secret(self) -> None:
        if self.basic_auth.in_clear and not self.is_secret("basicAuth"):
            name = self.basic_auth.in_clear[0]
            raise SettingsError(
                "The configuration is refused, nothing was changed:\n"
                f"  basicAuth.users.{name}: the password stands there for all to read. Set it with `pulumi config set "
                f"--secret --path 'basicAuth.users[\"{name}\"]'`, or its hash, as `htpasswd -nB {name}` makes it."
            )


def _logins(text: str, *, secret: bool) -> dict[str, tuple[str, str]]:
    """Names and passwords by registry, of the plugin's own setting: it gives them to the nodes, which pull images."""
    try:
        logins = {
            re.sub(r"^https?://", "", entry["address"]).partition("/")[0]: (
                str(entry.get("username", "")),
                str(entry.get("password", "")),
            )
            for entry in json.loads(text or "[]")
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        raise SettingsError(
            f"The configuration is refused, nothing was changed:\n  {LOGINS}: should be a list of objects with "
            "address, username and password"
        ) from None
    if any(password for _, password in logins.values()) and not secret:
        raise SettingsError(
            f"The configuration is refused, nothing was changed:\n  {LOGINS}: a password stands there for all to read. "
            f"Set it with `pulumi config set --secret --path '{LOGINS}[0].password'`."
        )
    return logins


def _is_secret(key: str) -> bool:
    return is_config_secret(key) or key in get_config_secret_keys_env()


def _check_names_fit() -> None:
    """Looks whether the swarm takes the names that the engine makes; it would say so in the middle of an update."""
    stack, room = pulumi.get_stack(), LONGEST_NAME - len(f"{pulumi.get_project()}--{LONGEST_FILE}-1234567")
    if len(stack) > room or not re.fullmatch(r"[A-Za-z0-9]+([-_]+[A-Za-z0-9]+)*", stack):
        raise SettingsError(
            "The configuration is refused, nothing was changed:\n  orchestrator is swarm, and the stack's name is "
            f"{stack}: there it may have {room} characters, letters and digits, with - and _ in between"
        )


def keys(model: type[BaseModel] = Settings) -> dict[str, str]:
    """The names of the fields by the keys that stand for them in a stack's configuration."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long, a folder above it that may not be read
        return False


def _look_for_static_files(app: Path, folders: dict[str, str]) -> None:
    seen = {Path(name) for name in fingerprint.files(app)}
    for path, folder in folders.items():
        what = f"static.{path} is {folder}, but"
        if not _is_folder(app / folder):
            raise ValueError(f"{what} {app} has no such folder")
        if any((app / part).is_symlink() for part in (Path(folder), *Path(folder).parents[:-1])):
            raise ValueError(f"{what} that is a link in {app}: name the folder that it leads to")
        if not any(name.is_relative_to(folder) for name in seen):
            raise ValueError(f"{what} {app}/.dockerignore keeps it out of the image")


def _decoded(model: type[BaseModel], key: str, value: str) -> Any:
    name = keys(model).get(key)
    if name is None or not isinstance(model.model_fields[name].get_default(), BaseModel | dict | list | tuple):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _in_words(model: type[BaseModel], problem: Any, secret: set[str] | frozenset[str], hidden_texts: set[str]) -> str:
    if not problem["loc"]:  # two keys that do not go together
        return _reason(problem, hidden_texts)
    key = ".".join(str(part) for part in problem["loc"])
    field, siblings = _place(model, problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), siblings, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(siblings))}"
        return f"{key}: there is no such setting; {hint}"
    hidden = problem["loc"][0] in secret or (field is not None and not field.repr)
    hidden = hidden or "PRIVATE KEY" in str(problem["input"])  # in a place where none belongs
    value = "[secret]" if hidden else _shortened(repr(problem["input"]))
    reason = _reason(problem, {*_texts(problem["input"])} if hidden else set())
    return f"{key}: {value} is not accepted: {reason}. {field.description if field else ''}".rstrip()


def _place(model: type[BaseModel], location: Sequence[str | int]) -> tuple[FieldInfo | None, Collection[str]]:
    """The field, nested or not, that an error is about, and the keys that stand beside it."""
    field: FieldInfo | None = None
    inside: type[BaseModel] | None = model
    siblings: Collection[str] = ()
    for part in location:
        if inside is None:
            break
        siblings = keys(inside)
        name = siblings.get(str(part))
        if name is not None:
            field = inside.model_fields[name]
            inside = nested_model(field.annotation)
    return field, siblings


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, be it alone, in a dict, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := nested_model(part))), None)


def _reason(problem: Any, hidden: Collection[str]) -> str:
    reason = str(problem["msg"]).removeprefix("Value error, ")
    for text in sorted((text for text in hidden if len(text) >= MIN_HIDDEN), key=len, reverse=True):
        reason = reason.replace(text, "[secret]").replace(repr(text)[1:-1], "[secret]")
    return reason[:1].lower() + reason[1:]


def _texts(value: object) -> Iterator[str]:
    """Those in a value of the configuration, however deep."""
    inside = [value]
    while inside:
        item = inside.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            inside.extend(item.values())
        elif isinstance(item, list | tuple):
            inside.extend(item)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + " …"

"""What a stack can set of the site that NGINX serves: encryption, cache, authentication, filters, balance, paths.

Models of values alone: nothing here knows Pulumi, so that rendering (`nginx_config.py`) stays pure.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

PATH = r"^/([A-Za-z0-9._~@:+,-]+(/[A-Za-z0-9._~@:+,-]+)*/?)?$"
MAX_PATHS = 100
DAY = 86400  # seconds
YEAR = 365 * DAY

Seconds = Annotated[int, Field(ge=1, le=3600)]
Port = Annotated[int, Field(ge=1, le=65535)]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class Model(BaseModel):
    """Immutable, strict about names, `camelCase` in a stack's configuration."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_default=True
    )


def _as_network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is neither an address nor a network, such as 10.1.2.3 or 10.0.0.0/8 ({error})"
        ) from None
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which NGINX does not know")
    return str(network)


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


Network = Annotated[str, AfterValidator(_as_network)]
Networks = Annotated[tuple[Network, ...], Field(max_length=100), AfterValidator(_once)]


class Tls(Model):
    """Encryption: on when there is a certificate."""

    port: Port = Field(default=8443, description="The port of the host on which NGINX answers HTTPS.")
    certificate: str = Field(
        default="", description="The certificate with the chain that leads to its authority, in PEM."
    )
    key: str = Field(
        default="",
        description="The certificate's private key, in PEM. Set it with `pulumi config set --secret --path tls.key`.",
    )
    certificate_file: str = Field(default="", description="A file to read the certificate from, instead.")
    key_file: str = Field(default="", description="A file to read the key from, instead.")
    hosts: tuple[str, ...] = Field(
        default=(),
        max_length=100,
        description="Names under which the site is reached; each must be one of the certificate's.",
    )
    redirect: bool = Field(default=True, description="Send those who come by HTTP to HTTPS (308); off: answer both.")
    min_version: Literal["1.2", "1.3"] = Field(default="1.2", description="The oldest TLS version that is spoken.")
    hsts: int = Field(
        default=0,
        ge=0,
        le=2 * YEAR,
        description="For how many seconds browsers shall come by HTTPS only (Strict-Transport-Security; 0 to 63072000; "
        "0: not said). They cannot be told otherwise before that.",
    )
    hsts_subdomains: bool = Field(default=False, description="Say so for all names below the site's as well.")

    @property
    def enabled(self) -> bool:
        """Whether NGINX answers HTTPS."""
        return bool(self.certificate or self.certificate_file)


class Cache(Model):
    """Where answers are kept; `paths` says which."""

    size: int = Field(default=256, ge=1, le=1048576, description="Disk for cached answers, in MiB (1 to 1048576).")
    stale: bool = Field(
        default=True,
        description="Give an answer that is too old while a new one is fetched, or while the app fails.",
    )


class BasicAuth(Model):
    """Names and passwords that NGINX asks for where `paths` says `auth: basic`."""

    realm: str = Field(
        default="Restricted",
        pattern=r"^[A-Za-z0-9 ._-]{1,100}$",
        description="What the browser shows beside the question for a password.",
    )
    users: dict[str, str] = Field(
        default={},
        max_length=1000,
        description="Passwords by name. Set them with `pulumi config set --secret --path basicAuth.users.NAME`; "
        "only their hashes reach a container.",
    )


class AuthRequest(Model):
    """The endpoint that decides over each request where `paths` says `auth: request`."""

    endpoint: str = Field(
        default="",
        pattern=r"^(|/[^\s;{}'\"$\\]*|https?://[A-Za-z0-9.\[\]:_-]+(/[^\s;{}'\"$\\]*)?)$",
        description="A path of the app, or a URL: its answer 2xx lets a request pass, 401 and 403 do not.",
    )
    sign_in: str = Field(
        default="",
        pattern=r"^(|/[^\s;{}'\"$\\]*|https?://[^\s;{}'\"$\\]+)$",
        description="Where those go who are not known (401), with the page that they wanted in `rd`; empty: they get "
        "the 401.",
    )
    user_header: str = Field(
        default="X-Auth-User",
        pattern=r"^[A-Za-z][A-Za-z0-9-]{0,99}$",
        description="The header of its answer that names the user; the app gets it as REMOTE_USER and under this name.",
    )


class Balancing(Model):
    """How requests are shared among the replicas."""

    method: Literal["roundRobin", "leastConnections", "clientAddress", "sticky"] = Field(
        default="roundRobin",
        description="`roundRobin`; `leastConnections`: who has the fewest; `clientAddress`: the same replica for the "
        "same address; `sticky`: for the same browser, by a cookie.",
    )
    weights: dict[str, Annotated[int, Field(ge=1, le=100)]] = Field(
        default={}, description="Shares of single replicas, such as uwsgi-1: 3; the others have 1 (1 to 100)."
    )


class Canary(Model):
    """A second release of the app beside the first: on when it has a share."""

    share: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="The part of all requests that it takes, in per cent (0 to 100): 0 nothing but those with its "
        "header, 100 everything. Without it there is no canary.",
    )
    app_folder: str = Field(
        default="", description="The folder of its app; empty: appFolder, where appImage holds the first release."
    )
    replicas: int = Field(default=1, ge=1, le=100, description="How many replicas it has (1 to 100).")
    assign: Literal["request", "client"] = Field(
        default="request", description="Whether the share is one of requests, or of clients, who then stay with it."
    )
    header: str = Field(
        default="X-Canary",
        pattern=r"^[A-Za-z][A-Za-z0-9-]{0,99}$",
        description="A request with this header goes to the canary if it says `always`, past it if `never`.",
    )


class Maintenance(Model):
    """A page instead of the app."""

    enabled: bool = Field(default=False, description="Answer everybody with 503 and a page that says so.")
    allow: Networks = Field(default=(), description="Addresses and networks that get the app all the same.")
    retry_after: int = Field(
        default=300, ge=1, le=DAY, description="After how many seconds to come back, in the answer (1 to 86400)."
    )


class Metrics(Model):
    """Figures for Prometheus and a status page."""

    enabled: bool = Field(default=False, description="Run the exporter: /metrics for Prometheus, / for people.")
    port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="The port of the host, at publishAddress, on which it answers; 0: on the stack's network alone.",
    )


class PathRules(Model):
    """What holds for a path and all below it; what it does not say holds as for the path above."""

    allow: Networks | None = Field(default=None, description="Only these addresses and networks may come (403).")
    deny: Networks | None = Field(default=None, description="These may not (403).")
    methods: tuple[Method, ...] | None = Field(
        default=None, description="Only these methods are taken (405); [] takes all. GET has HEAD with it."
    )
    requests_per_second: int | None = Field(
        default=None, ge=0, le=100000, description="Of one client address (429); 0: no limit (0 to 100000)."
    )
    burst: int | None = Field(
        default=None, ge=0, le=100000, description="Requests that it may be ahead of that (0 to 100000; 20)."
    )
    connections: int | None = Field(
        default=None,
        ge=0,
        le=100000,
        description="Requests of one client address at a time (429); 0: no limit (0 to 100000).",
    )
    auth: Literal["none", "basic", "request"] | None = Field(
        default=None, description="Who may come: everybody, those with a password, those whom the endpoint knows."
    )
    cache: int | None = Field(
        default=None,
        ge=0,
        le=YEAR,
        description="For how many seconds an answer without Cache-Control is kept (0 to 31536000; 0: nothing is).",
    )
    cache_with_cookies: bool | None = Field(
        default=None, description="Cache also for clients with cookies: only where answers do not depend on them."
    )
    max_body_size: int | None = Field(default=None, ge=1, le=10240, description="As the setting of that name, here.")
    request_timeout: int | None = Field(
        default=None, ge=1, le=DAY, description="As the setting of that name, here (1 to 86400 seconds)."
    )
    streaming: bool | None = Field(
        default=None,
        description="Hand on each piece of an answer at once, and WebSockets; set requestTimeout to the longest pause.",
    )


class Location(NamedTuple):
    """A path with all that holds there, whether it was said for it or for one above."""

    path: str
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    methods: tuple[str, ...]
    requests_per_second: int
    burst: int
    connections: int
    auth: str
    cache: int
    cache_with_cookies: bool
    max_body_size: int
    request_timeout: int
    streaming: bool
    static: str  # a folder of the app; empty: the app answers

    @property
    def match(self) -> str:
        """As NGINX's `location` matches it: the path itself and what is below, not what merely begins like it."""
        return "/" if self.path == "/" else f"~ ^{re.escape(self.path)}(?:/|$)"


def _plain_path(path: str) -> str:
    """/admin/ and /admin are the same."""
    return path.rstrip("/") or "/"


class Site(Model):
    """All that NGINX's configuration is made of, replicas apart."""

    drain_timeout: Seconds = Field(
        default=30,
        description="How long a request in flight may still run when its worker or replica is replaced, in seconds "
        "(1 to 3600).",
    )
    request_timeout: Seconds = Field(
        default=60,
        description="How long the app may take until it answers, in seconds (1 to 3600); then the client gets 504. A "
        "release waits no longer than drainTimeout.",
    )
    client_timeout: Seconds = Field(
        default=20,
        description="How long a client may take to send all its headers (at most drainTimeout), and how long it may "
        "pause in its body or while it reads the answer, in seconds (1 to 3600); then its connection is closed.",
    )
    max_body_size: int = Field(
        default=10,
        ge=1,
        le=10240,
        description="How large a request's body may be, in MiB (1 to 10240); beyond it is 413. Large bodies wait on "
        "the host's disk until they are complete.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Addresses or networks, such as 10.0.0.0/8, of the proxies in front of NGINX: only they are "
        "believed in X-Forwarded-For and X-Forwarded-Proto, and they must hand on the Host. A proxy on this very host "
        "shows, with `publish: port`, as the gateway of the stack's Docker network.",
    )
    tls: Tls = Field(default=Tls(), description="HTTPS and HTTP/2.")
    paths: dict[Annotated[str, Field(pattern=PATH, max_length=255)], PathRules] = Field(
        default={},
        max_length=MAX_PATHS,
        description="Rules by path, such as /admin: they hold there and below. Those of / hold everywhere.",
    )
    cache: Cache = Field(default=Cache(), description="Where answers are kept; `paths` says which.")
    basic_auth: BasicAuth = Field(default=BasicAuth(), description="Names and passwords for `auth: basic`.")
    auth_request: AuthRequest = Field(default=AuthRequest(), description="The endpoint for `auth: request`.")
    balancing: Balancing = Field(default=Balancing(), description="How requests are shared among the replicas.")
    canary: Canary = Field(default=Canary(), description="A second release that takes a share of the requests.")
    static: dict[Annotated[str, Field(pattern=PATH, max_length=255)], str] = Field(
        default={},
        max_length=MAX_PATHS,
        description="Folders of the app by path, such as /static: static, which NGINX serves itself.",
    )
    compression: bool = Field(
        default=False,
        description="Compress text (gzip). Leave it off where pages hold secrets beside what visitors send "
        "(https://www.breachattack.com).",
    )
    security_headers: bool = Field(
        default=False,
        description="Add X-Content-Type-Options, X-Frame-Options, Referrer-Policy and others where the app does not.",
    )
    headers: dict[str, str] = Field(
        default={}, max_length=100, description="More headers of all answers where the app does not set them."
    )
    maintenance: Maintenance = Field(default=Maintenance(), description="A page instead of the app.")
    error_pages: str = Field(
        default="",
        description="A folder, relative to the project, whose 413.html, 429.html, 502.html, 503.html, 504.html or "
        "maintenance.html take the place of the pages that come with the stack.",
    )
    access_log: bool = Field(default=True, description="Log each request as a line of JSON.")
    metrics: Metrics = Field(default=Metrics(), description="Figures for Prometheus and a status page.")

    @field_validator("trusted_proxies")
    @classmethod
    def _are_not_everybody(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            if network.endswith("/0"):
                raise ValueError(f"{network!r} is everybody: then every client could say that it is another")
        return value

    @field_validator("paths", "static")
    @classmethod
    def _are_different_paths(cls, value: dict[str, object]) -> dict[str, object]:
        plain = {_plain_path(path): item for path, item in value.items()}
        if len(plain) < len(value):
            raise ValueError("should hold a path once, with or without a slash at its end")
        return plain

    @model_validator(mode="after")
    def _auth_is_set_up(self) -> "Site":
        for path, rules in self.paths.items():
            if rules.auth == "basic" and not self.basic_auth.users:
                raise ValueError(f"paths.{path}.auth is basic, but basicAuth.users has nobody")
            if rules.auth == "request" and not self.auth_request.endpoint:
                raise ValueError(f"paths.{path}.auth is request, but there is no authRequest.endpoint")
        return self

    def locations(self) -> list[Location]:
        """All paths that rules or static files are set for, those that NGINX must look at first before the others."""
        rules = {"/": PathRules(), **self.paths}
        paths = sorted({*rules, *self.static}, key=lambda path: (-len(path), path))
        return [self._location(path, rules) for path in paths]

    def _location(self, path: str, rules: Mapping[str, PathRules]) -> Location:
        values = {
            "allow": (),
            "deny": (),
            "methods": (),
            "requests_per_second": 0,
            "burst": 20,
            "connections": 0,
            "auth": "none",
            "cache": 0,
            "cache_with_cookies": False,
            "max_body_size": self.max_body_size,
            "request_timeout": self.request_timeout,
            "streaming": False,
        }
        for above in sorted(rules, key=len):
            if above == "/" or f"{path}/".startswith(f"{above}/"):
                values |= rules[above].model_dump(exclude_none=True)
        return Location(path=path, static=self.static.get(path, ""), **values)  # type: ignore[arg-type]

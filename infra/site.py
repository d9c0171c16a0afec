"""What a stack can set of the site that NGINX serves: encryption, cache, authentication, filters, balance, paths.

Models of values alone: nothing here knows Pulumi, so that rendering (`nginx_config.py`) stays pure.
"""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from infra import headers, passwords

PATH = r"^/([A-Za-z0-9._~@:+,-]+(/[A-Za-z0-9._~@:+,-]+)*/?)?$"
# Not an address that is none: the last label has something else than digits.
HOST = r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*(?!\d+$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
MAX_PATHS = 100
URI = r"/[A-Za-z0-9._~@:+,/-]*(\?[A-Za-z0-9._~@:+,/=&%-]*)?"
SERVER = r"https?://((?P<name>[A-Za-z0-9.-]+)|\[(?P<address>[0-9A-Fa-f:.]+)\])(:(?P<port>\d{1,5}))?"
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
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        raise ValueError(f"{text!r} fits nobody: NGINX takes such an address for the IPv4 one that it has inside")
    return str(network)


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _with_head(methods: tuple[str, ...]) -> tuple[str, ...]:
    return _once((*methods, "HEAD")) if "GET" in methods else _once(methods)


def as_texts(value: object) -> object:
    """YAML reads `DEBUG: 1` and `DEBUG: true` as a number and a boolean, where only texts are meant."""
    if not isinstance(value, dict):
        return value
    plain = {True: "true", False: "false"}
    return {
        name: plain[item] if isinstance(item, bool) else str(item) if isinstance(item, int | float) else item
        for name, item in value.items()
    }


def _as_host(text: str) -> str:
    """As certificates and requests name it: https://www.rfc-editor.org/rfc/rfc9525#section-2."""
    if "*" in text:
        raise ValueError("should be a name, and is a pattern: name each host, or none, then all are answered")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        name = text.removesuffix(".").lower()
    if not name.isascii():
        import idna

        try:
            name = idna.encode(name, uts46=True).decode()
        except idna.IDNAError as error:
            raise ValueError(f"should be the name of a host: {error}") from None
    if len(name) > 253 or not re.fullmatch(HOST, name):
        raise ValueError("should be the name of a host or an address, such as shop.example or 10.1.2.3")
    return name


Host = Annotated[str, AfterValidator(_as_host)]
Hosts = Annotated[tuple[Host, ...], Field(max_length=100), AfterValidator(_once)]
Network = Annotated[str, AfterValidator(_as_network)]
Networks = Annotated[tuple[Network, ...], Field(max_length=100), AfterValidator(_once)]


def _is_not_set_by_nginx(header: str) -> str:
    """One that nginx/uwsgi_params.j2 neither sets nor takes away."""
    if re.match("x-(real-ip|request-id|original-|forwarded-(for|host|method|port|pre|proto|s|uri))", header.lower()):
        raise ValueError("should be a name that says nothing else to the app")
    return header


def in_url(host: str) -> str:
    """A host as it stands in a URL and in a request: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


class Tls(Model):
    """Encryption: on when there is a certificate.

    `Settings.parse` reads the files: after it, `certificate` and `key` hold the texts wherever they came from.
    """

    port: Port = Field(default=8443, description="The port of the host on which NGINX answers HTTPS.")
    certificate: str = Field(
        default="", description="The certificate with the chain that leads to its authority, in PEM."
    )
    key: str = Field(
        default="",
        repr=False,
        description="The certificate's private key, in PEM. Set it with `pulumi config set --secret --path tls.key`.",
    )
    certificate_file: str = Field(
        default="", description="A file to read the certificate from, instead; relative to the project, or absolute."
    )
    key_file: str = Field(default="", description="A file to read the key from, instead.")
    hosts: Hosts = Field(
        default=(),
        description="Names and addresses under which the site is reached; each must be one of the certificate's. By "
        "HTTPS no other is answered (421), by HTTP all lead to these. Without any, all are answered.",
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

    size: int = Field(
        default=256,
        ge=1,
        le=1048576,
        description="Disk for cached answers, in MiB (1 to 1048576). What nobody has asked for in an hour is dropped, "
        "and a new release starts with none.",
    )
    stale: bool = Field(
        default=True,
        description="Give an answer that is too old while a new one is fetched, or the app fails. So a page that turns "
        "into one that cannot be kept (a redirect, 403, no-store) is given as it was until a release; what says "
        "must-revalidate is not kept at all. Off: who comes after its time asks the app.",
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
        repr=False,
        description="Passwords by name, of 8 characters or more. Set them with `pulumi config set --secret --path "
        "basicAuth.users.NAME`; only their hashes reach a container. Or the hashes, as `htpasswd -nB NAME` makes them.",
    )

    @field_validator("realm")
    @classmethod
    def _is_no_switch(cls, value: str) -> str:
        if value == "off":  # https://nginx.org/en/docs/http/ngx_http_auth_basic_module.html#auth_basic
            raise ValueError("should not be off, which turns the question off in NGINX")
        return value

    @field_validator("users", mode="before")
    @classmethod
    def _as_texts(cls, value: object) -> object:
        return as_texts(value)

    @field_validator("users")
    @classmethod
    def _can_be_asked_for(cls, value: dict[str, str]) -> dict[str, str]:
        for name, password in value.items():
            passwords.check(name, password)
        return value

    @property
    def in_clear(self) -> list[str]:
        """Whose passwords are set as they are, not as hashes."""
        return [name for name, text in self.users.items() if not passwords.is_hash(text)]


class AuthRequest(Model):
    """The endpoint that decides over each request where `paths` says `auth: request`."""

    endpoint: str = Field(
        default="",
        pattern=rf"^(|({URI})|{SERVER}({URI})?)$",
        max_length=1000,
        description="A path of the app, or a URL: its answer 2xx lets a request pass, 401 and 403 do not. The name in "
        "a URL is looked up when the release is tested, and when NGINX starts.",
    )
    sign_in: str = Field(
        default="",
        pattern=rf"^(|({URI})|{SERVER}({URI})?)$",
        max_length=1000,
        description="Where those go who are not known (401), with the page that they wanted in `rd`: its path where "
        "this is a path, else its URL; empty: they get the 401.",
    )
    user_header: str = Field(
        default="X-Auth-User",
        pattern=r"^(X|Remote)(-[A-Za-z0-9]+){1,10}$",
        max_length=40,  # longer ones do not fit into NGINX's table of parameters
        description="The header of its answer that names the user. The app gets who NGINX has let in, by password or "
        "by the endpoint, as REMOTE_USER and under this name, which nobody else can use.",
    )

    @field_validator("endpoint", "sign_in")
    @classmethod
    def _names_a_server(cls, value: str) -> str:
        server = re.match(SERVER, value)
        if server and server["port"] and not 1 <= int(server["port"]) <= 65535:
            raise ValueError(f"its port should be from 1 to 65535, and is {server['port']}")
        if server:
            try:
                _as_host(server["name"] or str(ipaddress.IPv6Address(server["address"])))
            except ValueError:
                raise ValueError("should have the name of a host or an address after ://, one of IPv6 in []") from None
        return value

    @field_validator("user_header")
    @classmethod
    def _is_free(cls, value: str) -> str:
        return _is_not_set_by_nginx(value)

    @property
    def is_url(self) -> bool:
        """Whether somebody else than the app is asked."""
        return not self.endpoint.startswith("/")

    @property
    def url(self) -> str:
        """The endpoint as NGINX wants it: without a path it would hand on its own."""
        scheme, _, rest = self.endpoint.partition("://")
        return self.endpoint if "/" in rest else f"{scheme}://{rest}/"

    @property
    def path(self) -> str:
        """The endpoint's path in the app."""
        return self.endpoint.partition("?")[0]

    @property
    def arguments(self) -> str:
        """What follows its question mark."""
        return self.endpoint.partition("?")[2]

    @property
    def user_variable(self) -> str:
        """The header that names the user as variables of CGI, and of NGINX, name it."""
        return self.user_header.upper().replace("-", "_")


class Balancing(Model):
    """How requests are shared among the replicas."""

    method: Literal["roundRobin", "leastConnections", "clientAddress", "sticky"] = Field(
        default="roundRobin",
        description="`roundRobin`; `leastConnections`: who has the fewest requests; `clientAddress`: the same replica "
        "for the same address; `sticky`: for the same browser, by a cookie. A new release starts anew.",
    )
    weights: dict[str, Annotated[int, Field(ge=1, le=100)]] = Field(
        default={}, description="Shares of single replicas, such as uwsgi-1: 3; the others have 1 (1 to 100)."
    )
    drain: tuple[str, ...] = Field(
        default=(),
        description="Replicas that are taken out, such as [uwsgi-2]: they run on and get no new request (`make drain`, "
        "`make resume`).",
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
        default="request",
        description="Whether the share is one of requests, or of clients, each an address with a User-Agent, who then "
        "stay with it.",
    )
    header: str = Field(
        default="X-Canary",
        pattern=r"^X(-[A-Za-z0-9]+){1,10}$",
        max_length=40,
        description="A request with this header goes to the canary if it says `always`, past it if `never`.",
    )

    @field_validator("header")
    @classmethod
    def _is_the_clients(cls, value: str) -> str:
        return _is_not_set_by_nginx(value)


class Maintenance(Model):
    """A page instead of the app."""

    enabled: bool = Field(
        default=False, description="Answer everybody with 503 and a page that says so, for static files as well."
    )
    allow: Networks = Field(
        default=(),
        description="Addresses and networks that get the app all the same: your own, those of monitors.",
    )
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

    allow: Networks | None = Field(
        default=None, description="Only these addresses and networks may come (403); [] lets all."
    )
    deny: Networks | None = Field(default=None, description="These may not (403), even if they are among those.")
    methods: Annotated[tuple[Method, ...], AfterValidator(_with_head)] | None = Field(
        default=None, description="Only these methods are taken (405); [] takes all. GET has HEAD with it."
    )
    requests_per_second: int | None = Field(
        default=None,
        ge=0,
        le=100000,
        description="Of one client, an IPv4 address or an IPv6 network /64, there and below together (429); 0: no "
        "limit (0 to 100000).",
    )
    burst: int | None = Field(
        default=None, ge=0, le=100000, description="Requests that it may be ahead of that (0 to 100000; 20)."
    )
    connections: int | None = Field(
        default=None,
        ge=0,
        le=100000,
        description="Requests of one such client at a time (429); 0: no limit (0 to 100000).",
    )
    auth: Literal["none", "basic", "request"] | None = Field(
        default=None, description="Who may come: everybody, those with a password, those whom the endpoint knows."
    )
    cache: int | None = Field(
        default=None,
        ge=0,
        le=YEAR,
        description="Keep answers to GET for all who ask without a cookie or an Authorization: for as long as "
        "Cache-Control or Expires say, else for so many seconds (0 to 31536000; 0: none is kept). Those with a cookie "
        "never are, and with liveReload none is. Who asks for what is just being fetched waits for it, up to 10 "
        "seconds: set 0 where nothing can be kept.",
    )
    cache_with_cookies: bool | None = Field(
        default=None,
        description="Also for those with cookies: only where answers do not depend on them, or say so (Vary: Cookie).",
    )
    max_body_size: int | None = Field(default=None, ge=1, le=10240, description="As the setting of that name, here.")
    request_timeout: int | None = Field(
        default=None, ge=1, le=DAY, description="As the setting of that name, here (1 to 86400 seconds)."
    )
    streaming: bool | None = Field(
        default=None,
        description="Hand on each piece of an answer as soon as the app has said it. Set requestTimeout to the longest "
        "silence, also for WebSockets.",
    )


class Location(NamedTuple):
    """A path with all that holds there, whether it was said for it or for one above."""

    path: str
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    methods: tuple[str, ...]
    requests_per_second: int
    requests_zone: str  # what counts them: one for the path that the limit was said for, and all below
    burst: int
    connections: int
    connections_zone: str
    auth: str
    cache: int
    cache_with_cookies: bool
    max_body_size: int
    request_timeout: int
    streaming: bool
    static: bool  # whether NGINX looks for a file before it asks the app

    @property
    def match(self) -> str:
        """As NGINX's `location` matches it: the path itself and what is below, not what merely begins like it."""
        return "/" if self.path == "/" else f"~ ^{re.escape(self.path)}(?:/|$)"

    @property
    def hidden(self) -> str:
        """What of it matches names that begin with a dot, such as .git; they are no static files, .well-known apart."""
        return f"~ ^{re.escape(self.path.rstrip('/'))}(?:/.*)?/\\.(?!well-known/)"

    @property
    def restricted(self) -> bool:
        """Whether not everybody may have what is there."""
        return self.auth != "none" or bool(self.allow or self.deny)


def _plain_path(path: str) -> str:
    """/admin/ and /admin are the same."""
    return path.rstrip("/") or "/"


def _zone(kind: str, path: str) -> str:
    """The name of the memory that counts a path's requests or connections; a colon would end it in NGINX."""
    return f"{kind}{path.replace(':', '%3A')}"


def _is_below(path: str, above: str) -> bool:
    """Whether what holds for one path holds for the other, which may be the same."""
    return above == "/" or f"{path}/".startswith(f"{above}/")


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
    tls: Tls = Field(default=Tls(), repr=False, description="HTTPS and HTTP/2.")
    paths: dict[Annotated[str, Field(pattern=PATH, max_length=255)], PathRules] = Field(
        default={},
        max_length=MAX_PATHS,
        description="Rules by path, such as /admin: they hold there and below. Those of / hold everywhere.",
    )
    cache: Cache = Field(default=Cache(), description="Where answers are kept; `paths` says which.")
    basic_auth: BasicAuth = Field(default=BasicAuth(), repr=False, description="Names and passwords for `auth: basic`.")
    auth_request: AuthRequest = Field(default=AuthRequest(), description="The endpoint for `auth: request`.")
    balancing: Balancing = Field(default=Balancing(), description="How requests are shared among the replicas.")
    canary: Canary = Field(
        default=Canary(), description="A second release that takes a share of the requests: docs/canary.md."
    )
    static: dict[Annotated[str, Field(pattern=PATH, max_length=255)], str] = Field(
        default={},
        max_length=MAX_PATHS,
        description="Folders of the app by path, such as /static: static, whose files NGINX serves itself; names that "
        "begin with a dot never. What is no file there is for the app to answer. With liveReload it answers for all.",
    )
    compression: bool = Field(
        default=False,
        description="Compress text (gzip). Leave it off where pages hold secrets beside what visitors send "
        "(https://www.breachattack.com).",
    )
    security_headers: bool = Field(
        default=False,
        description=f"Add {', '.join(headers.SECURITY)} where the app does not.",
    )
    headers: dict[str, str] = Field(
        default={},
        max_length=100,
        description="More headers of all answers where the app does not set them; an empty value takes away one of "
        "securityHeaders.",
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

    @field_validator("static")
    @classmethod
    def _are_folders_of_the_app(cls, value: dict[str, str]) -> dict[str, str]:
        for path, folder in value.items():
            parts = PurePosixPath(folder).parts
            if not parts or ".." in parts or folder.startswith("/") or "\\" in folder or not folder.isprintable():
                raise ValueError(f"{folder!r}, for {path}, should be a folder inside the app's, such as static")
        return {path: str(PurePosixPath(folder)) for path, folder in value.items()}

    @field_validator("paths", "static")
    @classmethod
    def _are_different_paths(cls, value: dict[str, object]) -> dict[str, object]:
        plain = {_plain_path(path): item for path, item in value.items()}
        if len(plain) < len(value):
            raise ValueError("should hold a path once, with or without a slash at its end")
        return plain

    @field_validator("headers", mode="before")
    @classmethod
    def _as_texts(cls, value: object) -> object:
        return as_texts(value)

    @field_validator("headers")
    @classmethod
    def _can_be_added(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            headers.check(name, text)
        if len({name.lower() for name in value}) < len(value):
            raise ValueError("should hold a header once, whatever the case of its letters")
        return value

    @model_validator(mode="after")
    def _auth_is_set_up(self) -> "Site":
        for path, rules in self.paths.items():
            if rules.auth == "basic" and not self.basic_auth.users:
                raise ValueError(f"paths.{path}.auth is basic, but basicAuth.users has nobody")
            if rules.auth == "request" and not self.auth_request.endpoint:
                raise ValueError(f"paths.{path}.auth is request, but there is no authRequest.endpoint")
        return self

    @model_validator(mode="after")
    def _canary_has_a_header_of_its_own(self) -> "Site":
        if self.canary.header.lower() == self.auth_request.user_header.lower():
            raise ValueError(f"canary.header is {self.canary.header}, as authRequest.userHeader is: it needs another")
        return self

    @model_validator(mode="after")
    def _sign_in_is_open(self) -> "Site":
        path = self.auth_request.sign_in.partition("?")[0]
        covering = (location for location in self.locations() if _is_below(path, location.path))
        if path.startswith("/") and next(covering).auth == "request":
            raise ValueError(
                f"authRequest.signIn is {path}, where only those may come who are known already: set "
                f'paths["{path}"].auth to none'
            )
        return self

    @model_validator(mode="after")
    def _only_what_is_for_all_is_kept(self) -> "Site":
        for location in reversed(self.locations()):
            key = f'paths["{location.path}"].cache'
            if location.cache and location.auth != "none":
                raise ValueError(
                    f"{key} is {location.cache}, and auth is {location.auth}: what the app answers to one visitor may "
                    f"be for nobody else. Set {key} to 0"
                )
            if location.cache and location.streaming:
                raise ValueError(
                    f"{key} is {location.cache}, and streaming is on: an answer that goes out piece by piece is not "
                    f"kept. Set {key} to 0"
                )
        return self

    @property
    def caches(self) -> bool:
        """Whether answers of any path are kept."""
        return any(location.cache for location in self.locations())

    @property
    def added_headers(self) -> dict[str, str]:
        """What answers have where the app does not say otherwise: values by name."""
        return headers.added(security=self.security_headers, own=self.headers)

    @property
    def served_files(self) -> dict[str, str]:
        """Folders of the app, by path, that NGINX serves."""
        return self.static

    def locations(self) -> list[Location]:
        """All paths that rules or static files are set for, those that NGINX must look at first before the others."""
        rules = {"/": PathRules(), **self.paths}
        paths = sorted({*rules, *self.served_files}, key=lambda path: (-len(path), path))
        return [self._location(path, rules) for path in paths]

    def _location(self, path: str, rules: Mapping[str, PathRules]) -> Location:
        values = {
            "allow": (),
            "deny": (),
            "methods": (),
            "requests_per_second": 0,
            "requests_zone": "",
            "burst": 20,
            "connections": 0,
            "connections_zone": "",
            "auth": "none",
            "cache": 0,
            "cache_with_cookies": False,
            "max_body_size": self.max_body_size,
            "request_timeout": self.request_timeout,
            "streaming": False,
        }
        for above in sorted(rules, key=len):
            if _is_below(path, above):
                said = rules[above].model_dump(exclude_none=True)
                values |= said
                if "requests_per_second" in said:
                    values["requests_zone"] = _zone("requests", above)
                if "connections" in said:
                    values["connections_zone"] = _zone("connections", above)
        static = any(_is_below(path, above) for above in self.served_files)
        return Location(path=path, static=static, **values)  # type: ignore[arg-type]

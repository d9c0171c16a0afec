"""The rendered NGINX configuration: its exact text, and what it means when it is read back."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import crossplane
import pytest
from jinja2 import UndefinedError

from infra import layout, nginx_config
from infra.layout import LIVE_FOLDER
from infra.nginx_config import Endpoints, ServiceUpstream, Upstream
from infra.site import Site

GOLDEN = Path(__file__).parent / "golden"
REPLICAS = [Upstream(f"uwsgi-{number}", f"/run/uwsgi/uwsgi-{number}-0123abcd.sock") for number in (1, 2)]
SITE = Site()
RELEASE = "0123abcd"
PROXIES = ("10.0.0.0/8", "fd00::/8")


def rendered(**site: Any) -> str:
    """The configuration of a site with these settings."""
    return nginx_config.render(REPLICAS, site=Site(**site), release=RELEASE)


CONFIGURATION = rendered()
BEHIND_PROXIES = rendered(trusted_proxies=PROXIES)
SERVICE = ServiceUpstream("app", 8000)
IN_A_SWARM = nginx_config.render([SERVICE], site=SITE, release="any", folder="/etc/nginx/site")
TEMPLATES = sorted(path.name for path in nginx_config.TEMPLATES.glob("*.j2") if "{" + "{" in path.read_text())
INCLUDED = {"live": nginx_config.live_files(SITE, Endpoints()), "probe": nginx_config.probe_files(REPLICAS)}


@pytest.fixture(params=["live", "probe"])
def instance(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def parsed(instance: str, tmp_path: Path) -> "Block":
    return parse(tmp_path, INCLUDED[instance])


class Block:
    """Directives as crossplane parsed them."""

    def __init__(self, directives: list[dict[str, Any]]) -> None:
        self._directives = directives

    def all(self, name: str) -> list[list[str]]:
        """Arguments of all directives of that name, in order."""
        return [directive["args"] for directive in self._directives if directive["directive"] == name]

    def one(self, name: str) -> list[str]:
        (args,) = self.all(name)
        return args

    def block(self, name: str, *args: str) -> "Block":
        (block,) = [d["block"] for d in self._directives if (d["directive"], d["args"]) == (name, list(args))]
        return Block(block)

    def directives(self) -> list[tuple[str, list[str]]]:
        """Names and arguments in order, without those inside of blocks."""
        return [(directive["directive"], directive["args"]) for directive in self._directives]

    def names(self) -> Iterator[str]:
        for directive in self._directives:
            yield directive["directive"]
            yield from Block(directive.get("block", [])).names()


def parse(folder: Path, included: Mapping[str, str], configuration: str = CONFIGURATION) -> Block:
    (folder / "nginx.conf").write_text(configuration)
    for name, text in included.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    payload = crossplane.parse(str(folder / "nginx.conf"), strict=False, combine=True)
    assert (payload["status"], payload["errors"]) == ("ok", [])
    return Block(payload["config"][0]["parsed"])


# Exact text


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("nginx.conf", CONFIGURATION),
        ("nginx-behind-proxies.conf", BEHIND_PROXIES),
        ("swarm.conf", IN_A_SWARM),
        *((name, text) for name, text in INCLUDED["live"].items() if not name.startswith("pages/")),
        *((f"probe-{name}", text) for name, text in INCLUDED["probe"].items()),
    ],
)
def test_the_text_is_exactly_as_reviewed(file: str, text: str) -> None:
    assert text == (GOLDEN / file).read_text(), f"if this change is meant, write it to {GOLDEN / file}"


@pytest.mark.parametrize(
    "text",
    [CONFIGURATION, BEHIND_PROXIES, IN_A_SWARM, *(text for files in INCLUDED.values() for text in files.values())],
)
def test_the_text_is_tidy(text: str) -> None:
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert [line for line in text.splitlines() if line != line.rstrip() or len(line) > 140 or "\t" in line] == []
    assert "{{" not in text
    assert "{%" not in text


# Read back


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_the_upstream_has_exactly_the_replicas_sockets(count: int, tmp_path: Path) -> None:
    replicas = [Upstream(f"uwsgi-{number}", f"/run/uwsgi/{number}.sock") for number in range(count)]
    configuration = nginx_config.render(replicas, site=SITE, release=RELEASE)
    upstream = parse(tmp_path, INCLUDED["live"], configuration).block("http").block("upstream", "app")
    assert [server[0] for server in upstream.all("server")] == [f"unix:{replica.socket}" for replica in replicas]
    assert upstream.one("zone")[0] == "app", "without a zone each worker has a round robin of its own"


def test_every_request_goes_to_the_app(parsed: Block) -> None:
    location = parsed.block("http").block("server").block("location", "/")
    assert location.one("uwsgi_pass") == ["app"]
    assert len(parsed.block("http").all("server")) == 1


def test_a_replica_that_is_down_is_skipped_without_repeating_what_may_change_something(parsed: Block) -> None:
    server = parsed.block("http").block("server")
    retried = set(server.one("uwsgi_next_upstream"))
    assert retried >= {"error", "timeout"}
    assert not retried & {"non_idempotent", "http_500", "off"}


def test_a_reload_keeps_old_workers_as_long_as_the_settings_say(tmp_path: Path) -> None:
    parsed = parse(tmp_path, INCLUDED["live"], rendered(drain_timeout=47))
    assert parsed.one("worker_shutdown_timeout") == ["47s"]
    assert parsed.block("http").one("keepalive_min_timeout") == [f"{nginx_config.KEEPALIVE_MIN_TIMEOUT}s"]


def test_nothing_is_written_but_to_the_runtime_folder_and_large_things_to_the_volume(parsed: Block) -> None:
    http = parsed.block("http")
    unused = [http.one(f"{kind}_temp_path")[0] for kind in ("proxy", "fastcgi", "scgi")]
    assert [path for path in unused if not path.startswith(f"{layout.RUNTIME_FOLDER}/")] == []
    # A name with a dot: the gate lists the volume, and removes what it does not know.
    large = [http.one(f"{kind}_temp_path")[0] for kind in ("client_body", "uwsgi")]
    assert [path for path in large if not path.startswith(f"{LIVE_FOLDER}/.")] == []
    assert len({*unused, *large}) == 5
    assert parsed.one("error_log")[0] == "stderr"
    assert not {"pid", "user", "daemon"} & set(parsed.names()), "the command line says these, for each instance"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("HTTP_HOST", "$host$is_request_port$request_port"),
        ("HTTP_X_REAL_IP", "$remote_addr"),
        ("HTTP_X_FORWARDED_FOR", "$remote_addr"),
        ("HTTP_X_FORWARDED_HOST", "$host$is_request_port$request_port"),
        ("HTTP_X_FORWARDED_PROTO", "$scheme"),
    ],
)
def test_the_app_gets_the_proxy_headers(parsed: Block, header: str, value: str) -> None:
    parameters = [args for args in parsed.block("http").block("server").all("uwsgi_param") if args[0] == header]
    assert parameters == [[header, value]]


@pytest.mark.parametrize(
    "header",
    ["FORWARDED", "X_FORWARDED_PORT", "X_FORWARDED_PREFIX", "X_FORWARDED_SSL", "PROXY", "TRANSFER_ENCODING"],
)
def test_the_app_does_not_get_what_a_client_claims(parsed: Block, header: str) -> None:
    parameters = parsed.block("http").block("server").all("uwsgi_param")
    assert [args[1:] for args in parameters if args[0] == f"HTTP_{header}"] == [[""]], "an empty one is not sent at all"


def test_the_app_gets_what_wsgi_demands(parsed: Block) -> None:
    parameters = [args[0] for args in parsed.block("http").block("server").all("uwsgi_param")]
    # https://peps.python.org/pep-3333/#environ-variables
    assert {
        "REQUEST_METHOD",
        "PATH_INFO",
        "QUERY_STRING",
        "CONTENT_TYPE",
        "CONTENT_LENGTH",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "REQUEST_URI",
        "REMOTE_ADDR",
        "UWSGI_SCHEME",
    } <= set(parameters)
    assert len(parameters) == len(set(parameters)), "the app would get the same variable twice"


def test_the_server_has_a_name_because_wsgi_wants_one_that_is_not_empty(parsed: Block) -> None:
    assert parsed.block("http").block("server").one("server_name") == ["localhost"]


def test_without_proxies_nobody_is_believed(parsed: Block) -> None:
    directives = set(parsed.names())
    assert not directives & {"set_real_ip_from", "real_ip_header", "geo"}
    assert set(re.findall(r"\$http_x_\w+", CONFIGURATION)) == {"$http_x_request_id"}


@pytest.mark.parametrize("instance", ["live", "probe"])
def test_proxies_are_believed_in_addresses_and_scheme_and_nobody_else_is(instance: str, tmp_path: Path) -> None:
    http = parse(tmp_path, INCLUDED[instance], BEHIND_PROXIES).block("http")
    assert http.all("set_real_ip_from") == [[proxy] for proxy in PROXIES]
    assert (http.one("real_ip_header"), http.one("real_ip_recursive")) == (["X-Forwarded-For"], ["on"])
    # Of the peer itself: $remote_addr is what it says already.
    proxies = http.block("geo", "$realip_remote_addr", "$is_from_proxy")
    assert list(proxies.names()) == ["default", *PROXIES]
    assert [proxies.one(name) for name in ("default", *PROXIES)] == [["0"], ["1"], ["1"]]
    scheme = http.block("map", "$is_from_proxy:$http_x_forwarded_proto", "$client_scheme")
    assert {name: scheme.one(name) for name in scheme.names()} == {
        "default": ["$scheme"],
        "1:http": ["http"],
        "1:https": ["https"],
    }
    parameters = dict(args[:2] for args in http.block("server").all("uwsgi_param"))
    assert {parameters[name] for name in ("UWSGI_SCHEME", "REQUEST_SCHEME", "HTTP_X_FORWARDED_PROTO")} == {
        "$client_scheme"
    }
    assert parameters["HTTPS"] == "$client_https"
    assert parameters["HTTP_X_FORWARDED_FOR"] == parameters["REMOTE_ADDR"] == "$remote_addr"


def test_clients_are_held_to_the_limits_of_the_settings(instance: str, tmp_path: Path) -> None:
    http = parse(tmp_path, INCLUDED[instance], rendered(client_timeout=7, max_body_size=3)).block("http")
    timeouts = ("client_header_timeout", "client_body_timeout", "send_timeout")
    assert [http.one(name) for name in timeouts] == [["7s"]] * 3
    assert http.one("client_max_body_size") == ["3m"]
    assert http.one("reset_timedout_connection") == ["on"]
    assert (http.one("ignore_invalid_headers"), http.one("underscores_in_headers")) == (["on"], ["off"])


def test_who_never_completes_its_headers_holds_up_no_release(tmp_path: Path) -> None:
    configuration = rendered(client_timeout=60, drain_timeout=5)
    http = parse(tmp_path, INCLUDED["live"], configuration).block("http")
    assert http.one("client_header_timeout") == ["5s"], "worker_shutdown_timeout does not end it"
    assert http.one("client_body_timeout") == ["60s"]


def test_the_worst_request_that_is_let_through_fits_into_what_the_apps_server_takes(parsed: Block) -> None:
    uwsgi = dict(line.split(" = ") for line in Path("uwsgi/uwsgi.ini").read_text().splitlines() if " = " in line)
    http = parsed.block("http")
    count, size = http.one("large_client_header_buffers")
    number, one = int(http.one("max_headers")[0]), int(size.removesuffix("k")) * 1024
    parameters = http.block("server").all("uwsgi_param")
    # URL, Host and Content-Type once more; the first buffer; for each header lengths and HTTP_, less a colon and a LF.
    request = (int(count) + 3) * one + 1024 + number * (4 + 5 - 2)
    own = sum(4 + len(name) + 64 for name, *_ in parameters)
    assert request + own < int(uwsgi["buffer-size"])
    assert number + len(parameters) <= 2 * int(uwsgi["max-vars"])


def test_the_app_is_given_up_in_time_and_no_other_replica_is_tied_up_by_the_same_request(tmp_path: Path) -> None:
    configuration = rendered(request_timeout=9)
    server = parse(tmp_path, INCLUDED["live"], configuration).block("http").block("server")
    for name in ("uwsgi_read_timeout", "uwsgi_send_timeout", "uwsgi_next_upstream_timeout"):
        assert server.one(name) == ["9s"]


def test_slow_clients_are_waited_for_here_and_not_in_the_app(parsed: Block) -> None:
    server = parsed.block("http").block("server")
    assert server.one("uwsgi_request_buffering") == ["on"]
    assert server.one("uwsgi_max_temp_file_size") == [f"{nginx_config.MAX_ANSWER_FILE}m"]


def test_a_request_of_one_line_is_refused(parsed: Block) -> None:
    only_line = parsed.block("http").block("server").block("if", "$server_protocol", "=", "")
    assert only_line.one("return") == ["400"]


def test_no_location_drops_the_parameters_by_setting_its_own(parsed: Block) -> None:
    server = parsed.block("http").block("server")
    for location in server.all("location"):
        assert server.block("location", *location).all("uwsgi_param") == []


def test_the_live_instance_listens_on_the_port_and_knows_no_probe(tmp_path: Path) -> None:
    server = parse(tmp_path, INCLUDED["live"]).block("http").block("server")
    assert server.all("listen") == [[str(layout.PORT)]]
    assert server.all("location") == [["^~", "/.pages/"], ["/"]]


def test_the_probe_listens_on_a_socket_only_and_asks_each_replica_by_its_name(tmp_path: Path) -> None:
    server = parse(tmp_path, INCLUDED["probe"]).block("http").block("server")
    assert server.all("listen") == [[f"unix:{layout.PROBE_SOCKET}"]]
    probed = [["^~", f"/.probe/{replica.name}/"] for replica in REPLICAS]
    assert server.all("location") == [*probed, ["^~", "/.pages/"], ["/"]]
    for replica in REPLICAS:
        location = server.block("location", "^~", f"/.probe/{replica.name}/")
        assert location.one("uwsgi_pass") == [f"unix:{replica.socket}"]
        pattern, target, flag = location.one("rewrite")
        assert (target, flag) == ("$1", "break")
        assert pattern.endswith(f"/{replica.name}(/.*)$")


def test_both_instances_serve_the_same_app_in_the_same_way(tmp_path: Path) -> None:
    locations = []
    for instance, included in INCLUDED.items():
        folder = tmp_path / instance
        folder.mkdir()
        locations.append(parse(folder, included).block("http").block("server").block("location", "/"))
    assert [location.all("uwsgi_pass") for location in locations] == [[["app"]]] * 2


# Logs


def test_each_request_is_logged_as_a_line_of_json_by_the_live_instance_alone(tmp_path: Path) -> None:
    logs = {}
    for instance, included in INCLUDED.items():
        folder = tmp_path / instance
        folder.mkdir()
        logs[instance] = parse(folder, included).block("http").one("access_log")
    assert logs == {"live": ["/dev/stdout", "json", "buffer=4k", "flush=1s"], "probe": ["off"]}
    name, escape, *pieces = parse(tmp_path, INCLUDED["live"]).block("http").one("log_format")
    assert (name, escape) == ("json", "escape=json")
    line = re.sub(r"\$\w+", "7", "".join(pieces))
    assert {"time", "source", "request_id", "status", "request_time", "upstream", "upstream_time"} <= set(
        json.loads(line)
    )


def test_logging_can_be_turned_off(tmp_path: Path) -> None:
    site = Site(access_log=False)
    http = parse(tmp_path, nginx_config.live_files(site, Endpoints()), rendered(access_log=False)).block("http")
    assert (http.one("access_log"), http.all("log_format")) == (["off"], [])


def test_a_request_keeps_the_id_that_it_came_with_and_the_app_gets_it(parsed: Block) -> None:
    http = parsed.block("http")
    ids = http.block("map", "$http_x_request_id", "$request_key")
    assert ids.one("default") == ["$request_id"]
    assert ["X-Request-ID", "$request_key", "always"] in http.block("server").all("add_header")
    assert ["HTTP_X_REQUEST_ID", "$request_key"] in http.block("server").all("uwsgi_param")


# Paths


@pytest.mark.parametrize(
    ("path", "uri", "covered"),
    [
        ("/admin", "/admin", True),
        ("/admin/", "/admin", True),
        ("/admin", "/admin/users", True),
        ("/admin", "/administrator", False),
        ("/a.b", "/a.b/c", True),
        ("/a.b", "/aXb", False),
    ],
)
def test_rules_hold_for_a_path_and_below_and_for_nothing_that_merely_begins_like_it(
    path: str, uri: str, covered: bool
) -> None:
    (location, _) = Site.model_validate({"paths": {path: {"cache": 1}}}).locations()
    operator, pattern = location.match.split(" ")
    assert operator == "~"
    assert bool(re.search(pattern, uri)) is covered


def test_a_path_has_the_rules_of_those_above_it_unless_it_has_its_own() -> None:
    site = Site.model_validate(
        {
            "basicAuth": {"users": {"eve": "long enough"}},
            "paths": {"/": {"burst": 3}, "/a": {"auth": "basic", "methods": ["GET"]}, "/a/b": {"methods": []}},
            "static": {"/a/b/files": "static"},
        }
    )
    found = {location.path: location for location in site.locations()}
    assert list(found) == ["/a/b/files", "/a/b", "/a", "/"], "NGINX takes the first that matches"
    assert [(found[path].auth, found[path].methods, found[path].burst) for path in found] == [
        ("basic", (), 3),
        ("basic", (), 3),
        ("basic", ("GET", "HEAD"), 3),
        ("none", (), 3),
    ]
    assert [location.path for location in found.values() if location.static] == ["/a/b/files"]


# Templates


def test_there_are_templates_that_take_values() -> None:
    assert {"nginx.conf.j2", "listen.conf.j2", "upstream.conf.j2"} <= set(TEMPLATES)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_that_lacks_a_value_is_an_error_and_no_empty_text(template: str) -> None:
    with pytest.raises(UndefinedError):
        nginx_config._render(template)


def test_a_value_is_put_in_as_it_is() -> None:
    assert "server unix:/a&b<c> " in nginx_config.render([Upstream("a", "/a&b<c>")], site=SITE, release=RELEASE)


def test_rendering_does_without_pulumi() -> None:
    source = Path(nginx_config.__file__).read_text()
    assert "pulumi" not in source


# What a new volume holds


def test_the_boot_configuration_answers_503_on_the_same_port(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text(Path("nginx/boot.conf").read_text())
    (tmp_path / "listen.conf").write_text(f"listen {layout.PORT};\n")  # as nginx/Dockerfile writes it
    payload = crossplane.parse(str(tmp_path / "nginx.conf"), strict=True)
    assert payload["errors"] == []
    server = Block(payload["config"][0]["parsed"]).block("http").block("server")
    assert server.one("include") == ["listen.conf"]
    assert server.block("location", "/").one("return") == ["503"]
    assert server.one("add_header")[0] == "Retry-After"

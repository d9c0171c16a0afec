"""What clients must not do, done to the real stack: what it answers, what of it reaches the app, who else notices."""

import json
import re
import secrets
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, cast

import pytest
from docker.models.containers import Container

from tests.live.figures import Record
from tests.live.load import Load
from tests.live.stack import Stack, eventually

CLIENT_TIMEOUT = 3  # seconds
REQUEST_TIMEOUT = 6  # seconds; the load's slow requests take three
MAX_BODY = 1024 * 1024  # bytes
MARGIN = 3  # seconds
ATTACKER = "6.6.6.6"

# Every request leaves its line in the log of the replica that it reached; `/see…` tells all that WSGI knows of it.
APP = """
import json, os, sys, time

from flask import Request
from werkzeug.middleware.proxy_fix import ProxyFix

FIXED = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SERVER_PORT", "SCRIPT_NAME")


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    body = f"one {os.uname().nodename}"
    if path not in ("/", "/slow", "/health"):
        print("SEEN", environ["REQUEST_METHOD"], environ["REQUEST_URI"], file=sys.stderr, flush=True)
    if path == "/slow":
        time.sleep(float(query.removeprefix("seconds=")))
    elif path.startswith("/hang"):
        time.sleep(12)
    elif path.startswith("/big"):
        body = "x" * int(query)
    else:
        seen = {key: value for key, value in environ.items() if isinstance(value, str)}
        fixed = {}
        fix = ProxyFix(lambda environ, _: fixed.update(environ), x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)
        fix(dict(environ), None)
        seen["fixed"] = {key: fixed.get(key) for key in FIXED}
        seen["body"] = Request(environ).get_data().decode("latin1")
        if path.startswith("/see"):
            body = json.dumps(seen)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]
"""


# What is sent: @ stands for a path of the test's own.


def request(
    line: str = "GET @ HTTP/1.1", headers: str = "", body: bytes = b"", *, host: str = "Host: a\r\n", close: bool = True
) -> bytes:
    connection = "Connection: close\r\n" if close else ""
    return f"{line}\r\n{host}{headers}{connection}\r\n".encode("latin1") + body


def post(headers: str, body: bytes = b"", *, close: bool = True) -> bytes:
    return request("POST @ HTTP/1.1", headers, body, close=close)


def chunked(body: bytes, headers: str = "Transfer-Encoding: chunked\r\n") -> bytes:
    return post(headers, body)


def many(count: int, size: int) -> str:
    return "".join(f"A{number}: {'a' * size}\r\n" for number in range(count))


SMUGGLED = b"GET @-smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = f"Content-Length: {len(SMUGGLED)}\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
CHUNKS = b"24\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"

# One answer and only one, before the app has seen anything.
REFUSED: dict[str, tuple[bytes, str]] = {
    # Oversize
    "a header of 9 KB": (request(headers=many(1, 9000)), "400"),
    "headers of 40 KB together": (request(headers=many(5, 8000)), "400"),
    "101 headers": (request(headers=many(101, 1)), "400"),
    "100,000 headers": (request(headers=many(100_000, 1)), "400"),
    "a URL of 9 KB": (request("GET @" + "a" * 9000 + " HTTP/1.1"), "414"),
    "a query of 9 KB": (request("GET @?" + "a" * 9000 + " HTTP/1.1"), "414"),
    "a method of 9 KB": (request("A" * 9000 + " @ HTTP/1.1"), "414"),
    "a body declared too large": (post(f"Content-Length: {MAX_BODY + 1}\r\n"), "413"),
    "a body declared too large, after asking": (
        post(f"Expect: 100-continue\r\nContent-Length: {MAX_BODY + 1}\r\n"),
        "413",
    ),
    "a chunked body too large": (chunked((b"10000\r\n" + b"a" * 65536 + b"\r\n") * 17 + b"0\r\n\r\n"), "413"),
    # Smuggling
    "CL.TE": (post(LENGTH + CHUNKED, b"0\r\n\r\n" + SMUGGLED, close=False), "400"),
    "TE.CL": (post(CHUNKED + "Content-Length: 4\r\n", CHUNKS, close=False), "400"),
    "TE.TE": (post(CHUNKED + "Transfer-Encoding: identity\r\n", CHUNKS, close=False), "400"),
    "TE twice": (post(CHUNKED + CHUNKED, CHUNKS, close=False), "400"),
    **{
        f"Transfer-Encoding: {value!r}": (post(f"Transfer-Encoding:{value}\r\n{LENGTH}", CHUNKS, close=False), "4|501")
        for value in [
            *(" xchunked", " identity", " gzip, chunked", " chunked, gzip", "\tchunked", " \x0bchunked", ""),
            *(' "chunked"', " chunked;a=b", " chunked\x00", " chunked, chunked", " chu\rnked"),
        ]
    },
    "TE in HTTP/1.0": (request("POST @ HTTP/1.0", CHUNKED, CHUNKS), "400"),
    "TE with a space before the colon": (post(f"Transfer-Encoding : chunked\r\n{LENGTH}", CHUNKS), "400"),
    "TE on a folded line": (post(f"A: b\r\n Transfer-Encoding: chunked\r\n{LENGTH}", CHUNKS), "400"),
    "two lengths": (post("Content-Length: 0\r\n" + LENGTH, SMUGGLED, close=False), "400"),
    "the same length twice": (post(LENGTH + LENGTH, SMUGGLED, close=False), "400"),
    **{
        f"Content-Length: {value!r}": (post(f"Content-Length: {value}\r\n", SMUGGLED, close=False), "400")
        for value in ("36, 36", "+36", "-1", "0x24", "3 6", "36;", "9" * 40, "18446744073709551652", "", "\x0036")
    },
    **{
        f"a chunk {body!r}": (chunked(body + SMUGGLED), "400")
        for body in [
            *(b"zz\r\n", b"-1\r\n", b"0x1\r\na\r\n", b"f" * 16 + b"\r\n", b"1" + b"0" * 15 + b"1\r\na\r\n", b"\r\n"),
            *(b"1\na\n0\n\n", b"1\r\nab\r\n0\r\n\r\n", b"1;a\nb\r\na\r\n0\r\n\r\n", b" 1\r\na\r\n0\r\n\r\n"),
        ]
    },
    # Malformed headers
    "a space before the colon": (request(headers="X-A : b\r\n"), "400"),
    "a tab before the colon": (request(headers="X-A\t: b\r\n"), "400"),
    "a folded header": (request(headers="X-A: b\r\n c\r\n"), "400"),
    "a first header that is folded": (request(host=" Host: a\r\n"), "400"),
    "no name": (request(headers=": b\r\n"), "400"),
    "NUL in a name": (request(headers="X\0A: b\r\n"), "400"),
    "NUL in a value": (request(headers="X-A: b\0c\r\n"), "400"),
    "CR in a value": (request(headers="X-A: b\rc\r\n"), "400"),
    "no Host": (request(host=""), "400"),
    "two Hosts": (request(headers="Host: b\r\n"), "400"),
    **{
        f"Host: {host!r}": (request(host=f"Host: {host}\r\n"), "400")
        for host in ("", "a/b", "u@a", "a..b", "a b", "<a>", "a:x", "a:1:2", "a\\b", "a\0b", "[::1")
    },
    # Malformed request lines
    **{
        f"the line {line!r}": (request(line), "400")
        for line in [
            *("get @ HTTP/1.1", "G@T @ HTTP/1.1", " GET @ HTTP/1.1", "GET @ http/1.1", "GET @ HTTP/1.1x"),
            *("GET  HTTP/1.1", "GET a:80 HTTP/1.1", "GET * HTTP/1.1", "GET file://@ HTTP/1.1", "PRI * HTTP/2.0", "@"),
            *("GET http://u:p@a@ HTTP/1.1", "GET \\@ HTTP/1.1", "GET @ HTTP/1.1 HTTP/1.1", "\x16\x03\x01\x02\x00"),
        ]
    },
    "HTTP/0.9": (b"GET @\r\n", "400"),
    "HTTP/2.0": (request("GET @ HTTP/2.0"), "505"),
    "CONNECT": (request("CONNECT a:80 HTTP/1.1"), "405"),
    "TRACE": (request("TRACE @ HTTP/1.1"), "405"),
    "an absolute URL with no Host": (request("GET http://a@ HTTP/1.1", host=""), "400"),
    # Malformed paths
    **{
        f"the path {path!r}": (request(f"GET @{path} HTTP/1.1"), "400")
        for path in [
            *("\0", "\x01", "\x7f", "\t", " a", "%00", "%zz", "%", "%2", "/../../a", "/..%2f../a"),
            *("/%2e%2e/%2e%2e/a", "/.%2e/..%2fa", "%2f..%2f..%2fa"),
        ]
    },
}

# What a path becomes. No path is refused that an app can be asked for, and none leads above the root.
PATHS = {
    "//see": "/see",
    "/see//a": "/see/a",
    "/see/./a": "/see/a",
    "/a/../see": "/see",
    "/a/%2e%2e/see": "/see",
    "/a/..%2fsee": "/see",
    "/see%2fa": "/see/a",
    "/see%5c..%5ca": "/see\\..\\a",
    "/see/..;/a": "/see/..;/a",
    "/see/%252e%252e/a": "/see/%2e%2e/a",
    "/see/%c0%ae%c0%ae/a": "/see/\xc0\xae\xc0\xae/a",
    "/see%0d%0aX-A:%20b": "/see\r\nX-A: b",
    "/see?a=../..&b=%00": "/see",
}

# Names under which apps, frameworks or libraries look for where a request came from.
FORGED = {
    "X-Forwarded-For": f"{ATTACKER}, 127.0.0.1",
    "X-Real-IP": ATTACKER,
    "X-Forwarded-Host": ATTACKER,
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": f"/{ATTACKER}",
    "X-Forwarded-Protocol": "https",
    "X-Forwarded-Scheme": "https",
    "X-Forwarded-Server": ATTACKER,
    "X-Forwarded-Ssl": "on",
    "Forwarded": f"for={ATTACKER};proto=https;host={ATTACKER}",
    "Proxy": f"http://{ATTACKER}",
    "X_Forwarded_For": ATTACKER,
    "X_Real_IP": ATTACKER,
    "X.Real.IP": ATTACKER,
    "Content_Length": "666",
}


@pytest.fixture(scope="module")
def site(stack: Stack) -> Stack:
    (stack.folder / "app" / "webapp.py").write_text(APP)
    stack.configure(
        appCallable="application",
        clientTimeout=str(CLIENT_TIMEOUT),
        requestTimeout=str(REQUEST_TIMEOUT),
        maxBodySize="1",
        drainTimeout="5",
        healthTimeout="15",
    )
    stack.up()
    return stack


@pytest.fixture(scope="module")
def everybody_else(site: Stack) -> Iterator[Load]:
    """Those who behave, all the while."""
    with Load(site.port, keep_alive=2, fresh=2, slow=1, pause=0.02) as load:
        yield load


@pytest.fixture(autouse=True)
def _nobody_else_notices(everybody_else: Load) -> Iterator[None]:
    yield
    assert not everybody_else.failures


@pytest.fixture
def path() -> str:
    return f"/see-{secrets.token_hex(4)}"


# -- clients


def ask(site: Stack, data: bytes, seconds: float = CLIENT_TIMEOUT + MARGIN) -> str:
    """All that comes back until the connection is closed, which must happen within `seconds`."""
    answer = b""
    with socket.create_connection(("127.0.0.1", site.port), timeout=seconds) as client:
        with suppress(OSError):  # it may not want to hear more; what it says to that is there all the same
            client.sendall(data)
        try:
            while received := client.recv(65536):
                answer += received
        except TimeoutError:
            raise AssertionError(f"still open after {seconds:g} s, with {answer[:200]!r}") from None
        except ConnectionError:
            pass
    return answer.decode("latin1")


def statuses(answer: str) -> list[str]:
    return re.findall(r"HTTP/1\.1 (\d{3}) [A-Z]", answer)


def at(path: str, data: bytes) -> bytes:
    return data.replace(b"@", path.encode())


def reached(site: Stack, path: str) -> list[str]:
    """What of `path` the replicas have seen."""
    marker, replicas, since = f"/marker-{secrets.token_hex(4)}", site.containers("replica"), int(time.time()) - 20

    def logs() -> list[str]:
        ask(site, at(marker, request()))
        texts = [replica.logs(since=since).decode(errors="replace") for replica in replicas]
        return texts if all(marker in text for text in texts) else []

    lines = "".join(eventually(logs, 10, "a marker in every log")).rstrip("\n").split("\n")
    messages = [json.loads(line).get("message", "") for line in lines]
    return [message.removeprefix("SEEN ") for message in messages if message.startswith("SEEN ") and path in message]


def seen(site: Stack, data: bytes) -> dict[str, Any]:
    """What WSGI knows of a request."""
    answer = ask(site, data)
    assert statuses(answer) == ["200"], answer[:500]
    return cast(dict[str, Any], json.loads(answer.partition("\r\n\r\n")[2]))


@contextmanager
def crowd(site: Stack, count: int, data: bytes, nginx: tuple[str, int] | None = None) -> Iterator[list[socket.socket]]:
    """Clients that have sent `data`, and then neither send nor read any more."""
    with ExitStack() as clients:
        members = []
        for _ in range(count):
            client = clients.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(MARGIN)
            client.connect(nginx or ("127.0.0.1", site.port))
            client.sendall(data)
            members.append(client)
        yield members


def closed(members: list[socket.socket]) -> bool:
    poll = select.poll()
    for member in members:
        poll.register(member, select.POLLRDHUP)
    return len(poll.poll(0)) == len(members)


def connections(nginx: Container) -> int:
    """How many clients NGINX holds."""
    result = nginx.exec_run(["grep", "-cE", r"^ *[0-9]+: [0-9A-F]{8,}:1F90 .* 01 [0-9A-F]{8}:", "/proc/net/tcp"])
    return int(cast(bytes, result.output))


def memory(nginx: Container) -> int:
    """What NGINX's processes hold, in MiB; files that the kernel keeps at hand do not count."""
    stats = cast(dict[str, Any], nginx.stats(stream=False))["memory_stats"]
    return int(stats["stats"].get("total_rss", stats["stats"].get("anon", 0))) >> 20


def longest_wait(site: Stack, count: int = 20) -> float:
    """Of `count` good requests in a row, in seconds."""
    waits = []
    for _ in range(count):
        begin = time.monotonic()
        assert statuses(ask(site, request("GET / HTTP/1.1"))) == ["200"]
        waits.append(time.monotonic() - begin)
    return max(waits)


def from_another_container(site: Stack, script: str) -> str:
    """What a Python script prints in a container that is on the stack's network, but none of its own."""
    (network,) = site.nginx.attrs["NetworkSettings"]["Networks"]
    output: bytes = site.docker.containers.run(
        site.outputs()["image"],
        entrypoint=["python", "-c"],
        command=[script],
        network=network,
        remove=True,
        labels={"uwsgi-nginx.stack": site.name},
    )
    return output.decode()


def address(container: Container) -> str:
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


# -- malformed and oversize


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_before_the_app_sees_it(site: Stack, path: str, what: str) -> None:
    data, status = REFUSED[what]
    answer = ask(site, at(path, data))
    (given,) = statuses(answer) or re.findall(r"<title>(\d{3})", answer) or [answer or "closed"]
    assert re.match(status, given), answer[:300]
    assert reached(site, path) == []


def test_what_is_just_within_the_limits_is_served(site: Stack, path: str) -> None:
    """The worst of all that NGINX lets through: what counts twice is as long as can be, and so is the rest."""
    long = "a" * 8150
    headers = f"Content-Type: {long}\r\n{many(90, 0)}Z: {long[:7400]}\r\n"
    found = seen(site, at(path, request(f"GET @?{long} HTTP/1.1", headers, host=f"Host: {long}\r\n")))
    assert found["QUERY_STRING"] == found["CONTENT_TYPE"] == found["HTTP_HOST"] == long
    assert len([name for name in found if re.fullmatch(r"HTTP_A\d+", name)]) == 90


def test_a_body_of_the_largest_size_reaches_the_app_whole(site: Stack, path: str) -> None:
    body = secrets.token_bytes(1000).hex().encode()
    body += b"a" * (MAX_BODY - len(body))
    found = seen(site, at(path, post(f"Content-Length: {len(body)}\r\n", body)))
    assert found["body"].encode() == body


def test_a_chunked_body_reaches_the_app_put_together(site: Stack, path: str) -> None:
    trailer = f"X-Real-IP: {ATTACKER}\r\n".encode()
    found = seen(site, at(path, chunked(b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\n" + trailer + b"\r\n")))
    assert (found["body"], found["CONTENT_LENGTH"]) == ("abcde", "5")
    assert "HTTP_TRANSFER_ENCODING" not in found
    assert found["HTTP_X_REAL_IP"] != ATTACKER


@pytest.mark.parametrize("raw", PATHS)
def test_a_path_reaches_the_app_without_its_detours(site: Stack, raw: str) -> None:
    found = seen(site, request(f"GET {raw} HTTP/1.1"))
    assert found["PATH_INFO"] == PATHS[raw]
    assert found["REQUEST_URI"] == raw


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_host_of_the_request_line_is_the_only_one(site: Stack, path: str, scheme: str) -> None:
    found = seen(site, at(path, request(f"GET {scheme}://one@ HTTP/1.1", host="Host: two\r\n")))
    assert found["HTTP_HOST"] == found["HTTP_X_FORWARDED_HOST"] == found["fixed"]["HTTP_HOST"] == "one"
    assert found["wsgi.url_scheme"] == "http"
    assert "two" not in found.values()


def test_a_request_without_a_host_has_a_name_all_the_same(site: Stack, path: str) -> None:
    found = seen(site, at(path, request("GET @ HTTP/1.0", host="")))
    assert found["SERVER_NAME"] == found["HTTP_HOST"] == "localhost"


def test_what_follows_a_bad_request_on_the_same_connection_is_not_looked_at(site: Stack, path: str) -> None:
    good = request("GET @-good HTTP/1.1", close=False)
    bad = request("GET @-bad HTTP/1.1", "X-A : b\r\n", close=False)
    answer = ask(site, at(path, good + good + bad + good.replace(b"good", b"after")))
    assert statuses(answer) == ["200", "200", "400"]
    assert reached(site, path) == [f"GET {path}-good"] * 2


def test_requests_in_one_go_are_answered_one_by_one(site: Stack, path: str) -> None:
    data = b"".join(request(f"GET @-{number} HTTP/1.1", close=number == 49) for number in range(50))
    answer = ask(site, at(path, data))
    assert re.findall(r'"REQUEST_URI": "\S+-(\d+)"', answer) == [str(number) for number in range(50)]


# -- slow


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET @",
        b"GET @ HTTP/1.1\r\nHost: a\r\n",
        post("Content-Length: 10\r\n"),
        post("Content-Length: 10\r\n", b"abc"),
        chunked(b"5\r\nab"),
    ],
    ids=["nothing", "half a line", "half its headers", "no body", "half a body", "half a chunk"],
)
def test_who_stops_halfway_is_let_go_and_the_app_never_knows(site: Stack, path: str, sent: bytes) -> None:
    begin = time.monotonic()
    answer = ask(site, at(path, sent))
    assert time.monotonic() - begin >= CLIENT_TIMEOUT - 0.5
    assert answer == ""
    assert reached(site, path) == []


def test_headers_that_drip_are_cut_off_though_they_never_pause(site: Stack, path: str) -> None:
    begin = time.monotonic()
    with crowd(site, 1, at(path, b"GET @ HTTP/1.1\r\nHost: a\r\nX-A: ")) as (client,):
        while not closed([client]):
            client.send(b"a")
            time.sleep(0.2)
            assert time.monotonic() - begin < CLIENT_TIMEOUT + MARGIN
    assert reached(site, path) == []


def test_a_crowd_of_slow_clients_keeps_nobody_waiting(site: Stack, path: str) -> None:
    nginx = site.nginx
    before = memory(nginx), connections(nginx)
    headers = b"GET @ HTTP/1.1\r\nHost: a\r\n" + many(3, 7900).encode()
    body = post(f"Content-Length: {MAX_BODY}\r\n", b"a" * 200_000)
    with crowd(site, 1000, at(path, headers)) as one, crowd(site, 200, at(path, body)) as other:
        wait, held = longest_wait(site), connections(nginx) - before[1]
        used = memory(nginx)
        eventually(lambda: closed(one + other), CLIENT_TIMEOUT + MARGIN, "all of them are let go")
    print(f"\n1,200 slow clients: {used} MiB, {before[0]} before; longest wait of others {wait:.2f} s")
    assert held > 1000
    assert wait < CLIENT_TIMEOUT - 0.5, "until the first of them are let go"
    assert used - before[0] < 100
    assert reached(site, path) == []
    eventually(lambda: memory(nginx) < before[0] + 20, 10, "NGINX gives their memory back")


def test_a_crowd_of_slow_readers_holds_no_thread_of_the_app(site: Stack, path: str) -> None:
    """More of them than the app has threads."""
    nginx = site.nginx
    before = connections(nginx)
    # Straight to NGINX: Docker's proxy of the published port swallows megabytes of what nobody reads.
    with crowd(site, 48, request(f"GET /big{path}?4000000 HTTP/1.1"), (address(nginx), 8080)):
        wait, held, used = longest_wait(site), connections(nginx) - before, memory(nginx)
        print(f"\n48 slow readers: {held} held, {used} MiB; longest wait of others {wait:.2f} s")
        assert held > 32
        assert wait < CLIENT_TIMEOUT - 0.5, "until the first of them are let go"
        assert used < 100
        eventually(lambda: connections(nginx) < before + 10, CLIENT_TIMEOUT + 2 * MARGIN, "all of them are let go")
    assert len(reached(site, path)) == 48


def test_a_request_that_hangs_is_given_up_and_hangs_nobody_else(site: Stack, path: str) -> None:
    begin = time.monotonic()
    answer = ask(site, request(f"GET /hang{path} HTTP/1.1"), REQUEST_TIMEOUT + MARGIN)
    assert statuses(answer) == ["504"]
    assert REQUEST_TIMEOUT - 0.5 < time.monotonic() - begin < REQUEST_TIMEOUT + 1
    assert len(reached(site, path)) == 1, "no second replica is made to hang"


# -- forged


def test_nobody_can_claim_to_be_somebody_else(site: Stack, path: str) -> None:
    headers = "".join(f"{name}: {value}\r\n" for name, value in FORGED.items())
    found = seen(site, at(path, request(headers=headers)))
    client = found["REMOTE_ADDR"]
    assert client == found["HTTP_X_REAL_IP"] == found["HTTP_X_FORWARDED_FOR"] == found["fixed"]["REMOTE_ADDR"]
    assert client.rpartition(".")[0] == address(site.nginx).rpartition(".")[0]
    assert found["HTTP_HOST"] == found["HTTP_X_FORWARDED_HOST"] == found["fixed"]["HTTP_HOST"] == "a"
    assert found["wsgi.url_scheme"] == found["HTTP_X_FORWARDED_PROTO"] == found["fixed"]["wsgi.url_scheme"] == "http"
    assert found["fixed"]["SERVER_PORT"] == found["SERVER_PORT"] == "8080"
    assert not found["fixed"]["SCRIPT_NAME"]
    assert "HTTPS" not in found
    assert ATTACKER not in str(list(found.values()))
    expected = {
        "HOST",
        "CONNECTION",
        "X_REAL_IP",
        "X_FORWARDED_FOR",
        "X_FORWARDED_HOST",
        "X_FORWARDED_PROTO",
        "X_REQUEST_ID",
    }
    assert {name for name in found if name.startswith("HTTP_")} == {f"HTTP_{name}" for name in expected}
    assert found["CONTENT_LENGTH"] == ""


def test_a_neighbour_on_the_network_cannot_either(site: Stack, path: str) -> None:
    assert seen_by_a_neighbour(site, path) == {"REMOTE_ADDR": "own", "HTTP_X_FORWARDED_FOR": "own", "scheme": "http"}


def seen_by_a_neighbour(site: Stack, path: str) -> dict[str, str]:
    """Who the app believes a forging neighbour to be."""
    script = f"""
import json, socket, urllib.request
forged = {{"X-Forwarded-For": "{ATTACKER}", "X-Forwarded-Proto": "https"}}
asked = urllib.request.Request("http://{address(site.nginx)}:8080{path}", headers=forged)
found = json.load(urllib.request.urlopen(asked, timeout=5))
own = socket.gethostbyname(socket.gethostname())
seen = {{name: found[name].replace(own, "own") for name in ("REMOTE_ADDR", "HTTP_X_FORWARDED_FOR")}}
print(json.dumps({{**seen, "scheme": found["wsgi.url_scheme"]}}))
"""
    return cast(dict[str, str], json.loads(from_another_container(site, script)))


# -- direct access


def test_a_replica_listens_on_no_port_at_all(site: Stack) -> None:
    for replica in site.containers("replica"):
        tables = site.run_in(replica, "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6")[1]
        rows = [line.split() for line in tables.splitlines() if "local_address" not in line]
        local = {row[1].split(":")[0] for row in rows if row[3] in ("0A", "07")}
        assert local <= {"0B00007F"}, "Docker's own name server, 127.0.0.11, reached from inside alone"
        assert not any(replica.attrs["NetworkSettings"]["Ports"].values())
        assert not replica.attrs["HostConfig"]["PortBindings"]


def test_a_neighbour_on_the_network_finds_nginx_and_nothing_else(site: Stack) -> None:
    replica, nginx = site.replica("uwsgi-1"), site.nginx
    hosts = {"replica": address(replica), "nginx": address(nginx)}
    script = f"""
import json, socket
def is_open(host, port):
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((host, port)) == 0
print(json.dumps({{name: [p for p in range(1, 65536) if is_open(host, p)] for name, host in {hosts!r}.items()}}))
"""
    assert json.loads(from_another_container(site, script)) == {"replica": [], "nginx": [8080]}


def test_nginx_alone_publishes_and_only_where_it_should(site: Stack) -> None:
    assert site.nginx.attrs["NetworkSettings"]["Ports"]["8080/tcp"] == [
        {"HostIp": "127.0.0.1", "HostPort": str(site.port)}
    ]


def test_the_sockets_are_for_the_replicas_and_nginx_alone(site: Stack) -> None:
    connect = "import os, socket; socket.socket(socket.AF_UNIX).connect(os.environ['REPLICA_SOCKET'])"
    for replica in site.containers("replica"):
        assert site.run_in(replica, f'python -c "{connect}"')[0] == 0
        code, output = site.run_in(replica, f'python -c "{connect}"', user="12345:12345")
        assert (code, "Permission denied" in output) == (1, True), output
        code, output = site.run_in(replica, "ls /run/uwsgi", user="12345:12345")
        assert (code != 0, "Permission denied" in output) == (True, True), output
    assert from_another_container(site, "import os; print(os.listdir('/run/uwsgi'))").strip() == "[]"


# -- with proxies in front; from here on, this client is one


def test_a_release_is_not_held_up_by_slow_clients(site: Stack, path: str) -> None:
    """It is also the one that makes this client, who comes by the network's gateway, a trusted proxy."""
    (network,) = site.nginx.attrs["NetworkSettings"]["Networks"].values()
    site.pulumi("config", "set", "--path", "trustedProxies[0]", network["Gateway"])
    site.pulumi("config", "set", "--path", "trustedProxies[1]", "10.0.0.0/8")
    headers = b"GET @ HTTP/1.1\r\nHost: a\r\n"
    body = post(f"Content-Length: {MAX_BODY}\r\n", b"a" * 20_000)
    with crowd(site, 100, at(path, headers)), crowd(site, 100, at(path, body)):
        result = site.up()
    assert result.changes["update"] == 1
    assert reached(site, path) == []


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("7.7.7.7", "7.7.7.7"),
        (f"{ATTACKER}, 7.7.7.7", "7.7.7.7"),
        (f"{ATTACKER}, 7.7.7.7, 10.1.2.3", "7.7.7.7"),
        (f"10.9.9.9, {ATTACKER}, 7.7.7.7", "7.7.7.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("nonsense", "gateway"),
        (f"{ATTACKER}, nonsense", "gateway"),
        ("", "gateway"),
    ],
)
def test_a_trusted_proxy_is_believed_and_what_was_written_before_it_is_not(
    site: Stack, path: str, said: str, client: str
) -> None:
    (network,) = site.nginx.attrs["NetworkSettings"]["Networks"].values()
    found = seen(site, at(path, request(headers=f"X-Forwarded-For: {said}\r\nX-Real-IP: {ATTACKER}\r\n")))
    expected = client.replace("gateway", network["Gateway"])
    known = [
        found["REMOTE_ADDR"],
        found["HTTP_X_REAL_IP"],
        found["HTTP_X_FORWARDED_FOR"],
        found["fixed"]["REMOTE_ADDR"],
    ]
    assert known == [expected] * 4


@pytest.mark.parametrize(
    ("said", "scheme"),
    [("https", "https"), ("http", "http"), ("javascript", "http"), ("https, http", "http"), ("", "http")],
)
def test_a_trusted_proxy_says_whether_it_was_https(site: Stack, path: str, said: str, scheme: str) -> None:
    headers = f"X-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: {said}\r\nX-Forwarded-Host: {ATTACKER}\r\n"
    found = seen(site, at(path, request(headers=headers)))
    assert found["wsgi.url_scheme"] == found["HTTP_X_FORWARDED_PROTO"] == found["fixed"]["wsgi.url_scheme"] == scheme
    assert found.get("HTTPS", "") == ("on" if scheme == "https" else "")
    assert found["HTTP_HOST"] == found["fixed"]["HTTP_HOST"] == "a"


def test_a_neighbour_on_the_network_is_still_not_believed(site: Stack, path: str) -> None:
    assert seen_by_a_neighbour(site, path) == {"REMOTE_ADDR": "own", "HTTP_X_FORWARDED_FOR": "own", "scheme": "http"}


def test_nobody_else_has_noticed_any_of_this(site: Stack, everybody_else: Load, record: Record) -> None:
    """Sends all malformed, oversize, forged and slow requests above while others send good ones; nothing restarts."""
    record("bad input of all kinds from others", everybody_else)
    everybody_else.assert_nothing_was_dropped()
    assert everybody_else.running
    for container in site.containers():
        container.reload()
        assert (container.attrs["RestartCount"], container.attrs["State"]["OOMKilled"]) == (0, False)
        assert "exited on signal" not in container.logs().decode(errors="replace")

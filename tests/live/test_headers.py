"""Headers that NGINX adds where the app does not, and compression for who asks for it."""

import gzip
import http.client
import shutil
import time
import zlib
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest

from infra import headers
from tests.live.client import Answer, Client, configure
from tests.live.load import Load
from tests.live.stack import Stack

GZIP = {"Accept-Encoding": "gzip, deflate, br"}
# Everything that means something to NGINX, and to who reads its configuration.
HOSTILE = """a "b" 'c' {d}; $host ${host} $1 \\ \\n \\" # /* */ } add_header X-Evil 1; <%= `id` %> {{ e }} ~* ^.*$ \\"""
OWN = {
    "X-Hostile": HOSTILE,
    "X-Dollars": "$",
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' https://cdn.example",
    "Cross-Origin-Embedder-Policy-Report-Only": 'require-corp; report-to="x"',
    "x-frame-options": "DENY",
    "Permissions-Policy": "",
    "Cache-Control": "max-age=7",
}
ADDED = {
    **{
        name: value for name, value in headers.SECURITY.items() if name not in ("X-Frame-Options", "Permissions-Policy")
    },
    **{name: value for name, value in OWN.items() if value},
}


@pytest.fixture(scope="module")
def client(stack: Stack) -> Client:
    """Up with everything on: the answers are those of a client, and the headers those that are set."""
    shutil.rmtree(stack.folder / "app")
    shutil.copytree(Path(__file__).parent / "answers_app", stack.folder / "app")
    (stack.folder / "app" / "static").mkdir()
    (stack.folder / "app" / "static" / "style.css").write_text("p {}\n" * 500)
    configure(
        stack,
        compression=True,
        securityHeaders=True,
        headers=OWN,
        static={"/static": "static"},
        paths={"/pieces": {"streaming": True}, "/page/kept": {"cache": 60}, "/page/small": {"maxBodySize": 1}},
    )
    stack.up()
    return Client(stack)


def page(name: str = "page", **query: str) -> str:
    return f"/page/{name}?{urlencode({key.replace('_', '-'): value for key, value in query.items()})}"


def added(answer: Answer) -> dict[str, list[str]]:
    return {name: answer.all(name) for name in ADDED}


EXPECTED = {name: [value] for name, value in ADDED.items()}


@pytest.mark.parametrize("status", ["200", "302", "404", "500", "503"])
def test_answers_of_the_app_have_the_headers_whatever_their_status(client: Client, status: str) -> None:
    answer = client.ask(page(status=status))
    assert answer.status == int(status)
    assert added(answer) == EXPECTED
    assert answer.all("Permissions-Policy") == [], "taken away by an empty value"
    assert answer.all("X-Evil") == []


def test_what_the_app_says_itself_is_left_alone(client: Client) -> None:
    own = {
        "X-Frame-Options": "ALLOWALL",
        "Content-Security-Policy": "default-src 'none'",
        "X-Hostile": "mine",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    for name in ("page", "kept"):
        answer = client.ask(page(name, **own))
        assert {name: answer.all(name) for name in own} == {name: [value] for name, value in own.items()}
        assert answer.all("X-Content-Type-Options") == ["nosniff"]


def test_answers_from_the_cache_have_them_as_well(client: Client) -> None:
    path = page("kept", Referrer_Policy="no-referrer")
    answers = [client.ask(path) for _ in range(2)]
    assert [answer.cache for answer in answers] == ["MISS", "HIT"]
    assert added(answers[0]) == added(answers[1]) == {**EXPECTED, "Referrer-Policy": ["no-referrer"]}


def test_answers_of_nginx_itself_have_them_and_keep_what_it_says_of_them(client: Client) -> None:
    file = client.ask("/static/style.css")
    assert added(file) == {**EXPECTED, "Cache-Control": ["no-cache"]}
    refused = client.ask("/page/small", method="POST", headers={"Content-Length": str(2**21)})
    assert refused.status == 413
    assert added(refused) == {**EXPECTED, "Cache-Control": ["no-store"]}


def test_an_answer_has_one_id_and_says_nothing_of_the_server(client: Client) -> None:
    answer = client.ask(page(), {"X-Request-ID": "0123456789abcdef"})
    assert answer.all("X-Request-ID") == ["0123456789abcdef"]
    assert answer.all("Server") == ["nginx"]


def test_headers_of_a_connection_are_not_handed_on(client: Client) -> None:
    said = {"Keep-Alive": "timeout=99", "Connection": "X-Private"}
    for name in ("page", "kept", "kept"):
        answer = client.ask(page(name, **said))
        assert answer.all("Keep-Alive") == []
        assert "X-Private" not in answer.all("Connection")
        assert answer.body.startswith(b"one ")


@pytest.mark.parametrize("kind", ["text/html", "text/css", "application/json", "image/svg+xml", "text/javascript"])
def test_text_is_compressed_for_who_asks_for_it(client: Client, kind: str) -> None:
    path = page(type=kind, size="4000")
    compressed = client.ask(path, GZIP)
    assert compressed.all("Content-Encoding") == ["gzip"]
    assert compressed.all("Vary") == ["Accept-Encoding"]
    assert len(compressed.body) < 500
    assert len(gzip.decompress(compressed.body)) == 4000
    plain = client.ask(path)
    assert (plain.all("Content-Encoding"), plain.all("Vary"), len(plain.body)) == ([], ["Accept-Encoding"], 4000)


def test_it_is_compressed_for_a_cache_in_between_as_well(client: Client) -> None:
    assert client.ask(page(size="4000"), {**GZIP, "Via": "1.1 cdn.example"}).all("Content-Encoding") == ["gzip"]


@pytest.mark.parametrize(
    "query",
    [{"type": "image/png", "size": "4000"}, {"type": "text/event-stream", "size": "4000"}, {"size": "400"}],
    ids=["an image", "a stream of events", "a short text"],
)
def test_what_would_not_gain_is_not_compressed(client: Client, query: dict[str, str]) -> None:
    answer = client.ask(page(**query), GZIP)
    assert answer.all("Content-Encoding") == []
    assert len(answer.body) == int(query["size"])


def test_what_the_app_has_compressed_is_not_compressed_again(client: Client) -> None:
    answer = client.ask(page(gzip="1", size="4000"), GZIP)
    assert answer.all("Content-Encoding") == ["gzip"]
    assert len(gzip.decompress(answer.body)) == 4000


def test_tags_and_ranges_stay_true(client: Client) -> None:
    for name in ("page", "kept"):
        path = page(name, ETag='"7"', Accept_Ranges="bytes", size="4000")
        compressed = client.ask(path, GZIP)
        assert compressed.all("ETag") == ['W/"7"'], "the same page, but not byte by byte"
        assert client.ask(path, {**GZIP, "If-None-Match": 'W/"7"'}).status == 304
        part = client.ask(path, {"Range": "bytes=0-2"})
        assert (part.status, part.body, part.all("ETag")) == (206, b"one", ['"7"'])
        # Bytes of what? The whole is an answer as well: https://www.rfc-editor.org/rfc/rfc9110#section-14.2.
        answer = client.ask(path, {**GZIP, "Range": "bytes=0-2"})
        whole = gzip.decompress(answer.body) if answer.all("Content-Encoding") else b""
        assert (answer.status, len(whole)) in {(200, 4000), (206, 0)}


def test_the_cache_has_one_answer_for_those_who_ask_for_it_compressed_and_for_the_others(client: Client) -> None:
    path = page("kept", size="4000", of="both")
    first, second = client.ask(path, GZIP), client.ask(path)
    assert [first.cache, second.cache] == ["MISS", "HIT"]
    assert gzip.decompress(first.body) == second.body


def test_a_text_that_comes_piece_by_piece_is_compressed_piece_by_piece(client: Client, stack: Stack) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)) as connection:
        begin = time.monotonic()
        connection.request("GET", "/pieces", headers=GZIP)
        with connection.getresponse() as response:
            assert response.getheader("Content-Encoding") == "gzip"
            read, decompress = b"", zlib.decompressobj(wbits=31)
            while b"piece 0" not in read:
                read += decompress.decompress(response.read1(65536))
            assert time.monotonic() - begin < 1
            assert b"piece 1" not in read


def test_all_of_it_is_turned_off_and_on_without_a_failure(client: Client, stack: Stack) -> None:
    with Load(stack.port) as load:
        configure(stack, compression=None, securityHeaders=None, headers=None)
        stack.up()
        answer = client.ask(page(size="4000"), GZIP)
        assert answer.all("Content-Encoding") == []
        assert added(answer) == {name: [] for name in ADDED}
        configure(stack, compression=True, securityHeaders=True)
        stack.up()
        answer = client.ask(page(size="4000"), GZIP)
        assert answer.all("Content-Encoding") == ["gzip"]
        assert {name: answer.all(name) for name in headers.SECURITY} == {
            name: [value] for name, value in headers.SECURITY.items()
        }
        assert stack.up().changes.keys() == {"unchanged"}
    load.assert_nothing_was_dropped()

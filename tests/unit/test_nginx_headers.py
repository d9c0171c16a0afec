"""Headers that NGINX adds where the app does not, and compression: the text, what it means, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from infra import headers, nginx_config
from infra.nginx_config import Endpoints
from infra.site import Site
from tests.unit.test_nginx_config import GOLDEN, INCLUDED, RELEASE, REPLICAS, Block, parse, rendered


def http(folder: Path, **settings: Any) -> Block:
    return parse(folder, INCLUDED["live"], rendered(**settings)).block("http")


def added(block: Block) -> dict[str, str]:
    """The headers that the server adds, with what they are where nobody has set them."""
    found = {}
    for name, variable, always in block.block("server").all("add_header"):
        assert always == "always", "errors as well"
        if variable != "$request_key":
            (value,) = block.block("map", f"$sent_http_{name.lower().replace('-', '_')}", variable).one("")
            found[name] = value
    return found


@pytest.mark.parametrize(
    ("file", "settings", "begin", "end"),
    [
        (
            "header-defaults.conf",
            {"security_headers": True, "headers": {"X-Team": "a $b"}},
            "    # Headers that answers have",
            "    # What the live instance",
        ),
        ("compression.conf", {"compression": True}, "    # Text is compressed", "    # Errors that NGINX"),
    ],
)
def test_the_text_is_exactly_as_reviewed(file: str, settings: dict[str, Any], begin: str, end: str) -> None:
    text = rendered(**settings)
    part = text[text.index(begin) : text.index(end)]
    assert part == (GOLDEN / file).read_text(), f"if this change is meant, write it to {GOLDEN / file}"


def test_nothing_is_added_or_compressed_unless_it_is_asked_for(tmp_path: Path) -> None:
    block = http(tmp_path)
    assert added(block) == {}
    assert [name for name in block.names() if name.startswith("gzip")] == []


def test_an_answer_has_one_id_which_is_its_requests(tmp_path: Path) -> None:
    server = http(tmp_path).block("server")
    assert server.all("uwsgi_hide_header") == [["X-Request-ID"]], "a location that had its own would lose it"
    assert "uwsgi_hide_header" not in [
        name for location in server.all("location") for name in server.block("location", *location).names()
    ]


def test_security_headers_are_those_of_owasps_list_that_no_site_needs_to_know_of(tmp_path: Path) -> None:
    assert added(http(tmp_path, security_headers=True)) == {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
        "Referrer-Policy": "strict-origin-when-cross-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(), midi=(), "
        "payment=(), serial=(), usb=()",
        "X-Permitted-Cross-Domain-Policies": "none",
    }


def test_ones_own_take_their_place_or_take_them_away(tmp_path: Path) -> None:
    own = {"x-frame-options": "DENY", "Permissions-Policy": "", "X-Team": "seven", "X-Nothing": ""}
    found = added(http(tmp_path, security_headers=True, headers=own))
    assert found["x-frame-options"] == "DENY"
    assert found["X-Team"] == "seven"
    assert {"X-Frame-Options", "Permissions-Policy", "X-Nothing"} & set(found) == set()
    assert set(added(http(tmp_path, headers=own))) == {"x-frame-options", "X-Team"}


def test_a_header_that_something_else_says_is_left_alone(tmp_path: Path) -> None:
    """The map is asked for what the answer has already, the app's or a location's, which come before the server's."""
    block = http(tmp_path, headers={"Cache-Control": "no-cache"})
    assert list(block.block("map", "$sent_http_cache_control", "$header_1").names()) == [""], "else it is empty"
    assert block.block("server").one("add_header_inherit") == ["merge"]


@pytest.mark.parametrize("name", ["X" * 100, "Cross-Origin-Embedder-Policy-Report-Only"])
def test_long_names_make_no_long_variables(tmp_path: Path, name: str) -> None:
    """NGINX refuses those of more than 46 characters: https://nginx.org/en/docs/hash.html."""
    variables = re.findall(r"(?:map|geo)[^{]* \$(\w+) \{", rendered(headers={name: "1"}))
    assert "header_1" in variables
    assert [variable for variable in variables if len(variable) > 46] == []


HOSTILE = [
    '"',
    "\\",
    '\\"',
    "$",
    "$host ${host} $1",
    "; } add_header X-Evil 1; {",
    "'\"'\"'",
    "# no comment",
    "{{ site }} {% raw %}",
    "\\n \\t \\x00",
    "~^.*$",
    "default",
    "include /etc/passwd;",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_a_value_whatever_it_looks_like(tmp_path: Path, value: str) -> None:
    block = http(tmp_path, headers={"X-Value": value, "X-After": "1"})
    # crossplane leaves a backslash as it stands there, NGINX does not: tests/live/test_headers.py.
    assert added(block) == {"X-Value": value.replace("\\", r"\\").replace("$", "${dollar}"), "X-After": "1"}
    if "$" in value:
        assert block.block("geo", "$dollar").one("default") == ["$"]


@given(value=st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=300))
def test_quoting_loses_nothing_and_ends_nowhere_else(value: str) -> None:
    text = headers.quoted(value)
    (inner,) = re.findall(r'\A"((?:[^"\\]|\\["\\])*)"\Z', text)
    assert re.sub(r"\\(.)", r"\1", inner).replace("${dollar}", "$") == value
    assert "$" not in inner.replace("${dollar}", "")


@pytest.mark.parametrize(
    "name", ["", " ", "X Y", "X:", "X_Y", "X-", "-X", "X--Y", "Ä", "X\n", "1X", "$x", "X;", '"', "X" * 101]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="is no header's name"):
        Site(headers={name: "1"})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, "of one connection") for name in ("Connection", "keep-alive", "Transfer-Encoding", "TE", "Upgrade")),
        *((name, "of one answer") for name in ("Content-Length", "content-type", "Set-Cookie", "Location", "Date")),
        *((name, "of one answer") for name in ("X-Accel-Redirect", "ETag", "Vary", "Server", "Status")),
        ("X-Request-ID", "NGINX's own"),
        ("x-cache", "NGINX's own"),
        ("Strict-Transport-Security", "tls.hsts"),
    ],
)
def test_headers_that_cannot_be_the_same_in_all_answers_are_refused(name: str, words: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}.* {words}"):
        Site(headers={name: "1"})


@pytest.mark.parametrize("value", ["a\nb", "a\r\nX-Evil: 1", "\0", "\t", "ä", "\x7f", " a", "a "])
def test_what_is_no_value_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="the value of X-Team should have printable ASCII"):
        Site(headers={"X-Team": value})


@pytest.mark.parametrize(("character", "most"), [("x", 3998), ('"', 1999), ("$", 444)])
def test_a_value_that_nginx_could_not_read_is_refused(character: str, most: int) -> None:
    Site(headers={"X-Team": character * most})
    with pytest.raises(ValidationError, match="the value of X-Team is too long"):
        Site(headers={"X-Team": character * (most + 1)})


def test_a_header_stands_there_once() -> None:
    with pytest.raises(ValidationError, match="a header once"):
        Site(headers={"X-Team": "1", "x-team": "2"})


def test_numbers_are_texts_as_yaml_has_them() -> None:
    assert Site.model_validate({"headers": {"X-Version": 7, "X-Beta": True}}).headers == {
        "X-Version": "7",
        "X-Beta": "true",
    }


def test_compression_is_for_who_asks_for_it_also_through_a_proxy(tmp_path: Path) -> None:
    block = http(tmp_path, compression=True)
    assert [block.one(name) for name in ("gzip", "gzip_vary", "gzip_proxied")] == [["on"], ["on"], ["any"]]
    types = block.one("gzip_types")
    assert {"application/json", "text/css", "text/javascript", "image/svg+xml"} <= set(types)
    assert len(types) == len(set(types))
    # NGINX adds the first itself, and would warn; a piece of the second would wait for the next; others are compressed.
    assert not {"text/html", "text/event-stream", "image/png", "image/jpeg", "font/woff2", "application/zip"} & set(
        types
    )


def test_the_probe_and_the_live_instance_say_the_same(tmp_path: Path) -> None:
    settings = {"compression": True, "security_headers": True, "headers": {"X-Team": "$"}}
    site = Site.model_validate(settings)
    files = nginx_config.live_files(site, Endpoints())
    assert [name for name, text in files.items() if "gzip" in text or "$header_" in text] == []
    assert nginx_config.render(REPLICAS, site=site, release=RELEASE) == rendered(**settings)

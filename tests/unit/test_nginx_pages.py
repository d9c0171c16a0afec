"""Pages for errors of NGINX's own and for maintenance, and answers that are handed on piece by piece."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from infra import nginx_config, pages
from infra.nginx_config import Endpoints
from infra.pages import MAX_SIZE, PAGES, REQUEST_ID
from infra.site import Maintenance, Site
from tests.unit.test_nginx_config import INCLUDED, RELEASE, REPLICAS, Block, parse, rendered

SERVED = ["413", "429", "502", "503", "504", "maintenance"]


def files(**site: Any) -> dict[str, str]:
    live = nginx_config.live_files(Site(**site), Endpoints())
    return {name: text for name, text in live.items() if name.startswith("pages/")}


def http(folder: Path, **site: Any) -> Block:
    settings = Site.model_validate(site)
    text = nginx_config.render(REPLICAS, site=settings, release=RELEASE)
    text = text.replace("include /etc/nginx/mime.types;", "")  # it is in the image
    return parse(folder, nginx_config.live_files(settings, Endpoints()), text).block("http")


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_data(self, data: str) -> None:
        self.words += data


# What they say


def test_there_is_a_page_for_people_and_one_for_programs_for_each_error() -> None:
    assert sorted(files()) == sorted(f"pages/{name}.{kind}" for name in SERVED for kind in ("html", "json"))


@pytest.mark.parametrize("name", SERVED)
def test_a_page_for_people_needs_nothing_but_itself_and_says_what_happened(name: str) -> None:
    text = files()[f"pages/{name}.html"]
    page = Page(text)
    assert text.startswith("<!doctype html>\n<html lang=")
    assert not {"script", "link", "img", "iframe", "form"} & set(page.tags)
    assert not {"src", "href", "style"} & {attribute for attribute, _ in page.attributes}
    assert "url(" not in text
    assert "@import" not in text
    assert page.tags.count("h1") == page.tags.count("main") == page.tags.count("title") == 1
    assert ("name", "viewport") in page.attributes
    assert "prefers-color-scheme: dark" in text
    assert PAGES[name].title in page.words
    assert PAGES[name].text in page.words
    assert REQUEST_ID in text
    assert len(text) < 2048


@pytest.mark.parametrize("name", SERVED)
def test_a_page_for_programs_is_json_with_status_error_and_request_id(name: str) -> None:
    text = files()[f"pages/{name}.json"]
    assert json.loads(text.replace(REQUEST_ID, "0123456789")) == {
        "status": PAGES[name].status,
        "error": PAGES[name].title,
        "request_id": "0123456789",
    }


def test_own_pages_take_the_place_of_those_that_come_with_the_stack(tmp_path: Path) -> None:
    (tmp_path / "502.html").write_text("<p>Unser Server schläft.</p>")
    own, others = files(error_pages=str(tmp_path)), files()
    assert own.pop("pages/502.html") == "<p>Unser Server schläft.</p>"
    del others["pages/502.html"]
    assert own == others


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("50x.html", b"a", "50x.html, which is no page; known are 413.html"),
        ("502.htm", b"a", "502.htm, which is no page"),
        ("logo.png", b"a", "logo.png, which is no page"),
        ("502.html", b"\xff", "502.html, which is no text in UTF-8"),
        ("502.html", b"a" * (MAX_SIZE * 1024 + 1), f"502.html of more than {MAX_SIZE} KiB"),
        (None, b"", "should hold a page"),
    ],
)
def test_what_can_be_no_page_is_refused(tmp_path: Path, name: str | None, content: bytes, words: str) -> None:
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        pages.check(tmp_path)


def test_a_folder_in_the_place_of_a_page_is_refused(tmp_path: Path) -> None:
    (tmp_path / "502.html").mkdir()
    with pytest.raises(ValueError, match=r"502\.html, which is no text"):
        pages.check(tmp_path)


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "502.html").symlink_to("nothing")
    with pytest.raises(ValueError, match=r"502\.html, which is no text"):
        pages.check(tmp_path)


def test_pages_that_can_be_are_taken(tmp_path: Path) -> None:
    for name in SERVED:
        (tmp_path / f"{name}.html").write_bytes("ä".encode() * (MAX_SIZE * 512))
    (tmp_path / ".gitkeep").touch()
    pages.check(tmp_path)


# Who gets them


def test_an_error_of_nginxs_own_leads_to_its_page_and_keeps_its_status(tmp_path: Path) -> None:
    block = http(tmp_path)
    assert block.block("server").all("error_page") == [
        [name, f"/.pages/{name}.$page_format"] for name in ("413", "429", "502", "503", "504")
    ]
    formats = block.block("map", "$http_accept", "$page_format")
    assert (formats.one("default"), formats.one("~*text/html")) == (["json"], ["html"])


def test_what_the_app_says_goes_out_as_it_is() -> None:
    assert "uwsgi_intercept_errors on" not in rendered()


def test_pages_are_had_by_an_error_alone_and_kept_by_nobody(tmp_path: Path) -> None:
    location = http(tmp_path).block("server").block("location", "^~", "/.pages/")
    assert location.one("internal") == []
    assert location.one("alias") == ["/etc/nginx/live/current/pages/"]
    assert ["Cache-Control", "no-store", "always"] in location.all("add_header")


@pytest.mark.parametrize(
    ("maintenance", "seconds"), [({}, "5"), ({"enabled": True}, "300"), ({"enabled": True, "retryAfter": 7}, "7")]
)
def test_who_is_told_to_come_back_is_told_when(tmp_path: Path, maintenance: dict[str, Any], seconds: str) -> None:
    retry_after = http(tmp_path, maintenance=maintenance).block("map", "$status", "$page_retry_after")
    assert {name: retry_after.one(name) for name in retry_after.names()} == {
        "default": [""],
        "429": ["1"],
        "503": [seconds],
    }


# Maintenance


def test_without_maintenance_the_configuration_knows_nothing_of_it() -> None:
    assert "maintenance" not in rendered()
    assert "maintenance" not in rendered(maintenance=Maintenance(allow=("10.0.0.0/8",)))


def test_in_maintenance_every_location_is_closed_to_all_but_those_allowed_and_the_gate(tmp_path: Path) -> None:
    block = http(
        tmp_path,
        maintenance={"enabled": True, "allow": ["10.1.2.3", "fd00::/8"]},
        paths={"/a": {"allow": ["10.0.0.0/8"]}, "/b": {"streaming": True}},
        static={"/c": "static"},
    )
    kept_out = block.block("geo", "$is_kept_out")
    assert {name: kept_out.one(name) for name in kept_out.names()} == {
        "default": ["1"],
        "10.1.2.3/32": ["0"],
        "fd00::/8": ["0"],
    }
    closed = block.block("map", "$remote_addr", "$in_maintenance")
    assert (closed.one("default"), closed.one("unix:")) == (["$is_kept_out"], ["0"])
    server = block.block("server")
    asked = [args for args in server.all("location") if args[0] != "^~" and not args[0].startswith("@")]
    assert len(asked) == 4
    for args in asked:
        check = server.block("location", *args).block("if", "$in_maintenance")
        assert check.one("return") == ["503"]
    assert ["503", "/.pages/maintenance.$page_format"] in server.all("error_page")


# Streaming


def test_where_it_is_set_answers_are_not_buffered_but_requests_still_are(tmp_path: Path) -> None:
    server = http(tmp_path, paths={"/events": {"streaming": True}, "/events/not": {"streaming": False}}).block("server")
    assert server.block("location", "~", "^/events(?:/|$)").one("uwsgi_buffering") == ["off"]
    assert server.block("location", "~", "^/events/not(?:/|$)").all("uwsgi_buffering") == []
    assert server.block("location", "/").all("uwsgi_buffering") == []
    assert server.one("uwsgi_request_buffering") == ["on"]


@pytest.mark.parametrize("instance", ["live", "probe"])
def test_pages_are_there_in_both_instances(instance: str) -> None:
    assert ("pages/502.html" in INCLUDED[instance]) is (instance == "live"), "the probe's folder has links to them"

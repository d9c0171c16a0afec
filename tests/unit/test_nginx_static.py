"""Static files in NGINX's configuration: where it looks, what it says of them, whom it asks for the rest."""

import json
import re
from pathlib import Path

import pytest

from infra import layout, nginx_config
from infra.settings import Settings, SettingsError
from infra.site import Canary, Site
from tests.unit.test_nginx_config import GOLDEN, INCLUDED, RELEASE, REPLICAS, Block, parse, rendered

STATIC = {"/static": "static"}


def http(folder: Path, site: Site, canary: str = "") -> Block:
    """The configuration read back; the image's list of content types is not at hand here."""
    replicas = [REPLICAS, REPLICAS[:1]] if canary else [REPLICAS]
    text = nginx_config.render(*replicas, site=site, release=RELEASE, canary_release=canary)
    assert text.count("include /etc/nginx/mime.types;") == 1
    return parse(folder, INCLUDED["live"], text.replace("include /etc/nginx/mime.types;", "")).block("http")


def location(block: Block, path: str) -> Block:
    (args,) = [args for args in block.all("location") if args[-1] == f"^{path}(?:/|$)"]
    return block.block("location", *args)


def test_the_text_is_exactly_as_reviewed() -> None:
    text = rendered(static=STATIC)
    begin, end = text.index("        # /static and all below"), text.index("        # / and all below")
    golden = GOLDEN / "static.conf"
    assert text[begin:end] == golden.read_text(), f"if this change is meant, write it to {golden}"


def test_what_is_no_file_is_asked_of_the_app_with_the_rules_of_the_path(tmp_path: Path) -> None:
    rules = {"/static": {"requestTimeout": 300, "maxBodySize": 50, "streaming": True}}
    site = Site.model_validate({"static": STATIC, "paths": rules})
    found = http(tmp_path, site).block("server")
    outer, app = location(found, "/static"), found.block("location", "@/static")
    assert outer.one("try_files")[-1] == "@/static"
    assert outer.all("uwsgi_pass") == []
    assert app.one("uwsgi_pass") == ["app"]
    assert (app.one("uwsgi_read_timeout"), app.one("uwsgi_buffering")) == (["300s"], ["off"])
    assert outer.one("client_max_body_size") == app.one("client_max_body_size") == ["50m"]


def test_whom_a_path_keeps_out_it_keeps_out_of_its_files_and_no_cache_gives_them_to_others(tmp_path: Path) -> None:
    site = Site.model_validate({"static": {"/": "public"}, "paths": {"/staff": {"allow": ["10.0.0.0/8"]}}})
    found = http(tmp_path, site).block("server")
    staff = location(found, "/staff")
    assert staff.all("deny") == [["all"]]
    assert staff.one("try_files")[-1] == "@/staff"
    assert staff.one("add_header") == ["Cache-Control", "$static_lifetime, private"]
    assert found.block("location", "/").one("add_header") == ["Cache-Control", "$static_lifetime"]


@pytest.mark.parametrize(
    ("path", "uri", "hidden"),
    [
        ("/static", "/static/.env", True),
        ("/static", "/static/.git/config", True),
        ("/static", "/static/deep/er/.htpasswd", True),
        ("/static", "/static/a.css", False),
        ("/static", "/static/a/b.min.css", False),
        ("/static", "/other/.env", False),
        ("/static", "/static/.well-known/security.txt", False),
        ("/static", "/static/.well-known-not", True),
        ("/static", "/static/.well-known/.env", True),
        ("/.files", "/.files/a.css", False),
        ("/.files", "/.files/.env", True),
        ("/.well-known", "/.well-known/security.txt", False),
        ("/", "/.env", True),
        ("/", "/a/.env", True),
        ("/", "/a.b", False),
        ("/", "/.well-known/security.txt", False),
    ],
)
def test_names_that_begin_with_a_dot_are_nobodys(path: str, uri: str, hidden: bool) -> None:
    found = {place.path: place for place in Site(static={path: "static"}).locations()}
    operator, pattern = found[path].hidden.split(" ")
    assert operator == "~"
    assert bool(re.search(pattern, uri)) is hidden


@pytest.mark.parametrize(
    ("name", "for_good"),
    [
        ("app.3f2a9c1b.js", True),  # webpack, Parcel
        ("base.27e20196a850.css", True),  # Django's ManifestStaticFilesStorage
        ("logo-0a1b2c3d4e5f60718293a4b5c6d7e8f9.png", True),
        ("app.js", False),
        ("report-20240131.pdf", False),
        ("hotel-facade01.jpg", False),
        ("a.deadbeef.js", False),
        ("a.3f2a9c1.js", False),
        ("3f2a9c1b.js", False),
        ("app.3F2A9C1B.js", False),
        ("3f2a9c1b/app.js", False),
        (".3f2a9c1b/app.js", False),
    ],
)
def test_only_a_name_with_a_hash_is_kept_without_asking(name: str, for_good: bool, tmp_path: Path) -> None:
    lifetime = http(tmp_path, Site(static=STATIC)).block("map", "$uri", "$static_lifetime")
    assert lifetime.one("default") == ["no-cache"]
    (pattern,) = [key for key in lifetime.names() if key.startswith("~")]
    assert lifetime.one(pattern) == ["max-age=31536000, immutable"]
    assert bool(re.search(pattern[1:], f"/static/{name}")) is for_good


def test_with_a_canary_the_files_of_both_are_found_and_first_those_of_the_one_that_would_be_asked(
    tmp_path: Path,
) -> None:
    site = Site(static=STATIC, canary=Canary(share=10))
    found = http(tmp_path, site, canary="0c").block("server")
    rest = nginx_config.static_name(site, "")
    assert location(found, "/static").one("try_files") == [
        f"/$release{rest}$uri",
        f"/{RELEASE}{rest}$uri",
        f"/0c{rest}$uri",
        f"/{RELEASE}{rest}.before$uri",
        "@/static",
    ]


def test_another_layout_of_the_same_release_is_another_folder() -> None:
    names = {
        nginx_config.static_name(Site(static=static), RELEASE)
        for static in (STATIC, {"/static": "other"}, {"/assets": "static"}, {**STATIC, "/": "static"})
    }
    assert len(names) == 4


def test_the_folder_is_where_the_gate_sweeps_nothing_by_itself() -> None:
    assert layout.STATIC_FOLDER.startswith(f"{layout.LIVE_FOLDER}/.")


def test_without_static_files_the_configuration_knows_nothing_of_them(tmp_path: Path) -> None:
    block = parse(tmp_path, INCLUDED["live"]).block("http")
    assert not {"try_files", "sendfile", "root"} & set(block.names())
    assert [args for args in block.all("map") if args[1] == "$static_lifetime"] == []


# Whether the folders can be there


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose app has files in `static`."""
    (tmp_path / "app" / "static" / "deep").mkdir(parents=True)
    (tmp_path / "app" / "static" / "a.css").write_text("a")
    (tmp_path / "app" / "requirements.txt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(folder: str, **values: str) -> Settings:
    return Settings.parse({"static": json.dumps({"/static/": folder}), **values})


@pytest.mark.parametrize("folder", ["static", "static/", "./static", "static/deep"])
def test_a_folder_of_the_app_is_taken(project: Path, folder: str) -> None:
    assert parsed(folder).served_files == {"/static": folder.removeprefix("./").rstrip("/")}


def test_a_folder_that_is_not_there_is_refused(project: Path) -> None:
    with pytest.raises(SettingsError, match=r"static\./static is missing, but app has no such folder"):
        parsed("missing")


def test_a_link_is_not_even_one_that_leads_to_a_folder_of_the_app(project: Path) -> None:
    (project / "app" / "link").symlink_to("static")
    for folder in ("link", "link/deep"):
        with pytest.raises(SettingsError, match=f"static./static is {folder}, but that is a link in app"):
            parsed(folder)


def test_a_folder_that_is_kept_out_of_the_image_is_refused(project: Path) -> None:
    (project / "app" / ".dockerignore").write_text("stat*\n")
    with pytest.raises(SettingsError, match="keeps it out of the image"):
        parsed("static")
    (project / "app" / ".dockerignore").write_text("static/deep\n")
    parsed("static")


def test_of_an_image_that_was_built_before_nobody_knows_the_folders(project: Path) -> None:
    digest = f"sha256:{'0' * 64}"
    assert parsed("elsewhere", appImage=digest).static == {"/static": "elsewhere"}
    with pytest.raises(SettingsError, match="has no such folder"):
        parsed("elsewhere", appImage=digest, canary='{"share": 10}')


def test_the_app_of_a_canary_must_have_them_too(project: Path) -> None:
    (project / "next").mkdir()
    (project / "next" / "requirements.txt").touch()
    with pytest.raises(SettingsError, match=r"static\./static is static, but next has no such folder"):
        parsed("static", canary='{"share": 10, "appFolder": "next"}')


def test_while_the_app_is_reloaded_as_it_changes_it_serves_its_files_itself(project: Path) -> None:
    settings = parsed("static", liveReload="true")
    assert settings.served_files == {}
    assert [location.path for location in settings.locations()] == ["/"]

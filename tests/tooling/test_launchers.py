"""The executables that the engine starts find this clone, whatever its folder is called."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from airgap import launchers
from tests.tooling.conftest import Bench
from tests.tooling.test_pulumi_cli import INSTALLS_FILES_ONLY
from tooling.console import Failure


@pytest.fixture
def quoted(bench: Bench) -> Bench:
    """A clone in a folder whose name a shell could misread."""
    bench.root = bench.root.rename(bench.root.parent / 'it\'s $HOME, "quoted"')
    bench.fake("python", 'echo "$PYTHONPATH|$*"; pwd', bench.root / ".venv/bin")
    return bench


def run(path: Path, *arguments: str, cwd: Path) -> list[str]:
    said = subprocess.run([path, *arguments], capture_output=True, text=True, check=True, cwd=cwd, env={"PATH": "/bin"})
    return said.stdout.splitlines()


def test_the_language_host_runs_on_the_clones_python(quoted: Bench, tmp_path: Path) -> None:
    launchers.write_language_host(quoted.root, tmp_path / "bin")
    said = run(tmp_path / "bin/pulumi-language-python", "-flag", "127.0.0.1:1", cwd=tmp_path)
    assert said[0] == f"{quoted.root}|-m airgap.language_host -flag 127.0.0.1:1"


def test_dynamic_resources_find_the_modules_of_the_program_alone(quoted: Bench, tmp_path: Path) -> None:
    launchers.write_language_host(quoted.root, tmp_path / "bin")
    said = run(tmp_path / "bin/pulumi-resource-pulumi-python", "127.0.0.1:1", cwd=tmp_path)
    assert said == ["|-u -m pulumi.dynamic 127.0.0.1:1", str(tmp_path)]


def test_the_docker_stand_in_is_installed_as_the_version_that_the_program_asks_for(quoted: Bench) -> None:
    home = quoted.root / ".local/pulumi-home"
    pulumi = quoted.fake("pulumi", INSTALLS_FILES_ONLY)
    launchers.install_docker_provider(quoted.root, pulumi, home)
    installed = home / "plugins/resource-docker-v5.2.0/pulumi-resource-docker"
    assert run(installed, "127.0.0.1:1", cwd=quoted.root)[0] == f"{quoted.root}|-m airgap.docker_provider 127.0.0.1:1"
    launchers.install_docker_provider(quoted.root, pulumi, home)
    assert len(quoted.called("pulumi")) == 1


def test_an_installation_that_fails_is_told_in_words(quoted: Bench) -> None:
    pulumi = quoted.fake("pulumi", "echo no space left; exit 1")
    with pytest.raises(Failure, match="no space left"):
        launchers.install_docker_provider(quoted.root, pulumi, quoted.root / ".local/pulumi-home")

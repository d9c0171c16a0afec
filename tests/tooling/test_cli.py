"""The targets of the Makefile, as a person meets them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tooling.conftest import Bench
from tooling import bootstrap, cli, machine
from tooling.machine import Machine

REPOSITORY = Path(__file__).parent.parent.parent
TARGETS = {
    *("up", "preview", "review", "comment", "drift", "doctor", "refresh", "destroy", "recover"),
    *("test", "test-swarm", "reliability", "bench"),
    *("unit", "lint", "format", "reference", "diagram", "ps", "logs", "certificate", "url", "env", "clean"),
    *("shell", "secret", "drain", "resume", "rollback", "backup", "restore", "orphans", "adopt", "upgrade", "rename"),
}


def make(*arguments: str) -> str:
    found = shutil.which("make")
    if not found:
        pytest.skip("this machine has no make")
    command = [found, "--no-print-directory", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout


def test_make_alone_tells_every_target_in_one_line() -> None:
    lines = make().splitlines()
    assert {line.split()[0] for line in lines[1:]} == TARGETS
    assert all(len(line) <= 100 for line in lines)


def test_arguments_and_the_stack_are_passed_on() -> None:
    assert make("-n", "up", "ARGS=--diff --target x", "STACK=prod").strip() == (
        "python3 -m tooling up 'prod' --diff --target x"
    )
    assert make("-n", "preview").strip() == "python3 -m tooling preview 'dev'"


@pytest.fixture
def priorities(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Those that were set; not for the tests themselves."""
    found: list[tuple[int, int, int]] = []
    monkeypatch.setattr("os.setpriority", lambda *given: found.append(given))
    return found


@pytest.fixture
def clone(bench: Bench, monkeypatch: pytest.MonkeyPatch, priorities: list[tuple[int, int, int]]) -> Bench:
    monkeypatch.setattr(cli, "ROOT", bench.root)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return bench


@pytest.fixture
def up_and_running(clone: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A clone whose machine is ready and whose stack exists."""
    clone.fake("pulumi", 'case "$*" in *"output url"*) echo http://127.0.0.1:8080;; esac')
    machine.save(clone.root, Machine(pulumi=str(clone.bin), origin="path"))
    clone.write(".local/state/.pulumi/stacks/uwsgi-nginx/dev.json", "{}")
    monkeypatch.setattr(bootstrap, "ensure", lambda root, name: None)
    return clone


def test_up_ends_with_the_url(up_and_running: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["up", "dev", "--diff"]) == 0
    assert up_and_running.calls == ["pulumi up --yes --stack dev --diff", "pulumi stack output url --stack dev"]
    assert capfd.readouterr().out.splitlines()[-1] == "http://127.0.0.1:8080"


def test_an_update_that_fails_gives_its_exit_status_and_no_url(
    up_and_running: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    up_and_running.fake("pulumi", "exit 255")
    assert cli.main(["up", "dev"]) == 255
    assert len(up_and_running.calls) == 1


def test_an_update_gives_way_to_those_who_serve(
    up_and_running: Bench, priorities: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpriority", lambda *_: 0)
    cli.main(["up", "dev"])
    monkeypatch.setattr("os.getpriority", lambda *_: 15)  # it was started by `nice` already
    cli.main(["preview", "dev"])
    assert [niceness for _, _, niceness in priorities] == [10, 10, 15]


def test_url_prints_nothing_else(up_and_running: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["url", "dev"]) == 0
    assert capfd.readouterr() == ("http://127.0.0.1:8080\n", "")


@pytest.mark.parametrize("command", ["url", "ps", "logs"])
def test_without_a_stack_the_first_step_is_named(
    clone: Bench, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "dev"]) == 1
    assert re.search(r"There is no stack dev yet\.\n  What to do: +make up\n", capsys.readouterr().err)
    assert clone.calls == []


def test_destroying_what_is_not_there_installs_nothing(clone: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["destroy", "dev"]) == 0
    assert "nothing to destroy" in capsys.readouterr().err
    assert clone.calls == []


def test_env_before_anything_is_installed_says_so(clone: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env", "dev"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "make up" in captured.err


def test_clean_keeps_a_state_that_still_has_resources(clone: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    state = clone.write(".local/state/.pulumi/stacks/uwsgi-nginx/dev.json", '{"resources": [{"urn": "x"}]}')
    assert cli.main(["clean", "dev"]) == 1
    assert "make destroy" in capsys.readouterr().err
    assert state.exists()


def test_clean_removes_what_the_tooling_made_and_nothing_else(clone: Bench) -> None:
    clone.write(".local/state/.pulumi/stacks/uwsgi-nginx/dev.json", "{}")
    clone.write(".venv/x", "")
    assert cli.main(["clean", "dev"]) == 0
    left = {path.name for path in clone.root.iterdir()}
    assert left == {"Pulumi.yaml", "requirements.txt", "requirements-dev.txt", "app", "exporter"}


def test_the_live_tests_do_not_run_after_a_lint_that_failed(
    clone: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tooling.venv.ensure", lambda root: None)
    for name, script in {"ruff": "exit 1", "mypy": "", "zizmor": ""}.items():
        clone.fake(name, script, clone.root / ".venv/bin")
    assert cli.main(["test", "dev"]) == 1
    assert not [call for call in clone.calls if "pytest" in call]
    assert "`make lint` did not pass" in capsys.readouterr().err


def test_the_swarms_tests_have_a_registry_before_they_run(up_and_running: Bench) -> None:
    up_and_running.fake("apt-get")
    up_and_running.fake("python", "", up_and_running.root / ".venv/bin")
    assert cli.main(["test-swarm", "dev", "-x"]) == 0
    *_, install, tests = up_and_running.calls
    assert install.endswith(" install docker-registry")
    assert tests == "python -m pytest tests/swarm -x"


def test_a_failing_step_is_told_in_words_and_without_a_traceback(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "tooling", tmp_path / "tooling", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Pulumi.yaml", "requirements.txt", "requirements-dev.txt"):
        (tmp_path / name).write_text("name: x\n", encoding="utf-8")
    # No PATH, no apt-get, and a Python that cannot make a virtual environment.
    code = "import sys; sys.argv[1:] = ['up', 'dev']; sys.modules['venv'] = None\nfrom tooling import venv\n"
    code += "venv._base_python = lambda: '/bin/false'\nfrom tooling.cli import main; sys.exit(main(['up', 'dev']))"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env={"PATH": "/none"}
    )
    assert said.returncode == 1
    assert "make up stopped at: Python packages" in said.stderr
    assert "What to do:" in said.stderr
    assert "Traceback" not in said.stderr
    assert said.stdout == ""

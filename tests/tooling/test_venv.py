"""`.venv` is made once, to the end, and anew when what it was made from changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tooling.conftest import Bench
from tooling import venv
from tooling.console import Failure

PIP_SAYS = 'case "$*" in *--version) echo "pip 1 from x (python {0}.{1})"; exit 0;; *) exit {2};; esac'


@pytest.fixture
def base(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A Python whose `-m venv --clear FOLDER` makes one with a pip that works."""
    import sys

    says = PIP_SAYS.format(*sys.version_info[:2], 0)
    inner = bench.fake("inner", says)
    path = bench.fake("base-python", f'mkdir -p "$4/bin" && cp {inner} "$4/bin/python"')
    monkeypatch.setattr(venv, "_base_python", lambda: str(path))
    return bench


def test_a_second_run_costs_nothing(base: Bench) -> None:
    venv.ensure(base.root)
    before = base.calls
    assert len(before) > 1
    venv.ensure(base.root)
    assert base.calls == before


@pytest.mark.parametrize("name", venv.REQUIREMENTS)
def test_changed_requirements_are_installed_into_the_same_one(base: Bench, name: str) -> None:
    venv.ensure(base.root)
    made = len(base.called("base-python"))
    path = base.root / name
    path.write_text(path.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert not venv.is_current(base.root)
    venv.ensure(base.root)
    assert venv.is_current(base.root)
    assert len(base.called("base-python")) == made


def test_one_that_was_interrupted_is_not_current(base: Bench) -> None:
    venv.ensure(base.root)
    (base.root / ".venv" / venv._STAMP).unlink()
    assert not venv.is_current(base.root)


def test_one_whose_python_is_gone_is_made_anew(base: Bench) -> None:
    venv.ensure(base.root)
    base.fake("python", "exit 127", base.root / ".venv/bin")
    (base.root / ".venv" / venv._STAMP).unlink()
    venv.ensure(base.root)
    assert len(base.called("base-python")) == 2


def test_debians_missing_half_of_venv_is_installed(base: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    works = Path(venv._base_python()).read_text(encoding="utf-8")
    (base.bin / "whole").write_text(works, encoding="utf-8")
    path = base.fake("base-python", "echo 'ensurepip is not available.'; exit 1")
    base.fake("apt-get", f'case "$*" in *install*) cp {base.bin}/whole {path};; esac')
    venv.ensure(base.root)
    (install,) = [call for call in base.called("apt-get") if " install " in call]
    assert install.endswith("install python3-venv")
    assert venv.is_current(base.root)


def test_an_index_that_cannot_be_reached_is_explained(bench: Bench) -> None:
    import sys

    bench.fake(
        "python",
        PIP_SAYS.format(*sys.version_info[:2], "1").replace("*) exit", "*) echo no index; exit"),
        bench.root / ".venv/bin",
    )
    with pytest.raises(Failure, match="no index") as failure:
        venv.ensure(bench.root)
    assert "package index" in failure.value.todo
    assert failure.value.log == bench.root / ".local/log/venv.log"
    assert not venv.is_current(bench.root)

"""The engine is compiled once a user, by the Go that is there if it is recent enough, and is what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from airgap import build_engine
from tests.tooling.conftest import Bench
from tooling import files
from tooling.console import Failure

SOURCE = Path(__file__).parent.parent.parent / "airgap" / "engine"


def compiles(version: str = "3.256.0") -> str:
    """A `go` whose build writes an engine that says this version."""
    return f"""
case "$1" in
  version) echo "go version go$FAKE_GO linux/amd64";;
  build)
    while test "$1" != -o; do shift; done
    printf '#!/bin/sh\\necho v{version}\\n' > "$2" && chmod +x "$2";;
esac
"""


@pytest.fixture
def clone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for path in SOURCE.iterdir():
        bench.write(f"airgap/engine/{path.name}", path.read_text(encoding="utf-8"))
    monkeypatch.setenv("FAKE_GO", "1.27")
    return bench


def test_a_recent_go_on_the_path_compiles_the_pinned_version(clone: Bench) -> None:
    clone.fake("go", compiles())
    target = clone.root / ".local/bin/pulumi"
    build_engine.ensure(clone.root, target)
    assert target.exists()
    (build,) = clone.called("go build")
    assert "-trimpath" in build
    assert build.endswith("github.com/pulumi/pulumi/pkg/v3/cmd/pulumi")
    assert f"-X {build_engine.VERSION_VARIABLE}=v3.256.0" in build


def test_a_second_clone_takes_it_from_the_cache(clone: Bench) -> None:
    clone.fake("go", compiles())
    build_engine.ensure(clone.root, clone.root / "first")
    build_engine.ensure(clone.root, clone.root / "second")
    assert (clone.root / "first").samefile(clone.root / "second")
    assert len(clone.called("go build")) == 1


def test_another_pin_is_another_engine(clone: Bench) -> None:
    before = build_engine._cached(clone.root)
    go_mod = (clone.root / "airgap/engine/go.mod").read_text(encoding="utf-8")
    clone.write("airgap/engine/go.mod", go_mod.replace("pkg/v3 v3.256.0", "pkg/v3 v3.257.0"))
    assert build_engine.version(clone.root) == "v3.257.0"
    assert build_engine._cached(clone.root) != before


@pytest.mark.parametrize("version", ["1.19.8", "1.25"])
def test_a_go_that_is_too_old_is_left_alone(clone: Bench, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("FAKE_GO", version)
    clone.fake("go", compiles())
    toolchain = clone.fake("toolchain", compiles())
    # pip install --target FOLDER
    clone.fake_venv(
        f'for a; do test "$b" = --target && mkdir -p "$a/go/bin" && cp {toolchain} "$a/go/bin/go"; b=$a; done; exit 0'
    )
    build_engine.ensure(clone.root, clone.root / "pulumi")
    assert not clone.called("go build")
    assert clone.called("toolchain build")
    (install,) = clone.called("python")
    assert "--require-hashes" in install


def test_the_toolchain_and_its_caches_go_when_the_engine_is_there(clone: Bench) -> None:
    clone.fake("go", compiles())
    build_engine.ensure(clone.root, clone.root / "pulumi")
    assert not (files.cache() / "engine-build").exists()


def test_a_build_that_fails_for_the_network_is_tried_again(clone: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    once = clone.home / "failed-once"
    clone.fake(
        "go",
        f'test "$1" = build && test ! -e {once} && touch {once} && echo "connection reset" && exit 1\n{compiles()}',
    )
    build_engine.ensure(clone.root, clone.root / "pulumi")
    assert len(clone.called("go build")) == 2


def test_a_build_that_cannot_work_says_so_and_leaves_no_engine(clone: Bench) -> None:
    clone.fake(
        "go", 'test "$1" = version && echo "go version go1.27 linux/amd64" && exit 0; echo "403 Forbidden"; exit 1'
    )
    with pytest.raises(Failure, match="403 Forbidden") as failure:
        build_engine.ensure(clone.root, clone.root / "pulumi")
    assert "module proxy" in failure.value.todo
    assert failure.value.step == "Pulumi engine"
    assert not (clone.root / "pulumi").exists()


def test_an_engine_that_says_another_version_is_not_taken(clone: Bench) -> None:
    clone.fake("go", compiles("1.0.0"))
    with pytest.raises(Failure, match=r"1\.0\.0"):
        build_engine.ensure(clone.root, clone.root / "pulumi")
    assert not build_engine._cached(clone.root).exists()

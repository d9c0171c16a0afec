"""From a bare machine to one on which `pulumi up` works: everything in its order, and nothing twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from tooling import base_images, configuration, console, docker_engine, files, machine, pulumi_cli, stack, venv
from tooling.base_images import StandIns
from tooling.docker_engine import Host
from tooling.machine import Machine

# Whose change makes the record of an earlier bootstrap worthless.
_SOURCES = (
    "requirements.txt",
    "airgap/build_engine.py",
    "airgap/build_images.py",
    "airgap/launchers.py",
    "airgap/engine",
    "airgap/images/python",
    "airgap/images/nginx",
    "tooling",
)


def made_from(root: Path) -> str:
    """What the record of a bootstrap rests on."""
    sources: list[str | Path] = []
    for name in _SOURCES:
        path = root / name
        sources += sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    environment = [os.environ.get(name, "") for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG")]
    return files.digest([str(root), *environment, venv.fingerprint(root), pulumi_cli.users_own(root), *sources])


def ensure(root: Path, name: str | None) -> None:
    """Gets the machine ready, and with a name the stack too. When everything is, this takes milliseconds."""
    if _is_ready(root, name):
        return
    with files.lock(files.local(root) / "lock", "getting this machine ready"):
        if not _is_ready(root, name):
            _bootstrap(root, name)


def _is_ready(root: Path, name: str | None) -> bool:
    known = machine.load(root)
    if not _is_known(root, known) or not venv.is_current(root):
        return False
    own = _own_daemon(root, name)
    where = own or docker_engine.host()
    stand_ins = known.elsewhere.get(where.url) if own else known.stand_ins
    if stand_ins is None or not docker_engine.answer(where).ok or not base_images.are_present(stand_ins, where):
        return False
    if name is None:
        return True
    in_order = known.stacks.get(name) == stack.fingerprint(root, name)
    return in_order and (not stack.is_local(root) or stack.exists(root, name))


def _own_daemon(root: Path, name: str | None) -> Host | None:
    return configuration.own_daemon(root, name) if name else None


def _is_known(root: Path, known: Machine) -> bool:
    return known.made_from == made_from(root) and (Path(known.pulumi) / "pulumi").exists()


def _bootstrap(root: Path, name: str | None) -> None:
    venv.ensure(root)
    known = machine.load(root)
    tracks: list[Callable[[], None]] = []
    images = StandIns({}, {})
    own = _own_daemon(root, name)

    def pulumi() -> None:
        cli = pulumi_cli.ensure(root)
        known.pulumi, known.origin, known.pulumi_home, known.helpers = (
            cli.folder,
            cli.origin,
            cli.pulumi_home,
            cli.helpers,
        )

    def docker() -> None:
        nonlocal images
        where = docker_engine.ensure(root, own)
        images = base_images.ensure(root, name or "", where)
        if own:
            known.elsewhere[own.url] = images.machine
        else:
            known.docker_host = stack.docker_host(where)
            known.stand_ins = images.machine

    if not _is_known(root, known):
        known = Machine()
        tracks.append(pulumi)
    tracks.append(docker)
    # Compiling the engine takes minutes and so does everything that Docker needs: neither waits for the other.
    _together(tracks)
    known.made_from = made_from(root)
    machine.save(root, known)
    if name is not None:
        stack.ensure(root, name, images.stack)
        known.stacks[name] = stack.fingerprint(root, name)
        machine.save(root, known)


def _together(tracks: list[Callable[[], None]]) -> None:
    pool = ThreadPoolExecutor(len(tracks))
    try:
        running = [pool.submit(track) for track in tracks]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        failed = [future.exception() for future in done if future.exception()]
        if failed:
            # What the other one has done so far is kept; a person should not wait minutes to hear what went wrong.
            console.stop_all()
            raise failed[0]  # type: ignore[misc]
    except BaseException:
        console.stop_all()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

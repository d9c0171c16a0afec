"""A Pulumi CLI with its plugins: the user's own, else the official one, else what stands in for it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tooling import console, debian, files, venv
from tooling.console import Exited, Failure, Step, step

OWN, OFFICIAL, AIRGAP = "path", "official", "airgap"
DOWNLOAD_SECONDS = 300.0
NICENESS = 10

_INSTALL = """
import socket, sys
from pathlib import Path
socket.setdefaulttimeout(20)  # the SDK asks without a limit, and a firewall that drops packets answers never
from pulumi.automation import PulumiCommand
try:
    PulumiCommand.install(root=sys.argv[1])
except Exception as error:
    print(getattr(error, "output", None) and error.output.decode(errors="replace") or error)
    sys.exit(3 if hasattr(error, "output") else 2)
"""


def give_way() -> None:
    """Has this process, and what it starts, yield to those that serve the site: their machine may be this one.

    It makes no difference where there is time for all of them (docs/performance.md).
    """
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))


@dataclass(frozen=True)
class Cli:
    """The CLI to use: its folder, where it is from, and what makes it find its plugins."""

    folder: str
    origin: str
    pulumi_home: str = ""
    helpers: str = ""


def pinned(root: Path, package: str) -> str:
    """The version of a package that requirements.txt pins."""
    text = (root / "requirements.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(package)}==(\S+)", text, re.MULTILINE)
    if not found:
        raise Failure(f"requirements.txt pins no version of {package}.", f"Pin it: {package}==VERSION")
    return found[1]


def own_environment(root: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without what `make env`, of this clone or of another, may have put there."""
    env = dict(os.environ if env is None else env)

    def ours(path: str) -> bool:
        return Path(path).is_relative_to(files.local(root)) or files.of_a_clone(path)

    env["PATH"] = os.pathsep.join(f for f in env.get("PATH", os.defpath).split(os.pathsep) if f and not ours(f))
    for name in ("PULUMI_HOME", "PULUMI_BACKEND_URL"):
        if ours(env.get(name, "").removeprefix("file://")):
            del env[name]
    return env


def users_home(env: Mapping[str, str]) -> Path:
    """The user's own PULUMI_HOME."""
    return Path(env.get("PULUMI_HOME") or Path(env.get("HOME", str(Path.home()))) / ".pulumi")


def users_own(root: Path, env: Mapping[str, str] | None = None) -> str:
    """The folder of a `pulumi` that the user has installed: on PATH, or where the official installer puts it."""
    env = own_environment(root, env)
    found = shutil.which("pulumi", path=env["PATH"]) or shutil.which("pulumi", path=str(users_home(env) / "bin"))
    return str(Path(found).parent) if found else ""


def bin_folder(root: Path) -> Path:
    """Where this clone's stand-ins are put."""
    return files.local(root) / "bin"


def official_folder(root: Path) -> Path:
    """Where the official CLI is put for this clone."""
    return files.local(root) / "pulumi"


def home_folder(root: Path) -> Path:
    """PULUMI_HOME of the stand-ins: one of our own, so that none can ever be taken for an official plugin."""
    return files.local(root) / "pulumi-home"


def ensure(root: Path) -> Cli:
    """The CLI to use on this machine; `.venv` must be there."""
    folder, origin = users_own(root), OWN
    if not folder:
        folder, origin = _official(root), OFFICIAL
    if folder:
        return _with_plugins(root, folder, origin)
    # Imported here alone: nobody else needs any of it.
    from airgap import build_engine, launchers

    standing_in = bin_folder(root)
    build_engine.ensure(root, standing_in / "pulumi")
    launchers.write_language_host(root, standing_in)
    launchers.install_docker_provider(root, standing_in / "pulumi", home_folder(root))
    return Cli(str(standing_in), AIRGAP, str(home_folder(root)))


def _official(root: Path) -> str:
    """Downloads the official CLI that belongs to the pinned SDK. Empty where it cannot be had."""
    target = official_folder(root)
    if (target / "bin" / "pulumi").exists() and (target / "complete").exists():
        return str(target / "bin")
    with step(
        "Pulumi CLI",
        f"downloading the official one, v{pinned(root, 'pulumi')}",
        files.local(root) / "log" / "pulumi.log",
    ) as current:
        shutil.rmtree(target, ignore_errors=True)
        why = _download(root, target, current)
        if why and shutil.which("curl") is None and shutil.which("wget") is None and why.startswith("script"):
            debian.install(["curl", "ca-certificates"], "The official installer needs curl", current)
            why = _download(root, target, current)
        if why:
            shutil.rmtree(target, ignore_errors=True)
            current.outcome = f"not to be had from here: {''.join(why.splitlines()[-1:])}"
            return ""
        files.write(target / "complete", pinned(root, "pulumi") + "\n")
    return str(target / "bin")


def _download(root: Path, target: Path, current: Step) -> str:
    command = [str(venv.python(root)), "-c", _INSTALL, str(target)]
    try:
        console.run(command, timeout=DOWNLOAD_SECONDS, current=current)
    except Exited as exited:
        return ("script: " if "status 3" in exited.reason else "") + (exited.last_words or exited.reason)
    return ""


def _with_plugins(root: Path, folder: str, origin: str) -> Cli:
    """An official engine, with stand-ins for just those plugins that cannot be had from here."""
    from airgap import launchers

    pulumi = Path(folder) / "pulumi"
    helpers = ""
    beside = Path(os.path.realpath(pulumi)).parent
    search = os.pathsep.join([str(beside), folder, own_environment(root)["PATH"]])
    if any(shutil.which(name, path=search) is None for name in launchers.LANGUAGE_HOST_FILES):
        launchers.warn_language_host()
        launchers.write_language_host(root, bin_folder(root))
        helpers = str(bin_folder(root))
    if _docker_plugin(root, pulumi):
        return Cli(folder, origin, helpers=helpers)
    launchers.install_docker_provider(root, pulumi, home_folder(root))
    return Cli(folder, origin, str(home_folder(root)), helpers)


def _docker_plugin(root: Path, pulumi: Path) -> bool:
    version = pinned(root, "pulumi-docker")
    env = {**own_environment(root), "PULUMI_SKIP_UPDATE_CHECK": "true"}
    installed = users_home(env) / "plugins" / f"resource-docker-v{version}"
    if installed.is_dir() or shutil.which("pulumi-resource-docker", path=env["PATH"]):
        return True
    log = files.local(root) / "log" / "plugin.log"
    with step("Docker plugin", f"downloading the official one, v{version}", log) as current:
        command = [str(pulumi), "plugin", "install", "resource", "docker", version]
        try:
            console.run(command, timeout=DOWNLOAD_SECONDS, current=current, env=env)
        except Exited as exited:
            current.outcome = f"not to be had from here: {exited.reason}"
            return False
    return True

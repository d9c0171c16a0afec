"""A stack's configuration as far as texts go, read without YAML's help: before `.venv` there is none."""

from __future__ import annotations

import re
from pathlib import Path

from tooling import docker_engine, stack
from tooling.docker_engine import Host

# Of a file that Pulumi itself writes: two or more spaces a level, one key a line.
_LINE = re.compile(r"(?P<indent> *)(?P<key>[^\s#'\"-]\S*?):(?: +(?P<value>.*?))?\s*")
_TEXT = re.compile(r"'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|(?P<plain>[^#]*?)(?: +#.*)?")


def read(root: Path, name: str) -> dict[str, str]:
    """What is set, by path: `port`, `tls.certificateFile`, `docker:host`; else what Pulumi.yaml has as default."""
    return defaults(root) | _short(root, _texts(root / f"Pulumi.{name}.yaml"))


def defaults(root: Path) -> dict[str, str]:
    """What Pulumi.yaml has, by key."""
    declared = _texts(root / "Pulumi.yaml")
    return _short(
        root, {path.removesuffix(".default"): text for path, text in declared.items() if path[-8:] == ".default"}
    )


def _short(root: Path, texts: dict[str, str]) -> dict[str, str]:
    space = f"{stack.project(root)}:"
    return {path.removeprefix("config.").removeprefix(space): text for path, text in texts.items()}


def daemon(root: Path, name: str) -> Host:
    """The Docker daemon that the stack is for: `docker:host`, else where Docker's own client would look."""
    return own_daemon(root, name) or docker_engine.host(stack.full_environment(root, name))


def way_to_loopback(root: Path, name: str) -> str:
    """The command with which this machine reaches what only the Docker host itself does; empty where it needs none."""
    login, settings = daemon(root, name).login, read(root, name)
    address = settings.get("publishAddress", "127.0.0.1")
    if not login or not address.startswith("127."):
        return ""
    encrypted = {"tls.certificate", "tls.certificateFile"} & settings.keys()
    port = settings.get("tls.port", "8443") if encrypted else settings.get("port", "8080")
    return f"ssh -N -L {port}:{address}:{port} {login}"


def own_daemon(root: Path, name: str) -> Host | None:
    """The Docker daemon that `docker:host` names, with `docker:certPath`; None if it names none."""
    settings = read(root, name)
    if not settings.get("docker:host"):
        return None
    certificates = settings.get("docker:certPath", "")
    return Host(
        settings["docker:host"],
        f"docker:host in Pulumi.{name}.yaml",
        # As the plugin takes it, which runs in the project's folder.
        str(root / Path(certificates).expanduser()) if certificates else "",
    )


def _texts(file: Path) -> dict[str, str]:
    """Its scalars by their path."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in filter(None, map(_LINE.fullmatch, lines)):
        indent = len(line["indent"])
        above = [*((depth, key) for depth, key in above if depth < indent), (indent, line["key"])]
        text = _TEXT.fullmatch(line["value"] or "")
        if text and line["value"]:
            found[".".join(key for _, key in above)] = next(part for part in text.groups() if part is not None)
    return found

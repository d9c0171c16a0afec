"""The machine and the programs of a run."""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version as package
from pathlib import Path
from typing import Any, cast

from docker.models.containers import Container

from bench import accounting
from bench.contenders import Field
from bench.session import Session, cores


def describe(session: Session, contenders: Field) -> dict[str, Any]:
    """What the figures are of."""
    version = session.docker.version()
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_gib": round(_memory_kib() / 2**20, 1),
        "kernel": platform.release(),
        "load_average": Path("/proc/loadavg").read_text().split()[0],
        "versions": {
            "docker": version["Version"],
            "pulumi": accounting.version(["pulumi", "version"]),
            "pulumi sdk": package("pulumi"),
            "wrk": _number(accounting.version(["wrk", "--version"])),
            **_of_contenders(session, contenders),
        },
    }


def _of_contenders(session: Session, contenders: Field) -> dict[str, str]:
    """What they say of themselves, in their containers."""
    questions = {
        "port": [("nginx", "NGINX", ["nginx", "-v"]), ("uwsgi", "uWSGI", ["uwsgi", "--version"])],
        "haproxy": [("haproxy", "proxy", ["haproxy", "-v"])],
        "caddy": [("caddy", "proxy", ["caddy", "version"])],
        "traefik": [("traefik", "proxy", ["traefik", "version"])],
    }
    found = {}
    for contender in contenders.ready:
        for name, part, command in questions.get(contender.key, []):
            container = session.docker.containers.get(contender.parts[part][0])
            found[name] = _number(_said(container, command))
            if name == "uwsgi":
                found["python"] = _said(container, ["python", "--version"]).removeprefix("Python ").strip()
    return found


def _said(container: Container, command: list[str]) -> str:
    return cast(bytes, container.exec_run(command).output).decode(errors="replace")


def _number(text: str) -> str:
    """The first version in it."""
    found = re.search(r"\d+\.\d+(\.\d+)*", text)
    return found[0] if found else ""


def _cpu_model() -> str:
    with suppress(OSError):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.machine()


def _memory_kib() -> int:
    found = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0

"""Where the time goes: what each part of a contender has used of the processors, as the kernel counts it."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import docker

_TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def used(client: docker.DockerClient, parts: Mapping[str, Iterable[str]], ports: Iterable[int]) -> dict[str, float]:
    """Seconds of CPU by part.

    Args:
        client: of the daemon that runs them.
        parts: ids of containers by what they are.
        ports: published ones, each with a userland proxy.

    Of the daemon, which also copies what containers print, all is counted: others' containers too.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    of_whom: dict[str, str] = {}
    for part, ids in parts.items():
        for identity in ids:
            seconds[part] += _of_cgroup(client.api.inspect_container(identity)["State"]["Pid"])
            of_whom[identity] = part
    wanted = {str(port) for port in ports}
    for process in PROC.glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            name = command[0].rsplit("/", 1)[-1]
            if name == "docker-proxy" and wanted & set(command):
                seconds["userland proxy"] += _of_process(process)
            elif name.startswith("containerd-shim") and of_whom.keys() & set(command):
                seconds["shims"] += _of_process(process)
            elif name in ("dockerd", "containerd"):
                seconds["daemon"] += _of_process(process)
        except OSError:  # it has ended meanwhile
            continue
    return dict(seconds)


def _of_cgroup(pid: int) -> float:
    """Seconds of the container whose first process this is; with those of processes that are gone.

    Not from Docker's own statistics: they take a second for each container.
    """
    for line in (PROC / str(pid) / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers.split(",") or not controllers:
            with suppress(FileNotFoundError):
                return _counted(CGROUPS / controllers / path.lstrip("/"))
    raise RuntimeError(f"the kernel does not count the CPU time of process {pid} by cgroup")


def of_group(name: str) -> float:
    """Seconds of a cgroup below the root one, with all that is in it."""
    return _counted(next(folder for folder in (CGROUPS / "cpuacct" / name, CGROUPS / name) if folder.exists()))


def _counted(folder: Path) -> float:
    if (folder / "cpuacct.usage").exists():
        return int((folder / "cpuacct.usage").read_text()) / 1e9
    figures = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())  # version 2
    if "usage_usec" not in figures:
        raise FileNotFoundError(f"{folder} does not count")
    return int(figures["usage_usec"]) / 1e6


def limit(name: str, cores: float, period: float) -> None:
    """Of all that is in that cgroup: no more of the processors than so many, in each period (of seconds)."""
    length = round(period * 1e6)
    for folder in (CGROUPS / "cpu" / name, CGROUPS / name):
        if (folder / "cpu.max").exists():  # version 2
            (folder / "cpu.max").write_text(f"{round(cores * length)} {length}")
            return
        if (folder / "cpu.cfs_quota_us").exists():
            (folder / "cpu.cfs_period_us").write_text(str(length))
            (folder / "cpu.cfs_quota_us").write_text(str(round(cores * length)))
            return
    raise RuntimeError(f"the kernel does not limit the CPU time of {name}")


def _of_process(process: Path) -> float:
    """With the children that it has waited for."""
    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS


def proportional_memory(client: docker.DockerClient, container: str) -> float:
    """MiB of a container's processes; a page that several processes share counts for each with its part (PSS)."""
    processes = client.api.top(container, ps_args="-o pid")["Processes"]
    kibibytes = 0
    for (pid,) in processes:
        for line in (PROC / pid / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kibibytes += int(line.split()[1])
    return kibibytes / 1024


def size(client: docker.DockerClient, image: str) -> float:
    """MB of an image, with all its layers."""
    return int(client.images.get(image).attrs["Size"]) / 1e6


def version(command: list[str]) -> str:
    """The first line of what a program says of itself."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return next(iter((done.stdout or done.stderr).strip().splitlines()), "")

"""`make doctor`: is anything wrong, and what to do about it. It changes nothing, and works before `make up` ever ran.

A check is a function of the context that returns a finding, or None where there is nothing to look at; CHECKS has them
in the order in which they are told. What it raises is told too: `Unknown` as not looked at, all else as its failure.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

from tooling import console, docker_engine, hints, machine, pulumi_cli, recover, stack, venv
from tooling.console import Failure
from tooling.diagnosis import FAIL, OK, UNKNOWN, WARN, Context, Finding, Lock, Unknown

LIMIT = 10.0  # seconds for all checks together

OLDEST_PYTHON = (3, 11)
OLDEST_DOCKER = (20, 10)  # with which the stack is tested
OLDEST_NGINX = (1, 30)
GIB = 1024**3
SPACE_NEEDED, SPACE_WANTED = GIB // 2, 2 * GIB
INODES_NEEDED, INODES_WANTED = 5_000, 50_000
CLOCK_WANTED, CLOCK_NEEDED = 5.0, 300.0  # seconds apart
RENEWAL = timedelta(days=14)
PRIVILEGED = 1024  # ports below it
TLS_PORT = 8443  # as in infra/site.py
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # as daemons call them, and as images do
NOT_YET = "not yet installed: `make up` does that"

_CERTIFICATE = """
import sys
import yaml
from cryptography import x509
config = yaml.safe_load(open(sys.argv[1]))["config"][sys.argv[2]]
text = config.get("certificate") or open(config["certificateFile"]).read()
found = x509.load_pem_x509_certificate(text.encode())
print(found.not_valid_before_utc.isoformat(), found.not_valid_after_utc.isoformat())
"""


# -- versions


def python(context: Context) -> Finding:
    version = sys.version.split()[0]
    if sys.version_info < OLDEST_PYTHON:
        return Finding(FAIL, f"{version} is too old", f"Install Python {_dotted(OLDEST_PYTHON)} or newer.")
    if not venv.is_current(context.root):
        return Finding(UNKNOWN, f"{version}; .venv is missing or out of date: `make up` mends that")
    return Finding(OK, f"{version}; .venv has what requirements-dev.txt says")


def tools(context: Context) -> Finding:
    try:
        return Finding(OK, "; ".join(context.run(tool, "--version").splitlines()[0] for tool in ("make", "git")))
    except Unknown as missing:
        return Finding(WARN, f"{missing}, which the stack runs without, and `make review` does not", "Install it.")


def docker_client(context: Context) -> Finding:
    try:
        return Finding(OK, context.run("docker", "--version").strip())
    except Unknown:
        todo = "make up   (on Debian, as root; else install Docker's command-line client)"
        return Finding(FAIL, "there is none", todo) if context.is_installed else Finding(UNKNOWN, NOT_YET)


def pulumi(context: Context) -> Finding:
    pinned = pulumi_cli.pinned(context.root, "pulumi")
    try:
        version = context.run("pulumi", "version").strip().removeprefix("v")
    except Unknown:
        return Finding(FAIL, "it is gone", "make up") if context.is_installed else Finding(UNKNOWN, NOT_YET)
    origin = ", compiled here (docs/airgap.md)" if machine.load(context.root).origin == pulumi_cli.AIRGAP else ""
    facts = f"{version}{origin}; requirements.txt pins the SDK {pinned}"
    if version.split(".")[0] != pinned.split(".")[0]:
        return Finding(FAIL, facts, "They must be of the same major version: install that one of the CLI.")
    return Finding(OK, facts)


def docker_plugin(context: Context) -> Finding:
    version = pulumi_cli.pinned(context.root, "pulumi-docker")
    plugins = pulumi_cli.users_home(context.environment) / "plugins"
    if (plugins / f"resource-docker-v{version}").is_dir():
        return Finding(OK, f"{version}, as requirements.txt pins it")
    if shutil.which("pulumi-resource-docker", path=context.environment["PATH"]):
        return Finding(OK, "the one on PATH")
    if not context.is_installed:
        return Finding(UNKNOWN, NOT_YET)
    others = sorted(path.name.rpartition("-v")[2] for path in plugins.glob("resource-docker-v*") if path.is_dir())
    return Finding(
        FAIL,
        f"requirements.txt pins {version}; there is {', '.join(others) or 'none'}",
        f'eval "$(make -s env)"; pulumi plugin install resource docker {version}',
    )


# -- the daemon


def daemon(context: Context) -> Finding:
    where = context.where()
    at = where.url + (f" ({where.chosen_by})" if where.chosen_by else "")
    try:
        info = context.info()
    except Unknown as unknown:
        return _no_daemon(context, where, at, str(unknown.__cause__ or unknown))
    version = str(info.get("ServerVersion", ""))
    facts = f"{version} at {at}"
    if _version(version) < OLDEST_DOCKER:
        return Finding(WARN, facts, f"The stack is tested with {_dotted(OLDEST_DOCKER)} and newer: upgrade Docker.")
    return Finding(OK, facts)


def _no_daemon(context: Context, where: docker_engine.Host, at: str, why: str) -> Finding:
    if where.url.startswith("unix://"):
        why = docker_engine.answer(where).why or why
    if not where.chosen_by and not context.is_installed:
        return Finding(UNKNOWN, f"{why}; `make up` installs it if need be, and starts it")
    todo = hints.advice(why, context.name, where) or f"See that it runs: {where.by_hand}"
    if not where.chosen_by:
        todo += "\nOn this machine: sudo systemctl start docker   (or `make up`, as root)"
    return Finding(FAIL, f"{at} is not reached: {why}", todo)


def platform(context: Context) -> Finding:
    info = context.info()
    machine_type = str(info.get("Architecture"))
    found = f"{info.get('OSType')}/{ARCHITECTURES.get(machine_type, machine_type)}"
    wanted = context.settings.get("platform", "")
    if found == wanted:
        return Finding(OK, f"{found}, as the setting says")
    return Finding(
        FAIL,
        f"the daemon's machine is {found}, and the setting platform says {wanted}",
        f'eval "$(make -s env)"; pulumi config set platform {found} --stack {context.name}',
    )


def limits(context: Context) -> Finding:
    info = context.info()
    names = {"MemoryLimit": "memory", "SwapLimit": "swap", "PidsLimit": "processes", "CpuCfsQuota": "CPUs"}
    missing = [what for key, what in names.items() if info.get(key) is False]
    rootless = any("rootless" in option for option in info.get("SecurityOptions") or [])
    facts = f"{'rootless, ' if rootless else ''}cgroup {info.get('CgroupVersion', '1')} ({info.get('CgroupDriver')})"
    if missing:
        return Finding(
            WARN,
            f"{facts}: limits of {', '.join(missing)} do not hold",
            "A replica can take what others need. Rootless: delegate the controllers to the user (systemd); else boot\n"
            "with cgroup_enable=memory swapaccount=1.",
        )
    if rootless and int(context.settings.get("port", 0)) < PRIVILEGED:
        todo = "For those: sysctl net.ipv4.ip_unprivileged_port_start=80"
        return Finding(WARN, f"{facts}: it cannot publish ports below 1024", todo)
    return Finding(OK, f"{facts}; limits of memory, swap, processes and CPUs hold")


def clock(context: Context) -> Finding:
    info = context.info()
    at = datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", str(info["SystemTime"])))
    apart = {"the daemon's": at.timestamp() - info["Asked"]}
    try:
        ahead = context.ahead(_registries(context, context.settings.get("registry") or "nginx")[0])
        if ahead is not None:
            apart["the registry's"] = ahead
    except OSError:
        pass
    whose, most = max(apart.items(), key=lambda item: abs(item[1]))
    facts = f"this machine's is {abs(most):.1f} s {'behind' if most > 0 else 'ahead of'} {whose}"
    if abs(most) <= CLOCK_WANTED:
        return Finding(OK, f"this machine's and {' and '.join(apart)} are {abs(most):.1f} s apart")
    todo = "Have both set by NTP (timedatectl set-ntp true): certificates and logins depend on the time."
    return Finding(FAIL if abs(most) > CLOCK_NEEDED else WARN, facts, todo)


def disk_of_docker(context: Context) -> Finding:
    folder = Path(str(context.info().get("DockerRootDir")))
    if not context.is_daemon_here or not folder.exists():
        raise Unknown("the daemon is on another machine, or in a virtual one")
    finding = _space(folder, "docker builder prune   (what builds keep to be faster)\ndocker image prune --all")
    try:
        rows = context.docker("system", "df", "--format={{.Type}} {{.Reclaimable}}").splitlines()
        given = [row for row in rows if re.search(r"[1-9]\S*[kMGT]B", row)]
    except Failure:  # much is there, and it takes its time
        given = []
    more = f"; to be had back: {', '.join(given)}" if given else ""
    return Finding(finding.status, finding.facts + more, finding.todo)


def disk_of_clone(context: Context) -> Finding:
    return _space(context.root, "make clean   (with ARGS=--all also what clones share), or make room beside it.")


def _space(folder: Path, todo: str) -> Finding:
    there = os.statvfs(folder)
    space = there.f_bavail * there.f_frsize
    inodes = there.f_favail if there.f_files else INODES_WANTED  # some file systems make them as they are needed
    counted = f" and {there.f_favail:,} inodes" if there.f_files else ""
    facts = f"{space / GIB:.1f} GiB{counted} free at {folder}"
    if space < SPACE_NEEDED or inodes < INODES_NEEDED:
        return Finding(FAIL, facts, todo)
    if space < SPACE_WANTED or inodes < INODES_WANTED:
        return Finding(WARN, facts, todo)
    return Finding(OK, facts)


# -- images and registries


def python_image(context: Context) -> Finding:
    return _image(context, "pythonImage", "PYTHON_VERSION")


def nginx_image(context: Context) -> Finding:
    return _image(context, "nginxImage", "NGINX_VERSION")


def _image(context: Context, setting: str, variable: str) -> Finding:
    """Whether a base image is there or to be had, and new enough."""
    name = context.settings.get(setting, "")
    if name == context.declared.get(setting):
        # `make up` sets what stands in where the default is not to be had.
        known = machine.load(context.root)
        own = known.elsewhere.get(context.where().url) if "docker:host" in context.settings else known.stand_ins
        name = (own or {}).get(setting, name)
    tag = name.partition("@")[0].rpartition(":")[2]
    choose = f'eval "$(make -s env)"; pulumi config set {setting} NAME:TAG --stack {context.name}'
    try:
        found = json.loads(context.docker("image", "inspect", name))[0]
    except Failure:
        found = None
    variables = dict(text.partition("=")[::2] for text in ((found or {}).get("Config") or {}).get("Env") or [])
    version = variables.get(variable) or tag
    if setting == "nginxImage" and (0,) < _version(version) < OLDEST_NGINX:
        return Finding(FAIL, f"{name} is {version}", f"NGINX {_dotted(OLDEST_NGINX)} or newer is needed:\n{choose}")
    if found:
        platform = f"{found.get('Os')}/{found.get('Architecture')}"
        if platform != context.settings.get("platform"):
            wanted = context.settings.get("platform", "")
            todo = f"docker pull --platform {wanted} {name}"
            return Finding(FAIL, f"{name} on the daemon is for {platform}, not {wanted}", todo)
        return Finding(OK, f"{name} is on the daemon" + (f" ({version})" if version != tag else ""))
    problems = []
    for place in _registries(context, name):
        try:
            context.ahead(place)
        except OSError as error:
            problems.append(str(error))
        else:
            return Finding(OK, f"{name} is not on the daemon; {place} answers, so that `make up` can pull it")
    facts = f"{name} is not on the daemon, and its registry is not reached: {'; '.join(problems)}"
    if not context.is_installed:
        return Finding(UNKNOWN, f"{facts}; `make up` builds a stand-in (docs/airgap.md)")
    if not context.is_daemon_here:
        return Finding(WARN, f"{facts} from here", "The daemon may reach it.")
    return Finding(FAIL, facts, f"Bring it there (docker load), mend the way to it, or choose another:\n{choose}")


def _registries(context: Context, image: str) -> list[str]:
    """Where the daemon looks for it: at the registry in its name, else at its mirrors of Docker's own, and there."""
    if re.match(r"[^/]*[.:][^/]*/|localhost/", image):
        return [image.split("/")[0]]
    info = context.info()
    mirrors = (info.get("RegistryConfig") or {}).get("Mirrors") or []
    return [urlsplit(url).netloc for url in (*mirrors, str(info.get("IndexServerAddress", "")))]


def registry(context: Context) -> Finding | None:
    """Where a swarm's images are pushed."""
    address = context.settings.get("registry", "")
    if not context.is_swarm or not address:
        return None
    try:
        context.ahead(address.partition("/")[0])
    except OSError as error:
        return Finding(
            FAIL if context.is_daemon_here else WARN,
            f"it is not reached from here: {error}",
            "All nodes must reach it. One that speaks HTTP alone is named in each daemon's insecure-registries:\n"
            "docs/scaling.md.",
        )
    return Finding(OK, f"{address} answers")


# -- ports


def port(context: Context) -> Finding:
    return _port(context, "port", context.settings.get("port", ""))


def https_port(context: Context) -> Finding | None:
    return _port(context, "tls.port", context.settings.get("tls.port", str(TLS_PORT))) if context.has_tls else None


def metrics_port(context: Context) -> Finding | None:
    number = context.settings.get("metrics.port", "0")
    is_on = context.settings.get("metrics.enabled") == "true" and number != "0"
    return _port(context, "metrics.port", number) if is_on else None


def _port(context: Context, setting: str, number: str) -> Finding:
    """Free, this very stack's, or somebody else's."""
    address = context.settings.get("publishAddress", "")
    own = _own_port(context, int(number))
    if own:
        return Finding(OK, f"{number} is this stack's: {own}")
    path = "--path " if "." in setting else ""
    choose = f'eval "$(make -s env)"; pulumi config set {path}{setting}'
    if urlsplit(context.where().url).scheme != "unix":
        context.info()
        holder = hints.holder(int(number), context.where())
        if holder:
            todo = f"Free it, or choose another one:\n{choose} PORT --stack {context.name}"
            return Finding(FAIL, f"{number} is taken by {holder}", todo)
        return Finding(OK, f"no container has {number}; what else listens on {context.where().url} is not known here")
    problem = _bind(address, int(number))
    if problem == errno.EADDRNOTAVAIL:
        todo = f'eval "$(make -s env)"; pulumi config set publishAddress 127.0.0.1 --stack {context.name}'
        return Finding(FAIL, f"{address} is no address of this machine", todo)
    if problem == errno.EADDRINUSE:
        who = hints.holder(int(number), context.where())
        taken = f"{number} is taken{f' by {who}' if who else ''}"
        if not _is_reached(context):
            return Finding(UNKNOWN, f"{taken}; whether that is this stack, its daemon would say")
        free = hints.free_port(int(number) + 1)
        todo = f"Free it, or choose another one:\n{choose} {free} --stack {context.name}"
        return Finding(FAIL, taken, todo)
    return Finding(OK, f"{number} is free at {address}")


def _is_reached(context: Context) -> bool:
    try:
        return bool(context.info())
    except Unknown:
        return False


def _own_port(context: Context, number: int) -> str:
    """What of this stack has the port: a container or a service, or NGINX on the network of the host."""
    try:
        state = context.state()
        row = '{{.ID}} {{.Names}} {{.Label "com.docker.swarm.service.id"}}'
        rows = context.docker("ps", "--no-trunc", f"--filter=publish={number}", f"--format={row}").splitlines()
        if context.is_swarm:  # of the routing mesh, which no container publishes
            services = context.docker("service", "ls", "--format={{.ID}} {{.Name}} {{.Ports}}").splitlines()
            rows += [service for service in services if f":{number}->" in service]
        for identity, who, *service in map(str.split, rows):
            if any(known.startswith((identity, *service[:1])) for known in state.known):
                return who
        nginx = [identity for logical, identity in state.names.items() if logical.startswith("nginx")]
        if context.settings.get("publish") != "host" or not nginx:
            return ""
        pids = {*map(int, context.docker("inspect", "--format={{.State.Pid}}", *nginx).split())}
    except (Failure, Unknown):
        return ""  # then others have been told what is wrong
    return "NGINX on the network of the host" if pids & {pid for pid, _ in hints.processes(number)} else ""


def _bind(address: str, number: int) -> int:
    """The error number of taking the port for a moment; 0 where that works, or only root may tell."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, number))
            probe.listen()
        except OSError as error:
            return 0 if error.errno == errno.EACCES else error.errno or 0
    return 0


# -- the state


def state(context: Context) -> Finding:
    where = stack.backend(context.root) or "the backend that Pulumi.yaml names"
    try:
        export = context.export()
    except Failure as failure:
        todo = (
            "See that it is there and that you are logged in:\n"
            'eval "$(make -s env)"; pulumi whoami --verbose\n'
            f"After an update that was killed: make recover STACK={context.name}"
        )
        return Finding(FAIL, f"{where} is not read: {failure.what}", hints.advice(failure.what, context.name) or todo)
    if export is None:
        return Finding(UNKNOWN, f"there is no stack {context.name} at {where} yet: `make up` creates it")
    deployment = export.get("deployment") or {}
    pending = [operation["type"] for operation in deployment.get("pending_operations") or []]
    facts = f"{len(deployment.get('resources') or [])} resources at {where}"
    if pending and not any(lock.lives for lock in _known_locks(context)):
        return Finding(
            FAIL,
            f"an update was cut off: pending operations: {len(pending)}",
            f"make recover STACK={context.name}",
        )
    return Finding(OK, facts)


def lock(context: Context) -> Finding:
    locks = context.locks()
    if not locks:
        return Finding(OK, "free")
    held = "; ".join(map(str, locks))
    if any(lock.lives and lock.is_here for lock in locks):
        return Finding(WARN, f"an update runs: {held}", "Wait until it ends.")
    if any(not lock.is_here for lock in locks):
        return Finding(
            WARN,
            f"held by {held}; whether that still runs, only that machine knows",
            f'If it does not: eval "$(make -s env)"; pulumi cancel --yes {context.name}, then make recover',
        )
    return Finding(FAIL, f"left by an update that is no more ({held})", f"make recover STACK={context.name}")


def _known_locks(context: Context) -> list[Lock]:
    try:
        return context.locks()
    except Unknown:
        return []


def passphrase(context: Context) -> Finding | None:
    """Encrypts something with a copy of the configuration: that takes the right one, and secrets need not be shown."""
    file = context.root / f"Pulumi.{context.name}.yaml"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if not re.search(r"^(encryptionsalt|secretsprovider):", text, re.MULTILINE):
        return None
    if not context.is_installed:
        raise Unknown(f"Pulumi is {NOT_YET}")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        copy.write_text(text, encoding="utf-8")
        try:
            context.pulumi("config", "set", "--secret", "doctor", "--config-file", str(copy), stdin="is it right?")
        except Failure as failure:
            todo = hints.advice(failure.what, context.name)
            return Finding(FAIL, failure.what, todo or f"See what Pulumi.{context.name}.yaml has its secrets from.")
    return Finding(OK, f"it is the one of {file.name}")


def certificate(context: Context) -> Finding | None:
    if not context.has_tls:
        return None
    if not venv.python(context.root).exists():
        raise Unknown(f".venv is {NOT_YET}")
    file, key = f"Pulumi.{context.name}.yaml", f"{stack.project(context.root)}:tls"
    said = context.run(str(venv.python(context.root)), "-c", _CERTIFICATE, file, key)
    starts, ends = map(datetime.fromisoformat, said.split())
    now = datetime.now(timezone.utc)  # noqa: UP017 (an older Python is to get as far as being told so)
    todo = "Renew it: docs/tls.md, or for development `make certificate`; then make up."
    if ends < now:
        return Finding(FAIL, f"it ended on {ends:%Y-%m-%d %H:%M} UTC", todo)
    if starts > now:
        return Finding(FAIL, f"it is not valid before {starts:%Y-%m-%d %H:%M} UTC", f"Is the clock right? Else: {todo}")
    status = WARN if ends - now < RENEWAL else OK
    return Finding(status, f"valid until {ends:%Y-%m-%d}, {(ends - now).days} days", todo if status == WARN else "")


# -- what runs


def swarm(context: Context) -> Finding | None:
    if not context.is_swarm:
        return None
    found = context.info().get("Swarm") or {}
    node = context.info().get("Name")
    if found.get("LocalNodeState") != "active":
        todo = "docker swarm init   (or join, as a manager: docs/scaling.md)"
        return Finding(FAIL, f"{node} is in no swarm ({found.get('LocalNodeState')}) {found.get('Error', '')}", todo)
    if not found.get("ControlAvailable"):
        todo = f"Name a manager in docker:host, or on a manager: docker node promote {node}"
        return Finding(FAIL, f"{node} is a worker, and the stack needs a manager", todo)
    try:
        row = "{{.Hostname}}\t{{.Status}}\t{{.ManagerStatus}}"
        nodes = [line.split("\t") for line in context.docker("node", "ls", f"--format={row}").splitlines()]
    except Failure as failure:
        todo = "Most managers must be there and see each other: docker node ls, on each. docs/scaling.md."
        return Finding(FAIL, failure.what, todo)
    managers = [(name, status) for name, _, status in nodes if status]
    reachable = [name for name, status in managers if status != "Unreachable"]
    facts = f"{len(nodes)} nodes, {len(reachable)} of {len(managers)} managers reachable"
    down = [f"{name} ({status})" for name, status, _ in nodes if status != "Ready"]
    if down or len(reachable) < len(managers):
        gone = ", ".join(down) or ", ".join(name for name, status in managers if name not in reachable)
        return Finding(WARN, f"{facts}; gone: {gone}", "See to that node, or: docker node rm --force NODE")
    return Finding(OK, facts)


def containers(context: Context) -> Finding | None:
    """Of the stack, or its services on a swarm."""
    state = context.state()
    if not state.known:
        return Finding(UNKNOWN, "nothing is deployed yet: `make up` does that")
    return _services(context, state) if context.is_swarm else _containers(context, state)


def _containers(context: Context, state: recover.State) -> Finding:
    from tooling.containers import Container

    labels = zip(recover.LABELS, (stack.project(context.root), context.name))  # noqa: B905
    filters = [f"--filter=label={label}={value}" for label, value in labels]
    filters += [f"--filter=volume={volume}" for volume in sorted(state.volumes)]
    ids = context.docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()
    there = [Container.of(described) for described in json.loads(context.docker("inspect", *ids))] if ids else []
    resources = ((context.export() or {}).get("deployment") or {}).get("resources") or []
    # Taken out by `make drain`, perhaps because they are unwell.
    drained = sorted({name for found in resources for name in (found.get("inputs") or {}).get("drained") or []})
    own = [found for found in there if found.id in state.known and found.name not in drained]
    bad = [f"{found.name} is {found.state}" for found in own if found.state != "running"]
    bad += [f"{found.name} is {found.health}" for found in own if found.health not in ("healthy", "starting", "")]
    bad += [f"{logical} is not there" for logical, identity in state.names.items() if identity not in ids]
    lost = [found.full_name for found in there if found.id not in state.known]
    if bad:
        up = 'eval "$(make -s env)"; pulumi up --refresh'
        todo = f"make logs STACK={context.name} says why. To start or make it again:\n{up} --stack {context.name}"
        return Finding(FAIL, ", ".join(bad), todo)
    if lost and not any(lock.lives for lock in _known_locks(context)):
        return Finding(WARN, f"the state does not know {', '.join(lost)}", f"make recover STACK={context.name}")
    if drained:
        return Finding(
            WARN, f"{', '.join(drained)} gets no requests", f"make resume STACK={context.name}, once it is well"
        )
    # The gate lets a release take traffic on what it has seen itself; Docker looks some seconds later.
    starting = sum(found.health == "starting" for found in there)
    more = f"; {starting} still to be looked at by Docker" if starting else ", and none is unhealthy"
    return Finding(OK, f"all {len(there)} run{more}")


def _services(context: Context, state: recover.State) -> Finding:
    rows = context.docker("service", "ls", "--format={{.ID}} {{.Name}} {{.Replicas}}").splitlines()
    own = [row.split()[1:3] for row in rows if any(known.startswith(row.split()[0]) for known in state.known)]
    short = [f"{name} has {count}" for name, count in own if len(set(count.split("/"))) > 1]
    if short or not own:
        return Finding(FAIL, ", ".join(short) or "the swarm has none of them", f"make ps STACK={context.name}")
    return Finding(OK, ", ".join(f"{name} {count}" for name, count in own))


Check = Callable[[Context], "Finding | None"]

CHECKS: tuple[Check, ...] = (
    *(python, tools, pulumi, docker_plugin, docker_client),
    *(daemon, platform, limits, clock, swarm),
    *(disk_of_docker, disk_of_clone),
    *(python_image, nginx_image, registry),
    *(port, https_port, metrics_port, certificate),
    *(state, lock, passphrase, containers),
)


def run(root: Path, name: str, rest: Sequence[str]) -> int:
    """Tells what each check has found; 1 if anything is wrong."""
    if not {*rest} <= {"--json"}:
        raise Failure(f"make doctor knows no {' '.join(rest)}.", "make doctor\nmake doctor ARGS=--json")
    found = examine(Context(root, name), CHECKS)
    if rest:
        print(json.dumps([{"check": check, **asdict(finding)} for check, finding in found.items()], indent=2))
    else:
        _tell(found)
    return int(any(finding.status == FAIL for finding in found.values()))


def examine(context: Context, checks: Sequence[Check], limit: float = LIMIT) -> dict[str, Finding]:
    """Runs them at once. One that has not ended in time has failed; the others' findings are told all the same."""
    found: dict[str, Finding | None] = {}

    def look(check: Check) -> None:
        found[_name(check)] = _look(check, context)

    threads = [threading.Thread(target=look, args=(check,), daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + limit
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    late = Finding(FAIL, f"no answer within {limit:.0f} s", "See what `docker info` and `pulumi whoami` say.")
    results = {_name(check): found.get(_name(check), late) for check in checks}
    return {name: finding for name, finding in results.items() if finding}


def _look(check: Check, context: Context) -> Finding | None:
    try:
        return check(context)
    except Unknown as unknown:
        return Finding(UNKNOWN, f"not looked at: {unknown}")
    except Failure as failure:
        return Finding(FAIL, failure.what, failure.todo)
    except Exception as error:  # one check that crashes must not hide what the others say
        return Finding(FAIL, f"the check itself failed: {type(error).__name__}: {error}", "Mend tooling/doctor.py.")


def _name(check: Check) -> str:
    return check.__name__.replace("_", " ")


def _tell(found: dict[str, Finding]) -> None:
    width = max(map(len, found))
    for name, finding in found.items():
        indent = "\n" + " " * (width + 8)
        print(f"{finding.status:<4}  {name:<{width}}  {finding.facts.strip().replace(chr(10), indent)}")
        if finding.todo:
            print(f"{indent[1:]}→ {finding.todo.replace(chr(10), f'{indent}  ')}")
    statuses = [finding.status for finding in found.values()]
    wrong, warnings = statuses.count(FAIL), statuses.count(WARN)
    sys.stdout.flush()
    console.say(f"Wrong: {wrong or 'nothing'}. Warnings: {warnings or 'none'}.")


def _version(text: str) -> tuple[int, ...]:
    """Of what begins with one; (0,) where none does."""
    found = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0,)


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))

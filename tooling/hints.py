"""What to do about a `pulumi` command that failed, where its output shows a cause that is known."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from tooling.docker_engine import DEFAULT_HOST, Host

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

_PORT = r"(?P<address>\S*):(?P<port>\d+)"
_ON_NODE = r"(?:on (?P<node>\S+) failed: [^\n]*)?"
_PULUMI = 'eval "$(make -s env)"; pulumi'
# Of one resource among the engine's diagnostics: as far as the next heading, which is less indented.
_OF_IMAGE = r"docker:index:Image \({image}-image\):(?s:(?:(?!\n  \S).)*)"
_STEP_FAILED = (
    r"(?:The command '(?P<step>[^\n]*)' returned a non-zero code: \d+"
    r"|process \"(?P<process>[^\n]*)\" did not complete successfully: exit code: \d+)"
)
_IMAGE_SETTING = (
    "See that its name is right:\n{pulumi} config get {setting} --stack {stack}\n"
    "Another one is chosen by:\n{pulumi} config set {setting} NAME:TAG --stack {stack}"
)

# Pattern of the output → what to do; the first that is found counts. Causes come before what they lead to.
HINTS: tuple[tuple[str, str], ...] = (
    (
        r"incorrect passphrase",
        "The passphrase is not the one that Pulumi.{stack}.yaml was made with. Set that one, then run this again:\n"
        "export PULUMI_CONFIG_PASSPHRASE=…   (or PULUMI_CONFIG_PASSPHRASE_FILE=…)",
    ),
    (
        r"passphrase must be set with|unable to find either `PULUMI_CONFIG_PASSPHRASE`",
        "The secrets of stack {stack} need their passphrase:\n"
        "export PULUMI_CONFIG_PASSPHRASE=…   (or PULUMI_CONFIG_PASSPHRASE_FILE=…)",
    ),
    (
        r"the stack is currently locked by|Another update is currently in progress",
        "Another update of stack {stack} runs: wait for it. Or it was killed:\n"
        "make recover STACK={stack}   (the lock alone: {pulumi} cancel --yes --stack {stack})",
    ),
    (
        r"permission denied while trying to connect to the [Dd]ocker|may not use the daemon's socket",
        "This user may not use Docker: run this as root, or join the group docker and log in again.",
    ),
    (
        r"The Docker daemon at (?P<host>\S+) (?:cannot be|is not) reached"
        r"|Cannot connect to the Docker daemon at (?P<daemon>\S+)\. Is the docker daemon running"
        r"|failed to connect to the docker API at (?P<api>\S+);"
        r"|failed to connect to any docker daemon|Error while fetching server API version|error during connect: ",
        "What runs is not touched by that. See that this Docker daemon runs, or name another one for the stack:\n"
        "{pulumi} config get docker:host --stack {stack}   (else DOCKER_HOST, else the machine's own)\n"
        "{by_hand}",
    ),
    (
        r"This node is not a swarm manager|Cannot create a multi-host network from a worker node",
        "The Docker daemon of the stack is no manager of a swarm, which `orchestrator: swarm` takes. Make it one:\n"
        "docker swarm init   (of a worker: `docker node promote NODE`, on a manager)\n"
        "or name one:\n{pulumi} config set docker:host ssh://MANAGER --stack {stack}",
    ),
    (
        r"The swarm does not have a leader",
        "Half of the swarm's managers or more are away; what runs goes on running. Bring them back (docs/scaling.md):\n"
        "docker info   (on the one that `docker:host` names: it lists those that it knows)",
    ),
    (
        r"network (?P<network>\S+) (?:id \S+ )?has active endpoints",
        "Something that is not the stack's is on its network. See what, and take it off; then run this again:\n"
        "docker network inspect --format '{{{{json .Containers}}}}' {network}\n"
        "docker network disconnect --force {network} NAME",
    ),
    (
        r"[Nn]o space left on device|[Dd]isk quota exceeded",
        "The disk of the Docker daemon is full. What runs goes on running. See what takes the space, and free some:\n"
        "docker system df\n"
        "docker builder prune   (what builds keep to be faster)\n"
        "docker image prune     (layers that no image uses; with --all also images that no container uses)\n"
        "Then run this again.",
    ),
    (
        rf"listen (?:tcp|udp)[46]? {_PORT}: bind: cannot assign requested address",
        "{address} is no address of the Docker daemon's machine (`ip address` lists them). Choose one of them:\n"
        "{pulumi} config set publishAddress 127.0.0.1 --stack {stack}",
    ),
    (
        rf"{_ON_NODE}listen (?:tcp|udp)[46]? {_PORT}: bind: address already in use",
        port_todo := (
            "Port {port} is taken{holder}. Free it, or choose another one, then run this again:\n"
            "{pulumi} config set port {free} --stack {stack}   (that of HTTPS: --path tls.port {free})"
        ),
    ),
    (
        rf"{_ON_NODE}Bind for {_PORT}(?: failed: port is already allocated|: unexpected error)",
        port_todo,
    ),
    (
        r"failed to bind host port (?:for )?(?P<address>\[[^\]]*\]|[^\s:]+):(?P<port>\d+)\S*: address already in use",
        port_todo,
    ),
    (rf"bind\(\) to {_PORT} failed \(\d+: Address (?:already )?in use\)", port_todo),
    (
        r"pull access denied for (?P<image>[^\s,]+)|manifest for (?P<name>\S+) not found"
        r"|failed to resolve source metadata for (?P<source>\S+): (?!failed to do request)",
        "The base image {image} is neither on the Docker daemon nor in its registry, or needs a `docker login`.\n"
        + _IMAGE_SETTING,
    ),
    (
        r"no basic auth credentials|unauthorized: |401 Unauthorized|denied: requested access to the resource is denied",
        "The registry asks who pushes, and takes this login, or none, for no answer. Set it (docs/scaling.md):\n"
        "{pulumi} config set --secret --path 'docker:registryAuth[0].address' HOST:PORT --stack {stack}\n"
        "and so `.username` and `.password`; or `docker login HOST:PORT`, which `pulumi` then passes on.",
    ),
    (
        r"https?://(?P<registry>[^/\"\s]+)/v2/[^\n]*(?:server gave HTTP response to HTTPS client|x509: )",
        "Docker does not trust {registry}: it speaks HTTP alone, or nobody whom Docker knows has signed for it.\n"
        "On each node: its authority's certificate into /etc/docker/certs.d/{registry}/ca.crt.\n"
        'Or, where it is in a network of your own: "insecure-registries": ["{registry}"] in /etc/docker/daemon.json,\n'
        "then: systemctl reload docker",
    ),
    (
        r"(?:Get|Head) \"?https?://(?P<registry>[^/\"\s]+)/v2/[^\n]*(?:dial tcp|net/http|context deadline|tls:|EOF)"
        r"|(?P<limit>toomanyrequests): ",
        "The base image ({setting}) is not on the Docker daemon, and its registry is not reached or does not give it.\n"
        "Try `docker pull` by hand, or bring the image there with `docker load`. " + _IMAGE_SETTING,
    ),
    (
        _OF_IMAGE.format(image="(?:app|canary)") + r"(?:The command '|process \")[^\n]*IMPORT_CHECK",
        "The app cannot be imported, for the reason above. Mend it, then run this again. Or, if all it lacks in the\n"
        "build is its environment:\n{pulumi} config set importCheck false --stack {stack}",
    ),
    (
        _OF_IMAGE.format(image="(?:app|(?P<canary>canary))") + _STEP_FAILED,
        "This step of the build of the {app}'s image failed, for the reason above it:\n{step}\n"
        "Mend that (requirements.txt, most often), then run this again. To try the build alone:\n"
        'eval "$(make -s env)"\ndocker build --file uwsgi/Dockerfile --target builder \\\n'
        "  --build-arg PYTHON_IMAGE=$(pulumi config get pythonImage) $({folder})",
    ),
    (
        _OF_IMAGE.format(image="exporter") + _STEP_FAILED,
        "This step of the exporter image's build failed, for the reason above it:\n{step}\n"
        "Mend that, then run this again. To try the build alone:\n"
        'eval "$(make -s env)"\ndocker build --build-arg PYTHON_IMAGE=$(pulumi config get pythonImage) exporter',
    ),
    (
        _OF_IMAGE.format(image="nginx") + _STEP_FAILED,
        "This step of the NGINX image's build failed, for the reason above it:\n{step}\n"
        "Mend that, then run this again. To try the build alone:\n"
        'eval "$(make -s env)"\ndocker build --build-arg NGINX_IMAGE=$(pulumi config get nginxImage) nginx',
    ),
    (
        r"service rollback completed|did not converge after",
        "Not all tasks of a service came to run: why, is said above. What ran before them goes on serving.\n"
        "make ps STACK={stack}   (where each task is, and what failed)\nmake logs STACK={stack}\n"
        "Mend that, then run this again.",
    ),
    (
        r"with \d+ pending operations",
        "An update before this one was cut off, and left what the state does not know. This puts it in order:\n"
        "make recover STACK={stack}",
    ),
)


def advice(output: str, stack: str, where: Host | None = None) -> str:
    """What a person can do about it; empty where the cause is not known.

    Args:
        output: what the command has printed, all of it.
        stack: for the commands that are named.
        where: the stack's Docker daemon; None for the one that the environment names.
    """
    plain = _COLOUR.sub("", output)
    for pattern, todo in HINTS:
        found = re.search(pattern, plain)
        if found:
            of_nginx = "  docker:index:Image (nginx-image):" in plain
            more = {"stack": stack, "setting": "nginxImage" if of_nginx else "pythonImage", "pulumi": _PULUMI}
            return todo.format_map(more | _values(found.groupdict(), where))
    return ""


def _values(found: Mapping[str, str | None], where: Host | None) -> dict[str, str]:
    values = {name: text for name, text in found.items() if text}
    aliases = {"daemon": "host", "api": "host", "name": "image", "source": "image", "process": "step"}
    values |= {alias: values[name] for name, alias in aliases.items() if name in values}
    if "port" in values:
        port = int(values["port"])
        # What this machine knows says nothing about a node of a swarm.
        who = "" if "node" in values else holder(port, where)
        place = f" on {values['node']}" if "node" in values else ""
        values |= {"holder": f" by {who}" if who else place, "free": str(free_port(port + 1))}
    folder = "pulumi config get appFolder"
    of_canary = {"app": "canary", "folder": f"pulumi config get --path canary.appFolder || {folder}"}
    defaults = of_canary if "canary" in values else {"app": "app", "folder": folder}
    by_hand = where.by_hand if where else f"docker --host {values.get('host', 'HOST')} version"
    return {"by_hand": by_hand, "image": "NAME:TAG", **defaults, **values}


def holder(port: int, where: Host | None = None) -> str:
    """Who listens on the port where that Docker daemon is: a container, or else a process, if the daemon is here."""
    environment = {**os.environ, **(where.environment if where else {})}
    try:
        command = ["docker", "ps", "--filter", f"publish={port}", "--format", "{{.Names}}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, env=environment)
        names = done.stdout.split()
    except (OSError, subprocess.SubprocessError):
        names = []
    if names:
        return f"the container {names[0]}"
    is_here = environment.get("DOCKER_HOST", DEFAULT_HOST).startswith("unix://")
    return next((f"{name} (process {pid})" for pid, name in processes(port)), "") if is_here else ""


def processes(port: int) -> Iterator[tuple[int, str]]:
    """Those of this machine that listen on the port, as far as this user may look into them: number and name."""
    listening = {f"socket:[{inode}]" for inode in _listening(port)}
    for process in Path("/proc").glob("[0-9]*") if listening else ():
        try:
            if listening & set(_open_files(process)):
                yield int(process.name), (process / "comm").read_text().strip()
        except OSError:  # gone, or another user's
            continue


def _open_files(process: Path) -> Iterator[str]:
    for link in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile; its others still count
            yield str(link.readlink())


def _listening(port: int) -> list[str]:
    """The inodes of the sockets that listen on it."""
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        rows = [line.split() for line in table.read_text().splitlines()[1:]] if table.exists() else []
        found += [row[9] for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port]
    return found


def free_port(first: int) -> int:
    """One of the loopback's that nothing has, from that number on."""
    for port in range(max(first, 1024), 65536):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return 8080

"""The containers of a stack, as its state names them."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from tooling import stack
from tooling.console import Failure, say

_CONTAINER = "docker:index/container:Container"


def of_stack(root: Path, name: str) -> dict[str, str]:
    """Logical name → container id, for the containers in the stack's state."""
    try:
        # Its own stderr stays out of the way only if it is quiet; a warning line would spoil the JSON.
        text = subprocess.run(
            ["pulumi", "stack", "export", "--stack", name],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            cwd=root,
            env=stack.full_environment(root, name),
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()
        raise Failure(f"The state of stack {name} cannot be read: {said}", "See what `make preview` says.") from error
    return in_state(json.loads(text))


def in_state(state: Mapping[str, object]) -> dict[str, str]:
    """Logical name → container id, out of an exported state. Replicas on their way out are left out."""
    deployment = state.get("deployment")
    resources = deployment.get("resources") if isinstance(deployment, dict) else None
    found = {}
    for resource in resources or []:
        if resource.get("type") == _CONTAINER and resource.get("id") and not resource.get("delete"):
            found[str(resource["urn"]).rsplit("::", 1)[-1]] = str(resource["id"])
    return found


def ps(root: Path, name: str, rest: list[str]) -> int:
    """`docker ps` of the stack's containers."""
    found = of_stack(root, name)
    if not found:
        say(f"Stack {name} has no containers.")
        return 0
    shape = "table {{.Names}}\t{{.Image}}\t{{.Status}}\t{{.Ports}}"
    filters = [part for identity in found.values() for part in ("--filter", f"id={identity}")]
    command = ["docker", "ps", "--all", "--format", shape, *filters, *rest]
    return subprocess.run(command, check=False, env=stack.full_environment(root, name)).returncode


def logs(root: Path, name: str, rest: list[str]) -> int:
    """`docker logs` of the stack's containers, each line with its container's name in front; `-f` follows them all."""
    found = of_stack(root, name)
    width = max((len(container) for container in found), default=0)
    env = stack.full_environment(root, name)
    lock = threading.Lock()

    def show(container: str, identity: str) -> None:
        command = ["docker", "logs", "--tail", "50", *rest, identity]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                with lock:
                    print(f"{container:<{width}} | {line}", end="", flush=True)

    threads = [threading.Thread(target=show, args=pair, daemon=True) for pair in sorted(found.items())]
    for thread in threads:
        thread.start()
        if "-f" not in rest and "--follow" not in rest:
            thread.join()
    for thread in threads:
        thread.join()
    return 0

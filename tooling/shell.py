"""`make shell`: a shell, or a command, in one of a stack's containers."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tooling import console
from tooling.console import Failure
from tooling.containers import Known, of_stack
from tooling.services import REPLICAS

SHELL = ("sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")
TASK_LABEL = "com.docker.swarm.task.id"


def run(root: Path, name: str, rest: list[str]) -> int:
    """Becomes `docker exec` in the container that is named, or in a healthy replica: a shell, or what follows `--`."""
    before, command = (rest[: rest.index("--")], rest[rest.index("--") + 1 :]) if "--" in rest else (rest, [])
    if len(before) > 1 or ("--" in rest and not command) or any(word.startswith("-") for word in before):
        raise Failure(
            f"make shell knows no {' '.join(rest)}.", 'make shell ARGS="uwsgi-2"\nmake shell ARGS="uwsgi-2 -- ls /app"'
        )
    known = Known.of(root, name)
    wanted = before[0] if before else ""
    container = _of_swarm(known, wanted) if known.services else _of_host(known, wanted)
    terminal = not command and sys.stdin.isatty()
    options = ["--interactive", *(["--tty"] if terminal else [])]
    console.become(["docker", "exec", *options, container, *(command or SHELL)], known.environment, root)
    return 1  # never reached


def _of_host(known: Known, wanted: str) -> str:
    found = of_stack(known)
    running = {container.name: container.id for container in reversed(found) if container.state == "running"}
    if wanted:
        if wanted in running:
            return running[wanted]
        by_full_name = {container.full_name: container.id for container in found if container.state == "running"}
        if wanted in by_full_name:
            return by_full_name[wanted]
        raise _not_there(wanted, sorted(running))
    replicas = [container for container in found if container.role == "replica" and container.state == "running"]
    # An unhealthy one is better than none: somebody wants to see what ails it.
    for container in sorted(replicas, key=lambda one: one.health != "healthy"):
        return container.id
    raise _not_there("a replica", sorted(running))


def _of_swarm(known: Known, wanted: str) -> str:
    """A task's container on the manager that is asked; of one elsewhere, how to get there."""
    tasks = list(_tasks(known))
    fitting = [task for task in tasks if wanted in (task[0], task[0].partition("@")[0])] if wanted else tasks
    for _, task, _ in fitting:
        here = known.docker("ps", "--quiet", "--no-trunc", f"--filter=label={TASK_LABEL}={task}").split()
        if here:
            return here[0]
    if not fitting:
        raise _not_there(wanted or "a replica", [task[0] for task in tasks])
    said, task, node = fitting[0]
    there = f"docker -H ssh://{shlex.quote(node)}"
    raise Failure(
        f"{said} runs on the node {node}, and a manager of another node cannot look into it.",
        f"{there} exec -it $({there} ps --quiet --filter label={TASK_LABEL}={task}) sh",
    )


def _tasks(known: Known) -> Sequence[tuple[str, str, str]]:
    """Name, id and node of the tasks that run, replicas first: uwsgi-SLOT, or ROLE@NODE."""
    found = []
    for role, service in sorted(known.services.items(), key=lambda one: one[0] != REPLICAS):
        text = known.docker(
            "service", "ps", "--no-trunc", "--filter=desired-state=running", "--format={{json .}}", service
        )
        for task in map(json.loads, text.splitlines()):
            if str(task["CurrentState"]).startswith("Running"):
                slot = str(task["Name"]).rpartition(".")[2]
                said = f"uwsgi-{slot}" if role == REPLICAS else f"{role}@{task['Node']}"
                found.append((said, str(task["ID"]), str(task["Node"])))
    return found


def _not_there(wanted: str, there: Sequence[str]) -> Failure:
    which = f"There are: {', '.join(there)}." if there else "None of its containers runs."
    return Failure(f"There is no {wanted} that runs. {which}", "make ps")

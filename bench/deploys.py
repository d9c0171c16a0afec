"""How long it takes to deploy: from nothing, with nothing to do, with a change of the app; and what then lies idle."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import accounting
from bench.compose import Compose
from bench.contenders import Field
from bench.plan import Plan
from bench.session import ROOT, Session
from tests.live.stack import Result, Stack

EMPTY_PROGRAM = """\
name: empty
runtime:
  name: python
  options:
    virtualenv: .venv
"""
SETTLED = 5.0  # seconds after a deployment until it counts as idle
RELEASED = "Hello, deployed World!"


def measure(session: Session, contenders: Field, plan: Plan) -> dict[str, Any]:
    """Seconds, by number of replicas; memory and idle CPU of what was deployed."""
    times: dict[str, dict[str, list[float]]] = {
        what: defaultdict(list) for what in ("create", "noop", "change", "destroy", "compose")
    }
    empty: list[float] = []
    memory: dict[str, float] = {}
    idle: dict[str, Any] = {}
    how = ""
    session.say("warming up: images built and cached")
    # What it has built stays until the end of the run, and with it the cache.
    warm = session.stack({"replicas": "1"})
    warm.up()
    warm.destroy()
    with Compose(session, contenders, 1) as compose:
        how = compose.how
        compose.up()
    program = _empty(session)
    for turn in range(1, plan.repeats + 1):
        for replicas in plan.replicas:
            key = str(replicas)

            def watch(stack: Stack, key: str = key, replicas: int = replicas, turn: int = turn) -> None:
                for _ in range(plan.repeats):
                    times["noop"][key].append(_unchanged(stack))
                    empty.append(program().seconds)
                if turn == 1:
                    members = [str(found.id) for found in stack.containers("replica")]
                    each = [accounting.proportional_memory(session.docker, member) for member in members]
                    memory[key] = statistics.mean(each)
                    if replicas == max(plan.replicas):
                        idle.update(_idle(session, stack, plan.idle_seconds), replicas=replicas)
                times["change"][key].append(_change(stack))

            created, destroyed = _once(session, replicas, watch)
            times["create"][key].append(created)
            times["destroy"][key].append(destroyed)
            with Compose(session, contenders, replicas) as compose:
                times["compose"][key].append(compose.up())
            session.say(
                f"{replicas} replicas, turn {turn} of {plan.repeats}: "
                + ", ".join(f"{what} {found[key][-1]:.1f} s" for what, found in times.items())
                + f", empty program {empty[-1]:.1f} s"
            )
    return {
        "seconds": {what: dict(found) for what, found in times.items()},
        "empty_program": empty,
        "compose_is": how,
        "memory_mib": memory,
        "idle": idle,
    }


def _once(session: Session, replicas: int, watch: Callable[[Stack], None]) -> tuple[float, float]:
    """Seconds to create a stack and to destroy it, with a look at it between."""
    stack = session.stack({"replicas": str(replicas)})
    created = stack.up().seconds
    watch(stack)
    destroyed = stack.destroy().seconds
    session.remove(stack)
    return created, destroyed


def _unchanged(stack: Stack) -> float:
    result = stack.up()
    if set(result.changes) != {"unchanged"}:
        raise RuntimeError(f"an `up` with nothing to do did something:\n{result.output}")
    return result.seconds


def _change(stack: Stack) -> float:
    """Seconds from the start of `up` until the changed app answers."""
    stack.edit("app/webapp.py", "Hello, World!", RELEASED)
    live: list[float] = []
    over = threading.Event()
    begin = time.monotonic()

    def watch() -> None:
        while not over.is_set():
            if RELEASED in stack.get():
                live.append(time.monotonic() - begin)
                return
            time.sleep(0.02)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        stack.up()
        watcher.join(1)
    finally:
        over.set()
    if not live:
        raise RuntimeError("the changed app does not answer after its `up`")
    return live[0]


def _idle(session: Session, stack: Stack, seconds: float) -> dict[str, Any]:
    """Parts of a core that a stack takes which nobody asks."""
    time.sleep(SETTLED)
    session.say(f"watching {len(stack.containers('replica'))} idle replicas for {seconds:.0f} s")
    parts = {
        "NGINX": [str(found.id) for found in stack.containers("nginx")],
        "uWSGI": [str(found.id) for found in stack.containers("replica")],
    }
    before, begin = accounting.used(session.docker, parts, [stack.port]), time.monotonic()
    time.sleep(seconds)
    after, end = accounting.used(session.docker, parts, [stack.port]), time.monotonic()
    return {"cores": {part: (after[part] - before.get(part, 0)) / (end - begin) for part in after}}


def _empty(session: Session) -> Callable[[], Result]:
    """A program with nothing in it, run as the stacks are."""
    stack = session.stack({})  # for its environment, and its way to run commands
    folder: Path = session.folder / "empty"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text(EMPTY_PROGRAM)
    (folder / "__main__.py").write_text("")
    (folder / ".venv").symlink_to(ROOT / ".venv")
    stack.folder = folder
    stack.pulumi("stack", "init", stack.name)
    stack.up()
    return stack.up

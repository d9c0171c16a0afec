"""The stack: its backend, its passphrase, and the environment in which plain `pulumi` works on it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from tooling import console, docker_engine, files, machine, pulumi_cli
from tooling.console import Exited, Failure, step

DEV = "dev"
# For the local dev stack alone: its state lies unencrypted beside the clone anyway, and a newcomer has no secrets yet.
DEV_PASSPHRASE = "uwsgi-nginx-dev"  # noqa: S105


def state_folder(root: Path) -> Path:
    """Where the local backend keeps its state."""
    return files.local(root) / "state"


def backend(root: Path, env: Mapping[str, str] | None = None) -> str:
    """
    The backend: PULUMI_BACKEND_URL, or the one that Pulumi.yaml names (empty here: the CLI reads it itself), or this
    clone's own. A `pulumi login` alone is no choice for this project; the user is told how to make it one.
    """
    env = pulumi_cli.own_environment(root, env)
    if env.get("PULUMI_BACKEND_URL"):
        return env["PULUMI_BACKEND_URL"]
    if re.search(r"^backend:", (root / "Pulumi.yaml").read_text(encoding="utf-8"), re.MULTILINE):
        return ""
    return f"file://{state_folder(root)}"


def is_local(root: Path) -> bool:
    """Whether the state is kept in this clone."""
    return backend(root) == f"file://{state_folder(root)}"


def environment(root: Path, stack: str = DEV) -> dict[str, str]:
    """What plain `pulumi` needs in its environment here, on top of the caller's own. Cheap: a record is read."""
    from tooling import configuration

    known = machine.load(root)
    own = pulumi_cli.own_environment(root)
    front, back = path_folders(root)
    path = os.pathsep.join(part for part in (front, own["PATH"], back) if part)
    env = {"PATH": path, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    if known.pulumi_home:
        env["PULUMI_HOME"] = known.pulumi_home
    daemon = configuration.own_daemon(root, stack)
    if daemon:
        env |= daemon.environment
        if own.get("DOCKER_CONTEXT"):
            env["DOCKER_CONTEXT"] = ""  # else the plugin would follow it, and the rest docker:host
    elif known.docker_host:
        env["DOCKER_HOST"] = known.docker_host
    if backend(root):
        env["PULUMI_BACKEND_URL"] = backend(root)
    chosen = {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & own.keys()
    if stack == DEV and is_local(root) and not chosen:
        env["PULUMI_CONFIG_PASSPHRASE"] = DEV_PASSPHRASE
    return env


def path_folders(root: Path) -> tuple[str, str]:
    """The folders that belong before and after the caller's PATH; empty where none does."""
    known = machine.load(root)
    # A `pulumi` that is on PATH already must not bring its whole folder forward, past others that hide parts of it.
    on_path = known.pulumi in pulumi_cli.own_environment(root)["PATH"].split(os.pathsep)
    return "" if on_path else known.pulumi, known.helpers


def exports(root: Path, stack: str) -> str:
    """Shell lines which set that environment, whatever characters are in it. PATH is added to, not replaced."""
    variables = environment(root, stack)
    del variables["PATH"]
    front, back = path_folders(root)
    lines = [f'export PATH={shlex.quote(front)}:"$PATH"'] if front else []
    lines += [f'export PATH="$PATH":{shlex.quote(back)}'] if back else []
    lines += [f"export {key}={shlex.quote(value)}" for key, value in sorted(variables.items())]
    return "\n".join(lines)


def full_environment(root: Path, stack: str) -> dict[str, str]:
    """The whole environment of a command that the tooling runs."""
    return {**pulumi_cli.own_environment(root), **environment(root, stack)}


def exists(root: Path, stack: str) -> bool:
    """Whether the stack is in the local backend; asking any other one would cost as much as selecting it there."""
    stacks = state_folder(root) / ".pulumi" / "stacks" / project(root)
    return any((stacks / f"{stack}.json{suffix}").exists() for suffix in ("", ".gz"))


def project(root: Path) -> str:
    """The project's name."""
    found = re.search(r"^name:\s*[\"']?([\w.-]+)", (root / "Pulumi.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise Failure("Pulumi.yaml has no name.", "git checkout Pulumi.yaml")
    return found[1]


def fingerprint(root: Path, stack: str) -> str:
    """What was looked at when the stack was found to be in order."""
    return files.digest([root / "Pulumi.yaml", root / f"Pulumi.{stack}.yaml", backend(root)])


def ensure(root: Path, stack: str, settings: Mapping[str, str]) -> None:
    """Selects the stack, creating it if there is none, and points it at the images that stand in on this machine."""
    _passphrase(root, stack)
    log = files.local(root) / "log" / "stack.log"
    with step(f"Stack {stack}", f"on {backend(root) or 'the backend that Pulumi.yaml names'}", log) as current:
        hint(root, current.note)
        if is_local(root):
            state_folder(root).mkdir(parents=True, exist_ok=True)
        commands = [["stack", "select", "--create", stack]]
        commands += [["config", "set", key, value, "--stack", stack] for key, value in settings.items()]
        for command in commands:
            try:
                console.run(
                    ["pulumi", "--non-interactive", *command],
                    timeout=300,
                    current=current,
                    env=full_environment(root, stack),
                    cwd=root,
                )
            except Exited as exited:
                raise Failure(f"pulumi {' '.join(command)} did not work: {exited}", _todo(exited, stack)) from exited


def _todo(exited: Exited, stack: str) -> str:
    if "passphrase" in exited.last_words:
        return f"Set the passphrase that Pulumi.{stack}.yaml was made with:\nexport PULUMI_CONFIG_PASSPHRASE=…"
    if "locked" in exited.last_words:
        return (
            "Another update of the stack runs, or was killed. In the latter case:\n"
            f'eval "$(make -s env)"; pulumi cancel --yes --stack {stack}'
        )
    return 'Mend what it names, then run this again. Plain pulumi works after: eval "$(make -s env)"'


def _passphrase(root: Path, stack: str) -> None:
    needed = is_local(root) and stack != DEV and not sys.stdin.isatty()
    if needed and not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & os.environ.keys():
        raise Failure(
            f"The secrets of stack {stack} need a passphrase. Only the local stack {DEV} has a default.",
            "export PULUMI_CONFIG_PASSPHRASE=…\nor PULUMI_CONFIG_PASSPHRASE_FILE=…; then run this again.",
        )


def hint(root: Path, note: object) -> None:
    """Tells a user who is logged in somewhere that this stack is kept elsewhere."""
    credentials = pulumi_cli.users_home(pulumi_cli.own_environment(root)) / "credentials.json"
    try:
        found = re.search(r'"current":\s*"([^"]+)"', credentials.read_text(encoding="utf-8"))
    except OSError:
        return
    if found and is_local(root) and callable(note):
        note(f"you are logged in to {found[1]}; to keep the stack there instead: export PULUMI_BACKEND_URL={found[1]}")


def docker_host(where: docker_engine.Host) -> str:
    """DOCKER_HOST for Pulumi's Docker plugin, which does not know Docker's contexts; empty where it needs none."""
    return where.url if where.chosen_by and where.chosen_by != "DOCKER_HOST" else ""

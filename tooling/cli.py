"""The commands behind the Makefile's targets."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tooling import bootstrap, configuration, console, files, hints, machine, pulumi_cli, registry, stack, tee, venv
from tooling.console import Failure, say

ROOT = Path(__file__).resolve().parent.parent
FAULTS = tuple(
    f"tests/live/test_{what}.py"
    for what in (
        *("releases", "publish", "tls", "faults", "interrupted"),
        *("daemon", "environment", "bad_input", "operations", "day_two"),
    )
)
UNIT = ("tests/unit", "tests/airgap", "tests/tooling")
SWARM = "tests/swarm"
LIVE = ("tests/live", SWARM)


def main(arguments: Sequence[str]) -> int:
    """Runs one command: `COMMAND STACK [arguments passed on …]`."""
    commands: dict[str, Callable[[str, list[str]], int]] = {
        "up": up,
        "preview": preview,
        "review": review,
        "comment": comment,
        "drift": drift,
        "refresh": refresh,
        "destroy": destroy,
        "recover": recover,
        "test": test,
        "test-swarm": test_swarm,
        "reliability": reliability,
        "bench": bench,
        "unit": unit,
        "lint": lint,
        "format": reformat,
        "reference": reference,
        "diagram": diagram,
        "doctor": doctor,
        "ps": ps,
        "logs": logs,
        "shell": shell,
        "secret": secret,
        "drain": drain,
        "resume": resume,
        "rollback": rollback,
        "backup": backup,
        "restore": restore,
        "orphans": orphans,
        "adopt": adopt,
        "upgrade": upgrade,
        "rename": rename,
        "certificate": certificate,
        "url": url,
        "env": env,
        "clean": clean,
    }
    if len(arguments) < 2 or arguments[0] not in commands:
        say(f"usage: python3 -m tooling {{{'|'.join(commands)}}} STACK [ARGUMENTS …]")
        return 2
    name, stack_name, *rest = arguments
    console.on_termination()
    try:
        return commands[name](stack_name, rest)
    except Failure as failure:
        console.report(failure, f"make {name}")
        return 1
    except KeyboardInterrupt:
        console.stop_all()
        say(f"\nmake {name} was interrupted. What is done stays done: run it again to go on.")
        return 130


def up(name: str, rest: list[str]) -> int:
    """Gets the machine ready, brings the stack up, and ends with its URL."""
    bootstrap.ensure(ROOT, name)
    code = _pulumi(name, ["up", "--yes"], rest)
    return code or url(name, [])


def preview(name: str, rest: list[str]) -> int:
    """What `up` would change."""
    bootstrap.ensure(ROOT, name)
    return _pulumi(name, ["preview"], rest)


def review(name: str, rest: list[str]) -> int:
    """What a pull request gets; its comment is in .local/review.md."""
    from tooling import review

    checks = {"make lint": lambda: lint(name, []), "make unit": lambda: unit(name, [])}
    return review.run(ROOT, name, rest, checks)


def comment(name: str, rest: list[str]) -> int:
    """Posts what `review` wrote."""
    from tooling import comment

    del name
    return comment.run(ROOT, rest)


def drift(name: str, rest: list[str]) -> int:
    """What differs from what is declared; that is a failure."""
    bootstrap.ensure(ROOT, name)
    return _pulumi(name, ["preview", "--refresh", "--expect-no-changes", "--diff"], rest)


def refresh(name: str, rest: list[str]) -> int:
    """Compares the state with what is really there."""
    bootstrap.ensure(ROOT, name)
    return _pulumi(name, ["refresh", "--yes"], rest)


def destroy(name: str, rest: list[str]) -> int:
    """Removes all that the stack has made."""
    if stack.is_local(ROOT) and not stack.exists(ROOT, name):
        say(f"There is no stack {name} here, so there is nothing to destroy.")
        return 0
    bootstrap.ensure(ROOT, name)
    return _pulumi(name, ["destroy", "--yes"], rest)


def recover(name: str, rest: list[str]) -> int:
    """The one step after an update that was killed, or that failed in whatever way; ends with the URL."""
    from tooling import recover

    _needs_stack(name)
    up = ["up", "--yes", "--skip-preview"]
    code = recover.run(ROOT, name, lambda: bootstrap.ensure(ROOT, name), lambda: _pulumi(name, up, rest))
    return code or url(name, [])


def certificate(name: str, rest: list[str]) -> int:
    """Makes or renews a certificate for development, and sets the stack's configuration to it."""
    bootstrap.ensure(ROOT, name)
    command = [str(venv.python(ROOT)), "-m", "tooling.certificate", name, *rest]
    return _call(command, stack.full_environment(ROOT, name))


def url(name: str, rest: list[str]) -> int:
    """Prints the URL alone."""
    _needs_stack(name)
    code = _pulumi(name, ["stack", "output", "url"], rest)
    way = "" if code else configuration.way_to_loopback(ROOT, name)
    if way:
        say(f"That is an address of the Docker host itself. From here: {way}")
    return code


def env(name: str, rest: list[str]) -> int:
    """Prints what a shell needs for plain `pulumi`."""
    del rest
    if not machine.load(ROOT).pulumi:
        raise Failure("Nothing is installed for this clone yet.", "make up")
    print(stack.exports(ROOT, name))
    return 0


def doctor(name: str, rest: list[str]) -> int:
    """Is anything wrong, and what to do about it."""
    from tooling import doctor

    return doctor.run(ROOT, name, rest)


def ps(name: str, rest: list[str]) -> int:
    """The stack's containers: state, health, requests, image."""
    from tooling import containers

    _needs_stack(name)
    return containers.ps(ROOT, name, rest)


def logs(name: str, rest: list[str]) -> int:
    """What the stack's containers have printed."""
    from tooling import logs

    _needs_stack(name)
    return logs.run(ROOT, name, rest)


def shell(name: str, rest: list[str]) -> int:
    """A shell in a replica, or in another of the stack's containers."""
    from tooling import shell

    _needs_stack(name)
    return shell.run(ROOT, name, rest)


def secret(name: str, rest: list[str]) -> int:
    """Another value of a secret, and the release that has it."""
    from tooling import secret

    _needs_stack(name)
    bootstrap.ensure(ROOT, name)
    return secret.run(ROOT, name, rest, lambda command: _pulumi(name, command, []))


def drain(name: str, rest: list[str]) -> int:
    """Takes replicas out: they run on and get no new request."""
    from tooling import drain

    _needs_stack(name)
    bootstrap.ensure(ROOT, name)
    return drain.drain(ROOT, name, rest, lambda command: _pulumi(name, command, []))


def resume(name: str, rest: list[str]) -> int:
    """Puts them back in, or all."""
    from tooling import drain

    _needs_stack(name)
    bootstrap.ensure(ROOT, name)
    return drain.resume(ROOT, name, rest, lambda command: _pulumi(name, command, []))


def rollback(name: str, rest: list[str]) -> int:
    """The image of the release before."""
    from tooling import rollback

    _needs_stack(name)
    bootstrap.ensure(ROOT, name)
    return rollback.run(ROOT, name, lambda command: _pulumi(name, command, rest))


def backup(name: str, rest: list[str]) -> int:
    """The stack's state and configuration in one file; prints its path."""
    from tooling import backup

    _needs_stack(name)
    return backup.save(ROOT, name, rest)


def restore(name: str, rest: list[str]) -> int:
    """The stack's state and configuration as they were."""
    from tooling import backup

    bootstrap.ensure(ROOT, None)
    return backup.restore(ROOT, name, rest)


def orphans(name: str, rest: list[str]) -> int:
    """What of this project is on the daemon and in no state; removes that of the stack if asked."""
    from tooling import orphans

    bootstrap.ensure(ROOT, None)
    return orphans.run(ROOT, name, rest)


def adopt(name: str, rest: list[str]) -> int:
    """Takes into the stack's state what is on the daemon and in none."""
    from tooling import adopt

    bootstrap.ensure(ROOT, name)
    return adopt.run(ROOT, name, rest)


def upgrade(name: str, rest: list[str]) -> int:
    """The newest base images, pinned by their digests."""
    from tooling import upgrade

    _needs_stack(name)
    bootstrap.ensure(ROOT, name)
    return upgrade.run(ROOT, name, rest)


def rename(name: str, rest: list[str]) -> int:
    """Another name for the stack."""
    from tooling import rename

    _needs_stack(name)
    return rename.run(ROOT, name, rest)


def lint(name: str, rest: list[str]) -> int:
    """Style, types, and what the workflows may."""
    del name, rest
    venv.ensure(ROOT)
    checks = (
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["zizmor", "--offline", "--no-progress", "--quiet", "."],  # of the workflows
    )
    codes = []
    for check in checks:
        say(f"== {' '.join(check)}")
        codes.append(_call([str(venv.python(ROOT).with_name(check[0])), *check[1:]], None))
    return max(codes)


def reformat(name: str, rest: list[str]) -> int:
    """Puts the code into the shape that `lint` wants."""
    del name, rest
    venv.ensure(ROOT)
    return _python(["-m", "ruff", "check", "--fix", "."]) or _python(["-m", "ruff", "format", "."])


def reference(name: str, rest: list[str]) -> int:
    """Pulumi.yaml and docs/configuration.md as the settings model says."""
    del name, rest
    venv.ensure(ROOT)
    return _python(["-m", "tooling.reference"])


def diagram(name: str, rest: list[str]) -> int:
    """The pictures of docs/architecture.md as the program says."""
    del name, rest
    venv.ensure(ROOT)
    return _python(["-m", "tooling.diagram"])


def unit(name: str, rest: list[str]) -> int:
    """The tests that need neither Docker nor the CLI."""
    del name
    venv.ensure(ROOT)
    return _python(["-m", "pytest", *_there(UNIT), *rest])


def test(name: str, rest: list[str]) -> int:
    """Everything. It ends with the closing line of the live tests' own runner, and with its exit status."""
    for check in (lint, unit):
        code = check(name, [])
        if code:
            say(f"make test stopped: `make {check.__name__}` did not pass; the live tests did not run.")
            return code
    bootstrap.ensure(ROOT, None)
    if os.geteuid() == 0 and shutil.which("apt-get"):  # else the tests that need it skip themselves, and say so
        registry.ensure(ROOT)
        registry.ensure_sshd(ROOT)
    say("== live tests: real containers, some minutes")
    command = [str(venv.python(ROOT)), "-m", "pytest", *_there(LIVE), *rest]
    console.become(command, stack.full_environment(ROOT, stack.DEV), ROOT)
    return 1  # never reached


def test_swarm(name: str, rest: list[str]) -> int:
    """The live tests on a swarm alone."""
    del name
    bootstrap.ensure(ROOT, None)
    registry.ensure(ROOT)
    command = [str(venv.python(ROOT)), "-m", "pytest", SWARM, *rest]
    return _call(command, stack.full_environment(ROOT, stack.DEV))


def reliability(name: str, rest: list[str]) -> int:
    """The fault tests alone; then their figures stand in docs/reliability.md, those of a swarm in docs/scaling.md."""
    del name
    bootstrap.ensure(ROOT, None)
    registry.ensure(ROOT)
    figures = files.local(ROOT) / "reliability.json"
    figures.unlink(missing_ok=True)
    environment = stack.full_environment(ROOT, stack.DEV)
    python = str(venv.python(ROOT))
    code = _call([python, "-m", "pytest", "-s", *FAULTS, f"{SWARM}/test_swarm.py", *rest], environment)
    return code or _call([python, "-m", "tests.live.figures"], environment)


def bench(name: str, rest: list[str]) -> int:
    """This stack beside what people would use instead; the figures go into docs/performance.md."""
    del name
    bootstrap.ensure(ROOT, None)
    return _call([str(venv.python(ROOT)), "-m", "bench", *rest], stack.full_environment(ROOT, stack.DEV))


def clean(name: str, rest: list[str]) -> int:
    """Removes what the tooling has put into this clone; with --all also what clones share."""
    del name
    state = stack.state_folder(ROOT)
    alive = [
        path.name
        for path in sorted(state.glob(".pulumi/stacks/*/*.json"))
        if '"urn"' in path.read_text(encoding="utf-8")
    ]
    if alive:
        raise Failure(
            f"These stacks still have resources, which nothing could find without their state: {', '.join(alive)}",
            "make destroy STACK=…\nThen run this again.",
        )
    from airgap import build_images

    folders = [
        ROOT / ".venv",
        files.local(ROOT),
        *(ROOT / f".{tool}_cache" for tool in ("pytest", "mypy", "ruff")),
        ROOT / ".hypothesis",
    ]
    if "--all" in rest:
        folders.append(files.cache())
        if shutil.which("docker"):
            subprocess.run(
                ["docker", "image", "rm", *build_images.STAND_INS.values(), build_images.DEBIAN],
                check=False,
                capture_output=True,
            )
    for folder in folders:
        if folder.exists():
            say(f"removing {folder}")
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _pulumi(name: str, command: list[str], rest: list[str]) -> int:
    """Runs it in the foreground; when it fails for a reason that is known, the last words are what to do about it."""
    pulumi_cli.give_way()
    full = ["pulumi", *command, "--stack", name, *rest]
    code, output = tee.run(full, stack.full_environment(ROOT, name), ROOT)
    todo = hints.advice(output, name, configuration.daemon(ROOT, name)) if code else ""
    if todo:
        console.report(Failure("see the error above.", todo), f"pulumi {command[0]}")
    return code


def _python(arguments: list[str]) -> int:
    return _call([str(venv.python(ROOT)), *arguments], None)


def _call(command: list[str], environment: dict[str, str] | None) -> int:
    """Runs a command in the foreground; Ctrl-C is its to answer, and is waited for."""
    with subprocess.Popen(command, env=environment, cwd=ROOT) as process:
        while True:
            try:
                code = process.wait()
                return code if code >= 0 else 128 - code
            except KeyboardInterrupt:
                continue


def _needs_stack(name: str) -> None:
    if not machine.load(ROOT).pulumi or (stack.is_local(ROOT) and not stack.exists(ROOT, name)):
        raise Failure(f"There is no stack {name} yet.", "make up" if name == stack.DEV else f"make up STACK={name}")


def _there(folders: Sequence[str]) -> list[str]:
    return [folder for folder in folders if (ROOT / folder).is_dir()]

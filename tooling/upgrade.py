"""`make upgrade`: the newest base images of a tag, each pinned by its digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from airgap.build_images import STAND_INS
from tooling import base_images, console, files, state
from tooling.base_images import KINDS, PULL_SECONDS
from tooling.console import Exited, Failure, say, step
from tooling.containers import Known


def run(root: Path, name: str, rest: list[str]) -> int:
    """Pulls them on the stack's daemon and sets their digests; the next `up` builds on them and releases."""
    chosen = dict(word.partition("=")[::2] for word in rest)
    if not all(chosen.values()) or not chosen.keys() <= KINDS.keys():
        raise Failure(
            f"make upgrade knows no {' '.join(rest)}.",
            "\n".join(["make upgrade", *(f'make upgrade ARGS="{key}=NAME:TAG"' for key in KINDS)]),
        )
    environment = Known.of(root, name).environment
    is_newer = False
    for key, wanted in base_images.wanted(root, name).items():
        if chosen and key not in chosen:
            continue
        image = chosen.get(key) or wanted.name.partition("@")[0]
        if image in STAND_INS.values():
            say(f"{key}: {image} is built on this machine, in place of {wanted.default}: there is nothing to pull.")
            continue
        newest = image if "@" in image else f"{image}@{_digest(root, image, environment)}"
        if newest == wanted.name:
            say(f"{key}: {newest} is the newest.")
            continue
        state.pulumi(root, name, "config", "set", key, newest)
        say(f"{key}: {wanted.name} → {newest}")
        is_newer = True
    if is_newer:
        say(f"Pulumi.{name}.yaml has it; the next `up` builds on it and releases.")
    return 0


def _digest(root: Path, image: str, environment: Mapping[str, str]) -> str:
    """That of what the tag stands for now; the daemon has it then."""
    with step(image, "docker pull", files.local(root) / "log" / "pull.log") as current:
        try:
            console.run(["docker", "pull", image], timeout=PULL_SECONDS, current=current, env=environment)
            text = console.run(
                ["docker", "image", "inspect", "--format={{json .RepoDigests}}", image], timeout=60, env=environment
            )
        except Exited as exited:
            raise Failure(
                f"{image} cannot be pulled: {exited}. The settings are as before.",
                "See that its name is right and that its registry is reached from the daemon.",
            ) from exited
    # The same image may have been pulled under other names, too.
    repository = image.rpartition(":")[0] if ":" in image.rpartition("/")[2] else image
    for found in json.loads(text) or []:
        of, _, digest = str(found).partition("@")
        if of == repository or repository.endswith(f"/{of}"):
            return digest
    raise Failure(f"{image} has no digest: it does not come from a registry.", "Name one that does.")

"""`make rollback`: the image of the release before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tooling import change, state
from tooling.console import Failure, say


def run(root: Path, name: str, pulumi: Callable[[list[str]], int]) -> int:
    """Sets it as `appImage` and updates; the settings stay as they are; see `change.make`."""
    outputs = json.loads(state.pulumi(root, name, "stack", "output", "--json"))
    image, previous = outputs.get("image"), outputs.get("previousImage")
    if not previous:
        raise Failure(
            f"There is no image to go back to: stack {name} remembers none before {image or 'its first release'}.",
            "Another one that was built before is chosen by its name (`docker images --no-trunc` lists them):\n"
            f'eval "$(make -s env)"; pulumi config set appImage sha256:… --stack {name}\nmake up STACK={name}',
        )
    say(f"Back from {image}\n     to   {previous}")
    code = change.make(root, name, [["set", "appImage", previous]], pulumi)
    forward = f'eval "$(make -s env)"; pulumi config rm appImage --stack {name}; make up STACK={name}'
    if code:
        say(f"Without it, the app is built from its folder again:\n{forward}")
    else:
        say(
            f"In force: {previous}, which appImage holds now.\n"
            f"Back to the other one: make rollback STACK={name}\nTo what is built from the app's folder: {forward}"
        )
    return code

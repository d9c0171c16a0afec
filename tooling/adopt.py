"""`make adopt`: what runs, and is in no state any more, becomes the stack's again without being stopped.

The engine writes down what it would create (`preview --import-file`); each of these is looked for on the daemon by its
name, PROJECT-STACK-NAME-HEX, and imported. An import does not know all that a container was made with, so the next `up`
replaces each once, as a new release does: replicas create-first, NGINX with a gap.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from tooling import files, stack, state
from tooling.console import Failure, say
from tooling.orphans import find
from tooling.recover import KINDS


def run(root: Path, name: str, rest: list[str]) -> int:
    """Imports what of the stack is found; what is declared and not found, the next `up` creates."""
    if rest:
        raise Failure(f"make adopt knows no {' '.join(rest)}.", "make adopt")
    if [one for one in state.resources(state.export(root, name)) if one["type"] in KINDS]:
        raise Failure(f"The state of stack {name} is not empty: nothing was adopted.", "make recover\nmake orphans")
    _, lost = find(root, name)
    own = [orphan.found for orphan in lost if orphan.stack == name]
    if any(found.kind == "service" for found in own):
        raise Failure(
            "Services of a swarm cannot be adopted.", 'make restore ARGS=FILE\nor make orphans ARGS="--remove", make up'
        )
    with tempfile.TemporaryDirectory(dir=files.local(root)) as folder:
        file = Path(folder) / "import.json"
        state.pulumi(root, name, "preview", "--import-file", str(file))
        declared = json.loads(file.read_text(encoding="utf-8"))
        wanted = [one for one in declared["resources"] if one.get("component") or one["type"] in KINDS]
        for one in wanted:
            if not one.get("component"):
                pattern = f"{stack.project(root)}-.+-{re.escape(one['name'])}-[0-9a-f]{{7}}"
                kind = KINDS[one["type"]]
                fitting = [found for found in own if found.kind == kind and re.fullmatch(pattern, found.name)]
                if len(fitting) > 1:
                    names = "\n".join(f"docker {kind} rm {found.name}" for found in fitting)
                    raise Failure(f"{len(fitting)} could be {one['name']}: nothing was adopted.", f"One of:\n{names}")
                one["id"] = fitting[0].id if fitting else ""
        found = [one for one in wanted if one.get("id")]
        if not found:
            raise Failure(f"Nothing of the stack {name}, as it is configured, is on the daemon.", "make orphans")
        declared["resources"] = [one for one in wanted if one.get("component") or one.get("id")]
        file.write_text(json.dumps(declared), encoding="utf-8")
        options = ("--yes", "--skip-preview", "--protect=false", "--generate-code=false")
        state.pulumi(root, name, "import", "--file", str(file), *options)
    for one in wanted:
        if not one.get("component"):
            say(f"{'adopted:' if one['id'] else 'missing:'} the {KINDS[one['type']]} {one['name']}")
    say("The next `up` replaces each container once: docs/operations.md says what is noticed.")
    return 0

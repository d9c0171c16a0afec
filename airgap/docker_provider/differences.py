"""What an update changes, in the terms of the official plugin: the difference of the inputs, property by property.

The official plugin plans against the state. The inputs of the last update say the same and cannot be confused by what
the daemon added; the state is asked only about keys that the program did not write before.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from airgap.docker_provider.properties import Properties, bare, has_unknown
from airgap.docker_provider.schema import Input

Change = Literal["ADD", "DELETE", "UPDATE"]
Changes = dict[str, Change]

_PLAIN_KEY: Final = re.compile(r"\w+")
_ABSENT: Final[Any] = None


@dataclass(frozen=True)
class Difference:
    """Changed property paths, and the top-level properties among them that need a new object."""

    changes: Changes = field(default_factory=dict)
    replaces: list[str] = field(default_factory=list)
    replacing: frozenset[str] = field(default=frozenset(), compare=False)
    """The paths for whose sake it does."""

    @property
    def properties(self) -> list[str]:
        """The top-level properties that change."""
        return sorted({top(path) for path in self.changes})


def top(path: str) -> str:
    """The top-level property of a path: `envs` of `envs[0]`."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def compare(
    schema: Mapping[str, Input],
    state: Properties,
    old: Properties,
    new: Properties,
    also: Changes,
    ignored: frozenset[str] = frozenset(),
) -> Difference:
    """The difference of two sets of inputs, given the state, `also` added, `ignored` top-level properties left out."""
    state, old, new = bare(state), bare(old), bare(new)
    changes: Changes = {}
    for key in sorted(old.keys() | new.keys()):
        spec = schema.get(key, Input())
        if key not in new and spec.computed:
            continue  # the daemon's choice stays
        if spec.blank_keeps and not new.get(key):
            continue
        before = old[key] if key in old else state.get(key)
        changes.update(_paths(key, before, new.get(key, _ABSENT), spec))
    changes.update(also)
    kept = {path: change for path, change in changes.items() if top(path) not in ignored}
    replacing = frozenset(path for path in kept if _replaces(schema, path))
    return Difference(kept, sorted({top(path) for path in replacing}), replacing)


def _replaces(schema: Mapping[str, Input], path: str) -> bool:
    """Whether a change there needs a new object."""
    spec = Input(replaces=False)
    for name in path.split("."):
        inner = schema.get(top(name))
        if inner is None:
            break
        spec = inner
        if not spec.by_field:
            break
        schema = spec.fields or {}
    return spec.replaces


def _paths(path: str, before: Any, after: Any, spec: Input) -> Iterator[tuple[str, Change]]:
    if not has_unknown(after) and canonical(before, spec) == canonical(after, spec):
        return
    if _is_empty(before):
        yield path, "ADD"
    elif _is_empty(after):
        yield path, "DELETE"
    elif isinstance(before, dict) and isinstance(after, dict):
        fields = spec.fields or {}
        for key in sorted(before.keys() | after.keys()):
            if key not in after and fields.get(key, Input()).computed:
                continue  # the daemon's choice stays
            inner = f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{json.dumps(key)}]"
            if spec.fields is None and (key in before) != (key in after):
                yield inner, "DELETE" if key in before else "ADD"
            else:
                yield from _paths(inner, before.get(key), after.get(key), fields.get(key, Input()))
    elif isinstance(before, list) and isinstance(after, list) and not spec.fields:
        yield from _elements(path, before, after, spec.ordered)
    else:
        yield path, "UPDATE"


def _elements(path: str, before: list[Any], after: list[Any], ordered: bool) -> Iterator[tuple[str, Change]]:
    if ordered:
        gone = come = [i for i in range(max(len(before), len(after))) if before[i : i + 1] != after[i : i + 1]]
        for i in come:
            yield f"{path}[{i}]", "DELETE" if i >= len(after) else "ADD" if i >= len(before) else "UPDATE"
        return
    gone = [i for i, item in enumerate(before) if item not in after]
    come = [i for i, item in enumerate(after) if item not in before]
    for i in come[: len(gone)]:
        yield f"{path}[{i}]", "UPDATE"
    for i in come[len(gone) :]:
        yield f"{path}[{i}]", "ADD"
    for i in gone[len(come) :]:
        yield f"{path}[{i}]", "DELETE"


def _is_empty(value: Any) -> bool:
    return value is None or value == [] or value == {}


def canonical(value: Any, spec: Input) -> Any:
    """The value in a form in which equal means equal to the official plugin.

    Its lists are sets unless the schema says otherwise, and it cannot tell a zero value from none.
    """
    value = bare(value)
    if isinstance(value, dict) and spec.fields is None:
        return value or None  # a map: what is in it is there, `{"/tmp": ""}` too
    if isinstance(value, dict):
        fields = spec.fields or {}
        items = {key: canonical(item, fields.get(key, Input())) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None} or None
    if isinstance(value, list):
        inner = Input(fields=spec.fields)
        elements = [canonical(item, inner) for item in value]
        return (elements if spec.ordered else sorted(elements, key=_sort_key)) or None
    return value or None


def _sort_key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def drift(inputs: Any, state: Any, spec: Input) -> Any:
    """The inputs, brought up to what the daemon reports. What the program did not write stays out."""
    if state is None or canonical(inputs, spec) == canonical(state, spec):
        return inputs
    if isinstance(inputs, dict) and isinstance(state, dict):
        fields = spec.fields or {}
        return {
            key: value if key.startswith("__") else drift(value, state.get(key), fields.get(key, Input()))
            for key, value in inputs.items()
        }
    if isinstance(inputs, list) and isinstance(state, list) and len(inputs) == len(state) and spec.ordered:
        return [drift(a, b, Input(fields=spec.fields)) for a, b in zip(inputs, state, strict=True)]
    return state

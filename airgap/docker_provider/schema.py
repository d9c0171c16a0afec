"""What the official plugin knows about an input key."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airgap.docker_provider.properties import Properties, has_unknown


@dataclass(frozen=True)
class Input:
    """One input key of a resource kind, or of an object inside one.

    Taken from the schema of the Terraform provider that the official plugin wraps,
    kreuzwerker/terraform-provider-docker.
    """

    default: Any = None
    """What Check fills in."""
    replaces: bool = True
    """A change needs a new object."""
    computed: bool = False
    """Without the key the daemon chooses, and its choice is no change."""
    blank_keeps: bool = False
    """An empty or missing value leaves what there is."""
    ordered: bool = False
    """The order of the list matters; without it, lists are sets."""
    required: bool = False
    accepts: str = ""
    """Regular expression of the accepted values."""
    fields: Mapping[str, "Input"] | None = None
    """The keys of the object, or of the objects in the list."""
    by_field: bool = False
    """Of an object: each of its keys says whether its change needs a new object; `replaces` is about the whole."""
    empty: Any = None
    """How the state shows the key when it is not given."""
    covered: bool = True
    """False: known to the official plugin only, refused here."""


def failures(schema: Mapping[str, Input], inputs: Properties, where: str = "") -> Iterator[tuple[str, str]]:
    """Property path and reason of everything in the inputs that this plugin must not accept."""
    for key, value in inputs.items():
        spec, path = schema.get(key), f"{where}{key}"
        if key.startswith("__"):
            continue
        if spec is None or not spec.covered:
            yield path, f"{path}: this stand-in for the Docker plugin does not cover the key; the official plugin may"
        elif not has_unknown(value):
            if spec.accepts and not re.fullmatch(spec.accepts, str(value)):
                yield path, f"{path}: {value!r} is not accepted; it has to match {spec.accepts}"
            for at, item in _objects(path, value, spec):
                yield from failures(spec.fields or {}, item, f"{at}.")
        else:
            for at, item in _objects(path, value, spec):
                yield from failures(spec.fields or {}, item, f"{at}.")
    for key, spec in schema.items():
        if spec.required and key not in inputs:
            yield f"{where}{key}", f"{where}{key}: a value is required"


def fill_defaults(schema: Mapping[str, Input], inputs: Properties) -> list[str]:
    """Add defaults to the inputs, and to the objects in them, in place; the names of those added at the top."""
    added = [key for key, spec in schema.items() if spec.default is not None and key not in inputs]
    inputs.update({key: schema[key].default for key in added})
    for key, value in inputs.items():
        spec = schema.get(key)
        if spec is not None and spec.fields is not None:
            for _path, item in _objects(key, value, spec):
                item["__defaults"] = sorted(fill_defaults(spec.fields, item))
    return added


def shaped(schema: Mapping[str, Input], inputs: Properties) -> Properties:
    """The inputs as the state shows them: every key of the schema, at every depth."""
    return {
        key: _shaped(spec, inputs[key]) if inputs.get(key) is not None else spec.empty for key, spec in schema.items()
    }


def _shaped(spec: Input, value: Any) -> Any:
    if spec.fields is None:
        return value
    if isinstance(value, list):
        return [_shaped(spec, item) for item in value]
    return shaped(spec.fields, value) if isinstance(value, dict) else value


def _objects(path: str, value: Any, spec: Input) -> Iterator[tuple[str, Properties]]:
    if spec.fields is None:
        return
    if isinstance(value, dict):
        yield path, value
    elif isinstance(value, list):
        yield from ((f"{path}[{i}]", item) for i, item in enumerate(value) if isinstance(item, dict))

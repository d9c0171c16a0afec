"""Property bags as they cross the wire: protobuf structs on one side, plain Python values on the other."""

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from google.protobuf import struct_pb2

Properties: TypeAlias = dict[str, Any]

SIGNATURE_KEY: Final = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 (a marker of the protocol)
UNKNOWNS: Final = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # boolean
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",  # string, and whatever a Python program does not know yet
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)
"""Stand for values that a preview cannot know (sdk/go/common/resource/plugin/rpc.go of pulumi/pulumi)."""


def decode(struct: struct_pb2.Struct) -> Properties:
    """The plain values of a struct: without nulls, secrets unwrapped, whole numbers as int."""
    return {key: _plain(value) for key, value in struct.fields.items() if value.WhichOneof("kind") != "null_value"}


def _plain(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        content = decode(value.struct_value)
        return content.get("value") if content.get(SIGNATURE_KEY) == SECRET_SIGNATURE else content
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "number_value":
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    return None


def encode(properties: Properties) -> struct_pb2.Struct:
    """A struct of plain values; None becomes null."""
    struct = struct_pb2.Struct()
    struct.update(properties)
    return struct


def secret(value: Any) -> Properties:
    """The value, marked so that the engine encrypts it in the state."""
    return {SIGNATURE_KEY: SECRET_SIGNATURE, "value": value}


def has_unknown(value: Any) -> bool:
    """Whether the value, or anything in it, is not known yet."""
    return any(leaf in UNKNOWNS for leaf in _leaves(value) if isinstance(leaf, str))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def bare(value: Any) -> Any:
    """The value without the bookkeeping of plugins: `__defaults`, `__meta` and their like, at any depth."""
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [bare(item) for item in value]
    return value

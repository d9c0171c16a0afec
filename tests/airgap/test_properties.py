"""Property bags survive the wire, and secrets and unknown values are told apart on it."""

from __future__ import annotations

from google.protobuf import json_format, struct_pb2

from airgap.docker_provider.properties import SECRET_SIGNATURE, SIGNATURE_KEY, bare, decode, encode, has_unknown, secret

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def test_values_come_back_as_they_went() -> None:
    values = {"text": "a", "yes": True, "count": 3, "share": 0.5, "list": [1, "b", {"c": False}], "empty": {}}
    assert decode(encode(values)) == values
    assert isinstance(decode(encode(values))["count"], int)
    assert decode(encode(values))["yes"] is True


def test_none_crosses_the_wire_as_null_and_is_dropped_when_read() -> None:
    assert json_format.MessageToDict(encode({"a": None})) == {"a": None}
    assert decode(encode({"a": None, "b": {"c": None}})) == {"b": {}}


def test_a_secret_is_read_as_its_value() -> None:
    struct = struct_pb2.Struct()
    struct.update({"envs": [{SIGNATURE_KEY: SECRET_SIGNATURE, "value": "TOKEN=x"}]})
    assert decode(struct) == {"envs": ["TOKEN=x"]}
    assert decode(encode({"token": secret({"a": 1})})) == {"token": {"a": 1}}


def test_an_object_with_another_signature_is_no_secret() -> None:
    asset = {SIGNATURE_KEY: "c44067f5952c0a294b673a41bacd8c17", "value": "x"}
    assert decode(encode({"asset": asset})) == {"asset": asset}


def test_unknown_values_are_found_at_any_depth() -> None:
    assert has_unknown({"a": [{"b": UNKNOWN}]})
    assert not has_unknown({"a": [{"b": "known"}, 1, None, True]})


def test_bookkeeping_is_left_out_at_any_depth() -> None:
    assert bare({"__defaults": ["a"], "a": [{"__defaults": [], "b": 1}]}) == {"a": [{"b": 1}]}

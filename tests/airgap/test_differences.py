"""What counts as a change of a resource, and what it leads to."""

from __future__ import annotations

from typing import Any

import pytest

from airgap.docker_provider.container import INPUTS, Container
from airgap.docker_provider.differences import Difference, canonical, compare, drift
from airgap.docker_provider.network import Network
from airgap.docker_provider.schema import Input

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def difference(old: dict[str, Any], new: dict[str, Any], state: dict[str, Any] | None = None) -> Difference:
    return compare(INPUTS, {"networkDatas": [], **(state or old)}, old, new, {})


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ({"memory": 256}, {"memory": 300}, {"memory": "UPDATE"}),
        ({}, {"memory": 300}, {"memory": "ADD"}),
        ({"memory": 300}, {}, {"memory": "DELETE"}),
        ({"envs": ["A=1", "B=1"]}, {"envs": ["A=1", "B=2"]}, {"envs[1]": "UPDATE"}),
        ({"envs": ["A=1"]}, {"envs": ["B=1", "A=1"]}, {"envs[0]": "ADD"}),
        ({"envs": ["A=1", "B=1"]}, {"envs": ["B=1"]}, {"envs[0]": "DELETE"}),
        ({"command": ["a", "b"]}, {"command": ["b", "a"]}, {"command[0]": "UPDATE", "command[1]": "UPDATE"}),
        ({"command": ["a"]}, {"command": ["a", "b"]}, {"command[1]": "ADD"}),
        ({"command": ["a", "b"]}, {"command": ["a"]}, {"command[1]": "DELETE"}),
        (
            {"uploads": [{"file": "/a", "content": "1"}]},
            {"uploads": [{"file": "/a", "content": "2"}]},
            {"uploads": "UPDATE"},
        ),
        ({"logOpts": {"max-size": "1m"}}, {"logOpts": {"max-size": "2m"}}, {'logOpts["max-size"]': "UPDATE"}),
        ({"healthcheck": {"retries": 3}}, {"healthcheck": {"retries": 5}}, {"healthcheck.retries": "UPDATE"}),
        ({"image": "sha256:1"}, {"image": UNKNOWN}, {"image": "UPDATE"}),
        (
            {"labels": [{"label": "a", "value": "1"}]},
            {"labels": [{"label": "a", "value": UNKNOWN}]},
            {"labels": "UPDATE"},
        ),
    ],
)
def test_a_change_is_named_by_its_path(old: dict[str, Any], new: dict[str, Any], changes: dict[str, str]) -> None:
    assert difference(old, new).changes == changes


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"envs": ["A=1", "B=2"]}, {"envs": ["B=2", "A=1"]}),
        ({"groupAdds": ["1", "2"]}, {"groupAdds": ["2", "1"]}),
        ({"labels": [{"label": "a", "value": "1"}, {"label": "b", "value": "2"}]},
         {"labels": [{"label": "b", "value": "2"}, {"label": "a", "value": "1"}]}),
        ({"readOnly": False}, {}),
        ({}, {"privileged": False, "domainname": "", "ulimits": [], "sysctls": {}}),
        ({"user": "admin"}, {"user": ""}),
        ({"workingDir": "/a"}, {}),
        ({"hostname": "a", "envs": ["A=1"], "healthcheck": {"retries": 1}}, {}),
        ({"volumes": [{"containerPath": "/a", "__defaults": []}]}, {"volumes": [{"containerPath": "/a"}]}),
    ],
)  # fmt: skip
def test_what_the_official_plugin_cannot_tell_apart_is_no_change(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert difference(old, new).changes == {}


def test_a_key_that_is_new_in_the_program_is_compared_with_what_there_is() -> None:
    state = {"driver": "bridge", "internal": False, "name": "net"}
    unchanged = compare(Network.inputs, state, {"name": "net"}, {"name": "net", "driver": "bridge"}, {})
    assert unchanged.changes == {}
    changed = compare(Network.inputs, state, {"name": "net"}, {"name": "net", "driver": "macvlan"}, {})
    assert changed == Difference({"driver": "UPDATE"}, ["driver"])


def test_only_what_the_daemon_cannot_change_needs_another_container() -> None:
    old = {"memory": 1, "image": "a", "healthcheck": {"retries": 1}, "tmpfs": {"/a": ""}, "envs": ["A=1"]}
    new = {"memory": 2, "image": "b", "healthcheck": {"retries": 2}, "tmpfs": {"/b": ""}, "envs": ["A=2"]}
    assert difference(old, new).replaces == ["envs", "image"]
    assert difference(old, new).properties == ["envs", "healthcheck", "image", "memory", "tmpfs"]


def test_ignored_properties_do_not_change() -> None:
    ignored = compare(INPUTS, {}, {"image": "a", "memory": 1}, {"image": "b", "memory": 2}, {}, frozenset({"image"}))
    assert ignored == Difference({"memory": "UPDATE"}, [])


def container() -> Container:
    return Container(lambda: pytest.fail("a diff does not need the daemon"), lambda *_, **__: None)


def test_a_stopped_container_that_must_run_is_an_update_in_place() -> None:
    inputs = {"mustRun": True, "image": "a"}
    found = container().diff({**inputs, "mustRun": False, "networkDatas": []}, inputs, inputs, frozenset())
    assert found == Difference({"mustRun": "UPDATE"}, [])


def test_a_failed_create_is_replaced_unless_the_program_sets_command_and_entrypoints() -> None:
    inputs: dict[str, Any] = {"image": "a"}
    assert container().diff(inputs, inputs, inputs, frozenset()).replaces == ["command", "entrypoints"]
    # The official plugin's trap: such a release, broken as it is, passes for updated.
    inputs |= {"command": ["a"], "entrypoints": ["b"]}
    assert container().diff(inputs, inputs, inputs, frozenset()) == Difference({"networkDatas": "ADD"}, [])


def test_a_name_that_the_program_chose_cannot_have_two_objects() -> None:
    network = Network(lambda: pytest.fail("no daemon"), lambda *_, **__: None)
    assert network.deletes_first({"name": "mine", "__defaults": ["ipamDriver"]})
    assert not network.deletes_first({"name": "net-1234567", "__defaults": ["ipamDriver", "name"]})
    assert container().deletes_first({"name": "box-1234567", "__defaults": ["name"]})


def test_drift_reaches_only_what_the_program_wrote() -> None:
    inputs = {"memory": 64, "envs": ["A=1"], "__defaults": ["name"], "healthcheck": {"retries": 3, "__defaults": []}}
    state = {"memory": 80, "envs": ["A=1"], "cpuShares": 512, "healthcheck": {"retries": 5, "interval": "1s"}}
    assert drift(inputs, state, Input(fields=INPUTS)) == {
        "memory": 80,
        "envs": ["A=1"],
        "__defaults": ["name"],
        "healthcheck": {"retries": 5, "__defaults": []},
    }


def test_drift_leaves_the_program_s_own_spelling_where_it_means_the_same() -> None:
    inputs = {"networksAdvanced": [{"name": "net", "__defaults": []}], "groupAdds": ["2", "1"]}
    state = {"networksAdvanced": [{"name": "net", "aliases": [], "gwPriority": None}], "groupAdds": ["1", "2"]}
    assert drift(inputs, state, Input(fields=INPUTS)) == inputs


def test_equal_means_equal_as_sets_and_without_zero_values() -> None:
    assert canonical({"a": [2, 1], "b": 0, "c": ""}, Input(fields={})) == canonical({"a": [1, 2]}, Input(fields={}))
    assert canonical({"/tmp": ""}, Input()) != canonical({}, Input())
    assert canonical([2, 1], Input(ordered=True)) != canonical([1, 2], Input(ordered=True))

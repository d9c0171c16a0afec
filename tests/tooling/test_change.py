"""`make drain`, `make resume` and `make rollback`: what they write into the configuration, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tooling.conftest import Bench
from tooling import change, drain, rollback, state
from tooling.console import Failure

BEFORE, NEWER = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


class Pulumi:
    """Stands for the CLI: keeps what was run, in order."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.balancing: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {"image": NEWER, "previousImage": BEFORE}
        self.fails = ""

    def read(self, root: Path, name: str, *command: str, stdin: str = "") -> str:
        assert (name, stdin) == ("dev", "")
        if command == ("config", "--json"):
            return json.dumps({"uwsgi-nginx:port": {"value": "8080"}, "uwsgi-nginx:balancing": self.balancing})
        if command == ("stack", "output", "--json"):
            return json.dumps(self.outputs)
        self.commands.append(" ".join(command))
        file = root / f"Pulumi.{name}.yaml"
        file.write_text(file.read_text() + "changed\n")
        return ""

    def __call__(self, command: list[str]) -> int:
        self.commands.append(" ".join(command))
        return int(command[0] == self.fails)


@pytest.fixture
def pulumi(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Pulumi:
    bench.write("Pulumi.dev.yaml", "as before\n").chmod(0o600)
    fake = Pulumi()
    monkeypatch.setattr(state, "pulumi", fake.read)
    return fake


RELEASED = ["preview", "up --yes --skip-preview"]


@pytest.mark.parametrize(
    ("drained", "names", "commands"),
    [
        ([], ["uwsgi-2"], ["config set --path balancing.drain[0] uwsgi-2"]),
        (
            ["uwsgi-1"],
            ["uwsgi-3", "uwsgi-1", "uwsgi-2", "uwsgi-3"],
            ["config set --path balancing.drain[1] uwsgi-3", "config set --path balancing.drain[2] uwsgi-2"],
        ),
        (["uwsgi-1"], ["uwsgi-1"], []),
    ],
)
def test_replicas_are_added_to_those_that_are_drained(
    bench: Bench, pulumi: Pulumi, drained: list[str], names: list[str], commands: list[str]
) -> None:
    pulumi.balancing = {"objectValue": {"method": "sticky", "drain": drained}}
    assert drain.drain(bench.root, "dev", names, pulumi) == 0
    assert pulumi.commands == [*commands, *RELEASED]


@pytest.mark.parametrize(
    ("drained", "names", "commands"),
    [
        (["uwsgi-1", "uwsgi-2", "uwsgi-3"], [], ["config rm --path balancing.drain"]),
        (["uwsgi-2"], ["uwsgi-2"], ["config rm --path balancing.drain"]),
        (
            ["uwsgi-1", "uwsgi-2", "uwsgi-3"],
            ["uwsgi-1", "uwsgi-3"],
            ["config rm --path balancing.drain[2]", "config rm --path balancing.drain[0]"],
        ),
        (["uwsgi-2"], ["uwsgi-1"], []),
        ([], [], []),
    ],
)
def test_those_that_are_named_or_all_come_back(
    bench: Bench, pulumi: Pulumi, drained: list[str], names: list[str], commands: list[str]
) -> None:
    pulumi.balancing = {"value": json.dumps({"drain": drained})}  # as `pulumi config set balancing '{…}'` leaves it
    assert drain.resume(bench.root, "dev", names, pulumi) == 0
    assert pulumi.commands == [*commands, *RELEASED]


def test_a_drain_of_nobody_is_told_how_it_goes(bench: Bench, pulumi: Pulumi) -> None:
    with pytest.raises(Failure, match="names of replicas"):
        drain.drain(bench.root, "dev", [], pulumi)
    assert pulumi.commands == []


def test_what_the_program_does_not_take_is_taken_back(bench: Bench, pulumi: Pulumi) -> None:
    pulumi.fails = "preview"
    with pytest.raises(Failure, match="as before"):
        change.make(bench.root, "dev", [["set", "a", "b"]], pulumi)
    assert pulumi.commands == ["config set a b", "preview"]
    file = bench.root / "Pulumi.dev.yaml"
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("as before\n", 0o600)


def test_what_did_not_get_live_stays_declared_and_is_told(
    bench: Bench, pulumi: Pulumi, said: Callable[[], str]
) -> None:
    pulumi.fails = "up"
    assert rollback.run(bench.root, "dev", pulumi) == 1
    text = said()
    assert "Pulumi.dev.yaml has been changed already" in text
    assert "pulumi config rm appImage --stack dev" in text
    assert "In force" not in text


def test_who_is_not_well_enough_to_come_back_is_told_how_to_stay_out(
    bench: Bench, pulumi: Pulumi, said: Callable[[], str]
) -> None:
    pulumi.balancing = {"objectValue": {"drain": ["uwsgi-1", "uwsgi-2", "uwsgi-3"]}}
    pulumi.fails = "up"
    assert drain.resume(bench.root, "dev", ["uwsgi-3", "uwsgi-1"], pulumi) == 1
    assert "make drain ARGS='uwsgi-1 uwsgi-3'" in said()


def test_the_image_of_before_is_held_by_its_name(bench: Bench, pulumi: Pulumi, said: Callable[[], str]) -> None:
    assert rollback.run(bench.root, "dev", pulumi) == 0
    assert pulumi.commands == [f"config set appImage {BEFORE}", *RELEASED]
    text = said()
    assert f"In force: {BEFORE}" in text
    assert "make rollback STACK=dev" in text
    assert "pulumi config rm appImage --stack dev; make up STACK=dev" in text


@pytest.mark.parametrize("outputs", [{}, {"image": NEWER}, {"image": NEWER, "previousImage": ""}])
def test_without_an_image_of_before_nothing_is_changed(bench: Bench, pulumi: Pulumi, outputs: dict[str, str]) -> None:
    pulumi.outputs = outputs
    with pytest.raises(Failure, match="no image to go back to"):
        rollback.run(bench.root, "dev", pulumi)
    assert pulumi.commands == []

"""The commands of day two, on a `pulumi` and a `docker` that say what the test wants."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tooling.conftest import Bench
from tooling import bootstrap, cli, machine, recover
from tooling.console import Failure
from tooling.machine import Machine
from tooling.recover import KINDS, Found, State

CONTAINER = "docker:index/container:Container"
URN = "urn:pulumi:dev::uwsgi-nginx::x::"
CONFIGURATION = "encryptionsalt: v1:abc\nconfig:\n  uwsgi-nginx:port: 80\n"


def exported(*ids: str) -> dict[str, Any]:
    made = [{"type": CONTAINER, "urn": f"{URN}uwsgi-1", "id": one, "outputs": {"name": f"n-{one}"}} for one in ids]
    return {"version": 3, "deployment": {"resources": made}}


class Clone:
    """A clone whose stack has that state."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.folder = bench, folder
        folder.mkdir()
        self.configuration = bench.write("Pulumi.dev.yaml", CONFIGURATION)
        self.has("one")
        bench.fake(
            "pulumi",
            f"""case "$*" in
    *"stack export"*) [ -f "{folder}/export" ] || {{ echo "error: no stack named 'dev' found" >&2; exit 255; }}
        cat "{folder}/export";;
    *"stack ls"*) [ -f "{folder}/export" ] && echo '[{{"name": "dev"}}]' || echo '[]';;
    *"stack import"*|*"config set"*) cat > "{folder}/stdin"; echo "  changed: x" >> Pulumi.dev.yaml;;
    preview*) exit "$(cat "{folder}/preview" 2>/dev/null || echo 0)";;
esac""",
        )

    def has(self, *ids: str) -> None:
        (self.folder / "export").write_text(json.dumps(exported(*ids)))

    @property
    def stdin(self) -> str:
        """What the command that changes something was told."""
        return (self.folder / "stdin").read_text()


@pytest.fixture
def clone(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    monkeypatch.setattr(cli, "ROOT", bench.root)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("os.setpriority", lambda *_: None)
    monkeypatch.setattr(bootstrap, "ensure", lambda *_: None)
    machine.save(bench.root, Machine(pulumi=str(bench.bin), origin="path"))
    bench.write(".local/state/.pulumi/stacks/uwsgi-nginx/dev.json", "{}")
    return Clone(bench, tmp_path / "pulumi")


# -- secret


class Typed:
    """Standard input."""

    def __init__(self, text: str) -> None:
        self._text = text

    def isatty(self) -> bool:
        return False

    def read(self) -> str:
        return self._text


def test_a_secrets_value_is_on_no_command_line(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Typed("-----BEGIN\n hush \n-----END\n"))
    assert cli.main(["secret", "dev", "tls.key"]) == 0
    assert clone.stdin == "-----BEGIN\n hush \n-----END"
    assert not [call for call in clone.bench.calls if "hush" in call]
    assert [call.split()[1] for call in clone.bench.calls] == ["--non-interactive", "preview", "up"]


def test_a_value_that_is_refused_is_taken_back(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    monkeypatch.setattr("sys.stdin", Typed("x"))
    (clone.folder / "preview").write_text("255")
    assert cli.main(["secret", "dev", "tls.kee"]) == 1
    assert "Nothing was changed; Pulumi.dev.yaml is as before." in said()
    assert clone.configuration.read_text() == CONFIGURATION
    assert not clone.bench.called("pulumi up")


@pytest.mark.parametrize("arguments", [[], ["KEY", "value"], ["--help"]])
def test_a_value_as_an_argument_is_refused(clone: Clone, arguments: list[str], said: Callable[[], str]) -> None:
    assert cli.main(["secret", "dev", *arguments]) == 1
    assert "the value comes from a prompt or standard input" in said()
    assert clone.bench.calls == []


def test_no_value_is_none(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Typed("\n"))
    assert cli.main(["secret", "dev", "tls.key"]) == 1
    assert clone.bench.calls == []


# -- backup


@pytest.fixture
def backup(clone: Clone, capsys: pytest.CaptureFixture[str]) -> Path:
    assert cli.main(["backup", "dev"]) == 0
    return Path(capsys.readouterr().out.strip())


def test_a_backup_is_for_its_owner_alone_and_never_goes_over_another(clone: Clone, backup: Path) -> None:
    assert backup.stat().st_mode & 0o777 == 0o600
    assert backup.parent.stat().st_mode & 0o777 == 0o700
    content = json.loads(backup.read_text())
    assert (content["state"], content["configuration"]) == (exported("one"), CONFIGURATION)
    assert cli.main(["backup", "dev", str(backup)]) == 1
    assert [path.name for path in backup.parent.iterdir()] == [backup.name]


def test_a_stack_that_is_gone_is_made_again(clone: Clone, backup: Path) -> None:
    (clone.folder / "export").unlink()
    clone.configuration.unlink()
    assert cli.main(["restore", "dev", str(backup)]) == 0
    assert clone.bench.called("pulumi --non-interactive stack select --create dev")
    assert json.loads(clone.stdin) == exported("one")
    assert clone.configuration.read_text().startswith(CONFIGURATION)


def test_what_would_be_lost_is_said_and_becomes_another_backup(
    clone: Clone, backup: Path, said: Callable[[], str]
) -> None:
    clone.has("two")
    clone.configuration.write_text("config: {}\n")
    assert cli.main(["restore", "dev", str(backup)]) == 1
    told = said()
    assert "- uwsgi-1 (Container two), which the state has now" in told
    assert "- Pulumi.dev.yaml, which is not the backup's" in told
    assert not clone.bench.called("pulumi --non-interactive stack import")
    assert cli.main(["restore", "dev", str(backup), "--force"]) == 0
    (other,) = set(backup.parent.iterdir()) - {backup}
    assert json.loads(other.read_text())["state"] == exported("two")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "x"}, "is no backup"),
        ({"stack": "prod"}, "is a backup of the stack prod"),
        ({"project": "shop"}, "of the project shop"),
    ],
)
def test_what_is_no_backup_of_this_stack_is_refused(
    clone: Clone, backup: Path, change: dict[str, str], why: str, said: Callable[[], str]
) -> None:
    backup.write_text(json.dumps({**json.loads(backup.read_text()), **change}))
    assert cli.main(["restore", "dev", str(backup)]) == 1
    assert why in said()
    assert not clone.bench.called("pulumi --non-interactive stack import")


# -- orphans

DOCKER = """
case "$*" in
    ps*) echo one; echo two;;
    "container inspect"*) cat "{folder}/containers"
        # As Docker does when one of those that it is asked for has gone.
        case "$*:$(cat "{folder}/gone" 2>/dev/null)" in *two*:two) echo "Error: No such container: two"; exit 1;; esac;;
    "network ls"*) echo "n1 uwsgi-nginx-before-network-0a1b2c3"; echo "n2 uwsgi-nginx-a-b-overlay-0a1b2c3"
        echo "n3 bridge";;
    "volume ls"*) for name in nginx-live nginx-live-0f1e2d3c sockets; do
        echo "uwsgi-nginx-dev-$name-0a1b2c3 uwsgi-nginx-dev-$name-0a1b2c3"; done;;
    info*) cat "{folder}/info";;
    "service ls"*) echo s1;;
    "service inspect"*) cat "{folder}/services";;
    "config ls"*) echo "c1 uwsgi-nginx-dev-nginx.conf-0a1b2c3";;
    "secret ls"*) echo "k1 uwsgi-nginx-dev-tls.key-0a1b2c3"; echo "k2 somebody-elses-0a1b2c3";;
esac
"""


def labels(stack: str) -> dict[str, str]:
    return {"uwsgi-nginx.project": "uwsgi-nginx", "uwsgi-nginx.stack": stack, "uwsgi-nginx.role": "replica"}


@pytest.fixture
def docker(clone: Clone) -> Clone:
    clone.bench.fake("docker", DOCKER.format(folder=clone.folder))
    described: list[dict[str, Any]] = [
        {
            "Id": one,
            "Name": f"/n-{one}",
            "Config": {"Labels": labels("dev")},
            "State": {"Status": "running"},
            "NetworkSettings": {"Networks": {"uwsgi-nginx-before-network-0a1b2c3": {}}},
        }
        for one in ("one", "two")
    ]
    (clone.folder / "containers").write_text(json.dumps(described))
    service = {"ID": "s1", "Spec": {"Name": "uwsgi-nginx-dev-app-0a1b2c3", "Labels": labels("dev")}}
    (clone.folder / "services").write_text(json.dumps([service]))
    (clone.folder / "info").write_text("false\n")
    return clone


def test_what_a_state_knows_is_no_orphan(docker: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["orphans", "dev"]) == 0
    out = capfd.readouterr().out
    assert "n-two" in out
    assert "n-one" not in out
    assert not docker.bench.called("docker service")


def test_each_is_listed_under_the_stack_that_its_label_or_its_user_or_its_name_tells(
    docker: Clone, capfd: pytest.CaptureFixture[str]
) -> None:
    (docker.folder / "info").write_text("true\n")
    assert cli.main(["orphans", "dev"]) == 0
    of_a_b, of_dev = capfd.readouterr().out.split("Stack dev:\n")
    assert [line.split()[:2] for line in of_a_b.splitlines()[1:]] == [["network", "uwsgi-nginx-a-b-overlay-0a1b2c3"]]
    assert [line.split()[0] for line in of_dev.splitlines()] == [
        *("service", "container", "network", "volume", "volume", "volume", "config", "secret")
    ]


def test_only_what_is_of_the_stack_goes_and_users_go_before_what_they_use(docker: Clone) -> None:
    (docker.folder / "info").write_text("true\n")
    assert cli.main(["orphans", "dev", "--remove", "--yes"]) == 0
    removed = [call.split()[1] for call in docker.bench.calls if call.split()[2] == "rm"]
    assert removed == ["service", "container", "network", "volume", "volume", "volume", "config", "secret"]
    assert not [call for call in docker.bench.calls if call.endswith("rm n2")]


def test_a_container_that_goes_meanwhile_is_none(docker: Clone, capfd: pytest.CaptureFixture[str]) -> None:
    (docker.folder / "gone").write_text("two")
    (docker.folder / "containers").write_text("[]")
    assert cli.main(["orphans", "dev"]) == 0
    assert "container" not in capfd.readouterr().out


def test_nothing_is_removed_unasked(docker: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Typed(""))
    assert cli.main(["orphans", "dev", "--remove"]) == 1
    assert not [call for call in docker.bench.calls if call.split()[2] == "rm"]


# -- what `make recover` knows of a swarm


def test_what_a_swarm_makes_is_known_and_removed_in_an_order_that_works() -> None:
    made = [{"type": kind, "urn": f"{URN}x", "id": f"id-{name}"} for kind, name in KINDS.items()]
    pending = [
        {"type": "creating", "resource": {"type": kind, "urn": f"{URN}x", "inputs": {"name": f"new-{name}"}}}
        for kind, name in KINDS.items()
    ]
    state = State.of({"deployment": {"resources": made, "pending_operations": pending}})
    assert {"id-service", "id-config", "id-secret"} <= state.known
    there = [Found(kind, f"orphan-{kind}", f"new-{kind}") for kind in sorted(KINDS.values())]
    lost = recover.orphans(there, state, state, "uwsgi-nginx", "dev")
    assert [found.kind for found in lost] == ["service", "container", "network", "volume", "config", "secret"]


def test_what_tasks_hold_on_to_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    answers: list[Failure | str] = [Failure("in use"), Failure("in use"), ""]

    def docker(*_: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, Failure):
            raise answer
        return answer

    recover.remove(docker, Found("network", "n", "n"), patient=True)
    assert not answers
    answers += [Failure("in use"), ""]
    with pytest.raises(Failure):
        recover.remove(docker, Found("network", "n", "n"), patient=False)


# -- shell, rename, upgrade


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("shell", ["uwsgi-1", "ls"]),
        ("shell", ["uwsgi-1", "--"]),
        ("backup", ["a", "b"]),
        ("restore", []),
        ("orphans", ["--yes"]),
        ("rename", ["a b"]),
        ("upgrade", ["python=3"]),
    ],
)
def test_what_a_command_does_not_know_is_refused(
    clone: Clone, command: str, arguments: list[str], said: Callable[[], str]
) -> None:
    assert cli.main([command, "dev", *arguments]) == 1
    assert f"What to do:    make {command}" in said() or command == "restore"
    assert clone.bench.calls == []


def test_a_stack_is_renamed_and_the_passphrase_that_it_takes_with_it_is_told(
    clone: Clone, said: Callable[[], str]
) -> None:
    (clone.folder / "export").unlink()
    assert cli.main(["rename", "dev", "live"]) == 0
    assert clone.bench.called("pulumi --non-interactive stack rename live --stack dev")
    assert "export PULUMI_CONFIG_PASSPHRASE=uwsgi-nginx-dev" in said()


def test_a_name_that_is_taken_is_refused(clone: Clone) -> None:
    assert cli.main(["rename", "dev", "live"]) == 1
    assert not clone.bench.called("pulumi --non-interactive stack rename")

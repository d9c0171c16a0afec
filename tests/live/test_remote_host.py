"""A Docker host that is another machine: by ssh and by TLS, for the program and for `make`.

The other machine is a daemon of the test's own. Docker's client finds none where it would look first, and what went to
the machine's own daemon all the same would be seen there.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.live.load import Load
from tests.live.own_daemon import OwnDaemon, bring_images
from tests.live.sshd import PORT as SSH_PORT
from tests.live.sshd import Sshd
from tests.live.stack import LOOPBACK, ROOT, Result, Stack
from tests.unit.certificates import Issued
from tooling import base_images, hints

DISK = "1200m"
SSH = f"ssh://root@{LOOPBACK}:{SSH_PORT}"
TLS = f"tcp://{LOOPBACK}:2376"
SOCKET = "/run/docker.sock"  # Docker's usual one, of that machine
NOWHERE = "unix:///nowhere/docker.sock"
RELEASE = re.compile(r'RELEASE = "\w+"')
# On a machine that has Pulumi and its packages already: those two are no matter of the Docker host.
MAKE = """
import sys
from pathlib import Path
from tooling import cli, machine, pulumi_cli, venv
cli.ROOT = Path(sys.argv[1])
known = machine.load(cli.ROOT)
venv.ensure, venv.is_current = lambda _: None, lambda _: True
pulumi_cli.ensure = lambda _: pulumi_cli.Cli(known.pulumi, known.origin, known.pulumi_home, known.helpers)
sys.exit(cli.main(sys.argv[2:]))
"""


class Remote(OwnDaemon):
    """The other machine, with sshd and a dockerd that takes certificates.

    Attributes:
        folder: with the certificates of both sides.
        ssh: how it is reached.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = Issued.make(authority=True, subject="the daemon's authority")
        self._certificates("server", authority, ExtendedKeyUsageOID.SERVER_AUTH)
        self._certificates("client", authority, ExtendedKeyUsageOID.CLIENT_AUTH)
        stranger = Issued.make(authority=True, subject="another authority")
        self._certificates("stranger", stranger, ExtendedKeyUsageOID.CLIENT_AUTH)
        shutil.copytree(folder / "stranger", folder / "unknown")
        shutil.copy2(folder / "client" / "ca.pem", folder / "unknown")
        server = folder / "server"
        super().__init__(
            folder,
            DISK,
            *("--host", f"unix://{SOCKET}", "--host", TLS, "--tlsverify"),
            *("--tlscacert", f"{server}/ca.pem", "--tlscert", f"{server}/cert.pem", "--tlskey", f"{server}/key.pem"),
        )
        try:
            self.ssh = Sshd(folder, self, LOOPBACK, f"unix://{SOCKET}")
        except BaseException:
            super().remove()
            raise

    def remove(self) -> None:
        self.ssh.remove()
        super().remove()

    def _certificates(self, name: str, authority: Issued, usage: object) -> None:
        made = Issued.make(LOOPBACK, issuer=authority, usage=usage)  # type: ignore[arg-type]
        place = self.folder / name
        place.mkdir()
        (place / "ca.pem").write_text(authority.chain)
        (place / "cert.pem").write_text(made.chain)
        (place / "key.pem").write_text(made.key)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """The tests are where it publishes its ports."""
    made = Remote(tmp_path_factory.mktemp("remote"))
    try:
        made.start()
        with made.network():
            yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def stack(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack there. It goes with it."""
    fresh = Stack(tmp_path_factory.mktemp("stack"), docker_host=remote.host)
    bring_images(fresh, remote)
    fresh.environment |= {"DOCKER_HOST": NOWHERE, "PATH": f"{remote.ssh.path}:{fresh.environment['PATH']}"}
    for name in ("tooling", "airgap"):
        shutil.copytree(ROOT / name, fresh.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.txt", "requirements-dev.txt"):
        shutil.copy2(ROOT / name, fresh.folder)
    (fresh.folder / ".local").mkdir()
    shutil.copy2(ROOT / ".local" / "machine.json", fresh.folder / ".local")
    fresh.configure(**{"docker:host": SSH})
    yield fresh
    fresh.docker.close()


def make(stack: Stack, *command: str) -> Result:
    """`make COMMAND STACK=…`."""
    begin = time.monotonic()
    target, *rest = command
    done = subprocess.run(
        [sys.executable, "-c", MAKE, str(stack.folder), target, stack.name, *rest],
        cwd=stack.folder,
        env=stack.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    result = Result(done.returncode, done.stdout, time.monotonic() - begin)
    stack.log.append(f"$ make {' '.join(command)}   [{result.code}, {result.seconds:.1f} s]\n{result.output}")
    print(stack.log[-1])
    return result


def release(stack: Stack, name: str) -> None:
    """Changes the app's source so that it calls itself `name`."""
    file = stack.folder / "app" / "webapp.py"
    file.write_text(RELEASE.sub(f'RELEASE = "{name}"', file.read_text()))


def assert_refused(stack: Stack, result: Result, *told: str) -> None:
    """It failed in words, with what to do, and what runs runs on."""
    todo = hints.advice(result.output, stack.name)
    print(result.output, f"What to do: {todo}", sep="\n")
    assert result.code != 0
    assert "Traceback" not in result.output
    for words in told:
        assert words in result.output
    assert "What runs is not touched by that." in todo
    assert stack.is_up()


def test_everything_is_made_there_and_nothing_here(running: Stack, remote: Remote) -> None:
    assert len(running.containers()) == 3
    assert set(running.answering(8)) == {"uwsgi-1", "uwsgi-2"}
    machine = docker.from_env(use_context=False)
    try:
        labels = f"uwsgi-nginx.stack={running.name}"
        assert machine.containers.list(all=True, sparse=True, filters={"label": labels}) == []
        assert not [image for image in machine.images.list() if any(running.name in tag for tag in image.tags)]
    finally:
        machine.close()


def test_nothing_changes_where_nothing_has_changed(running: Stack, remote: Remote) -> None:
    for command in (running.refresh, running.preview, running.up):
        before = remote.ssh.logins()
        result = command()
        print(f"{command.__name__}: {result.seconds:.1f} s, {remote.ssh.logins() - before} logins")
        assert set(result.changes) == {"unchanged"}


@pytest.mark.parametrize("name", ["two", "three"])
def test_a_release_by_ssh_drops_nothing(running: Stack, remote: Remote, name: str) -> None:
    before = remote.ssh.logins()
    with Load(running.port) as load:
        release(running, name)
        result = running.up()
    print(f"{load.figures}; {result.seconds:.1f} s, {remote.ssh.logins() - before} logins")
    load.assert_nothing_was_dropped()
    assert running.get().startswith(f"{name} ")


def test_the_url_is_the_remote_hosts(running: Stack) -> None:
    running.configure(**{"docker:host": SSH, "publishAddress": "127.0.0.1"})
    told = make(running, "url")
    assert told.code == 0
    assert f"http://127.0.0.1:{running.port}" in told.output
    assert f"ssh -N -L {running.port}:127.0.0.1:{running.port} -p {SSH_PORT} root@{LOOPBACK}" in told.output


def test_make_works_there(running: Stack) -> None:
    release(running, "made")
    up = make(running, "up")
    assert up.code == 0
    assert running.get().startswith("made ")
    assert make(running, "preview").code == 0
    listed = make(running, "ps")
    assert listed.code == 0
    assert re.findall(r"^(\S+) +running ", listed.output, re.MULTILINE) == ["nginx", "uwsgi-1", "uwsgi-2"]
    assert "GET" in make(running, "logs").output
    recovered = make(running, "recover")
    assert recovered.code == 0
    assert running.get().startswith("made ")


def test_base_images_are_looked_for_there(running: Stack, remote: Remote) -> None:
    """One that is on the machine's own daemon alone is none."""
    machine = docker.from_env(use_context=False)
    python = base_images.settings(ROOT)["pythonImage"] if base_images.settings(ROOT) else "python:3.13-slim"
    alone = f"{running.name}/alone:1"
    machine.images.get(python).tag(alone)
    try:
        running.configure(pythonImage=alone)
        refused = make(running, "preview")
        assert refused.code == 1
        assert f"asks for pythonImage {alone}, which is not on {SSH} and cannot be pulled" in refused.output
    finally:
        running.configure(pythonImage=python)
        machine.images.remove(alone)
        machine.close()


def test_a_host_with_another_key_is_refused(running: Stack, remote: Remote) -> None:
    release(running, "intruder")
    remote.ssh.know("other")
    try:
        assert_refused(running, running.up(check=False), "Host key verification failed.")
        told = make(running, "up")
        assert told.code == 1
        assert "Nothing was started here." in told.output
        assert f"ssh -p {SSH_PORT} root@{LOOPBACK} docker version" in told.output
    finally:
        remote.ssh.know("host")


def test_a_host_that_is_not_there_is_told(running: Stack) -> None:
    running.configure(**{"docker:host": f"ssh://root@{LOOPBACK}:1"})
    try:
        assert_refused(running, running.up(check=False), "port 1: Connection refused")
    finally:
        running.configure(**{"docker:host": SSH})


def test_a_host_whose_docker_is_away_is_told(running: Stack, remote: Remote) -> None:
    subprocess.run([*remote.inside, "mv", SOCKET, "/run/away.sock"], check=True)
    try:
        assert_refused(running, running.preview("--refresh", check=False), "The Docker daemon at ssh://")
    finally:
        subprocess.run([*remote.inside, "mv", "/run/away.sock", SOCKET], check=True)


@pytest.mark.parametrize("key", ["sshOpts", "context", "keyMaterial"])
def test_what_only_the_plugin_would_follow_is_refused(running: Stack, key: str) -> None:
    value = '["-4"]' if key == "sshOpts" else "elsewhere"
    running.configure(**{f"docker:{key}": value})
    try:
        refused = running.preview(check=False)
        assert refused.code != 0
        assert f"docker:{key}: " in refused.output
        assert "nothing was changed" in refused.output
    finally:
        running.configure(**{f"docker:{key}": ""})


def test_a_folder_of_this_machine_is_not_mounted_there(running: Stack) -> None:
    running.configure(liveReload="true")
    try:
        refused = running.preview(check=False)
        assert refused.code != 0
        assert f"liveReload is true, and the Docker host is {LOOPBACK}" in refused.output
    finally:
        running.configure(liveReload="")


def test_by_tls_it_is_the_same_stack(running: Stack, remote: Remote) -> None:
    running.configure(**{"docker:host": TLS, "docker:certPath": str(remote.folder / "client")})
    release(running, running.get().split()[0])
    for command in (running.up, running.refresh, running.preview):
        assert set(command().changes) == {"unchanged"}


def test_a_release_by_tls_drops_nothing(running: Stack) -> None:
    with Load(running.port) as load:
        release(running, "tls")
        result = running.up()
    print(f"{load.figures}; {result.seconds:.1f} s")
    load.assert_nothing_was_dropped()
    assert running.get().startswith("tls ")


def test_make_works_by_tls(running: Stack) -> None:
    release(running, "again")
    assert make(running, "up").code == 0
    assert running.get().startswith("again ")
    listed = make(running, "ps")
    assert re.search("^uwsgi-2 +running", listed.output, re.MULTILINE)
    assert make(running, "recover").code == 0


@pytest.mark.parametrize(
    ("certificates", "told"),
    [("stranger", "certificate verify failed"), ("unknown", "alert"), ("none", "there is no")],
)
def test_a_bad_certificate_is_refused(running: Stack, remote: Remote, certificates: str, told: str) -> None:
    running.configure(**{"docker:certPath": str(remote.folder / certificates)})
    release(running, "unknown")
    try:
        assert_refused(running, running.up(check=False), told)
        assert make(running, "up").code == 1
    finally:
        running.configure(**{"docker:certPath": str(remote.folder / "client")})


def test_it_goes_without_a_trace(running: Stack) -> None:
    running.configure(**{"docker:host": SSH, "docker:certPath": ""})
    running.up()  # what is destroyed is where the last `up` went, even one that failed
    running.destroy()
    assert running.leftovers() == {}

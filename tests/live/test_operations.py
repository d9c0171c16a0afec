"""Day two: the commands of docs/operations.md, on a stack that serves."""

import os
import pty
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from docker.errors import ImageNotFound

from tests.live.figures import Record
from tests.live.load import Load
from tests.live.stack import PROJECT, ROOT, Result, Stack, eventually, free_port

CODE = (
    "import sys; from pathlib import Path; from tooling import bootstrap, cli\n"
    "cli.ROOT, bootstrap.ensure = Path(sys.argv[1]), lambda *_: None\n"
    "sys.exit(cli.main([sys.argv[2], *sys.argv[3:]]))"
)
OLD, NEW = "s3cret-of-old", "s3cret-of-now"
KEY = "environment.API_TOKEN"


def make(stack: Stack, target: str, *arguments: str, stdin: str = "", name: str = "") -> Result:
    """`make TARGET STACK=… ARGS=…` in the stack's folder, on a machine that is ready for it; stdin is no terminal."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(stack.folder), target, name or stack.name, *arguments],
        cwd=stack.folder,
        env={**stack.environment, "PYTHONPATH": str(ROOT)},
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    result = Result(done.returncode, done.stdout, time.monotonic() - begin)
    stack.log.append(
        f"$ make {target} {' '.join(arguments)}   [{result.code}, {result.seconds:.1f} s]\n{result.output}"
    )
    return result


@pytest.fixture(scope="module")
def ready(running: Stack) -> Stack:
    """The stack with a secret, and with what the commands know of the machine."""
    running.pulumi("config", "set", "--secret", "--path", KEY, OLD)
    running.configure(drainTimeout="5")
    running.up()
    (running.folder / ".local").mkdir()
    shutil.copy2(ROOT / ".local" / "machine.json", running.folder / ".local")
    return running


def ids(stack: Stack) -> set[str]:
    return {str(container.id) for container in stack.containers()}


# -- shell


def test_a_command_runs_in_a_replica_and_its_exit_status_is_passed_on(ready: Stack) -> None:
    result = make(ready, "shell", "uwsgi-2", "--", "hostname")
    assert (result.code, result.output) == (0, "uwsgi-2\n")
    assert make(ready, "shell", "--", "sh", "-c", "exit 7").code == 7
    assert "nginx version" in make(ready, "shell", "nginx", "--", "nginx", "-v").output
    assert make(ready, "shell", "uwsgi-1", "--", "cat", stdin="passed on").output == "passed on"


def test_a_name_that_is_none_is_answered_with_those_that_are(ready: Stack) -> None:
    result = make(ready, "shell", "uwsgi-9")
    assert result.code == 1
    assert "There is no uwsgi-9 that runs. There are: nginx, uwsgi-1, uwsgi-2." in result.output


def test_on_a_terminal_it_is_a_shell_with_a_terminal(ready: Stack) -> None:
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        [sys.executable, "-c", CODE, str(ready.folder), "shell", ready.name],
        cwd=ready.folder,
        env={**ready.environment, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, b"tty; hostname; exit 3\n")
    said = b""
    with suppress(OSError):  # so ends a terminal whose other side is closed
        while chunk := os.read(ours, 4096):
            said += chunk
    os.close(ours)
    assert shell.wait(30) == 3, said
    assert re.search(rb"/dev/pts/\d+\r\nuwsgi-1\r\n", said), said


# -- secret


def token(stack: Stack) -> set[str]:
    return {make(stack, "shell", name, "--", "printenv", "API_TOKEN").output.strip() for name in ("uwsgi-1", "uwsgi-2")}


def test_a_rotated_secret_is_released_without_a_dropped_request_and_shown_nowhere(ready: Stack, record: Record) -> None:
    """Rotates one of `environment` with both replicas serving."""
    with Load(ready.port) as load:
        result = make(ready, "secret", KEY, stdin=f"{NEW}\n")
    assert result.code == 0, result.output
    record("a secret rotated by make secret", load)
    load.assert_nothing_was_dropped()
    assert token(ready) == {NEW}
    assert NEW not in result.output
    assert NEW not in (ready.folder / f"Pulumi.{ready.name}.yaml").read_text()
    assert NEW not in ready.pulumi("stack", "export").output


def test_a_key_that_the_program_does_not_take_changes_nothing(ready: Stack) -> None:
    file = ready.folder / f"Pulumi.{ready.name}.yaml"
    before, there = file.read_text(), ids(ready)
    result = make(ready, "secret", "enviroment.API_TOKEN", stdin="x")
    assert result.code == 1
    assert f"Nothing was changed; {file.name} is as before." in result.output
    assert (file.read_text(), ids(ready)) == (before, there)


def test_a_secret_that_looks_like_a_number_stays_a_text(ready: Stack) -> None:
    assert make(ready, "secret", KEY, stdin="0123").code == 0
    assert token(ready) == {"0123"}


def test_a_key_and_its_certificate_go_live_together(ready: Stack, record: Record) -> None:
    """Sets the certificate, then `make secret` the key, while clients come by HTTPS."""
    authority, context, port = trustme.CA(), ssl.create_default_context(), free_port()
    authority.configure_trust(context)

    def renew() -> str:
        issued = authority.issue_cert("127.0.0.1")
        certificate = "".join(blob.bytes().decode() for blob in issued.cert_chain_pems)
        ready.pulumi("config", "set", "--path", "tls.certificate", "--", certificate)
        result = make(ready, "secret", "tls.key", stdin=issued.private_key_pem.bytes().decode())
        assert result.code == 0, result.output
        return issued.cert_chain_pems[0].bytes().decode().strip()

    ready.pulumi("config", "set", "--path", "tls.port", str(port))
    try:
        renew()
        with Load(port, context=context) as load:
            renewed = renew()
        record("a certificate and its key rotated by make secret", load)
        load.assert_nothing_was_dropped()
        assert ssl.get_server_certificate(("127.0.0.1", port)).strip() == renewed
    finally:
        ready.configure(tls="")
        ready.up()


def test_another_passphrase_serves_as_before(ready: Stack) -> None:
    there = ids(ready)
    changed = subprocess.run(
        ["pulumi", "stack", "change-secrets-provider", "passphrase"],
        cwd=ready.folder,
        env=ready.environment,
        input="another\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert changed.returncode == 0, changed.stderr
    ready.environment["PULUMI_CONFIG_PASSPHRASE"] = "another"
    ready.preview("--expect-no-changes")
    assert ids(ready) == there


# -- backup, restore, orphans


def lose(stack: Stack) -> Path:
    """The state and the configuration, as with a disk; where the state is now."""
    state = stack.folder.parent / "state"
    lost = state.rename(state.with_name(f"lost-{time.monotonic_ns()}"))
    state.mkdir()
    (stack.folder / f"Pulumi.{stack.name}.yaml").unlink()
    return lost


def backup(stack: Stack) -> Path:
    result = make(stack, "backup")
    assert result.code == 0, result.output
    file = Path(result.output.splitlines()[-1])
    assert file.parent == stack.folder / ".local" / "backups"
    assert file.stat().st_mode & 0o777 == 0o600
    return file


def test_a_state_that_is_lost_comes_back_from_a_backup_while_the_site_serves(ready: Stack, record: Record) -> None:
    """State and configuration are gone; restores them from the file, then `up`."""
    file, there = backup(ready), ids(ready)
    with Load(ready.port) as load:
        lose(ready)
        listed = make(ready, "orphans").output
        result = make(ready, "restore", str(file))
        assert result.code == 0, result.output
        ready.preview("--refresh", "--expect-no-changes")
        ready.up()
    record("the state lost, then make restore", load)
    load.assert_nothing_was_dropped()
    assert ids(ready) == there
    for container in ready.containers():
        assert str(container.name) in listed
    assert listed.count(f"  {PROJECT}-{ready.name}-") == 7, "three containers, a network, three volumes"
    assert "There is nothing that no state knows" in make(ready, "orphans").output or ready.name not in (
        make(ready, "orphans").output
    )


def test_a_backup_does_not_replace_what_it_does_not_know(ready: Stack, record: Record) -> None:
    """Restores an older one with `--force`; `make recover` then releases, and removes what that does not know."""
    file = backup(ready)
    ready.edit("app/webapp.py", 'RELEASE = "', 'RELEASE = "again-')
    ready.up()
    there = ids(ready)
    refused = make(ready, "restore", str(file))
    assert refused.code == 1
    assert re.search(r"- uwsgi-1 \(Container \w+\), which the state has now", refused.output), refused.output
    forced = make(ready, "restore", str(file), "--force")
    assert forced.code == 0, forced.output
    after = next(Path(line) for line in forced.output.splitlines() if line.endswith("Z.json"))
    assert make(ready, "restore", str(after), "--force").code == 0
    ready.preview("--refresh", "--expect-no-changes")
    assert ids(ready) == there
    assert make(ready, "restore", str(file), "--force").code == 0
    with Load(ready.port) as load:
        recovered = make(ready, "recover")
    assert recovered.code == 0, recovered.output
    record("a state of another time, then make recover", load)
    load.assert_nothing_was_dropped()
    assert len(ids(ready)) == 3
    assert not [line for line in make(ready, "orphans").output.splitlines() if ready.name in line]


def test_what_is_no_backup_of_this_stack_is_refused(ready: Stack, tmp_path: Path) -> None:
    file = backup(ready)
    assert "is a backup of the stack" in make(ready, "restore", str(file), name="another").output
    other = tmp_path / "file"
    other.write_text("{}")
    assert "is no backup" in make(ready, "restore", str(other)).output
    other.write_text(file.read_text()[:-100])
    assert "is no backup" in make(ready, "restore", str(other)).output
    assert "cannot be read" in make(ready, "restore", str(tmp_path / "nothing")).output


# -- base images


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry on the loopback."""
    program = shutil.which("docker-registry")
    if not program:
        pytest.skip("this test takes Debian's docker-registry: apt-get install docker-registry")
    folder, address = tmp_path_factory.mktemp("registry"), f"127.0.0.1:{free_port()}"
    settings = folder / "settings.yml"
    settings.write_text(
        f"version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\n"
        f"http: {{addr: '{address}'}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        eventually(lambda: answers(f"http://{address}/v2/"), 20, "the registry answers")
        yield address
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as response:
        return bool(response.status == 200)
    return False


def push(stack: Stack, base: str, name: str, label: str) -> None:
    """Another image under a name at the registry, and not on the daemon any more."""
    build = subprocess.run(
        ["docker", "build", "--quiet", "--tag", name, "--label", f"made={label}", "-"],
        input=f"FROM {base}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert build.stdout
    stack.docker.images.push(name)
    stack.docker.images.remove(name)


def test_newer_base_images_are_pinned_and_released(ready: Stack, registry: str, record: Record) -> None:
    """Another image behind the tag at a registry: `make upgrade`, then `up`."""
    bases = {key: ready.pulumi("config", "get", key).output.strip() for key in ("pythonImage", "nginxImage")}
    built_here = make(ready, "upgrade")
    if bases["pythonImage"].startswith("airgap/"):
        assert f"pythonImage: {bases['pythonImage']} is built on this machine" in built_here.output
    name = f"{registry}/python:3"
    push(ready, bases["pythonImage"], name, "one")
    try:
        first = make(ready, "upgrade", f"pythonImage={name}")
        assert first.code == 0, first.output
        pinned = ready.pulumi("config", "get", "pythonImage").output.strip()
        assert re.fullmatch(re.escape(name) + "@sha256:[0-9a-f]{64}", pinned)
        assert f"pythonImage: {bases['pythonImage']} → {pinned}" in first.output
        ready.up()
        assert f"pythonImage: {pinned} is the newest." in make(ready, "upgrade", f"pythonImage={name}").output
        push(ready, bases["pythonImage"], name, "two")
        assert "pythonImage: " + pinned + " → " in make(ready, "upgrade").output
        newer = ready.pulumi("config", "get", "pythonImage").output.strip()
        before = ids(ready)
        with Load(ready.port) as load:
            ready.up()
        record("a newer Python base image", load)
        load.assert_nothing_was_dropped()
        assert len(ids(ready) & before) == 1, "NGINX alone is as before"
        labels = ready.docker.images.get(ready.replica("uwsgi-1").attrs["Image"]).labels
        assert labels["made"] == "two"
        ready.preview("--expect-no-changes")
    finally:
        ready.configure(**bases)
        ready.up()
        for used in (pinned, newer):
            with suppress(ImageNotFound):
                ready.docker.images.remove(used.replace(":3@", "@"))


def test_an_image_that_cannot_be_pulled_changes_no_setting(ready: Stack, registry: str) -> None:
    file = ready.folder / f"Pulumi.{ready.name}.yaml"
    before = file.read_text()
    result = make(ready, "upgrade", f"nginxImage={registry}/none:1")
    assert result.code == 1
    assert "cannot be pulled" in result.output
    assert file.read_text() == before


# -- another name


def test_a_renamed_stack_goes_on_and_its_next_update_replaces_its_containers(ready: Stack, record: Record) -> None:
    """`make rename`, then `up`: all labels carry the name, NGINX's too."""
    old, there = ready.name, ids(ready)
    new = f"{old}-renamed"
    with Load(ready.port) as load:
        result = make(ready, "rename", new)
        assert result.code == 0, result.output
        assert ids(ready) == there
    load.assert_nothing_was_dropped()
    assert not (ready.folder / f"Pulumi.{old}.yaml").exists()
    ready.name = new
    ready.environment["PULUMI_STACK"] = new
    with Load(ready.port) as load:
        ready.up()
    record("the first update of a renamed stack", load, f"gap {load.gap:.1f} s")
    assert load.gap < 5
    assert len(ids(ready)) == 3
    assert not ids(ready) & there
    labelled = ready.docker.containers.list(all=True, sparse=True, filters={"label": f"uwsgi-nginx.stack={old}"})
    assert not labelled
    ready.preview("--refresh", "--expect-no-changes")
    assert ready.name not in make(ready, "orphans").output
    assert "There is a stack" in make(ready, "rename", new).output


# -- without a backup


def test_without_a_backup_what_runs_is_adopted_and_the_next_update_replaces_it(ready: Stack, record: Record) -> None:
    """`make adopt` costs nothing; the `up` after it replaces NGINX, too."""
    configuration, there = (ready.folder / f"Pulumi.{ready.name}.yaml").read_text(), ids(ready)
    with Load(ready.port) as load:
        lose(ready)
        (ready.folder / f"Pulumi.{ready.name}.yaml").write_text(configuration)
        ready.pulumi("stack", "init", ready.name)
        result = make(ready, "adopt")
        assert result.code == 0, result.output
        assert result.output.count("adopted: ") == 7, result.output
        assert ids(ready) == there
    load.assert_nothing_was_dropped()
    with Load(ready.port) as load:
        ready.up()
    record("the state lost without a backup: make adopt, then make up", load, f"gap {load.gap:.1f} s")
    assert load.gap < 5
    assert len(ids(ready)) == 3
    assert not ids(ready) & there
    ready.preview("--refresh", "--expect-no-changes")
    assert not [line for line in make(ready, "orphans").output.splitlines() if ready.name in line]
    assert "is not empty: nothing was adopted" in make(ready, "adopt").output


def test_without_a_backup_orphans_are_removed_and_up_begins_anew(ready: Stack, record: Record) -> None:
    """Removes what runs, and creates it again."""
    configuration = (ready.folder / f"Pulumi.{ready.name}.yaml").read_text()
    with Load(ready.port) as load:
        lose(ready)
        listed = make(ready, "orphans")
        assert len(ids(ready)) == 3, "a list changes nothing"
        refused = make(ready, "orphans", "--remove")
        assert refused.code == 1
        assert "there is nobody to ask" in refused.output
        assert len(ids(ready)) == 3
        other = make(ready, "orphans", "--remove", "--yes", name=f"{ready.name}-2")
        assert "nothing was removed" in other.output
        removed = make(ready, "orphans", "--remove", "--yes")
        assert removed.code == 0, removed.output
        assert not ids(ready)
        (ready.folder / f"Pulumi.{ready.name}.yaml").write_text(configuration)
        ready.pulumi("stack", "init", ready.name)
        ready.up()
    record("the state lost without a backup: make orphans --remove, make up", load, f"gap {load.gap:.1f} s")
    assert listed.output.count(f"  {PROJECT}-") >= 7
    assert ready.get().split()[1].startswith("uwsgi-")
    assert not [line for line in make(ready, "orphans").output.splitlines() if ready.name in line]

"""`make doctor`: what each check says where something is wrong. Docker is a program that answers as it is told to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from infra.settings import Settings
from infra.site import Tls
from tests.tooling.conftest import Bench
from tests.unit.certificates import Issued
from tooling import configuration, doctor, machine, recover, stack
from tooling.console import Failure
from tooling.diagnosis import FAIL, OK, UNKNOWN, WARN, Context, Finding, Unknown
from tooling.machine import Machine

ROOT = Path(__file__).resolve().parents[2]
INFO: dict[str, Any] = {
    "ServerVersion": "20.10.24",
    "Name": socket.gethostname(),
    "OSType": "linux",
    "Architecture": "x86_64",
    "DockerRootDir": "/",
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "CgroupDriver": "systemd",
    "CgroupVersion": "2",
    "IndexServerAddress": "",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "Swarm": {"LocalNodeState": "inactive", "ControlAvailable": False},
}
NGINX, REPLICA = "a" * 64, "b" * 64
VOLUME = "shop-sockets"


def resource(kind: str, name: str, identity: str) -> dict[str, Any]:
    return {"type": f"docker:index/{kind}", "urn": f"urn:pulumi:dev::p::t::{name}", "id": identity, "outputs": {}}


STATE = [
    resource("container:Container", "nginx-8080", NGINX),
    resource("container:Container", "uwsgi-1", REPLICA),
    resource("volume:Volume", "sockets", VOLUME),
]


class Patient:
    """A clone on which `make up` has run, and the Docker and Pulumi that it meets."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.settings({})
        self.docker()
        machine.save(bench.root, Machine(pulumi=str(bench.bin), origin="path", stand_ins={}))

    @property
    def context(self) -> Context:
        return Context(self.bench.root, "dev")

    def settings(self, settings: dict[str, Any], **others: Any) -> None:
        config = {key if ":" in key else f"uwsgi-nginx:{key}": value for key, value in settings.items()}
        plain = {"uwsgi-nginx:publishAddress": "127.0.0.1", "uwsgi-nginx:platform": "linux/amd64"}
        self.bench.write("Pulumi.dev.yaml", yaml.safe_dump({**others, "config": {**plain, **config}}))

    def docker(self, info: dict[str, Any] | None = None, /, **answers: str) -> None:
        """By its first words, joined: `image_inspect`; what it is not told fails."""
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        answers = {"info": json.dumps({**INFO, "SystemTime": now, **(info or {})}), **answers}
        cases = []
        for words, answer in answers.items():
            file = self.bench.write(f"answers/{words}", answer)
            cases.append(f'"{words.replace("_", " ")}"*) cat "{file}";;')
        self.bench.fake("docker", f'case "$*" in {" ".join(cases)} *) echo "no such $1" >&2; exit 1;; esac')

    def state(self, *resources: dict[str, Any], pending: list[dict[str, Any]] | None = None) -> None:
        deployment = {"resources": list(resources), "pending_operations": pending}
        file = self.bench.write("answers/export", json.dumps({"deployment": deployment}))
        self.bench.fake("pulumi", f'case "$*" in *export*) cat "{file}";; version) echo v3.256.0;; esac')
        folder = stack.state_folder(self.bench.root) / ".pulumi" / "stacks" / "uwsgi-nginx"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dev.json").touch()

    def lock(self, pid: int, host: str = "") -> None:
        folder = stack.state_folder(self.bench.root) / ".pulumi/locks/organization/uwsgi-nginx/dev"
        folder.mkdir(parents=True)
        held = {"pid": pid, "username": "ann", "hostname": host or socket.gethostname()}
        (folder / "5c1d.json").write_text(json.dumps({**held, "timestamp": "2026-11-23T04:00:00.123Z"}))


@pytest.fixture
def patient(bench: Bench) -> Patient:
    return Patient(bench)


@pytest.fixture
def port() -> Iterator[int]:
    """One that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield int(taken.getsockname()[1])


def told(finding: Finding | None, status: str, *words: str) -> None:
    assert finding
    assert finding.status == status, finding
    for word in words:
        assert word in f"{finding.facts}\n{finding.todo}"
    assert finding.todo or status in (OK, UNKNOWN), "what is wrong comes with what to do"


# -- all together


def crash(context: Context) -> Finding:
    del context
    raise ZeroDivisionError("by nought")


def hang(context: Context) -> Finding:
    del context
    time.sleep(5)
    return Finding(OK, "at last")


def unknown(context: Context) -> Finding:
    del context
    raise Unknown("it is dark")


def refuse(context: Context) -> Finding:
    del context
    raise Failure("no", "ask again")


def nothing(context: Context) -> None:
    del context


def fine(context: Context) -> Finding:
    return Finding(OK, context.name)


def test_a_check_that_crashes_or_hangs_has_failed_and_hides_no_other(patient: Patient) -> None:
    checks = (crash, hang, unknown, refuse, nothing, fine)
    begin = time.monotonic()
    found = doctor.examine(patient.context, checks, limit=0.3)
    assert time.monotonic() - begin < 2
    assert [(name, finding.status) for name, finding in found.items()] == [
        ("crash", FAIL),
        ("hang", FAIL),
        ("unknown", UNKNOWN),
        ("refuse", FAIL),
        ("fine", OK),
    ]
    assert "ZeroDivisionError: by nought" in found["crash"].facts
    assert "no answer within" in found["hang"].facts
    assert found["unknown"].facts == "not looked at: it is dark"


def test_the_exit_status_says_whether_anything_is_wrong(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (fine, unknown))
    assert doctor.run(patient.bench.root, "dev", []) == 0
    assert capsys.readouterr().out == "ok    fine     dev\n-     unknown  not looked at: it is dark\n"
    monkeypatch.setattr(doctor, "CHECKS", (fine, refuse))
    assert doctor.run(patient.bench.root, "dev", ["--json"]) == 1
    assert json.loads(capsys.readouterr().out)[1] == {
        "check": "refuse",
        "status": "FAIL",
        "facts": "no",
        "todo": "ask again",
    }
    with pytest.raises(Failure, match="knows no --loud"):
        doctor.run(patient.bench.root, "dev", ["--loud"])


def test_it_works_before_anything_is_installed_and_changes_nothing(tmp_path: Path) -> None:
    for name in ("tooling", "app", "exporter"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("Pulumi.yaml", "Pulumi.dev.yaml", "requirements.txt", "requirements-dev.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    code = (
        "import sys; from pathlib import Path; from tooling import docker_engine, cli\n"
        "cli.ROOT = Path.cwd(); docker_engine.DEFAULT_HOST = 'unix:///no/docker.sock'\n"
        "sys.exit(cli.main(['doctor', 'dev']))"
    )
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-ISBc", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "FAIL" not in done.stdout, done.stdout
    assert done.returncode == 0, done.stderr
    for check in ("pulumi ", "docker plugin", "docker client"):
        assert f"{check}" in done.stdout
    assert done.stdout.count("not yet installed: `make up` does that") == 3
    assert "there is no /no/docker.sock; `make up` installs it if need be, and starts it" in done.stdout
    assert sorted(tmp_path.iterdir()) == before


# -- versions


def test_what_make_up_has_not_installed_yet_is_no_failure_and_what_is_gone_since_is(patient: Patient) -> None:
    (patient.bench.bin / "docker").unlink()
    told(doctor.pulumi(patient.context), FAIL, "it is gone", "make up")
    told(doctor.docker_client(patient.context), FAIL, "make up")
    told(
        doctor.docker_plugin(patient.context), FAIL, "pins 5.2.0; there is none", "plugin install resource docker 5.2.0"
    )
    machine.save(patient.bench.root, Machine())
    for check in (doctor.pulumi, doctor.docker_client, doctor.docker_plugin):
        told(check(patient.context), UNKNOWN, "`make up` does that")
    told(doctor.tools(patient.context), WARN, "there is no `make`")


def test_a_cli_of_another_major_version_does_not_do(patient: Patient) -> None:
    patient.bench.fake("pulumi", "echo v4.0.1")
    told(doctor.pulumi(patient.context), FAIL, "4.0.1", "3.272.0", "same major version")


def test_a_plugin_of_another_version_is_not_the_one_that_is_pinned(patient: Patient) -> None:
    (patient.bench.home / ".pulumi/plugins/resource-docker-v4.9.0").mkdir(parents=True)
    told(doctor.docker_plugin(patient.context), FAIL, "there is 4.9.0")
    (patient.bench.home / ".pulumi/plugins/resource-docker-v5.2.0").mkdir(parents=True)
    told(doctor.docker_plugin(patient.context), OK)


def test_an_older_python_is_told_which_it_takes(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "sys", SimpleNamespace(version="3.9.2 (main)", version_info=(3, 9, 2)))
    told(doctor.python(patient.context), FAIL, "3.9.2 is too old", "3.11")


# -- the daemon


def test_a_daemon_that_is_not_reached_is_said_once(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    patient.bench.fake("docker", 'echo "Cannot connect to the Docker daemon at $DOCKER_HOST. Is it?" >&2; exit 1')
    told(doctor.daemon(patient.context), FAIL, "there is no ", "docker.sock", "systemctl start docker")
    for check in (doctor.platform, doctor.limits, doctor.clock, doctor.disk_of_docker, doctor.python_image):
        with pytest.raises(Unknown, match="the daemon is not reached"):
            check(patient.context)
    patient.settings({"docker:host": "tcp://192.0.2.7:2376"})
    told(doctor.daemon(patient.context), FAIL, "tcp://192.0.2.7:2376 (docker:host in Pulumi.dev.yaml)", "docker:host")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    patient.settings({})
    told(doctor.daemon(patient.context), FAIL, "unix:///nowhere.sock (DOCKER_HOST)", "there is no /nowhere.sock")


def test_what_a_client_says_of_a_daemon_without_failing_counts_too(patient: Patient) -> None:
    patient.settings({"docker:host": "tcp://192.0.2.7:2376"})
    patient.docker({"ServerErrors": ["Cannot connect to it."]})
    told(doctor.daemon(patient.context), FAIL, "Cannot connect to it.")


def test_an_old_daemon_is_one_that_the_stack_was_not_tested_with(patient: Patient) -> None:
    patient.docker({"ServerVersion": "19.03.8"})
    told(doctor.daemon(patient.context), WARN, "19.03.8", "20.10")


def test_the_daemons_machine_must_be_the_one_that_images_are_built_for(patient: Patient) -> None:
    patient.docker({"Architecture": "aarch64"})
    told(doctor.platform(patient.context), FAIL, "is linux/arm64", "config set platform linux/arm64 --stack dev")


def test_limits_that_do_not_hold_are_named(patient: Patient) -> None:
    patient.docker({"SwapLimit": False, "MemoryLimit": False, "SecurityOptions": ["name=rootless"]})
    told(doctor.limits(patient.context), WARN, "rootless", "memory, swap do not hold", "cgroup_enable=memory")
    patient.settings({"port": "8080"})
    patient.docker({"SecurityOptions": ["name=rootless"]})
    told(doctor.limits(patient.context), OK, "rootless")
    patient.settings({"port": "80"})
    told(doctor.limits(patient.context), WARN, "below 1024", "ip_unprivileged_port_start")


@pytest.mark.parametrize(("seconds", "status"), [(0, OK), (60, WARN), (-3600, FAIL)])
def test_a_clock_that_goes_wrong_is_seen(patient: Patient, seconds: int, status: str) -> None:
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    patient.docker({"SystemTime": f"{at:%Y-%m-%dT%H:%M:%S}.123456789Z"})
    told(doctor.clock(patient.context), status, "ahead of the daemon's" if seconds < 0 else "the daemon's")


# -- disk


@pytest.mark.parametrize(
    ("free", "inodes", "status"), [(10, 10**6, OK), (1, 10**6, WARN), (0.1, 10**6, FAIL), (10, 100, FAIL), (10, 0, OK)]
)
def test_a_disk_that_gets_full_is_seen(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, free: float, inodes: int, status: str
) -> None:
    blocks = int(free * doctor.GIB / 4096)
    numbers = SimpleNamespace(f_bavail=blocks, f_frsize=4096, f_favail=inodes, f_files=inodes * 2)
    monkeypatch.setattr(os, "statvfs", lambda _: numbers)
    patient.docker(system_df="Images 3.6GB (95%)\nContainers 0B (0%)\n")
    told(doctor.disk_of_clone(patient.context), status, f"{free:.1f} GiB", *(["make clean"] if status != OK else []))
    found = doctor.disk_of_docker(patient.context)
    told(found, status, "to be had back: Images 3.6GB (95%)", *(["docker builder prune"] if status != OK else []))
    assert "Containers" not in found.facts


def test_the_disk_of_another_machine_is_not_looked_at(patient: Patient) -> None:
    patient.docker({"Name": "docker-desktop"})
    with pytest.raises(Unknown, match="another machine"):
        doctor.disk_of_docker(patient.context)


# -- images and registries


class Registry(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response_only(401)
        self.send_header("Date", self.date_time_string(time.time() + 3600))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    """One that asks who comes; its clock is an hour ahead."""
    with HTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def image(platform: str = "amd64", **variables: str) -> str:
    described = {"Os": "linux", "Architecture": platform, "Config": {"Env": [f"{k}={v}" for k, v in variables.items()]}}
    return json.dumps([described])


def test_an_image_that_is_too_old_or_for_another_machine_is_refused(patient: Patient) -> None:
    patient.settings({"nginxImage": "nginx:1.28"})
    told(doctor.nginx_image(patient.context), FAIL, "nginx:1.28 is 1.28", "1.30", "config set nginxImage")
    patient.settings({"nginxImage": "nginx:stable"})
    patient.docker(image_inspect=image(NGINX_VERSION="1.29.9"))
    told(doctor.nginx_image(patient.context), FAIL, "nginx:stable is 1.29.9")
    patient.docker(image_inspect=image("arm64", NGINX_VERSION="1.31.0"))
    told(doctor.nginx_image(patient.context), FAIL, "for linux/arm64, not linux/amd64", "--platform linux/amd64")
    patient.docker(image_inspect=image(NGINX_VERSION="1.31.0"))
    told(doctor.nginx_image(patient.context), OK, "(1.31.0)")


def test_an_image_that_is_not_there_is_to_be_had_if_its_registry_answers(patient: Patient, registry: str) -> None:
    patient.settings({"pythonImage": f"{registry}/team/python:3.13-slim"})
    told(doctor.python_image(patient.context), OK, f"{registry} answers")
    patient.settings({"pythonImage": "127.0.0.1:1/python:3.13-slim"})
    told(doctor.python_image(patient.context), FAIL, "Connection refused", "docker load", "config set pythonImage")
    patient.settings({})
    patient.docker({"RegistryConfig": {"Mirrors": ["https://127.0.0.1:1/", f"http://{registry}/"]}})
    told(doctor.python_image(patient.context), OK, f"python:3.13-slim is not on the daemon; {registry} answers")
    patient.settings({"pythonImage": "127.0.0.1:1/python:3.13-slim"})
    patient.docker({"Name": "elsewhere"})
    told(doctor.python_image(patient.context), WARN, "from here")
    machine.save(patient.bench.root, Machine())
    told(doctor.python_image(patient.context), UNKNOWN, "`make up` builds a stand-in")


def test_what_stands_in_for_an_image_is_looked_for_in_its_place(patient: Patient) -> None:
    machine.save(patient.bench.root, Machine(pulumi="here", stand_ins={"nginxImage": "airgap/nginx:1.31"}))
    patient.docker(**{"image_inspect_airgap/nginx:1.31": image()})
    told(doctor.nginx_image(patient.context), OK, "airgap/nginx:1.31")


def test_a_registry_is_looked_for_in_a_swarm_alone_and_its_clock_counts(patient: Patient, registry: str) -> None:
    patient.settings({"registry": f"{registry}/team"})
    assert doctor.registry(patient.context) is None
    patient.settings({"registry": f"{registry}/team", "orchestrator": "swarm"})
    told(doctor.registry(patient.context), OK, f"{registry}/team answers")
    told(doctor.clock(patient.context), FAIL, "behind the registry's")
    patient.settings({"registry": "127.0.0.1:1/team", "orchestrator": "swarm"})
    told(doctor.registry(patient.context), FAIL, "Connection refused", "insecure-registries")


# -- ports


def test_who_has_the_port_is_said(patient: Patient, port: int) -> None:
    patient.settings({"port": str(port)})
    name = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
    told(doctor.port(patient.context), FAIL, f"{port} is taken by {name} (process {os.getpid()})", "config set port ")
    patient.docker(**{"ps_--filter": "shop-nginx"})
    told(doctor.port(patient.context), FAIL, f"{port} is taken by the container shop-nginx")


def test_a_port_that_this_very_stack_has_is_no_problem(patient: Patient, port: int) -> None:
    patient.settings({"port": str(port)})
    patient.state(*STATE)
    patient.docker(ps=f"{NGINX} dev-nginx ")
    told(doctor.port(patient.context), OK, "this stack's: dev-nginx")
    patient.docker(ps=f"{'c' * 64} other-nginx ")
    told(doctor.port(patient.context), FAIL)
    patient.settings({"port": str(port), "publish": "host"})
    patient.docker(ps="", inspect=str(os.getpid()))
    told(doctor.port(patient.context), OK, "on the network of the host")
    patient.state(resource("service:Service", "nginx", "y" * 25))
    patient.settings({"port": str(port), "orchestrator": "swarm"})
    patient.docker(ps="", service_ls=f"{'y' * 12} dev-nginx *:{port}->8080/tcp\n")
    told(doctor.port(patient.context), OK, "this stack's: dev-nginx")


def test_a_port_is_looked_for_at_the_address_where_it_is_published(patient: Patient, port: int) -> None:
    patient.settings({"port": str(port), "publishAddress": "127.0.0.2"})
    told(doctor.port(patient.context), OK, f"{port} is free at 127.0.0.2")
    patient.settings({"port": str(port), "publishAddress": "192.0.2.1"})
    told(doctor.port(patient.context), FAIL, "no address of this machine", "config set publishAddress")


def test_the_ports_of_https_and_of_the_metrics_are_looked_at_where_they_are_used(patient: Patient, port: int) -> None:
    assert doctor.https_port(patient.context) is None
    assert doctor.metrics_port(patient.context) is None
    patient.settings(
        {"tls": {"certificateFile": "c.pem", "port": port}, "metrics": {"enabled": "true", "port": f"{port}"}}
    )
    told(doctor.https_port(patient.context), FAIL, "config set --path tls.port ")
    told(doctor.metrics_port(patient.context), FAIL, "config set --path metrics.port ")


def test_of_another_machines_port_only_its_containers_are_known(patient: Patient, port: int) -> None:
    patient.settings({"port": str(port), "docker:host": "ssh://elsewhere"})
    patient.docker(**{"ps_--no-trunc": ""})
    told(doctor.port(patient.context), OK, "what else listens on ssh://elsewhere is not known here")
    patient.docker(**{"ps_--filter": "theirs"})
    told(doctor.port(patient.context), FAIL, "taken by the container theirs")


def test_whose_a_port_is_only_the_daemon_would_say(patient: Patient, port: int) -> None:
    patient.settings({"port": str(port)})
    patient.bench.fake("docker", "exit 1")
    told(doctor.port(patient.context), UNKNOWN, f"{port} is taken by", "its daemon would say")


# -- the state


def test_a_state_that_is_not_there_yet_or_cannot_be_read(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    told(doctor.state(patient.context), UNKNOWN, "`make up` creates it")
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file:///nowhere")
    patient.bench.fake("pulumi", "echo 'error: unable to open bucket file:///nowhere' >&2; exit 255")
    told(doctor.state(patient.context), FAIL, "unable to open bucket", "pulumi whoami")
    with pytest.raises(Failure):
        doctor.containers(patient.context)


def test_operations_without_an_end_are_those_of_an_update_that_was_cut_off(patient: Patient) -> None:
    pending = [{"type": "creating", "resource": {"type": "docker:index/container:Container"}}]
    patient.state(*STATE, pending=pending)
    told(doctor.state(patient.context), FAIL, "pending operations: 1", "make recover STACK=dev")
    patient.lock(1, "elsewhere")
    told(doctor.state(patient.context), OK, "3 resources")


def ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    return process.pid


def test_a_lock_is_one_of_an_update_that_runs_or_of_one_that_is_no_more(patient: Patient) -> None:
    told(doctor.lock(patient.context), OK, "free")
    patient.lock(pid := ended())
    told(doctor.lock(patient.context), FAIL, f"ann@{socket.gethostname()}, process {pid}, since 2026-11-23 04:00:00")
    told(doctor.lock(patient.context), FAIL, "make recover STACK=dev")


def test_a_lock_that_is_half_written_is_one_of_an_update_that_was_killed(patient: Patient) -> None:
    patient.lock(1)
    next(stack.state_folder(patient.bench.root).glob("**/5c1d.json")).write_text("{")
    with pytest.raises(Failure, match="half written"):
        doctor.lock(patient.context)


def test_a_lock_of_an_update_that_runs_is_waited_for(patient: Patient, tmp_path: Path) -> None:
    (tmp_path / "pulumi").symlink_to("/bin/sleep")
    update = subprocess.Popen([tmp_path / "pulumi", "60"])
    try:
        while not recover.is_pulumi(update.pid):  # its name comes a moment after it
            time.sleep(0.01)
        patient.lock(update.pid)
        told(doctor.lock(patient.context), WARN, f"an update runs: ann@{socket.gethostname()}, process {update.pid}")
    finally:
        update.kill()
        update.wait()


def test_a_lock_from_another_machine_is_not_judged(patient: Patient) -> None:
    patient.lock(1, "elsewhere")
    told(doctor.lock(patient.context), WARN, "only that machine knows", "pulumi cancel --yes dev")


def test_a_passphrase_that_does_not_fit_is_told(patient: Patient) -> None:
    assert doctor.passphrase(patient.context) is None, "nothing is encrypted"
    patient.settings({}, encryptionsalt="v1:AAAA")
    script = 'echo "error: incorrect passphrase" >&2; exit 255'
    patient.bench.fake("pulumi", script)
    told(doctor.passphrase(patient.context), FAIL, "incorrect passphrase", "export PULUMI_CONFIG_PASSPHRASE")
    before = (patient.bench.root / "Pulumi.dev.yaml").read_bytes()
    patient.bench.fake("pulumi", 'for file; do :; done; while [ "$1" != --config-file ]; do shift; done; echo >> "$2"')
    told(doctor.passphrase(patient.context), OK)
    assert (patient.bench.root / "Pulumi.dev.yaml").read_bytes() == before, "a copy is written to"


@pytest.mark.parametrize(
    ("days", "status", "words"),
    [(90, OK, "valid until"), (5, WARN, "Renew it"), (-1, FAIL, "it ended on")],
)
def test_a_certificate_that_ends_is_seen_in_time(patient: Patient, days: int, status: str, words: str) -> None:
    now = datetime.now(UTC)
    issued = Issued.make("shop.example", begins=now - timedelta(days=30), ends=now + timedelta(days=days))
    patient.bench.fake_venv()
    assert doctor.certificate(patient.context) is None
    patient.settings({"tls": {"certificate": issued.pem}})
    told(doctor.certificate(patient.context), status, words)
    patient.bench.write("c.pem", issued.pem)
    patient.settings({"tls": {"certificateFile": "c.pem"}})
    told(doctor.certificate(patient.context), status, words)


def test_a_certificate_of_tomorrow_may_be_a_clock_that_is_late(patient: Patient) -> None:
    now = datetime.now(UTC)
    issued = Issued.make("shop.example", begins=now + timedelta(days=1), ends=now + timedelta(days=90))
    patient.bench.fake_venv()
    patient.settings({"tls": {"certificate": issued.pem}})
    told(doctor.certificate(patient.context), FAIL, "not valid before", "Is the clock right?")


# -- what runs


def test_a_swarm_takes_a_manager_that_has_its_others(patient: Patient) -> None:
    assert doctor.swarm(patient.context) is None
    patient.settings({"orchestrator": "swarm"})
    told(doctor.swarm(patient.context), FAIL, "in no swarm (inactive)", "docker swarm init")
    patient.docker({"Swarm": {"LocalNodeState": "active", "ControlAvailable": False}})
    told(doctor.swarm(patient.context), FAIL, "is a worker", "docker node promote")
    manager = {"Swarm": {"LocalNodeState": "active", "ControlAvailable": True}}
    patient.docker(manager)
    told(doctor.swarm(patient.context), FAIL, "no such node", "docker node ls")
    patient.docker(manager, node_ls="one\tReady\tLeader\ntwo\tDown\tUnreachable\nthree\tReady\tReachable\n")
    told(doctor.swarm(patient.context), WARN, "3 nodes, 2 of 3 managers reachable; gone: two (Down)")
    patient.docker(manager, node_ls="one\tReady\tLeader\ntwo\tReady\t\n")
    told(doctor.swarm(patient.context), OK, "2 nodes, 1 of 1 managers reachable")


def described(identity: str, name: str, status: str = "running", health: str = "healthy") -> dict[str, Any]:
    at = "2026-11-23T04:00:00.123456789Z"
    state = {"Status": status, "ExitCode": 137, "Health": {"Status": health}, "StartedAt": at, "FinishedAt": at}
    labels = {"uwsgi-nginx.role": "replica", "uwsgi-nginx.replica": name}
    return {"Id": identity, "Name": f"/dev-{name}", "Image": "i", "State": state, "Config": {"Labels": labels}}


def run(patient: Patient, *containers: dict[str, Any]) -> Finding | None:
    ids = "\n".join(container["Id"] for container in containers)
    patient.docker(ps=ids, inspect=json.dumps(containers))
    return doctor.containers(patient.context)


def test_containers_that_are_down_gone_ill_or_unknown_are_named(patient: Patient) -> None:
    patient.state()
    told(doctor.containers(patient.context), UNKNOWN, "nothing is deployed yet")
    patient.state(*STATE)
    nginx, replica = described(NGINX, "nginx"), described(REPLICA, "uwsgi-1")
    told(run(patient, nginx, replica), OK, "all 2 run")
    assert f"--filter=volume={VOLUME}" in patient.bench.called("docker ps")[-1]
    down = run(patient, nginx, described(REPLICA, "uwsgi-1", "exited"))
    told(down, FAIL, "uwsgi-1 is exited (137)", "make logs STACK=dev", "pulumi up --refresh --stack dev")
    told(run(patient, nginx), FAIL, "uwsgi-1 is not there")
    told(run(patient, nginx, described(REPLICA, "uwsgi-1", health="unhealthy")), FAIL, "uwsgi-1 is unhealthy")
    told(run(patient, nginx, described(REPLICA, "uwsgi-1", health="starting")), OK, "1 still to be looked at")
    lost = described("c" * 64, "uwsgi-2")
    told(run(patient, nginx, replica, lost), WARN, "does not know dev-uwsgi-2", "make recover STACK=dev")


def test_a_replica_that_is_drained_may_be_unwell(patient: Patient) -> None:
    release = {"type": "pulumi-python:dynamic:Release", "urn": "u::release", "inputs": {"drained": ["uwsgi-1"]}}
    patient.state(*STATE, release)
    found = run(patient, described(NGINX, "nginx"), described(REPLICA, "uwsgi-1", "exited"))
    told(found, WARN, "uwsgi-1 gets no requests", "make resume STACK=dev")


def test_services_that_have_not_all_their_tasks_are_named(patient: Patient) -> None:
    patient.settings({"orchestrator": "swarm"})
    patient.state(resource("service:Service", "app", "x" * 25), resource("service:Service", "nginx", "y" * 25))
    patient.docker(service_ls=f"{'x' * 12} dev-app 2/3\n{'y' * 12} dev-nginx 3/3\nzzz other 0/1\n")
    told(doctor.containers(patient.context), FAIL, "dev-app has 2/3", "make ps STACK=dev")
    patient.docker(service_ls=f"{'x' * 12} dev-app 3/3 (max 1 per node)\n")
    told(doctor.containers(patient.context), OK, "dev-app 3/3")


# -- what is read of a configuration


def test_a_configuration_is_read_as_pulumi_writes_it(bench: Bench) -> None:
    bench.write(
        "Pulumi.dev.yaml",
        'encryptionsalt: v1:x=:y\nconfig:\n  uwsgi-nginx:port: "81"\n  uwsgi-nginx:tls:\n    hosts:\n      - a.b\n'
        "    port: 8444 # HTTPS\n    certificate: |\n      -----BEGIN\n  docker:host: 'ssh://me@there:22'\n",
    )
    settings = configuration.read(bench.root, "dev")
    assert settings["port"] == "81"
    assert settings["tls.port"] == "8444"
    assert settings["tls.certificate"] == "|"
    assert settings["docker:host"] == "ssh://me@there:22"
    assert settings["nginxImage"] == "nginx:1.31"
    assert configuration.daemon(bench.root, "dev").url == "ssh://me@there:22"
    assert configuration.read(bench.root, "none")["pythonImage"] == "python:3.13-slim"


def test_what_the_checks_take_for_defaults_is_what_the_settings_have() -> None:
    assert Tls().port == doctor.TLS_PORT
    assert configuration.defaults(ROOT)["port"] == str(Settings.model_fields["port"].default)
    assert configuration.defaults(ROOT)["nginxImage"] == Settings.model_fields["nginx_image"].default

"""What `make` says below a `pulumi` command that failed; `outputs/` was recorded with engine 3.256 and Docker 20.10."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.tooling.conftest import Bench
from tooling import hints
from tooling.docker_engine import Host

OUTPUTS = Path(__file__).parent / "outputs"

RECORDED = {
    "port-taken-by-a-process": ("Port 57617 is taken by somebody. Free it", "pulumi config set port "),
    "port-taken-by-a-container": ("Port 32768 is taken by somebody. Free it", "pulumi config set port "),
    "no-such-base-image": ("The base image (pythonImage)", "pulumi config set pythonImage NAME:TAG --stack prod"),
    "build-no-such-version": ("pip --python /opt/venv/bin/python install", "docker build --file uwsgi/Dockerfile"),
    "build-bad-requirement": ("pip --python /opt/venv/bin/python install", "docker build --file uwsgi/Dockerfile"),
    "build-import": ("The app cannot be imported", "pulumi config set importCheck false --stack prod"),
    "no-daemon-at-a-socket": ("docker --host unix:///nowhere/docker.sock version", "docker:host --stack prod"),
    "no-daemon-at-a-port": ("docker --host tcp://127.0.0.1:1 version", "docker:host --stack prod"),
    "disk-full-in-a-build": ("docker system df", "docker image prune"),
    "disk-full-at-the-gate": ("docker system df", "What runs goes on running"),
    "wrong-passphrase": ("not the one that Pulumi.prod.yaml was made with", "export PULUMI_CONFIG_PASSPHRASE"),
    "no-passphrase": ("secrets of stack prod need", "export PULUMI_CONFIG_PASSPHRASE"),
    "locked": ("make recover STACK=prod", "pulumi cancel --yes --stack prod"),
    "no-swarm": ("no manager of a swarm", "docker swarm init", "docker:host ssh://MANAGER --stack prod"),
    "swarm-worker": ("no manager of a swarm", "docker node promote NODE"),
    "swarm-rollback": ("What ran before them goes on serving", "make ps STACK=prod"),
    "swarm-no-convergence": ("Not all tasks of a service came to run", "make logs STACK=prod"),
    "port-taken-on-a-node": ("Port 38245 is taken on node-2. Free it", "pulumi config set port "),
    "registry-no-login": ("--secret --path 'docker:registryAuth[0].address'", "docker login"),
    "registry-wrong-login": ("--secret --path 'docker:registryAuth[0].address'", "docker login"),
    "registry-without-tls": ('"insecure-registries": ["10.89.0.1:5002"]', "certs.d/10.89.0.1:5002/ca.crt"),
    "network-in-use": (
        "docker network inspect --format '{{json .Containers}}' uwsgi-nginx-test-75e28d37-network-720ce6e",
    ),
    "pending-operations": ("An update before this one was cut off", "make recover STACK=prod"),
}

# As people report them of other versions → what the advice has to name.
ELSEWHERE = {
    # Docker 28 and 29
    "driver failed programming external connectivity on endpoint n (f8a3): failed to bind host port for "
    "0.0.0.0:8000:172.31.0.2:8080/tcp: address already in use": "Port 8000 is",
    "failed to bind host port 127.0.0.1:5432/tcp: address already in use": "Port 5432 is",
    "failed to bind host port [::1]:5432/tcp: address already in use": "Port 5432 is",
    "failed to connect to the docker API at unix:///run/nothing.sock; check if the path is correct and if the "
    "daemon is running: dial unix /run/nothing.sock: connect: no such file or directory": "unix:///run/nothing.sock ",
    # Docker 20 to 27
    "Error starting userland proxy: listen tcp6 [::1]:8081: bind: address already in use": "Port 8081 is",
    "Error starting userland proxy: listen tcp 172.17.42.1:10000: bind: cannot assign requested address": "publishAddr",
    "Error pinging Docker server: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker "
    "daemon running?": "docker --host unix:///var/run/docker.sock version",
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock": "the group",
    "pull access denied for minio, repository does not exist or may require 'docker login': denied": "image minio ",
    "manifest for nginx:9.9 not found: manifest unknown: manifest unknown": "base image nginx:9.9 ",
    "toomanyrequests: You have reached your pull rate limit.": "`docker pull` by hand",
    'Get "https://registry.example/v2/": net/http: request canceled while waiting for connection': "not reached",
    # Docker Desktop
    "Ports are not available: exposing port TCP 0.0.0.0:8080 -> 0.0.0.0:0: listen tcp 0.0.0.0:8080: bind: address "
    "already in use": "Port 8080 is",
    "Error starting userland proxy: Bind for 0.0.0.0:80: unexpected error (Failure EADDRINUSE)": "Port 80 is",
    # BuildKit, in the official plugin
    "  docker:index:Image (nginx-image):\n    error: failed to solve: nginx:9: failed to resolve source metadata for "
    "docker.io/library/nginx:9: docker.io/library/nginx:9: not found": "pulumi config set nginxImage",
    '  docker:index:Image (canary-image):\n    error: failed to solve: process "/bin/sh -c pip install -r '
    '/tmp/requirements.txt" did not complete successfully: exit code: 1': "--path canary.appFolder || ",
    '  docker:index:Image (canary-image):\n    error: failed to solve: process "/bin/sh -c compileall && if [ '
    '"${IMPORT_CHECK}" = true ]" did not complete successfully: exit code: 1': "importCheck false",
    "  docker:index:Image (exporter-image):\n    The command '/bin/sh -c pip install' returned a non-zero code: 1": (
        "pythonImage) exporter"
    ),
    '  docker:index:Image (app-image):\n    error: failed to solve: process "/bin/sh -c pip install -r '
    '/tmp/requirements.txt" did not complete successfully: exit code: 1': "/bin/sh -c pip install -r /tmp/require",
    '  docker:index:Image (nginx-image):\n    error: process "/bin/sh -c nginx -v" did not complete successfully: '
    "exit code: 127": "--build-arg NGINX_IMAGE=",
    # Docker 20 to 29
    "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are "
    "online. Make sure more than half of the managers are online.": "Half of the swarm's managers",
    "error: failed to solve: failed to push r.example/app:1: unexpected status: 401 Unauthorized": "registryAuth",
    # The official plugin, whose pushes fail in these words; Docker's registry in others
    "error pushing image: denied: requested access to the resource is denied": "registryAuth",
    "unauthorized: incorrect username or password": "registryAuth",
    'Get "https://10.0.0.5:5000/v2/": x509: certificate signed by unknown authority': "certs.d/10.0.0.5:5000/ca.crt",
    "Error response from daemon: network demo has active endpoints": "disconnect --force demo NAME",
    "Docker native provider returned an unexpected error from Configure: failed to connect to any docker daemon": "run",
    # Pulumi Cloud, and older engines
    "error: [409] Conflict: Another update is currently in progress.": "make recover",
    "error: decrypting secret value: failed to decrypt: incorrect passphrase, please set PULUMI_CONFIG": "export",
    # NGINX on the network of the host: the official image, and one with musl
    "nginx: [emerg] bind() to 127.0.0.1:8080 failed (98: Address already in use)": "Port 8080 is",
    "nginx: [emerg] bind() to 127.0.0.1:8080 failed (98: Address in use)": "Port 8080 is",
}


@pytest.fixture(autouse=True)
def somebody(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Has every port, unless the test looks for who it is."""
    if "bench" not in request.fixturenames:
        monkeypatch.setattr(hints, "holder", lambda port, where: "somebody")


def advice(output: str) -> str:
    return hints.advice(output, "prod")


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_failure_is_answered_with_what_to_do(name: str) -> None:
    told = advice((OUTPUTS / f"{name}.txt").read_text(encoding="utf-8"))
    for expected in RECORDED[name]:
        assert expected in told
    assert len(told.splitlines()) <= 8


def test_every_recorded_output_is_tested() -> None:
    assert {path.stem for path in OUTPUTS.iterdir()} == set(RECORDED)


@pytest.mark.parametrize("message", ELSEWHERE)
def test_what_other_versions_say_is_understood_too(message: str) -> None:
    assert ELSEWHERE[message] in advice(f"Diagnostics:\n{message}\n")


def test_each_hint_is_reached_by_some_output() -> None:
    outputs = [path.read_text(encoding="utf-8") for path in OUTPUTS.iterdir()] + list(ELSEWHERE)
    reached = {
        next(i for i, (pattern, _) in enumerate(hints.HINTS) if re.search(pattern, output)) for output in outputs
    }
    assert reached == set(range(len(hints.HINTS)))


def test_colours_do_not_hide_a_cause() -> None:
    assert "docker system df" in advice("\x1b[31mno space\x1b[0m left on \x1b[1mdevice\x1b[0m")


@pytest.mark.parametrize("output", ["", "error: update failed", "ValueError: {nothing} that is known", "100% no space"])
def test_an_unknown_cause_is_not_guessed_at(output: str) -> None:
    assert advice(output) == ""


def test_what_the_output_says_is_never_taken_for_a_template() -> None:
    step = (
        "  docker:index:Image (app-image):\n    The command '/bin/sh -c echo {stack} {0}' returned a non-zero code: 1"
    )
    assert "/bin/sh -c echo {stack} {0}" in advice(step)


def test_a_process_that_closes_files_meanwhile_is_looked_into_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "fd"
    folder.mkdir()
    for number in range(3):
        (folder / str(number)).symlink_to(f"socket:[{number}]")
    found = hints._open_files(tmp_path)
    first = next(found)
    left = {"socket:[0]", "socket:[1]", "socket:[2]"} - {first}
    closed = left.pop()
    (folder / closed.strip("socket:[]")).unlink()
    assert set(found) == left


def test_a_process_that_holds_the_port_is_named(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = hints.advice(f"listen tcp4 127.0.0.1:{port}: bind: address already in use", "dev")
    name = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
    assert f"Port {port} is taken by {name} (process {os.getpid()})." in told
    assert f"set port {port} " not in told


def test_a_container_that_holds_the_port_is_named(bench: Bench) -> None:
    bench.fake("docker", 'case "$*" in *publish=8080*) echo shop-nginx;; esac')
    told = hints.advice("Bind for 127.0.0.1:8080 failed: port is already allocated", "dev")
    assert "Port 8080 is taken by the container shop-nginx." in told


def test_a_daemon_on_another_machine_is_asked_and_the_processes_of_this_one_are_not_named(bench: Bench) -> None:
    bench.fake("docker", '[ "$DOCKER_HOST" != ssh://elsewhere ] || case "$*" in *publish=8080*) echo theirs;; esac')
    told = hints.advice("Bind for 127.0.0.1:8080 failed: port is already allocated", "dev", Host("ssh://elsewhere"))
    assert "Port 8080 is taken by the container theirs." in told
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = hints.advice(f"listen tcp4 0.0.0.0:{port}: bind: address already in use", "dev", Host("ssh://elsewhere"))
    assert f"Port {port} is taken. Free it" in told


def test_a_daemon_is_tried_by_hand_as_it_is_reached() -> None:
    told = hints.advice("error during connect: tls: bad certificate", "dev", Host("tcp://lab:2376", "", "/certs"))
    assert "DOCKER_HOST=tcp://lab:2376 DOCKER_CERT_PATH=/certs DOCKER_TLS_VERIFY=1 docker version" in told


def test_of_a_port_on_a_node_of_a_swarm_this_machine_knows_nothing(bench: Bench) -> None:
    bench.fake("docker", "echo another")
    told = hints.advice((OUTPUTS / "port-taken-on-a-node.txt").read_text(encoding="utf-8"), "dev")
    assert "Port 38245 is taken on node-2." in told


def test_nobody_is_named_when_nobody_can_be_found(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert f"Port {port} is taken. Free it" in hints.advice(
        f"Bind for [::]:{port} failed: port is already allocated", "dev"
    )


def test_the_command_that_tries_a_build_is_one_that_a_shell_takes() -> None:
    told = advice((OUTPUTS / "build-bad-requirement.txt").read_text(encoding="utf-8"))
    script = told[told.index("docker build") :]
    subprocess.run(["sh", "-n", "-c", script], check=True)

"""Each rule of the policy, and a program that breaks it: what the engine says in a preview of it."""

import json
import os
import subprocess
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import pytest

from tests.live.stack import COMMAND_TIMEOUT, ROOT
from tooling import policy
from tooling.stack import environment

PROJECT = """\
name: policy
runtime: {name: python, options: {virtualenv: .venv}}
"""
PROGRAM = """\
import pulumi_docker as docker

image = docker.Image(
    "image",
    image_name="policy/app:1",
    build=docker.DockerBuildArgs(context=".", dockerfile="Dockerfile", args={"BASE_IMAGE": "python:3.13-slim"}),
    skip_push=True,
)
label = "uwsgi-nginx.role"
container = {
    "image": image.repo_digest,
    "user": "10001:10001",
    "memory": 64,
    "volumes": [{"container_path": "/data", "volume_name": "data"}],
    "labels": [{"label": label, "value": "replica"}],
}
nginx = {**container, "labels": [{"label": label, "value": "nginx"}], "ports": [{"internal": 8080}]}
"""
DIGEST = f"sha256:{'0' * 64}"

Check = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """The policy's words about a program, of which these are the last lines."""
    folder = tmp_path_factory.mktemp("policy")
    state = folder / "state"
    state.mkdir()
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / "Pulumi.yaml").write_text(PROJECT)
    (folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM $BASE_IMAGE\n")
    env = {
        **os.environ,
        **environment(ROOT),
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": "test",
    }

    def pulumi(*arguments: str) -> str:
        done = subprocess.run(
            ["pulumi", "--non-interactive", *arguments],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    pulumi("stack", "init", "policy")

    def words(lines: str) -> list[str]:
        (folder / "__main__.py").write_text(PROGRAM + dedent(lines))
        found: dict[str, Any] = json.loads(pulumi("preview", "--json"))
        return policy.violations(found)

    return words


def service(**more: str) -> str:
    """A program with a service of a swarm; `more` are other values for its parts, as Python writes them."""
    parts = {
        "image": "image.repo_digest",
        "user": '"10001"',
        "memory": "2**26",
        "mounts": "[]",
        "capabilities": "[]",
        "ports": "[]",
    } | more
    return dedent(f"""\
        docker.Service(
            "app",
            labels=[{{"label": label, "value": "replica"}}],
            endpoint_spec={{"ports": {parts["ports"]}}},
            task_spec={{
                "container_spec": {{
                    "image": {parts["image"]},
                    "user": {parts["user"]},
                    "mounts": {parts["mounts"]},
                    "cap_adds": {parts["capabilities"]},
                }},
                "resources": {{"limits": {{"memory_bytes": {parts["memory"]}}}}},
            }},
        )
        """)


SOCKET = '{"target": "/s", "source": "/var/run/docker.sock", "type": "bind"}'
BROKEN = {
    "published replica": ('docker.Container("app", **container, ports=[{"internal": 8000}])', "app is published"),
    "published replica, all ports": ('docker.Container("app", **container, publish_all_ports=True)', "is published"),
    "replica on the host's network": ('docker.Container("app", **container, network_mode="host")', "is published"),
    "published service": (service(ports='[{"target_port": 8000}]'), "app is published"),
    "root": ('docker.Container("app", **{**container, "user": "0:0"})', "runs as root, or may (user: 0:0)"),
    "root by name": ('docker.Container("app", **{**container, "user": "root"})', "runs as root, or may (user: root)"),
    "whatever user the image has": ('docker.Container("app", **{**container, "user": None})', "so the image decides"),
    "service of root": (service(user='"0"'), "runs as root"),
    "unbounded memory": ('docker.Container("app", **{**container, "memory": None})', "may use all memory"),
    "service of unbounded memory": (service(memory="0"), "may use all memory"),
    "mutable tag": ('docker.Container("app", **{**container, "image": "nginx:1.31"})', "runs nginx:1.31, which may be"),
    "mutable tag of a service": (service(image='"nginx"'), "runs nginx, which may be"),
    "base image without a version": (
        """docker.Image("base", image_name="a:1", skip_push=True,
                        build={"context": ".", "args": {"BASE_IMAGE": "registry.example:5000/python"}})""",
        "base is built on registry.example:5000/python",
    ),
    "latest base image": (
        """docker.Image("base", image_name="a:1", skip_push=True,
                        build={"context": ".", "args": {"BASE_IMAGE": "python:latest"}})""",
        "base is built on python:latest",
    ),
    "privileged mode": ('docker.Container("app", **container, privileged=True)', "is privileged"),
    "added capabilities": ('docker.Container("app", **container, capabilities={"adds": ["SYS_ADMIN"]})', "is privileg"),
    "service with added capabilities": (service(capabilities='["CAP_SYS_ADMIN"]'), "is privileged"),
    "Docker's socket": (
        """docker.Container("app", **{**container,
                            "volumes": [{"container_path": "/s", "host_path": "/var/run/docker.sock"}]})""",
        "sees Docker's socket (/var/run/docker.sock",
    ),
    "the folder of Docker's socket": (
        'docker.Container("app", **container, mounts=[{"target": "/host", "source": "/run", "type": "bind"}])',
        "sees Docker's socket (/run ",
    ),
    "Docker's socket in a service": (service(mounts=f"[{SOCKET}]"), "sees Docker's socket"),
    "Docker's socket by way of a volume": (
        'docker.Volume("v", driver="local", driver_opts={"type": "none", "o": "bind", "device": "/var/run"})',
        "v sees Docker's socket (/var/run ",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_program_that_breaks_a_rule_is_told_so(check: Check, broken: str) -> None:
    program, words = BROKEN[broken]
    problems = check(program)
    assert len(problems) == 1, problems
    assert words in problems[0]


def test_a_program_that_breaks_none_is_told_nothing(check: Check) -> None:
    assert check('docker.Container("app", **container)\ndocker.Container("nginx", **nginx)\n' + service()) == []
    assert check(f'docker.Container("app", **{{**container, "image": "nginx@{DIGEST}"}})') == []
    assert check(f'docker.Container("app", **{{**container, "image": "{DIGEST}"}})') == []


def test_every_rule_is_broken_by_a_program() -> None:
    names = {rule.__name__.removeprefix("no_").replace("_", " ") for rule in policy.RULES}
    said = " ".join(BROKEN).lower().replace("docker's", "docker")
    assert not {name for name in names if name not in said}

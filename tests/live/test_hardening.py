"""What the containers are not allowed to do, tried out in the real ones."""

import pytest

from tests.live.stack import Stack

ROLES = ("replica", "nginx")
IMAGE_BUDGET = 40 * 1024 * 1024  # bytes that the app image may add to its base


@pytest.fixture(scope="module", autouse=True)
def running(stack: Stack) -> None:
    stack.configure(replicas="1")
    stack.up()


@pytest.mark.parametrize("role", ROLES)
def test_nothing_runs_as_root(stack: Stack, role: str) -> None:
    for container in stack.containers(role):
        users = {line[1] for line in container.top(ps_args="-eo pid,uid,args")["Processes"]}
        assert users
        assert "0" not in users


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("folder", ["/", "/etc", "/usr/local/bin", "/app"])
def test_the_root_file_system_cannot_be_written(stack: Stack, role: str, folder: str) -> None:
    container = stack.containers(role)[0]
    code, output = stack.run_in(container, f"touch {folder}/intruder", user="0")
    assert code != 0
    assert "Read-only file system" in output or "No such file" in output


@pytest.mark.parametrize("role", ROLES)
def test_no_capability_and_no_new_privileges(stack: Stack, role: str) -> None:
    status = stack.run_in(stack.containers(role)[0], "cat /proc/1/status")[1]
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["CapEff"] == facts["CapPrm"] == facts["CapBnd"] == "0" * 16
    assert facts["NoNewPrivs"] == "1"


@pytest.mark.parametrize("role", ROLES)
def test_memory_tasks_and_logs_are_bounded(stack: Stack, role: str) -> None:
    container = stack.containers(role)[0]
    host = container.attrs["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 256 * 1024 * 1024
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
    limits = stack.run_in(container, "cat /proc/1/limits")[1]
    processes = next(line for line in limits.splitlines() if line.startswith("Max processes"))
    assert processes.split()[2] == {"replica": "11200", "nginx": "4096"}[role]


@pytest.mark.parametrize("role", ROLES)
def test_threads_that_are_woken_do_not_interrupt_those_that_run(stack: Stack, role: str) -> None:
    rows = stack.containers(role)[0].top(ps_args="-eLo pid,cls")["Processes"]
    assert len(rows) > 1
    assert {policy for _, policy in rows} == {"B"}  # SCHED_BATCH


def test_nothing_of_the_compiler_is_left_in_the_app_image(stack: Stack) -> None:
    find = "for tool in gcc cc g++ make ld; do command -v $tool; done; find / -xdev -name 'cc1*' 2>/dev/null"
    assert stack.run_in(stack.replica("uwsgi-1"), find, user="0")[1] == ""


def test_the_app_image_adds_little_to_its_base(stack: Stack) -> None:
    image = stack.docker.images.get(stack.outputs()["image"])
    base = stack.docker.images.get(stack.pulumi("config", "get", "pythonImage").output.strip())
    assert 0 < image.attrs["Size"] - base.attrs["Size"] < IMAGE_BUDGET

"""A swarm of Docker daemons on one machine, each on a network of its own, joined by a switch; and a registry.

A node is an `OwnDaemon` with a cable: its namespaces, its data and its containers end with the test, whatever happens.
The switch is a bridge in a namespace of its own too, where the registry answers and from where tests ask the nodes.
Nothing leads outside: with a default route each look for a registry that is not there would cost 20 s.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import docker
import pytest
from docker.errors import DockerException
from requests import RequestException

from tests.live.own_daemon import PATH, OwnDaemon, enter_network
from tests.live.stack import eventually

SUBNET = "10.89.0"  # of the switch; overlay networks take theirs from 10.0.0.0/8, from its beginning
SWITCH = f"{SUBNET}.1"
REGISTRY = f"{SWITCH}:5000"
GUARDED_REGISTRY = f"{SWITCH}:5001"  # the same, for those who say who they are
USERNAME, PASSWORD = "swarm", "pull and push"
# bcrypt: the registry takes no other.
PASSWORD_FILE = f"{USERNAME}:$2y$05$abcdefghijklmnopqrstuuN2kApQ7k7yGHwAMuDzxmbfT7TjOtD4y\n"
DISK = "2g"  # of each node, in memory, as far as it is used: images and what containers write
JOIN_TIMEOUT = 30  # seconds
ELECTION_TIMEOUT = 30  # seconds until managers must have found a leader among them
HEAL_TIMEOUT = 90  # seconds in which a swarm must have noticed that a node is gone: 21 were measured
REGISTRY_SETTINGS = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}
http: {{addr: '{address}'}}
"""
LOGIN = "auth: {{htpasswd: {{realm: swarm, path: {passwords}}}}}\n"

Answer = TypeVar("Answer")


class Switch:
    """A network namespace with a bridge, and whatever is plugged into it."""

    def __init__(self) -> None:
        # It ends with this process: `cat` reads to the end of a pipe that only we hold open.
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "cat"],
            stdin=subprocess.PIPE,
            env={"PATH": PATH},
        )
        eventually(self._is_apart, 10, "the switch has a namespace of its own")
        self._run("ip link set lo up; ip link add br0 type bridge; ip link set br0 up")
        self._run(f"ip addr add {SWITCH}/24 dev br0")
        self._registries: list[subprocess.Popen[bytes]] = []

    def plug(self, port: str, process: int) -> None:
        """Lays a cable to the network of that process, where its end is eth0."""
        self._run(f"ip link add {port} type veth peer name eth0 netns {process}; ip link set {port} master br0 up")

    def serve_registry(self, folder: Path) -> None:
        """Starts Debian's docker-registry twice, reached by all nodes as REGISTRY and as GUARDED_REGISTRY."""
        program = shutil.which("docker-registry", path=PATH)
        if not program:
            pytest.skip("the swarm's tests take Debian's docker-registry: apt-get install docker-registry")
        images, passwords = folder / "images", folder / "passwords"
        images.mkdir()
        passwords.write_text(PASSWORD_FILE)
        for address, login in ((REGISTRY, ""), (GUARDED_REGISTRY, LOGIN)):
            settings = folder / f"registry-{address}.yml"
            settings.write_text((REGISTRY_SETTINGS + login).format(folder=images, address=address, passwords=passwords))
            command = ["setpriv", "--pdeathsig", "KILL", *self._inside, program, "serve", str(settings)]
            with settings.with_suffix(".log").open("wb") as log:
                self._registries.append(
                    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": PATH})
                )
        for address in (REGISTRY, GUARDED_REGISTRY):
            eventually(lambda address=address: address in self._output("ss -Htln"), 20, f"{address} listens")

    @contextmanager
    def network(self) -> Iterator[None]:
        """For the calling thread, and whatever it starts inside: it stands where clients of the cluster would."""
        with enter_network(self._holder.pid):
            yield

    def remove(self) -> None:
        for process in (*self._registries, self._holder):
            process.kill()
            process.wait()
        assert self._holder.stdin
        self._holder.stdin.close()

    @property
    def _inside(self) -> list[str]:
        # Not `ip netns exec`: that mounts a /sys of its own, without /sys/fs/cgroup.
        return ["nsenter", "--target", str(self._holder.pid), "--net"]

    def _run(self, script: str) -> None:
        subprocess.run([*self._inside, "sh", "-ec", script], check=True, env={"PATH": PATH})

    def _output(self, command: str) -> str:
        done = subprocess.run([*self._inside, *command.split()], check=True, capture_output=True, env={"PATH": PATH})
        return done.stdout.decode()

    def _is_apart(self) -> bool:
        ours, its = Path("/proc/self/ns/net"), Path(f"/proc/{self._holder.pid}/ns/net")
        with suppress(OSError):  # setpriv and unshare each become the next program
            return ours.readlink() != its.readlink()
        return False


class Node(OwnDaemon):
    """One machine of the swarm.

    Attributes:
        name: its hostname, as the swarm knows it.
        address: on the switch.
    """

    def __init__(self, folder: Path, number: int, switch: Switch) -> None:
        self.name, self.address = f"node-{number}", f"{SUBNET}.{10 + number}"
        place = folder / self.name
        place.mkdir()
        super().__init__(place, DISK)
        self._settings.write_text(
            json.dumps({"insecure-registries": [REGISTRY, GUARDED_REGISTRY], "log-level": "warn"})
        )
        switch.plug(f"port{number}", self._init)
        inside = ["nsenter", "--target", str(self._init), "--net", "--uts", "sh", "-ec"]
        script = f"hostname {self.name}; ip addr add {self.address}/24 dev eth0; ip link set eth0 up"
        subprocess.run([*inside, script], check=True, env={"PATH": PATH})

    @property
    def docker(self) -> Any:
        return docker.DockerClient(self.host, timeout=30)


class Cluster:
    """Managers first: `nodes[0]` is the one that programs talk to.

    Three managers, so that the swarm decides on without any one of them.
    """

    def __init__(self, folder: Path, size: int = 3, managers: int = 3) -> None:
        self._folder = folder
        self.switch = Switch()
        self.nodes: list[Node] = []
        try:
            for number in range(size):
                self.nodes.append(Node(folder, number, self.switch))
            for node in self.nodes:
                node.start()
            self.switch.serve_registry(folder)
            self._join(managers)
        except BaseException:
            self.remove()
            raise

    def _join(self, managers: int) -> None:
        first = self.nodes[0]
        with closing(first.docker) as client:
            client.swarm.init(advertise_addr=first.address, listen_addr=first.address)
            client.swarm.reload()
            tokens = client.swarm.attrs["JoinTokens"]
        for number, node in enumerate(self.nodes[1:], start=1):
            with closing(node.docker) as client:
                client.swarm.join(
                    remote_addrs=[f"{first.address}:2377"],
                    join_token=tokens["Manager" if number < managers else "Worker"],
                    advertise_addr=node.address,
                    listen_addr=node.address,
                )
        eventually(lambda: len(self.ready()) == len(self.nodes), JOIN_TIMEOUT, "all nodes are ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """All nodes at once: a swarm that loses them one after the other is busy with healing."""
        for node in self.nodes:
            with suppress(ProcessLookupError):
                node.remove()
        self.switch.remove()

    # -- what the swarm says

    def ask(self, question: Callable[[Any], Answer]) -> Answer:
        """The answer of the first manager that gives one: any may be the one that was killed, or without a leader."""
        deadline = time.monotonic() + ELECTION_TIMEOUT
        while True:
            for node in filter(lambda node: node.is_on, self.nodes):
                try:
                    with closing(node.docker) as client:
                        return question(client)
                except (DockerException, RequestException) as error:
                    problem = error
            assert time.monotonic() < deadline, f"no manager answers: {problem}"
            time.sleep(0.5)

    def ready(self) -> list[str]:
        """The names of the nodes that are there."""
        nodes = self.ask(lambda client: client.api.nodes())
        return [node["Description"]["Hostname"] for node in nodes if node["Status"]["State"] == "ready"]

    def is_whole(self) -> bool:
        """Whether all nodes are there, and all managers in contact with the others."""
        nodes = self.ask(lambda client: client.api.nodes())
        managers = [node["ManagerStatus"]["Reachability"] for node in nodes if "ManagerStatus" in node]
        return len(self.ready()) == len(self.nodes) and {*managers} == {"reachable"}

    def running(self, service: str) -> dict[str, int]:
        """How many of a service's tasks run, by node."""

        def count(client: Any) -> dict[str, int]:
            names = {node["ID"]: node["Description"]["Hostname"] for node in client.api.nodes()}
            tasks = client.api.tasks(filters={"service": service, "desired-state": "running"})
            there = [names[task["NodeID"]] for task in tasks if task["Status"]["State"] == "running"]
            return {name: there.count(name) for name in sorted(set(there))}

        return self.ask(count)

    def drain(self, name: str, availability: str = "drain") -> None:
        """Takes a node out of service, or (`active`) back into it."""

        def change(client: Any) -> None:
            node = client.nodes.get(name)
            node.update({**node.attrs["Spec"], "Availability": availability})

        self.ask(change)

    def label(self, name: str, labels: Mapping[str, str]) -> None:
        def change(client: Any) -> None:
            node = client.nodes.get(name)
            node.update({**node.attrs["Spec"], "Labels": dict(labels)})

        self.ask(change)

    def leftovers(self) -> list[str]:
        """Services, configs, secrets and networks, other than Docker's own."""

        def list_all(client: Any) -> list[str]:
            api = client.api
            named: Sequence[Any] = [*api.services(), *api.configs(), *api.secrets()]
            networks = [n["Name"] for n in api.networks() if n["Scope"] == "swarm" and n["Name"] != "ingress"]
            return [thing["Spec"]["Name"] for thing in named] + networks

        return self.ask(list_all)

    def report(self) -> Iterator[tuple[str, str]]:
        """For a test that fails: what became of the tasks, and the end of each daemon's log."""
        with suppress(AssertionError):
            yield "tasks", "\n".join(self.ask(_tell_tasks))
        for node in self.nodes:
            yield node.name, node.last_words()

    # -- time

    def until_healed(self, service: str, tasks: int, without: str = "") -> float:
        """Seconds until as many tasks run (again), on nodes that are there; `without` the one that must be gone.

        Of a node that has just come back the swarm still says for some seconds that what ran there does.
        """
        begin = time.monotonic()

        def healed() -> bool:
            # First the nodes: their tasks are said to run until the swarm knows that they are gone.
            ready, there = self.ready(), self.running(service)
            return without not in ready and sum(there[name] for name in ready if name in there) >= tasks

        eventually(healed, HEAL_TIMEOUT, f"{service} runs {tasks} tasks (again)")
        return time.monotonic() - begin


def _tell_tasks(client: Any) -> list[str]:
    names = {node["ID"]: node["Description"]["Hostname"] for node in client.api.nodes()}
    services = {service["ID"]: service["Spec"]["Name"] for service in client.api.services()}
    return [
        f"{services.get(task['ServiceID'], '')}.{task.get('Slot', '')} on {names.get(task.get('NodeID'), 'no node')}: "
        f"{task['Status']['State']} {task['Status'].get('Err', '')}"
        for task in client.api.tasks()
    ]

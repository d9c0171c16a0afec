"""How a rollout on a swarm is watched, against a manager in memory: when it counts as there, and why it is refused."""

import base64
import io
import itertools
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound, NotFound
from pulumi.dynamic.dynamic import serialize_provider
from requests import ConnectionError as NotReached

from infra import docker_host, layout
from infra.dynamic import DaemonProvider
from infra.refusal import Refused
from infra.swarm import one_off, reach, rollout
from infra.swarm.configuration_test import ConfigurationTestProvider
from infra.swarm.release import RolloutProvider
from infra.swarm.rollout import Rollout, Watch
from tests.unit.fake_docker import FakeClock, api_error
from tests.unit.program import SWARM, Program, run

Json = dict[str, Any]
OLD, NEW = "0000old0", "0000new0"
APP = Rollout(
    labels={"uwsgi-nginx.stack": "test", "uwsgi-nginx.role": "replica"},
    content=NEW,
    replicas=2,
    nodes="",
    platform="linux/amd64",
    timeout=60,
    appears_within=10,
    decides=False,
    name="uwsgi",
)
NGINX = replace(APP, labels={**APP.labels, "uwsgi-nginx.role": "nginx"}, replicas=0, decides=True, name="NGINX")
PORT_TAKEN = "driver failed programming external connectivity: Bind for 0.0.0.0:8080 failed: port is already allocated"


def spec(content: str) -> Json:
    """Of a task."""
    return {
        "ContainerSpec": {"Image": f"registry.example/app@sha256:{content}"},
        "Networks": [{"Target": "net", "Aliases": ["app"]}],
        "Resources": {"Limits": {"MemoryBytes": 1 << 28}},
        "ForceUpdate": 0,
    }


class Manager:
    """Stands for a client of a manager: two nodes, and whatever happens to services while time passes.

    Attributes:
        tasks: of all services.
        logs: what tasks have said, by id.
        failure: raised by all that it is asked.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.api = self
        self.nodes_there = [node("node-1", "one"), node("node-2", "two")]
        self.services_there: list[Json] = []
        self.tasks_there: list[Json] = []
        self.logs: dict[str, list[str]] = {}
        self.failure: Exception | None = None
        self.silence: Exception | threading.Event = threading.Event()
        self.silence.set()
        self._clock, self._numbers = clock, itertools.count(1)
        self._events: list[tuple[float, Callable[[], object]]] = []
        clock.on_tick.append(self._tick)

    def later(self, seconds: float, event: Callable[[], object]) -> None:
        """`event` happens when so many seconds have passed."""
        self._events.append((self._clock.now + seconds, event))

    def _tick(self) -> None:
        for when, event in [*self._events]:
            if self._clock.now >= when:
                self._events.remove((when, event))
                event()

    # What happens

    def begin(self, of: Rollout, content: str = NEW) -> Json:
        """The service is told to become `content`; without tasks so far."""
        found = next((s for s in self.services_there if of.labels.items() <= s["Spec"]["Labels"].items()), None)
        if found is None:
            found = {"ID": f"id-of-{of.name}", "Spec": {}}
            self.services_there.append(found)
        found["Spec"] = {"Labels": {**of.labels, rollout.CONTENT_LABEL: content}, "TaskTemplate": spec(content)}
        found.pop("UpdateStatus", None)
        return found

    def task(self, of: Rollout, place: int | str, state: str = "running", content: str = NEW, **status: str) -> str:
        """A task that is there from now on; `place` is a slot or a node."""
        number = next(self._numbers)
        where = {"Slot": place, "NodeID": "node-1"} if of.replicas else {"NodeID": place}
        if state == "pending":
            del where["NodeID"]
        self.tasks_there.append(
            {
                "ID": f"task-{number}",
                "ServiceID": f"id-of-{of.name}",
                "CreatedAt": f"2026-01-01T12:00:{number:02}Z",
                "DesiredState": "running" if state in ("running", "pending", "starting") else "shutdown",
                "Status": {"State": state, **status},
                "Spec": spec(content),
                **where,
            }
        )
        return f"task-{number}"

    # What it is asked

    def nodes(self) -> list[Json]:
        self._fail()
        return self.nodes_there

    def inspect_node(self, node_id: str) -> Json:
        return _one(self.nodes(), node_id)

    def inspect_service(self, service_id: str) -> Json:
        self._fail()
        return _one(self.services_there, service_id)

    def tasks(self, *, filters: Mapping[str, str]) -> list[Json]:
        self._fail()
        return [task for task in self.tasks_there if task["ServiceID"] == filters["service"]]

    def services(self, *, filters: Mapping[str, list[str]]) -> list[Json]:
        self._fail()
        wanted = dict(label.split("=", 1) for label in filters["label"])
        return [s for s in self.services_there if wanted.items() <= s["Spec"]["Labels"].items()]

    def service_logs(self, service_id: str, **options: object) -> Iterator[bytes]:
        """In pieces that end anywhere; in `silence` it never says that there is no more, as when a node is gone."""
        assert options["details"], "or nothing says whose line it is"
        said = "".join(
            f"com.docker.swarm.node.id=node-1,com.docker.swarm.task.id={task} {line}\n"
            for task, lines in self.logs.items()
            for line in lines
        ).encode()
        yield said[:70]
        yield said[70:]
        if isinstance(self.silence, Exception):
            raise self.silence
        self.silence.wait()

    def info(self) -> Json:
        return {"Swarm": {"NodeID": "node-1"}}

    def _fail(self) -> None:
        if self.failure:
            raise self.failure


def _one(objects: list[Json], object_id: str) -> Json:
    for found in objects:
        if found["ID"] == object_id:
            return found
    raise NotFound(f"{object_id} not found", explanation=f"{object_id} not found")


def node(node_id: str, name: str, **changed: Any) -> Json:
    return {
        "ID": node_id,
        "Spec": {"Availability": changed.get("availability", "active"), "Labels": changed.get("labels")},
        "Description": {
            "Hostname": name,
            "Platform": {"OS": "linux", "Architecture": changed.get("architecture", "x86_64")},
        },
        "Status": {"State": changed.get("state", "ready")},
    }


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(rollout, "time", clock)
    monkeypatch.setattr(reach, "time", clock)
    return clock


@pytest.fixture
def manager(clock: FakeClock) -> Manager:
    return Manager(clock)


def told(manager: Manager, of: Rollout) -> list[str]:
    """What is said on the way to a rollout that succeeds."""
    words: list[str] = []
    Watch(manager, words.append).until_live(of)  # type: ignore[arg-type]
    return words


def refusal(manager: Manager, of: Rollout) -> str:
    with pytest.raises(Refused) as refused:
        told(manager, of)
    return str(refused.value)


# It is there


def test_a_rollout_is_there_when_all_replicas_run_and_its_progress_is_told(manager: Manager) -> None:
    manager.begin(APP)
    manager.later(1, lambda: manager.task(APP, 1))
    manager.later(2, lambda: manager.task(APP, 2))
    assert told(manager, APP) == ["uwsgi: 0 of 2 run", "uwsgi: 1 of 2 run", "uwsgi: all 2 run"]


def test_one_on_each_node_is_there_when_it_runs_on_all(manager: Manager) -> None:
    manager.begin(NGINX)
    manager.task(NGINX, "node-1")
    manager.later(1, lambda: manager.task(NGINX, "node-2"))
    assert told(manager, NGINX)[-1] == "NGINX: all 2 run"


def test_a_service_that_the_swarm_hears_of_later_is_waited_for(manager: Manager) -> None:
    def happens() -> None:
        manager.begin(APP)
        manager.task(APP, 1)
        manager.task(APP, 2)

    manager.later(9, happens)
    assert told(manager, APP) == ["uwsgi: all 2 run"]


def test_tasks_of_the_release_before_do_not_count(manager: Manager, clock: FakeClock) -> None:
    manager.begin(APP)
    for slot in (1, 2):
        manager.task(APP, slot, content=OLD)
        manager.later(5, lambda slot=slot: manager.task(APP, slot))  # type: ignore[misc]
    before = clock.now
    told(manager, APP)
    assert clock.now - before >= 5


@pytest.mark.parametrize("changed", ["Resources", "Networks", "ContainerSpec", "LogDriver", "RestartPolicy"])
def test_tasks_that_the_swarm_will_replace_do_not_count(manager: Manager, clock: FakeClock, changed: str) -> None:
    manager.begin(APP)["Spec"]["TaskTemplate"][changed] = {"another": 1}
    for slot in (1, 2):
        manager.task(APP, slot)
    assert "not complete" in refusal(manager, APP)


def test_what_only_says_where_tasks_may_run_replaces_none(manager: Manager) -> None:
    manager.begin(APP)["Spec"]["TaskTemplate"]["Placement"] = {"Constraints": ["node.labels.app==1"]}
    for slot in (1, 2):
        manager.task(APP, slot)
    assert told(manager, APP) == ["uwsgi: all 2 run"]


@pytest.mark.parametrize("state", ["updating", "rollback_started"])
def test_a_swarm_that_is_still_at_it_is_waited_for(manager: Manager, clock: FakeClock, state: str) -> None:
    service = manager.begin(APP)
    for slot in (1, 2):
        manager.task(APP, slot)
    service["UpdateStatus"] = {"State": state}
    manager.later(5, lambda: service.update(UpdateStatus={"State": "completed"}))
    before = clock.now
    told(manager, APP)
    assert clock.now - before >= 5


@pytest.mark.parametrize("state", ["rollback_completed", "rollback_paused", "paused"])
def test_what_became_of_an_update_before_does_not_matter_where_all_is_as_it_is_to_be(
    manager: Manager, state: str
) -> None:
    # The swarm forgets it at the next update, and there is none when somebody takes his own change back.
    manager.begin(APP)["UpdateStatus"] = {"State": state}
    for slot in (1, 2):
        manager.task(APP, slot)
    assert told(manager, APP) == ["uwsgi: all 2 run"]


def test_it_is_the_number_of_replicas_that_counts_and_not_which_are_left(manager: Manager) -> None:
    # Scaling down keeps those whose nodes have the fewest.
    manager.begin(APP)
    for slot in (3, 11):
        manager.task(APP, slot)
    assert told(manager, APP) == ["uwsgi: all 2 run"]


@pytest.mark.parametrize(
    ("other", "of"),
    [
        ({"state": "down"}, NGINX),
        ({"availability": "drain"}, NGINX),
        ({"availability": "pause"}, NGINX),
        ({"architecture": "aarch64"}, NGINX),
    ],
)
def test_nodes_that_the_swarm_leaves_out_are_not_waited_for(manager: Manager, other: Json, of: Rollout) -> None:
    manager.nodes_there[1] = node("node-2", "two", **other)
    manager.begin(of)
    manager.task(of, "node-1")
    assert told(manager, of) == ["NGINX: all 1 run"]


def with_label(label: str) -> Rollout:
    return replace(NGINX, nodes=label)


@pytest.mark.parametrize("labels", [{"edge": "true"}, {"edge": "True", "zone": "b"}])
def test_only_nodes_with_the_label_count_whose_value_may_be_in_capitals(manager: Manager, labels: Json) -> None:
    manager.nodes_there[1] = node("node-2", "two", labels=labels)
    manager.begin(NGINX)
    manager.task(NGINX, "node-2")
    assert told(manager, with_label("edge=true")) == ["NGINX: all 1 run"]


def test_a_node_that_fails_meanwhile_is_not_waited_for(manager: Manager) -> None:
    manager.begin(NGINX)
    manager.task(NGINX, "node-1")
    manager.later(3, lambda: manager.nodes_there.pop())
    assert told(manager, NGINX) == ["NGINX: 1 of 2 run", "NGINX: all 1 run"]


@pytest.mark.parametrize(("of", "place"), [(APP, 1), (NGINX, "node-1")])
def test_failures_of_one_that_runs_in_the_end_are_forgiven(manager: Manager, of: Rollout, place: int | str) -> None:
    manager.begin(of)
    for _ in range(5):
        manager.task(of, place, "failed", Err=PORT_TAKEN)
    manager.task(of, place)
    manager.later(3, lambda: manager.task(of, 2 if of.replicas else "node-2"))
    assert told(manager, of)[-1] == f"{of.name}: all 2 run"


@pytest.mark.parametrize("error", [PORT_TAKEN, "No such image"])
def test_a_failure_or_two_may_come_right(manager: Manager, error: str) -> None:
    manager.begin(NGINX)
    manager.task(NGINX, "node-1")
    for _ in range(rollout.FAILURES_ALLOWED - 1):
        manager.task(NGINX, "node-2", "rejected", Err=error)
    manager.later(3, lambda: manager.task(NGINX, "node-2"))
    assert told(manager, NGINX)[-1] == "NGINX: all 2 run"


def test_a_task_that_waits_for_a_node_says_what_for(manager: Manager) -> None:
    manager.begin(APP)
    manager.task(APP, 1)
    manager.task(APP, 2, "pending", Err="no suitable node (insufficient resources on 2 nodes)")
    manager.later(3, lambda: manager.task(APP, 2))
    assert told(manager, APP)[0] == "uwsgi: 1 of 2 run (no suitable node (insufficient resources on 2 nodes))"


# It is refused


def test_who_goes_back_is_told_with_the_last_that_failed_and_its_own_words(manager: Manager) -> None:
    manager.begin(APP)
    manager.task(APP, 1, content=OLD)
    manager.task(APP, 2, content=OLD)
    manager.logs = {
        manager.task(APP, 1, "failed", Err="task: non-zero exit (1)"): ["too early"],
        manager.task(APP, 2, "failed", Err="task: non-zero exit (22)"): ["Traceback", "ImportError: no module named x"],
        "task-of-another": ["something else"],
    }
    manager.later(2, lambda: manager.begin(APP, OLD))
    message = refusal(manager, APP)
    assert message.startswith("uwsgi-2 on one failed: task: non-zero exit (22). The swarm went back to what ran before")
    assert message.endswith("\nIts last words:\nTraceback\nImportError: no module named x")


def test_one_that_docker_stopped_because_it_was_not_healthy_is_told_as_such(manager: Manager) -> None:
    manager.begin(APP)
    manager.task(APP, 1, "complete")
    manager.later(2, lambda: manager.begin(APP, OLD))
    message = refusal(manager, APP)
    assert "uwsgi-1 on one was not healthy, and was stopped." in message
    assert message.endswith("It has said nothing.")


@pytest.mark.parametrize("silence", [NotReached("read timed out"), api_error(500, "a node is gone"), threading.Event()])
def test_a_log_of_which_the_end_never_comes_is_told_as_far_as_it_goes(
    manager: Manager, silence: Exception | threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "LOG_TIMEOUT", 0.2)
    manager.begin(APP)
    manager.logs = {manager.task(APP, 1, "failed", Err="task: non-zero exit (1)"): ["ImportError: no module named x"]}
    manager.later(2, lambda: manager.begin(APP, OLD))
    manager.silence = silence
    before = set(threading.enumerate())
    message = refusal(manager, APP)
    assert "uwsgi-1 on one failed: task: non-zero exit (1)." in message
    assert message.endswith("\nIts last words:\nImportError: no module named x")
    if isinstance(silence, threading.Event):
        silence.set()
        for reader in set(threading.enumerate()) - before:
            reader.join()


def test_a_node_that_is_gone_hides_no_reason(manager: Manager) -> None:
    manager.begin(APP)
    manager.task(APP, 1, "failed", Err="task: non-zero exit (1)")
    manager.later(1, lambda: manager.nodes_there.clear())
    manager.later(2, lambda: manager.begin(APP, OLD))
    assert "uwsgi-1 on a node that is gone failed: task: non-zero exit (1)." in refusal(manager, APP)


def test_who_went_back_before_anybody_looked_is_told_as_well(manager: Manager) -> None:
    manager.begin(NGINX, OLD)
    manager.task(NGINX, "node-2", content=OLD)
    manager.task(NGINX, "node-1", "failed", Err="task: non-zero exit (1)")
    message = refusal(manager, NGINX)
    assert message.startswith("NGINX on one failed: task: non-zero exit (1). The swarm went back to what ran before")


def test_a_service_of_which_the_swarm_never_hears_is_refused_unless_the_plugin_waits_for_it_as_well(
    manager: Manager, clock: FakeClock
) -> None:
    assert refusal(manager, NGINX).startswith("NGINX is not there")
    before = clock.now
    assert told(manager, APP) == []
    assert 10 <= clock.now - before < 12


def test_a_service_that_is_taken_away_again_is_told_as_such(manager: Manager) -> None:
    # The plugin does that at a first `up` which does not converge.
    manager.begin(APP)
    manager.later(2, manager.services_there.clear)
    assert "did not say" not in refusal(manager, APP)


def test_a_crash_loop_is_told_before_time_is_over(manager: Manager, clock: FakeClock) -> None:
    manager.begin(NGINX)
    manager.task(NGINX, "node-1")

    def crash() -> None:
        task = manager.task(NGINX, "node-2", "failed", Err="task: non-zero exit (1)")
        manager.logs[task] = ["nginx: [emerg] it breaks"]

    for second in range(rollout.FAILURES_ALLOWED):
        manager.later(second + 0.5, crash)
    before = clock.now
    message = refusal(manager, NGINX)
    assert clock.now - before < 5
    assert message == (
        "NGINX on two failed: task: non-zero exit (1), again and again. Mend it, or try the same once more with "
        "`pulumi up --refresh`.\nIts last words:\nnginx: [emerg] it breaks"
    )


def test_what_failed_before_is_forgotten(manager: Manager) -> None:
    manager.begin(NGINX)
    manager.task(NGINX, "node-1")
    for _ in range(rollout.FAILURES_ALLOWED):
        manager.task(NGINX, "node-2", "failed", Err="task: non-zero exit (255)")
    manager.later(3, lambda: manager.task(NGINX, "node-2"))
    assert told(manager, NGINX)[-1] == "NGINX: all 2 run"


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_node_that_goes_away_in_the_middle_is_what_the_swarm_waits_for(
    manager: Manager, clock: FakeClock, comes_back: bool
) -> None:
    service = manager.begin(APP)
    service["Spec"]["Name"] = "the-app"
    service["UpdateStatus"] = {"State": "updating"}
    manager.task(APP, 1)
    manager.task(APP, 2)
    manager.task(APP, 2, "assigned")
    manager.tasks_there[-1].update(DesiredState="shutdown", NodeID="node-2")
    manager.nodes_there[1] = node("node-2", "two", state="down")
    if comes_back:
        manager.later(5, lambda: service["UpdateStatus"].update(State="completed"))
        assert told(manager, APP)[-1] == "uwsgi: all 2 run"
        return
    before = clock.now
    message = refusal(manager, APP)
    assert message.startswith("uwsgi: all run, but two went away in the middle")
    assert "`docker service update --force the-app`" in message
    assert rollout.STUCK_AFTER <= clock.now - before < rollout.STUCK_AFTER + 2


def test_an_app_that_is_never_healthy_is_told_before_time_is_over_also_at_the_first_time(manager: Manager) -> None:
    manager.later(1, lambda: manager.begin(APP))
    for second in range(rollout.FAILURES_ALLOWED):
        manager.later(second + 2, lambda: manager.task(APP, 1, "complete"))
    assert refusal(manager, APP).startswith("uwsgi-1 on one was not healthy, and was stopped, again and again.")


def test_a_port_that_something_else_has_is_told_with_what_that_may_be(manager: Manager) -> None:
    manager.begin(NGINX)
    manager.task(NGINX, "node-1")
    for second, error in enumerate(("No such image", PORT_TAKEN, PORT_TAKEN), start=1):
        manager.later(second, partial(manager.task, NGINX, "node-2", "failed", Err=error))
    message = refusal(manager, NGINX)
    assert message.startswith(f"NGINX on two failed: {PORT_TAKEN}, again and again. Is it this very stack")
    assert "set another port" in message


def test_what_is_missing_when_time_is_over_is_told_by_name(manager: Manager, clock: FakeClock) -> None:
    manager.begin(NGINX)
    manager.task(NGINX, "node-1")
    manager.task(NGINX, "node-2", "starting")
    before = clock.now
    message = refusal(manager, NGINX)
    assert message.startswith("NGINX is not complete after 120 s: 1 of 2 run, not on two.")
    assert 120 <= clock.now - before < 122


def test_replicas_have_the_time_of_all_together(manager: Manager) -> None:
    manager.begin(APP)
    manager.task(APP, 1)
    manager.task(APP, 2, "pending", Err="no suitable node (insufficient resources on 2 nodes)")
    message = refusal(manager, APP)
    reason = "(no suitable node (insufficient resources on 2 nodes))"
    assert message.startswith(f"uwsgi is not complete after 60 s: 1 of 2 run {reason}.")


@pytest.mark.parametrize("labels", [None, {}, {"edge": "false"}, {"Edge": "true"}, {"zone": "true"}])
def test_a_label_that_no_node_has_is_told(manager: Manager, labels: Json | None) -> None:
    manager.nodes_there = [node("node-1", "one", labels=labels)]
    manager.begin(NGINX)
    message = refusal(manager, with_label("edge=true"))
    assert message.startswith("NGINX runs nowhere: no node of the swarm has the label edge=true")
    assert "docker node update --label-add" in message


def test_a_platform_that_no_node_is_of_is_told(manager: Manager) -> None:
    manager.begin(NGINX)
    message = refusal(manager, replace(NGINX, platform="linux/arm64"))
    assert message.startswith("NGINX runs nowhere: no node of the swarm has the platform linux/arm64")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (api_error(503, "This node is not a swarm manager."), "not a swarm manager"),
        (NotReached("no route"), "no route"),
    ],
)
def test_a_manager_that_does_not_answer_is_told_in_words(manager: Manager, failure: Exception, reason: str) -> None:
    manager.begin(APP)
    manager.later(2, lambda: setattr(manager, "failure", failure))
    message = refusal(manager, APP)
    assert message.startswith("The swarm's manager did not say how uwsgi comes along: ")
    assert reason in message


# Asking the site


class OneOff:
    """Stands for one-off containers: what they answer, one after the other, and with what they were run."""

    def __init__(self, *answers: tuple[int, str] | Exception) -> None:
        self._answers = list(answers)
        self.calls: list[Json] = []

    def __call__(self, client: object, image: str, command: list[str], **options: Any) -> tuple[int, str]:
        self.calls.append({"image": image, "command": command, **options})
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., OneOff]:
    def answer(*answers: tuple[int, str] | Exception) -> OneOff:
        made = OneOff(*answers)
        monkeypatch.setattr(one_off, "run", made)
        return made

    return answer


def site(nodes: str = "") -> reach.Site:
    return reach.Site(image="nginx@sha256:1", port=8080, path="/fit", nodes=nodes, labels={"a": "b"})


@pytest.mark.parametrize("status", ["200", "204", "308", "401", "403", "404", "503"])
def test_whatever_nginx_or_the_app_says_is_an_answer(
    manager: Manager, answered: Callable[..., OneOff], status: str
) -> None:
    asked = answered((0, status))
    reach.ask(manager, site())
    (call,) = asked.calls
    assert call["command"][-1] == "http://127.0.0.1:8080/fit"
    assert (call["image"], call["network"], call["labels"]) == ("nginx@sha256:1", "host", {"a": "b"})


@pytest.mark.parametrize("status", ["000", "502", "504"])
def test_a_site_that_answers_a_moment_later_is_waited_for(
    manager: Manager, answered: Callable[..., OneOff], status: str
) -> None:
    asked = answered((7, status), (7, status), (0, "200"))
    reach.ask(manager, site())
    assert len(asked.calls) == 3


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("000", "nothing answers at http://127.0.0.1:8080/fit"),
        ("000", "takes IPVS in the kernel"),
        ("502", "it answers 502: it has no replica"),
    ],
)
def test_a_site_that_does_not_answer_is_refused_with_what_that_may_be(
    manager: Manager, clock: FakeClock, answered: Callable[..., OneOff], status: str, words: str
) -> None:
    answered((7, status))
    before = clock.now
    with pytest.raises(Refused, match=words):
        reach.ask(manager, site())
    assert clock.now - before >= reach.TIMEOUT


@pytest.mark.parametrize(
    ("here", "label", "asked"),
    [
        ({}, "", True),
        ({"availability": "drain"}, "", False),
        ({}, "edge=true", False),
        ({"labels": {"edge": "TRUE"}}, "edge=true", True),
        ({"labels": {"edge": "no"}}, "edge=true", False),
    ],
)
def test_only_a_node_that_is_to_answer_is_asked(
    manager: Manager, answered: Callable[..., OneOff], here: Json, label: str, asked: bool
) -> None:
    manager.nodes_there[0] = node("node-1", "one", **here)
    calls = answered((0, "200")).calls
    reach.ask(manager, site(label))
    assert bool(calls) is asked


def test_a_daemon_that_does_not_ask_is_told_in_words(manager: Manager, answered: Callable[..., OneOff]) -> None:
    answered(api_error(500, "no space left on device"))
    with pytest.raises(Refused, match="the swarm's manager did not ask the site for /fit: no space left on device"):
        reach.ask(manager, site())


# One-off containers


class Daemon:
    """Stands for a client of the daemon: what was done to it, in order, and what fails."""

    def __init__(self) -> None:
        self.containers = self.images = self
        self.events: list[str] = []
        self.options: Json = {}
        self.missing = False
        self.failing = ""
        self.put = b""

    def create(self, image: str, **options: Any) -> "Daemon":
        self._happens(f"created {image}")
        if self.missing:
            raise ImageNotFound(f"No such image: {image}")
        self.options = options
        return self

    def pull(self, image: str) -> None:
        self._happens(f"pulled {image}")
        self.missing = False

    def put_archive(self, path: str, data: bytes) -> bool:
        self._happens(f"put files below {path}")
        self.put = data
        return True

    def start(self) -> None:
        self._happens("started")

    def wait(self, *, timeout: float) -> Json:
        assert timeout > 0
        self._happens("ended")
        return {"StatusCode": 3}

    def logs(self) -> bytes:
        return b"said \xff\n"

    def remove(self, *, force: bool, v: bool) -> None:
        assert force, "it may still run"
        assert v, "its volumes would stay"
        self._happens("removed")

    def _happens(self, event: str) -> None:
        self.events.append(event)
        if self.failing and event.startswith(self.failing):
            raise api_error(500, f"not {event}")


def once(daemon: Daemon, **options: Any) -> tuple[int, str]:
    return one_off.run(daemon, "nginx@sha256:1", ["nginx", "-t"], labels={"a": "b"}, **options)  # type: ignore[arg-type]


def test_a_container_runs_once_and_is_gone() -> None:
    daemon = Daemon()
    assert once(daemon, network="host") == (3, "said �")
    assert daemon.events == ["created nginx@sha256:1", "started", "ended", "removed"]
    assert daemon.options["entrypoint"] == ["nginx", "-t"]
    assert (daemon.options["network_mode"], daemon.options["labels"]) == ("host", {"a": "b"})


def test_its_files_are_there_before_it_starts_and_nobody_else_reads_them() -> None:
    daemon = Daemon()
    once(daemon, folder="/etc/nginx/site", files={"nginx.conf": "ä", "tls/key.pem": "secret"})
    assert daemon.events[1:3] == ["put files below /", "started"]
    with tarfile.open(fileobj=io.BytesIO(daemon.put)) as tar:
        found = {member.name: (tar.extractfile(member), member) for member in tar}
        texts = {name: file.read().decode() for name, (file, _) in found.items() if file}
    assert texts == {"etc/nginx/site/nginx.conf": "ä", "etc/nginx/site/tls/key.pem": "secret"}
    assert {(member.mode, member.uid) for _, member in found.values()} == {(0o400, layout.NGINX_USER)}


def test_an_image_that_the_daemon_lacks_is_pulled() -> None:
    daemon = Daemon()
    daemon.missing = True
    once(daemon)
    created = "created nginx@sha256:1"
    assert daemon.events == [created, "pulled nginx@sha256:1", created, "started", "ended", "removed"]


@pytest.mark.parametrize("event", ["put", "started", "ended"])
def test_whatever_fails_the_container_does_not_stay(event: str) -> None:
    daemon = Daemon()
    daemon.failing = event
    with pytest.raises(docker.errors.APIError, match=f"not {event}"):
        once(daemon, folder="/a", files={"b": "c"})
    assert daemon.events[-1] == "removed"


def test_one_that_is_not_removed_hides_no_answer() -> None:
    daemon = Daemon()
    daemon.failing = "removed"
    assert once(daemon)[0] == 3


# As resources


@cache
def registered() -> Program:
    return run(SWARM)


def provider_of(kind: type[DaemonProvider], monkeypatch: pytest.MonkeyPatch, client: object = None) -> Any:
    monkeypatch.setattr(docker_host, "connect", lambda **_: client)
    made = kind()
    made._docker = {"host": None, "cert_path": None}
    return made


class Watching:
    """Stands for the watch: keeps what was to be there."""

    def __init__(self) -> None:
        self.waited_for: list[Rollout] = []
        self.asked: list[reach.Site] = []

    def __call__(self, client: object, progress: Callable[[str], None]) -> "Watching":
        assert client == "a client"
        return self

    def until_live(self, of: Rollout) -> str:
        self.waited_for.append(of)
        return "as it was told"

    def ask(self, client: object, of: reach.Site) -> None:
        self.asked.append(of)


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Watching:
    made = Watching()
    monkeypatch.setattr(rollout, "Watch", made)
    monkeypatch.setattr(reach, "ask", made.ask)
    return made


@pytest.mark.parametrize("deed", ["create", "update"])
def test_a_release_waits_for_all_that_was_registered(
    deed: str, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = provider_of(RolloutProvider, monkeypatch, "a client")
    for name in ("rollout", "release"):
        # The engine has one kind of number.
        props = {key: float(v) if type(v) is int else v for key, v in registered()[name].inputs.items()}
        done = provider.create(props) if deed == "create" else provider.update("id", {"content": "old"}, props)
        remembered = {"previous": ""} if name == "release" else {}
        assert done.outs == {**props, "specification": "as it was told", **remembered}
    app, nginx = watching.waited_for
    labels = {"uwsgi-nginx.project": "uwsgi-nginx", "uwsgi-nginx.stack": "test"}
    assert (app.labels, app.replicas) == ({**labels, "uwsgi-nginx.role": "replica"}, 2)
    assert (nginx.labels, nginx.replicas) == ({**labels, "uwsgi-nginx.role": "nginx"}, 0)
    assert isinstance(app.replicas, int), "its names are numbered"
    for of, name in ((app, "rollout"), (nginx, "release")):
        assert of.content == registered()[name].inputs["content"]
        assert (of.nodes, of.platform) == ("", "linux/amd64")
    assert app.timeout > 60
    (asked,) = watching.asked
    assert (asked.path, repr(asked.port)) == ("/health", "8080")


def test_a_release_on_a_swarm_remembers_the_image_of_the_one_before(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = provider_of(RolloutProvider, monkeypatch, "a client")
    props = registered()["release"].inputs
    live = provider.create({**props, "image": "app@sha256:1"}).outs
    live = provider.update("id", live, {**props, "image": "app@sha256:2"}).outs
    assert (live["image"], live["previous"]) == ("app@sha256:2", "app@sha256:1")
    assert provider.diff("id", live, {**props, "image": "app@sha256:2"}).changes is False


@pytest.mark.parametrize(
    ("name", "key", "changes"),
    [
        ("release", "content", True),
        ("release", "release", True),
        ("release", "service", True),
        ("release", "timeout", False),
        ("rollout", "content", True),
        ("rollout", "timeout", False),
    ],
)
def test_it_waits_again_where_there_is_something_new(name: str, key: str, changes: bool) -> None:
    props = registered()[name].inputs
    difference = RolloutProvider().diff("id", props, {**props, key: "another"})
    assert (bool(difference.changes), difference.replaces) == (changes, [])
    assert not RolloutProvider().diff("id", props, {**props}).changes


def configuration(**changed: Any) -> Json:
    return {**registered()["configuration-test"].inputs, "secrets": {"tls/key.pem": "secret"}, **changed}


@pytest.mark.parametrize("deed", ["create", "update"])
def test_a_configuration_is_tested_as_nginx_will_read_it(
    deed: str, answered: Callable[..., OneOff], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answered((0, ""))
    provider, props = provider_of(ConfigurationTestProvider, monkeypatch), configuration()
    done = provider.create(props) if deed == "create" else provider.update("id", {}, props)
    assert done.outs == props
    (call,) = asked.calls
    assert call["image"] == props["image"]
    assert call["folder"] == layout.SITE_FOLDER
    assert call["files"] == {**props["files"], "tls/key.pem": "secret"}
    assert call["command"][call["command"].index("-c") + 1] == f"{layout.SITE_FOLDER}/nginx.conf"
    assert "-t" in call["command"]
    assert call["command"][-1] == f"pid {layout.TEST_PID_FILE};"


def test_a_configuration_that_nginx_rejects_is_refused_in_its_words(
    answered: Callable[..., OneOff], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered((1, "nginx: [emerg] unknown directive"))
    provider = provider_of(ConfigurationTestProvider, monkeypatch)
    for attempt in (provider.create, lambda props: provider.update("id", {}, props)):
        with pytest.raises(Refused, match=r"stays in force on all nodes\.\nnginx: \[emerg\] unknown directive"):
            attempt(configuration())


def test_a_daemon_that_cannot_test_is_told_in_words(
    answered: Callable[..., OneOff], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(api_error(500, "no space left on device"))
    with pytest.raises(Refused, match=r"did not test NGINX's configuration: no space left on device\. It goes on"):
        provider_of(ConfigurationTestProvider, monkeypatch).create(configuration())


@pytest.mark.parametrize(
    ("changed", "tested"),
    [
        ({}, False),
        ({"labels": {}}, False),
        ({"image": "another"}, True),
        ({"files": {"nginx.conf": "another"}}, True),
        ({"secrets": {"tls/key.pem": "another"}}, True),
    ],
)
def test_it_is_tested_again_where_nginx_would_read_something_else(changed: Json, tested: bool) -> None:
    difference = ConfigurationTestProvider().diff("id", configuration(), configuration(**changed))
    assert (bool(difference.changes), difference.replaces) == (tested, [])


@pytest.mark.parametrize(
    ("provider", "module"),
    [(RolloutProvider, b"infra.swarm.release"), (ConfigurationTestProvider, b"infra.swarm.configuration_test")],
)
def test_the_state_stores_a_provider_by_name_without_the_docker_sdk(
    provider: type[DaemonProvider], module: bytes
) -> None:
    stored = base64.b64decode(serialize_provider(provider()))
    assert module in stored
    assert b"docker." not in stored.replace(b"infra.docker", b"")


@pytest.mark.parametrize(
    ("swarm", "said"),
    [
        ({"NodeID": "node-1", "ControlAvailable": True}, ""),
        ({"NodeID": "node-1", "ControlAvailable": False}, "is a worker. Set docker:host to a manager"),
        ({"NodeID": "", "ControlAvailable": False, "LocalNodeState": "inactive"}, "is in no swarm. Set docker:host"),
        (None, "is in no swarm"),
    ],
)
def test_whoever_is_no_manager_is_told_in_a_preview(
    swarm: Json | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = provider_of(ConfigurationTestProvider, monkeypatch, SimpleNamespace(info=lambda: {"Swarm": swarm}))
    if said:
        with pytest.raises(Refused, match=said):
            provider.check({}, configuration())
    else:
        assert provider.check({}, configuration()).failures == []


def test_a_daemon_that_is_away_is_left_to_who_asks_it_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Json:
        raise NotReached("connection refused")

    provider = provider_of(ConfigurationTestProvider, monkeypatch, SimpleNamespace(info=away))
    assert provider.check({}, configuration()).failures == []


def refreshed(manager: Manager, known: Json, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether an `up` after a refresh waits again."""
    provider = provider_of(RolloutProvider, monkeypatch, manager)
    found = provider.read("rollout", known).outs
    return bool(provider.diff("rollout", found, known).changes)


@pytest.fixture
def live(manager: Manager) -> Json:
    """What the state has of a rollout that went well."""
    manager.begin(APP)
    manager.task(APP, 1)
    manager.task(APP, 2)
    inputs = {**registered()["rollout"].inputs, "labels": APP.labels, "content": NEW}
    return {**inputs, "specification": Watch(manager).until_live(APP)}  # type: ignore[arg-type]


def test_what_stands_as_the_swarm_was_told_is_not_waited_for(
    manager: Manager, live: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert live["specification"]
    manager.services_there[0]["UpdateStatus"] = {"State": "completed"}
    assert not refreshed(manager, live, monkeypatch)


def test_what_somebody_changed_by_hand_is_waited_for_when_it_is_put_right(
    manager: Manager, live: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.services_there[0]["Spec"]["TaskTemplate"]["Resources"]["Limits"]["MemoryBytes"] = 1 << 20
    assert refreshed(manager, live, monkeypatch)
    manager.services_there.clear()
    assert refreshed(manager, live, monkeypatch)


def test_a_manager_that_is_away_says_nothing_of_changes_by_hand(
    manager: Manager, live: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.failure = NotReached("connection refused")
    assert not refreshed(manager, live, monkeypatch)

"""A canary from its first requests to its promotion, and back, as `docs/canary.md` has it: nothing is dropped."""

import json
import re
from collections import Counter

import pytest

from tests.live.load import Load
from tests.live.stack import Stack, eventually

ALWAYS, NEVER = {"X-Canary": "always"}, {"X-Canary": "never"}
RELEASE = re.compile(r'RELEASE = "\w+"')
STABLE = ["uwsgi-1", "uwsgi-2"]
NO_IMAGE = f"sha256:{'0' * 64}"


def light_load(stack: Stack) -> Load:
    return Load(stack.port, keep_alive=2, fresh=2, slow=1)


@pytest.fixture(scope="module")
def first_image(running: Stack) -> str:
    """The image of the release "one", which serves."""
    return str(running.outputs()["image"])


@pytest.fixture(scope="module")
def with_canary(running: Stack, first_image: str) -> Stack:
    """Release "one" held as it is, while the working tree says "two" and takes 20 % of the requests."""
    with Load(running.port) as load:
        write_release(running, "two")
        configure(running, appImage=first_image, canary__share=20)
        running.up()
    load.assert_nothing_was_dropped()
    return running


def write_release(stack: Stack, name: str) -> None:
    file = stack.folder / "app" / "webapp.py"
    text, count = RELEASE.subn(f'RELEASE = "{name}"', file.read_text())
    assert count == 1
    file.write_text(text)


def configure(stack: Stack, **settings: str | int) -> None:
    """Sets keys by path; `canary__share` is canary.share."""
    values = [f"--plaintext={key.replace('__', '.')}={value}" for key, value in settings.items()]
    stack.pulumi("config", "set-all", "--path", *values)


def answers(stack: Stack, requests: int, headers: dict[str, str] | None = None) -> Counter[str]:
    """How many requests each release answers."""
    return Counter(stack.get(headers=headers).split()[0] for _ in range(requests))


def names(stack: Stack) -> list[str]:
    return sorted(container.labels["uwsgi-nginx.replica"] for container in stack.containers("replica"))


def assert_costs_nothing_when_it_dies(stack: Stack) -> None:
    """Kills the only replica of the canary: who comes to it is answered all the same."""
    canary = stack.replica("uwsgi-canary-1")
    canary.kill()
    assert answers(stack, 30, ALWAYS) == {"one": 30}, "the first release stands in"
    canary.start()
    eventually(lambda: answers(stack, 1, ALWAYS) == {"two": 1}, 20, "the canary answers again")


def test_a_canary_takes_its_share(with_canary: Stack) -> None:
    found = answers(with_canary, 500)
    assert set(found) == {"one", "two"}
    # Five standard deviations and more: with 20 % of 500 requests one is 1.8 %.
    assert 0.1 <= found["two"] / 500 <= 0.3
    assert names(with_canary) == [*STABLE, "uwsgi-canary-1"]


def test_a_second_up_changes_nothing(with_canary: Stack) -> None:
    assert set(with_canary.up().changes) == {"unchanged"}


def test_the_access_log_tells_the_canary_from_the_first_release(with_canary: Stack) -> None:
    with_canary.get("/headers?log", ALWAYS)
    with_canary.get("/headers?log", NEVER)

    def upstreams() -> list[str]:
        lines = with_canary.nginx.logs(tail=20).decode().splitlines()
        return [json.loads(line)["upstream"] for line in lines if "/headers?log" in line]

    canary, stable = eventually(lambda: found if len(found := upstreams()) == 2 else None, 10, "both lines")
    assert "/uwsgi-canary-1-" in canary
    assert "/uwsgi-canary-1-" not in stable


def test_a_header_chooses_whatever_the_share(with_canary: Stack) -> None:
    assert answers(with_canary, 30, ALWAYS) == {"two": 30}
    assert answers(with_canary, 30, NEVER) == {"one": 30}
    assert answers(with_canary, 60, {"X-Canary": "perhaps"})["one"] > 0


def test_a_canary_that_dies_costs_no_request(with_canary: Stack) -> None:
    with Load(with_canary.port, slow=0) as load:
        assert_costs_nothing_when_it_dies(with_canary)
    load.assert_nothing_was_dropped(at_least=100)


def test_a_broken_canary_is_refused_and_changes_nothing(with_canary: Stack) -> None:
    source = with_canary.folder / "app" / "webapp.py"
    good = source.read_text()
    configure(with_canary, healthTimeout=4)
    with light_load(with_canary) as load:
        source.write_text(good.replace("WELL = True", "WELL = False").replace('"two"', '"three"'))
        refused = with_canary.up(check=False)
        source.write_text(good)
    assert refused.code != 0, refused.output
    assert "uwsgi-canary-1 (" in refused.output
    assert "answered with 500" in refused.output
    load.assert_nothing_was_dropped()
    assert set(load.bodies) == {"one uwsgi-1", "one uwsgi-2", "two uwsgi-canary-1"}, "both releases go on as before"


def test_a_client_can_be_one_that_stays_with_its_release(with_canary: Stack) -> None:
    """With `clientAddress` too, whose canary is balanced in another way, because `hash` knows no stand-ins."""
    configure(with_canary, healthTimeout=15, canary__share=50, canary__assign="client")
    configure(with_canary, balancing__method="clientAddress")
    with light_load(with_canary) as load:
        with_canary.up()
        assert_costs_nothing_when_it_dies(with_canary)
    load.assert_nothing_was_dropped()
    assert names(with_canary) == [*STABLE, "uwsgi-canary-1"], "what was refused is gone"
    seen = {agent: answers(with_canary, 5, {"User-Agent": f"client {agent}"}) for agent in range(40)}
    assert [agent for agent, releases in seen.items() if len(releases) > 1] == []
    assert {release for releases in seen.values() for release in releases} == {"one", "two"}


def test_a_canary_with_all_requests_is_promoted(with_canary: Stack) -> None:
    """All of it `sticky`: cookies of replicas that are gone are no obstacle."""
    configure(with_canary, canary__share=100, balancing__method="sticky")
    with light_load(with_canary) as load:
        with_canary.up()
        assert answers(with_canary, 60) == {"two": 60}
        assert answers(with_canary, 20, NEVER) == {"one": 20}
        assert_costs_nothing_when_it_dies(with_canary)
        tried = with_canary.outputs()["canary"]["image"]

        with_canary.configure(appImage="", canary="")
        with_canary.up()
        assert answers(with_canary, 60) == {"two": 60}
    load.assert_nothing_was_dropped()
    assert names(with_canary) == STABLE
    outputs = with_canary.outputs()
    assert outputs["image"] == tried, "it is what was tried, not another build of it"
    assert "canary" not in outputs


def test_an_image_of_before_takes_over_again_while_the_working_tree_stays(with_canary: Stack, first_image: str) -> None:
    """First with what is newer as a canary for those who ask for it, then alone."""
    configure(with_canary, appImage=first_image, canary__share=0)
    with light_load(with_canary) as load:
        with_canary.up()
        assert answers(with_canary, 60) == {"one": 60}
        assert answers(with_canary, 10, ALWAYS) == {"two": 10}
        with_canary.configure(canary="")
        with_canary.up()
        assert answers(with_canary, 20, ALWAYS) == {"one": 20}
    load.assert_nothing_was_dropped()
    assert names(with_canary) == STABLE


def test_an_image_that_the_daemon_does_not_have_is_refused_before_anything_changes(with_canary: Stack) -> None:
    before = {container.id for container in with_canary.containers()}
    with_canary.configure(appImage=NO_IMAGE)
    assert with_canary.preview().code == 0, "a preview asks no daemon"
    refused = with_canary.up(check=False)
    assert refused.code != 0
    assert re.search(rf"appImage: the Docker daemon at \S.* has no image {NO_IMAGE}", refused.output)
    assert "dynamic/__main__.py" not in refused.output, "no traceback of ours"
    assert {container.id for container in with_canary.containers()} == before
    assert answers(with_canary, 10) == {"one": 10}

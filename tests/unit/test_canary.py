"""A second release beside the first: what the program declares, NGINX's part, the gate's, and an image of before."""

import base64
import json
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
from docker.errors import DockerException, ImageNotFound
from pulumi.dynamic import Config, ConfigureRequest
from pulumi.dynamic.dynamic import serialize_provider

from infra import docker_host, nginx_config
from infra.gate import Gate, Rollout
from infra.nginx_config import Endpoints, Upstream
from infra.refusal import Refused
from infra.settings import Settings, SettingsError
from infra.site import Site
from infra.stored_image import StoredImageProvider
from tests.unit import test_gate
from tests.unit.fake_docker import FakeMachine
from tests.unit.program import Program, run
from tests.unit.test_nginx_config import RELEASE, REPLICAS, Block, parse

clock, machine = test_gate.clock, test_gate.machine

IMAGE = f"sha256:{'7' * 64}"
CANARY_RELEASE = "89abcdef"
CANARY = [Upstream(f"uwsgi-canary-{number}", f"/run/uwsgi/uwsgi-canary-{number}-89abcdef.sock") for number in (1, 2, 3)]


def site(method: str = "roundRobin", weights: dict[str, int] | None = None, **canary: Any) -> Site:
    balancing = {"method": method, "weights": weights or {}}
    return Site.model_validate({"balancing": balancing, "canary": {"share": 20, **canary}})


def rendered(of: Site, count: int = 1) -> str:
    return nginx_config.render(REPLICAS, CANARY[:count], site=of, release=RELEASE, canary_release=CANARY_RELEASE)


def http(folder: Path, of: Site, count: int = 1) -> Block:
    return parse(folder, nginx_config.live_files(of, Endpoints()), rendered(of, count)).block("http")


# NGINX


def test_the_text_is_exactly_as_reviewed() -> None:
    text = rendered(site(weights={"uwsgi-2": 3}))
    begin, end = text.index("    # Two releases"), text.index("    # What the live instance")
    assert text[begin:end] == (
        """\
    # Two releases: which of them takes a request.
    # A hash of the key decides: whom a small share has chosen, a larger one has among its own.
    # https://nginx.org/en/docs/http/ngx_http_split_clients_module.html
    split_clients "$request_id" $group_by_share {
        20% canary;
        * app;
    }
    map $http_x_canary $upstream_group {
        default $group_by_share;
        always canary;
        never app;
    }
    # What tells answers of one from those of the other.
    map $upstream_group $release {
        default 0123abcd;
        canary 89abcdef;
    }
    upstream canary {
        zone canary 256k;
        server unix:/run/uwsgi/uwsgi-canary-1-89abcdef.sock max_fails=0;
        # Asked when none of the canary takes a request: one that dies costs no answer.
        server unix:/run/uwsgi/uwsgi-1-0123abcd.sock max_fails=0 backup;
        server unix:/run/uwsgi/uwsgi-2-0123abcd.sock weight=3 max_fails=0 backup;
    }

"""
    )


@pytest.mark.parametrize("share", [0, 1, 50, 100])
def test_every_location_asks_the_group_that_the_share_or_the_header_chooses(share: int, tmp_path: Path) -> None:
    of = Site.model_validate({"canary": {"share": share}, "paths": {"/a": {"requestTimeout": 5}}})
    assert re.findall(r"uwsgi_pass (\S+);", rendered(of)) == ["$upstream_group"] * 2
    found = http(tmp_path, of)
    group = found.block("map", "$http_x_canary", "$upstream_group")
    default = {0: "app", 100: "canary"}.get(share, "$group_by_share")
    assert [group.one(name) for name in group.names()] == [[default], ["canary"], ["app"]]
    # 0% is no percentage to NGINX, and all of them leave nothing to decide.
    assert len(found.all("split_clients")) == (1 if share in (1, 50) else 0)


def test_who_is_drained_stands_in_for_nobody(tmp_path: Path) -> None:
    of = Site.model_validate({"balancing": {"drain": ["uwsgi-1"]}, "canary": {"share": 20}})
    assert http(tmp_path, of).block("upstream", "canary").all("server")[1:] == [
        [f"unix:{REPLICAS[0].socket}", "max_fails=0", "backup", "down"],
        [f"unix:{REPLICAS[1].socket}", "max_fails=0", "backup"],
    ]


def test_the_share_can_be_one_of_clients(tmp_path: Path) -> None:
    found = http(tmp_path, site(assign="client"))
    assert found.all("split_clients") == [["$remote_addr $http_user_agent", "$group_by_share"]]


def test_the_header_has_the_name_that_is_set(tmp_path: Path) -> None:
    of = site(header="X-Try-Next")
    assert ["$http_x_try_next", "$upstream_group"] in http(tmp_path, of).all("map")
    assert nginx_config.canary_headers(of) == ["X-Try-Next: never", "X-Try-Next: always"]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("roundRobin", []),
        ("leastConnections", [("least_conn", [])]),
        ("clientAddress", [("sticky", ["route", "$canary_replica"])]),
        ("sticky", [("sticky", ["cookie", "uwsgi_canary", "path=/", "httponly", "samesite=lax"])]),
    ],
)
def test_with_every_method_the_first_release_stands_in_for_a_canary_that_is_down(
    method: str, said: list[tuple[str, list[str]]], tmp_path: Path
) -> None:
    group = http(tmp_path, site(method)).block("upstream", "canary")
    assert [(name, group.one(name)) for name in set(group.names()) - {"zone", "server"}] == said
    servers = {args[0]: args[1:] for args in group.all("server")}
    assert "backup" not in servers[f"unix:{CANARY[0].socket}"]
    assert [servers[f"unix:{replica.socket}"] for replica in REPLICAS] == [["max_fails=0", "backup"]] * 2


@pytest.mark.parametrize(("count", "shares"), [(1, ["*"]), (2, ["50%", "*"]), (3, ["33.33%", "33.33%", "*"])])
def test_an_address_has_its_replica_in_the_canary_too(count: int, shares: list[str], tmp_path: Path) -> None:
    found = http(tmp_path, site("clientAddress"), count)
    chosen = found.block("split_clients", "$remote_addr", "$canary_replica")
    names = [replica.name for replica in CANARY[:count]]
    assert [(share, name) for share in dict.fromkeys(shares) for (name,) in chosen.all(share)] == list(
        zip(shares, names, strict=True)
    )
    servers = found.block("upstream", "canary").all("server")
    assert [args[1] for args in servers if "canary" in args[0]] == [f"route={name}" for name in names]


def test_answers_of_the_two_are_cached_apart(tmp_path: Path) -> None:
    of = Site.model_validate({"canary": {"share": 20}, "paths": {"/": {"cache": 5}}})
    found = http(tmp_path, of)
    release = found.block("map", "$upstream_group", "$release")
    assert (release.one("default"), release.one("canary")) == ([RELEASE], [CANARY_RELEASE])
    assert "$release" in found.block("server").block("location", "/").one("uwsgi_cache_key")[0]


def test_without_a_canary_nothing_is_decided_for_a_request() -> None:
    text = nginx_config.render(REPLICAS, site=Site(), release=RELEASE)
    assert not re.search(r"canary|\$upstream_group|\$release|split_clients", text)
    assert nginx_config.canary_headers(Site()) == []


# The program


def program(**canary: Any) -> Program:
    return run({"appImage": IMAGE, "canary": json.dumps({"share": 20, **canary})})


def test_a_canary_is_an_image_and_replicas_more() -> None:
    before, after = run({"appImage": IMAGE}), program(replicas=2)
    assert {name: after.types[name] for name in after.types.keys() - before.types.keys()} == {
        "canary-image": "docker:index/image:Image",
        "uwsgi-canary-1": "docker:index/container:Container",
        "uwsgi-canary-2": "docker:index/container:Container",
    }
    stable, canary = after["uwsgi-1"], after["uwsgi-canary-1"]
    assert stable.inputs == before["uwsgi-1"].inputs, "the first release goes on as it is"
    own = {"image", "envs", "hostname", "labels", "healthcheck"}
    assert {key: value for key, value in canary.inputs.items() if key not in own} == {
        key: value for key, value in stable.inputs.items() if key not in own
    }
    assert canary.inputs["hostname"] == "uwsgi-canary-1"
    assert (canary.parent, canary.delete_before_replace) == ("replicas", False)


def test_the_gate_gets_the_canary_with_the_others_and_a_header_for_each_way() -> None:
    release = program()["release"].inputs
    assert [replica["name"] for replica in release["replicas"]] == ["uwsgi-1", "uwsgi-2", "uwsgi-canary-1"]
    assert release["clientHeaders"] == ["X-Canary: never", "X-Canary: always"]
    assert run()["release"].inputs["clientHeaders"] == []


def test_the_canarys_release_and_image_are_exported_beside_the_first_ones() -> None:
    exports = program().exports
    assert exports["image"] == IMAGE
    assert re.fullmatch("sha256:[0-9a-f]{64}", exports["canary"]["image"])
    assert exports["canary"]["release"] != exports["release"]
    assert f"canary {exports['canary']['release']};" in program()["release"].inputs["configuration"]
    assert "canary" not in run().exports


def test_a_canary_that_is_promoted_is_known_as_before() -> None:
    """So its image is there already, and its sockets do not collide with those that still drain."""
    promoted = run()
    assert promoted.exports["release"] == program().exports["canary"]["release"]
    assert promoted["app-image"].inputs == program()["canary-image"].inputs


def test_the_canary_is_built_from_its_own_folder_if_it_has_one() -> None:
    assert program()["canary-image"].inputs["build"]["context"] == "app"
    built = run({"canary": '{"share": 1, "appFolder": "tests/live/app/"}'})
    assert built["canary-image"].inputs["build"]["context"] == "tests/live/app"
    assert built["app-image"].inputs["build"]["context"] == "app"


# The gate


def test_the_app_is_asked_as_a_client_in_each_way(machine: FakeMachine) -> None:
    seen: list[str] = []
    inside = machine.run

    def recorded(script: str) -> tuple[int, bytes]:
        seen.append(script)
        return inside(script)

    machine.run = recorded  # type: ignore[method-assign]
    what = Rollout(**{**test_gate.rollout().__dict__, "client_headers": ["X-It's: never", "X-It's: always"]})
    Gate(machine.client()).let_pass(what)
    asked = [script for script in seen if "curl" in script and "/.probe/" not in script]
    assert [re.findall(r"-H '(X-It.*?: \w+)'", script) for script in asked] == [
        ["X-It'\"'\"'s: never"],
        ["X-It'\"'\"'s: always"],
    ]
    assert machine.events.count("asked client /health: 200") == 4


def test_a_way_that_reaches_no_app_is_refused(machine: FakeMachine) -> None:
    what = Rollout(**{**test_gate.rollout().__dict__, "client_headers": ["X-Canary: never", "X-Canary: always"]})
    inside = machine.run

    def broken(script: str) -> tuple[int, bytes]:
        code, output = inside(script)
        return (code, output.replace(b" 200 ", b" 502 ")) if "always" in script else (code, output)

    machine.run = broken  # type: ignore[method-assign]
    words = test_gate.refusal(machine, what)
    assert "2 times of 4" in words


# An image of before


@pytest.fixture(autouse=True)
def _traceback_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traceback, "format_exc", traceback.format_exc)


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception | str]:
    """What the daemon answers by digest."""
    answers: dict[str, Exception | str] = {}

    class Client:
        @property
        def images(self) -> "Client":
            return self

        def get(self, digest: str) -> str:
            answer = answers.get(digest, ImageNotFound(f"No such image: {digest}"))
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(docker_host, "connect", lambda **_: Client())
    return answers


def provider(host: str = "ssh://root@elsewhere") -> StoredImageProvider:
    configured = StoredImageProvider()
    configured.configure(ConfigureRequest(Config({"docker:host": host}, "uwsgi-nginx")))
    return configured


def test_an_image_of_before_takes_the_place_of_a_built_one() -> None:
    held = run({"appImage": IMAGE})
    assert held.types["app-image"] == "pulumi-python:dynamic:StoredImage"
    assert held["app-image"].inputs["digest"] == IMAGE
    for name in ("uwsgi-1", "uwsgi-2"):
        assert held[name].inputs["image"] == IMAGE
        assert "app-image" in held[name].dependencies, "where it is missing no replica is replaced"
    assert held.exports["release"] not in {
        run().exports["release"],
        run({"appImage": IMAGE[:-1] + "0"}).exports["release"],
    }


def test_a_preview_knows_the_image_and_asks_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(**_: object) -> None:
        raise AssertionError("a preview connects to nothing")

    monkeypatch.setattr(docker_host, "connect", connect)
    previewed = run({"appImage": IMAGE}, preview=True)
    assert previewed["uwsgi-1"].inputs["image"] == IMAGE


def test_an_image_that_the_daemon_has_is_accepted(images: dict[str, Exception | str]) -> None:
    images[IMAGE] = "an image"
    props = {"digest": IMAGE}
    assert provider().create(props).outs == props
    assert provider().update("stored-image", {"digest": "another"}, props).outs == props


@pytest.mark.parametrize("operation", ["create", "update"])
def test_an_image_that_the_daemon_does_not_have_is_refused_with_what_to_do(
    images: dict[str, Exception | str], operation: str
) -> None:
    props = {"digest": IMAGE}
    with pytest.raises(Refused) as refused:
        provider().create(props) if operation == "create" else provider().update("stored-image", {}, props)
    words = str(refused.value)
    assert words.startswith(f"appImage: the Docker daemon at ssh://root@elsewhere has no image {IMAGE}.")
    assert "docker images --no-trunc" in words
    assert "No replica was changed" in words


def test_a_daemon_that_does_not_answer_is_said_to(images: dict[str, Exception | str]) -> None:
    images[IMAGE] = DockerException("out of order")
    with pytest.raises(Refused, match=f"did not say whether it has {IMAGE}: out of order"):
        provider().create({"digest": IMAGE})


def test_the_daemon_is_asked_when_the_image_is_another_one() -> None:
    diff = provider().diff
    assert diff("stored-image", {"digest": IMAGE}, {"digest": IMAGE, "__provider": "x"}).changes is False
    assert diff("stored-image", {"digest": IMAGE}, {"digest": "another"}).changes is True


def test_the_provider_is_stored_by_its_name_alone() -> None:
    stored = base64.b64decode(serialize_provider(StoredImageProvider()))
    assert len(stored) < 200
    assert b"infra.stored_image" in stored


# Settings


def refusal(**values: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        Settings.parse({key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()})
    return str(refused.value)


@pytest.mark.parametrize("folder", ["", "app", "./app", "app/", "tests/../app"])
@pytest.mark.parametrize("share", [0, 20, 100])
def test_a_canary_of_the_very_same_app_is_refused_with_what_to_do(folder: str, share: int) -> None:
    message = refusal(canary={"share": share, "appFolder": folder})
    assert f"  canary.share is {share}, but the canary and the first release are both built from app. " in message
    assert "appImage" in message
    assert "canary.appFolder" in message


@pytest.mark.parametrize(
    "values",
    [
        {"canary": {"appFolder": "app", "replicas": 2}},
        {"canary": {"share": 20}, "appImage": IMAGE},
        {"canary": {"share": 20, "appFolder": "app"}, "appImage": IMAGE},
        {"canary": {"share": 20, "appFolder": "tests/live/app"}},
    ],
)
def test_a_canary_of_another_image_or_folder_or_none_is_accepted(values: dict[str, Any]) -> None:
    parsed = Settings.parse(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    )
    assert parsed.canary.share == values["canary"].get("share")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("appImage", {"appImage": IMAGE}),
        ("appImage", {"appImage": IMAGE, "canary": {"share": 20}}),
        ("canary.share", {"canary": {"share": 0, "appFolder": "tests/live/app"}}),
    ],
)
def test_replicas_that_follow_a_folder_are_of_no_other_release(key: str, values: dict[str, Any]) -> None:
    assert f"  liveReload is on, and {key} is set: " in refusal(liveReload="true", **values)


def test_two_releases_of_two_sets_fit_into_what_the_replicas_user_may_run() -> None:
    stack = run({"uwsgiProcesses": "64", "uwsgiThreads": "256"})
    (limit,) = stack["uwsgi-1"].inputs["ulimits"]
    assert limit["hard"] >= 2 * (100 + 100) * 64 * 256

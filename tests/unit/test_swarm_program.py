"""The real `__main__.py` with `orchestrator: swarm` under Pulumi mocks, and what the plugin makes of its services."""

import base64
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Any

import pytest

from airgap.docker_provider import durations, service_spec
from airgap.docker_provider.differences import compare
from airgap.docker_provider.kinds import Naming
from airgap.docker_provider.schema import Input
from airgap.docker_provider.service import INPUTS, Service
from infra import layout
from infra.settings import SettingsError
from infra.swarm import services
from tests.airgap.fake_swarm import DIGEST, as_swarm_keeps_it, endpoint
from tests.unit.certificates import self_signed
from tests.unit.program import SWARM, UNKNOWN, Program, Registration, physical_name, run, strings

SECRET = "xyzzy-4711"  # a value that no other text contains
LOGINS = "docker:registryAuth"
PAGES = [f"{page}.{form}" for page in ("413", "429", "502", "503", "504", "maintenance") for form in ("html", "json")]
NGINX_FILES = ["nginx.conf", "listen.conf", "instance.conf", *PAGES]
MESH = '{"publish": "mesh"}'
# Settings that reach all keys of a service which can be given.
FULL = {
    "cpus": "1.5",
    "swarm": json.dumps({"nginxNodes": "edge=true", "appNodes": "app=1", "reservedMemory": 64, "reservedCpus": 0.25}),
    "drainTimeout": "3600",
    "healthTimeout": "3600",
    "replicas": "1000",
}


@cache
def _program(config: str, secret: tuple[str, ...], preview: bool) -> Program:
    return run({**SWARM, **json.loads(config)}, secret, preview=preview)


def stack_of(config: Mapping[str, str] | None = None, *secret: str, preview: bool = False) -> Program:
    return _program(json.dumps(config or {}), secret, preview)


def with_https(**config: str) -> Program:
    certificate, key = self_signed("localhost")
    users = json.dumps({"users": {"eve": SECRET}})
    tls = json.dumps({"certificate": certificate, "key": key})
    return run({**SWARM, "tls": tls, "basicAuth": users, **config}, ["tls", "basicAuth"])


def labels(service: Registration) -> dict[str, str]:
    return {label["label"]: label["value"] for label in service.inputs["labels"]}


def container(service: Registration) -> dict[str, Any]:
    spec: dict[str, Any] = service.inputs["taskSpec"]["containerSpec"]
    return spec


def label_at(service: str, name: str) -> str:
    """Path of the value of a label."""
    return f"{service}/labels/{[*labels(stack_of()[service])].index('uwsgi-nginx.' + name)}/value"


def text(file: Registration) -> str:
    """Of a config or a secret."""
    raw = file.inputs.get("dataRaw")
    return base64.b64decode(file.inputs["data"], validate=True).decode() if raw is None else str(raw)


def seconds(duration: str) -> float:
    return durations.nanoseconds(duration) / durations.SECOND


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Values in inputs, by path."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if not inside:
        yield path, value
    else:
        for key, item in inside:
            yield from leaves(item, f"{path}/{key}")


def differences(one: Program, other: Program) -> set[str]:
    """Paths of all inputs that are not the same, after the name of their resource."""
    assert one.types == other.types
    both = [
        {path: value for name, resource in program.resources.items() for path, value in leaves(resource.inputs, name)}
        for program in (one, other)
    ]
    return {path for path in both[0].keys() | both[1].keys() if both[0].get(path) != both[1].get(path)}


@pytest.fixture(params=["app", "nginx", "nginx-mesh"])
def service(request: pytest.FixtureRequest) -> Registration:
    """Each service that a stack can have."""
    return stack_of({"swarm": MESH} if request.param == "nginx-mesh" else {})[request.param]


# What there is


def test_a_stack_is_exactly_these_resources() -> None:
    assert stack_of().types == {
        "overlay": "docker:index/network:Network",
        "replicas": "uwsgi-nginx:index:Replicas",
        "app-image": "docker:index/image:Image",
        "environment.json": "docker:index/serviceConfig:ServiceConfig",
        "app": "docker:index/service:Service",
        "rollout": "pulumi-python:dynamic:ReplicaRollout",
        "load-balancer": "uwsgi-nginx:index:LoadBalancer",
        "nginx-image": "docker:index/image:Image",
        "configuration-test": "pulumi-python:dynamic:ConfigurationTest",
        **dict.fromkeys(NGINX_FILES, "docker:index/serviceConfig:ServiceConfig"),
        "nginx": "docker:index/service:Service",
        "release": "pulumi-python:dynamic:SwarmRelease",
    }


def test_a_preview_declares_the_same_resources_and_pretends_to_know_no_digest() -> None:
    preview, update = stack_of(preview=True), stack_of()
    assert preview.types == update.types
    assert container(preview["app"])["image"] == preview.exports["image"] == UNKNOWN
    assert preview.exports["release"] == update.exports["release"]
    assert preview["nginx.conf"].inputs == update["nginx.conf"].inputs


def test_each_part_belongs_to_its_component() -> None:
    parents = {name: resource.parent for name, resource in stack_of().resources.items() if resource.parent}
    assert parents == {
        **dict.fromkeys(["app-image", "environment.json", "app", "rollout"], "replicas"),
        **dict.fromkeys(["nginx-image", "configuration-test", *NGINX_FILES, "nginx"], "load-balancer"),
    }


@pytest.mark.parametrize("replicas", [1, 2, 5, 12])
def test_any_number_of_replicas_is_one_service(replicas: int) -> None:
    program = stack_of({"replicas": str(replicas)})
    assert program.types == stack_of().types
    assert program["app"].inputs["mode"] == {"replicated": {"replicas": replicas}}


def test_nginx_runs_on_each_node() -> None:
    assert stack_of()["nginx"].inputs["mode"] == {"global": True}


def test_a_person_is_told_where_it_answers_and_what_it_runs() -> None:
    program = stack_of()
    assert program.exports == {
        "url": "http://127.0.0.1:8080",
        "replicas": 2,
        "release": labels(program["app"])["uwsgi-nginx.release"],
        "image": container(program["app"])["image"],
        "app": physical_name("app"),
        "nginx": physical_name("nginx"),
        "previousImage": "",
    }


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("ssh://root@manager.example", "http://manager.example:8080"),
        ("tcp://10.1.2.3:2376", "http://10.1.2.3:8080"),
        ("tcp://[fd00::1]:2376", "http://[fd00::1]:8080"),
        ("unix:///var/run/docker.sock", "http://127.0.0.1:8080"),
    ],
)
def test_it_answers_on_the_manager_that_the_program_talks_to(host: str, url: str) -> None:
    assert run({**SWARM, "docker:host": host}).exports["url"] == url


# Order of change


def test_the_configuration_is_tested_before_any_of_its_files_is_there() -> None:
    program = with_https()
    files = [*NGINX_FILES, "certificate.pem", "key.pem", "htpasswd"]
    assert {name for name in files if program[name].dependencies != {"configuration-test"}} == set()


def test_what_is_tested_are_the_files_that_nginx_gets_and_in_the_image_that_it_runs() -> None:
    program = with_https()
    tested, nginx = program["configuration-test"].inputs, container(program["nginx"])
    assert tested["image"] == nginx["image"]
    files = {file["fileName"]: text(program[file["configId"].removeprefix("id-of-")]) for file in nginx["configs"]}
    secrets = {file["fileName"]: text(program[file["secretId"].removeprefix("id-of-")]) for file in nginx["secrets"]}
    assert files == {f"{layout.SITE_FOLDER}/{name}": said for name, said in tested["files"].items()}
    assert secrets == {f"{layout.SITE_FOLDER}/{name}": said for name, said in tested["secrets"].items()}
    assert len(secrets) == 3


def test_nginx_changes_only_after_the_app_has() -> None:
    assert "app" in stack_of()["nginx"].dependencies


def test_the_release_is_waited_for_when_both_services_are_told_of_it() -> None:
    assert {"app", "nginx"} <= stack_of()["release"].dependencies


def test_who_watches_the_apps_rollout_starts_with_it_and_not_after() -> None:
    dependencies = stack_of()["rollout"].dependencies
    assert "app" not in dependencies
    assert {"app-image", "environment.json", "overlay"} <= dependencies, "or it would wait for what is not begun"


def test_services_wait_for_what_their_tasks_are_made_of() -> None:
    program = stack_of()
    assert {"app-image", "environment.json", "overlay"} <= program["app"].dependencies
    assert {"nginx-image", "overlay", *NGINX_FILES} <= program["nginx"].dependencies


# What the plugin makes of a service (the traps are told in infra/swarm/services.py)


def checked(service: Registration) -> dict[str, Any]:
    """Its inputs as the plugin takes them, defaults filled in; refused if it does not."""

    def untouched(*_: object, **__: object) -> Any:
        raise AssertionError("a check asks no daemon")

    inputs = deepcopy(service.inputs)
    assert Service(untouched, untouched).check({}, inputs, Naming("urn::app")) == []
    return inputs


def created(inputs: dict[str, Any]) -> dict[str, Any]:
    """The service as a manager has it, whose registry has said what the image is for."""
    registry = {"Descriptor": {"digest": DIGEST}, "Platforms": [{"architecture": "amd64", "os": "linux"}]}
    spec = as_swarm_keeps_it(service_spec.pinned(service_spec.body(inputs), registry))
    return {"ID": "svc1", "Spec": spec, "Endpoint": endpoint(spec)}


def with_all_that_can_be_set(name: str) -> dict[str, Any]:
    return checked(with_https(**FULL)[name])


@pytest.mark.parametrize("inputs", [{}, FULL], ids=["defaults", "all"])
@pytest.mark.parametrize("name", ["app", "nginx"])
def test_what_the_plugin_reads_back_is_what_the_program_wrote(name: str, inputs: dict[str, str]) -> None:
    wanted = checked(with_https(**inputs)[name])
    read = {**wanted, **service_spec.reported(INPUTS, created(wanted))}
    del read["id"]
    assert compare(INPUTS, {}, read, wanted, {}).changes == {}, "each `up` would show this"


@pytest.mark.parametrize("name", ["app", "nginx"])
def test_an_update_sends_the_task_that_is_there_so_that_the_swarm_keeps_it(name: str) -> None:
    inputs = with_all_that_can_be_set(name)
    state = service_spec.reported(INPUTS, created(inputs))
    again = service_spec.body(service_spec.known(INPUTS, inputs, state))
    assert sent(again["TaskTemplate"]) == sent(service_spec.body(inputs)["TaskTemplate"])


def sent(value: Any, key: str = "") -> Any:
    """As Go writes it: zero is nothing, unless it is pointed at."""
    if isinstance(value, dict):
        items = {name: sent(item, name) for name, item in value.items()}
        return {name: item for name, item in items.items() if item not in (None, [], {})} or None
    if isinstance(value, list):
        return [sent(item) for item in value]
    pointed_at = key in ("Delay", "MaxAttempts", "Window", "StopGracePeriod", "Init")
    return value if value or pointed_at else None


def unwritten(
    schema: Mapping[str, Input], inputs: Mapping[str, Any], *, chosen: bool, where: str = ""
) -> Iterator[str]:
    """Keys that the daemon chooses, as the inputs do not say them; in what it chooses as a whole, all keys."""
    for key, spec in schema.items():
        path = f"{where}{key}"
        if key not in inputs:
            if spec.covered and (chosen or spec.computed):
                yield path
            continue
        value = inputs[key]
        for item in value if isinstance(value, list) else [value]:
            if spec.fields and isinstance(item, dict):
                yield from unwritten(spec.fields, item, chosen=chosen or spec.computed, where=f"{path}.")


def test_nothing_of_a_service_is_left_for_the_daemon_to_choose(service: Registration) -> None:
    other_mode = "mode.replicated" if service.inputs["mode"].get("global") else "mode.global"
    no_port = [] if service.name.startswith("nginx") else ["endpointSpec.ports"]
    # Sent as {} where it is not given, and so again when it was read: it has no zero of another form.
    without_zero = ["taskSpec.containerSpec.dnsConfig"]
    given = checked(service)
    assert set(unwritten(INPUTS, given, chosen=False)) == {other_mode, *no_port, *without_zero}


@pytest.mark.parametrize("seconds", [0, 1, 59, 60, 61, 70, 90, 119, 3599, 3600, 3601, 3660, 5400, 7200, 14540, 86400])
def test_a_duration_is_written_as_the_plugin_reads_it(seconds: int) -> None:
    body = {"UpdateConfig": {"Monitor": seconds * durations.SECOND}, "TaskTemplate": {"ContainerSpec": {"Image": ""}}}
    spec = {"Name": "", "Labels": {}, "Mode": {}, "EndpointSpec": {}, **body}
    read = service_spec.reported(INPUTS, {"ID": "", "Spec": spec})["updateConfig"]["monitor"]
    assert services.duration(seconds) == read
    assert durations.nanoseconds(read) == seconds * durations.SECOND


def test_a_container_has_no_two_variables_whose_order_would_be_by_chance(service: Registration) -> None:
    assert len(container(service).get("env", {})) < 2


def test_nothing_that_would_replace_a_service_is_in_it(service: Registration) -> None:
    assert not {"auth", "name"} & service.inputs.keys()
    assert not {"labels", "hosts", "sysctl"} & container(service).keys()
    (network,) = service.inputs["taskSpec"]["networksAdvanceds"]
    assert network == {
        "id": "id-of-overlay",
        "aliases": ["app" if service.name == "app" else "nginx"],
        "driverOpts": [],
    }


def test_nothing_has_a_name_of_its_own_so_that_its_successor_comes_first() -> None:
    program = with_https()
    docker = {name: resource for name, resource in program.resources.items() if resource.type.startswith("docker:")}
    assert len(docker) > 20
    assert {name for name, resource in docker.items() if "name" in resource.inputs} == set()
    assert {resource.delete_before_replace for resource in docker.values()} == {None}
    assert {name for name, resource in program.resources.items() if resource.ignored_changes} == set()


def test_a_file_has_the_id_and_the_name_of_what_it_is() -> None:
    spec = container(with_https()["nginx"])
    configs = {file["configName"]: file["configId"] for file in spec["configs"]}
    secrets = {file["secretName"]: file["secretId"] for file in spec["secrets"]}
    assert configs == {physical_name(name): f"id-of-{name}" for name in NGINX_FILES}
    assert secrets == {physical_name(name): f"id-of-{name}" for name in ("certificate.pem", "key.pem", "htpasswd")}


def test_tasks_are_for_the_platform_of_the_settings() -> None:
    program = stack_of({"platform": "linux/arm64"})
    for name in ("app", "nginx"):
        assert program[name].inputs["taskSpec"]["placement"]["platforms"] == [{"architecture": "arm64", "os": "linux"}]


def test_the_network_is_given_no_options_to_which_the_daemon_would_add_its_own() -> None:
    assert stack_of()["overlay"].inputs == {"driver": "overlay", "attachable": False}
    with_subnet = stack_of({"swarm": '{"subnet": "10.20.0.0/20"}'})["overlay"].inputs
    assert with_subnet == {"driver": "overlay", "attachable": False, "ipamConfigs": [{"subnet": "10.20.0.0/20"}]}


# How it is reached


def test_the_app_has_no_address_of_its_own_and_publishes_nothing() -> None:
    assert stack_of()["app"].inputs["endpointSpec"] == {"mode": "dnsrr"}


@pytest.mark.parametrize(
    ("swarm", "name", "mode", "publish"),
    [("{}", "nginx", "dnsrr", "host"), (MESH, "nginx-mesh", "vip", "ingress")],
)
def test_nginx_publishes_where_the_settings_say(swarm: str, name: str, mode: str, publish: str) -> None:
    services_there = with_https(swarm=swarm, port="80").of_type(":Service")
    assert sorted(services_there) == ["app", name]
    endpoint_spec = services_there[name].inputs["endpointSpec"]
    port = {"name": "", "protocol": "tcp", "publishMode": publish}
    assert endpoint_spec == {
        "mode": mode,
        "ports": [
            {**port, "targetPort": layout.PORT, "publishedPort": 80},
            {**port, "targetPort": layout.HTTPS_PORT, "publishedPort": 8443},
        ],
    }


@pytest.mark.parametrize(
    ("swarm", "name", "order", "parallelism"),
    [("{}", "app", "start-first", 2), ("{}", "nginx", "stop-first", 1), (MESH, "nginx-mesh", "start-first", 1)],
)
def test_a_rollout_goes_back_at_the_first_task_that_fails(swarm: str, name: str, order: str, parallelism: int) -> None:
    inputs = stack_of({"swarm": swarm, "replicas": "5"})[name].inputs
    update, rollback = inputs["updateConfig"], inputs["rollbackConfig"]
    assert (update["order"], update["parallelism"]) == (order, parallelism)
    assert (update["failureAction"], rollback["failureAction"]) == ("rollback", "pause")
    assert float(update["maxFailureRatio"]) == 0
    assert {**update, "failureAction": "pause"} == rollback


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 5, 9, 1000])
def test_all_waves_of_a_rollout_fit_into_the_time_that_the_plugin_waits(replicas: int) -> None:
    inputs = stack_of({"replicas": str(replicas), "healthTimeout": "100"})["app"].inputs
    waves = -(-replicas // inputs["updateConfig"]["parallelism"])
    one = 100 + seconds(inputs["updateConfig"]["monitor"])
    assert waves * one < seconds(inputs["convergeConfig"]["timeout"])


def test_the_plugin_waits_for_the_app_and_cannot_for_what_runs_on_each_node() -> None:
    assert "convergeConfig" in stack_of()["app"].inputs
    assert "convergeConfig" not in stack_of()["nginx"].inputs


@pytest.mark.parametrize(("key", "service_name"), [("appNodes", "app"), ("nginxNodes", "nginx")])
def test_a_label_says_which_nodes_run_what(key: str, service_name: str) -> None:
    program = stack_of({"swarm": json.dumps({key: "edge=true"})})
    constraints = {
        name: resource.inputs["taskSpec"]["placement"]["constraints"]
        for name, resource in program.of_type(":Service").items()
    }
    assert constraints == {"app": [], "nginx": [], service_name: ["node.labels.edge==true"]}


def test_replicas_are_spread_over_the_nodes() -> None:
    assert stack_of()["app"].inputs["taskSpec"]["placement"]["prefs"] == ["spread=node.id"]


# What a task is given


def test_a_task_may_do_little_and_write_to_memory_and_its_own_volume_alone(service: Registration) -> None:
    spec = container(service)
    assert (spec["readOnly"], spec["capDrops"]) == (True, ["ALL"])
    assert spec["user"] == ("10001:10001" if service.name == "app" else "101:10001")
    places = {(mount["type"], mount["target"]) for mount in spec["mounts"]}
    nginx = {("tmpfs", "/run/nginx"), ("volume", "/etc/nginx/live")}
    assert places == ({("tmpfs", "/tmp")} if service.name == "app" else nginx)
    assert {mount["source"] for mount in spec["mounts"]} == {""}, "nothing of the node, nothing shared"


def test_a_task_uses_and_reserves_what_the_settings_say() -> None:
    swarm = json.dumps({"reservedMemory": 100, "reservedCpus": 0.25})
    program = stack_of({"memory": "300", "cpus": "1.5", "nginxMemory": "70", "swarm": swarm})
    mebibyte, cpu = 1 << 20, 10**9
    assert program["app"].inputs["taskSpec"]["resources"] == {
        "limits": {"memoryBytes": 300 * mebibyte, "nanoCpus": int(1.5 * cpu)},
        "reservation": {"memoryBytes": 100 * mebibyte, "nanoCpus": cpu // 4},
    }
    own = {"memoryBytes": 70 * mebibyte, "nanoCpus": 0}
    assert program["nginx"].inputs["taskSpec"]["resources"] == {"limits": own, "reservation": own}


def test_a_task_is_stopped_gracefully_and_given_longer_than_its_requests_may_take() -> None:
    program = stack_of({"drainTimeout": "40"})
    assert {name: container(program[name])["stopSignal"] for name in ("app", "nginx")} == {
        "app": "SIGTERM",
        "nginx": "SIGQUIT",
    }
    before_drain = float(environment(program)["REPLICA_STOP_DELAY"])
    assert seconds(container(program["app"])["stopGracePeriod"]) > before_drain + 40
    assert seconds(container(program["nginx"])["stopGracePeriod"]) > 40


def test_who_watches_the_apps_rollout_says_why_before_the_plugin_takes_it_away() -> None:
    program = stack_of()
    assert program["rollout"].inputs["timeout"] < seconds(program["app"].inputs["convergeConfig"]["timeout"])


def test_a_task_comes_back_by_itself_and_rotates_its_log(service: Registration) -> None:
    task = service.inputs["taskSpec"]
    assert (task["restartPolicy"]["condition"], task["restartPolicy"]["maxAttempts"]) == ("any", 0)
    assert seconds(task["restartPolicy"]["delay"]) > 0, "or a task that cannot start would be tried without a pause"
    assert task["logDriver"] == {"name": "json-file", "options": {"max-size": "10m", "max-file": "3"}}


def test_a_replica_is_asked_over_the_socket_on_which_it_listens_for_that() -> None:
    program = stack_of({"healthPath": "/fit"})
    _, binary, path, socket, *_ = container(program["app"])["healthcheck"]["tests"]
    assert (binary, path) == ("healthcheck", "/fit")
    assert socket == environment(program)["REPLICA_SOCKET"]


def environment(program: Program) -> dict[str, str]:
    """Of a replica, as entrypoint.py reads it."""
    variables: dict[str, str] = json.loads(text(program["environment.json"]))
    return variables


def test_a_replicas_environment_stands_in_the_file_that_its_entry_point_reads() -> None:
    program = stack_of({"environment": '{"GREETING": "Hello = World"}', "uwsgiProcesses": "3", "drainTimeout": "40"})
    (file,) = container(program["app"])["configs"]
    assert file["fileName"] == layout.ENVIRONMENT_FILE
    assert environment(program) == {
        "REPLICA_SOCKET": "/tmp/uwsgi.sock",
        "REPLICA_PORT": str(layout.REPLICA_PORT),
        "REPLICA_STOP_DELAY": "3",
        "UWSGI_PROCESSES": "3",
        "UWSGI_THREADS": "8",
        "UWSGI_WORKER_RELOAD_MERCY": "40",
        "GREETING": "Hello = World",
    }


def test_nginx_is_started_with_the_configuration_where_it_stands() -> None:
    nginx = container(stack_of()["nginx"])
    assert nginx["commands"][:3] == ["chrt", "-b", "0"]
    assert nginx["commands"][nginx["commands"].index("-c") + 1] == f"{layout.SITE_FOLDER}/nginx.conf"
    assert {file["fileName"] for file in nginx["configs"]} >= {f"{layout.SITE_FOLDER}/nginx.conf"}


def test_nginx_finds_the_replicas_by_name_and_names_its_own_folder() -> None:
    configuration = text(stack_of()["nginx.conf"])
    aliases = stack_of()["app"].inputs["taskSpec"]["networksAdvanceds"][0]["aliases"]
    assert aliases == ["app"]
    assert f"server app:{layout.REPLICA_PORT} resolve" in configuration
    assert layout.LIVE_FOLDER + "/current" not in configuration
    assert f"alias {layout.SITE_FOLDER}/pages/;" in configuration


# Images and the registry


def test_images_go_to_the_registry_under_their_contents_fingerprint_and_tasks_run_the_digest() -> None:
    program = stack_of()
    for service_name, image, name in (("app", "app-image", "app"), ("nginx", "nginx-image", "nginx")):
        inputs = program[image].inputs
        repository, _, tag = inputs["imageName"].rpartition(":")
        assert (repository, len(tag)) == (f"registry.example:5000/team/uwsgi-nginx/{name}", 8)
        assert inputs["skipPush"] is False
        pinned = container(program[service_name])["image"]
        assert pinned.startswith(f"{repository}@sha256:")
        assert tag not in pinned, "a tag may come to mean another image"


def test_an_image_that_was_built_before_is_taken_as_it_is() -> None:
    image = f"registry.example/other@{DIGEST}"
    program = stack_of({"appImage": image})
    assert "app-image" not in program.types
    assert container(program["app"])["image"] == program.exports["image"] == image


def login(address: str = "registry.example:5000") -> dict[str, str]:
    return {LOGINS: json.dumps([{"address": address, "username": "eve", "password": SECRET}])}


@pytest.mark.parametrize("scheme", ["", "https://", "http://"])
def test_the_login_is_the_one_that_the_plugin_gives_to_the_nodes(scheme: str) -> None:
    program = run({**SWARM, **login(f"{scheme}registry.example:5000")}, [LOGINS])
    for image in ("app-image", "nginx-image"):
        registry = {"server": "registry.example:5000", "username": "eve", "password": SECRET}
        assert program[image].inputs["registry"] == registry
        assert {"registry", "registry.password"} & program[image].secrets
    for name, resource in program.resources.items():
        if not name.endswith("-image"):
            assert SECRET not in "".join(strings(resource.inputs))


@pytest.mark.parametrize("config", [{}, login("other.example")], ids=["none", "other"])
def test_without_a_login_there_nobody_logs_in(config: dict[str, str]) -> None:
    assert "registry" not in run({**SWARM, **config}, [LOGINS])["app-image"].inputs


@pytest.mark.parametrize(
    "logins",
    ["{", "1", "null", '"eve"', '["eve"]', '[{"username": "eve"}]', '[{"address": 5}]', '[{"address": null}]'],
)
def test_logins_that_are_none_are_refused_in_words(logins: str) -> None:
    with pytest.raises(SettingsError, match="docker:registryAuth: should be a list of objects with address"):
        run({**SWARM, LOGINS: logins}, [LOGINS])


def test_a_password_of_a_registry_in_clear_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError, match=r"docker:registryAuth: a password stands there for all to read") as refused:
        run({**SWARM, **login()})
    assert "pulumi config set --secret --path 'docker:registryAuth[0].password'" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_login_without_a_password_may_be_read_by_all() -> None:
    run({**SWARM, LOGINS: '[{"address": "registry.example:5000", "username": ""}]'})


def test_on_one_host_logins_are_no_business_of_the_program() -> None:
    assert run({LOGINS: "{"})["app-image"].inputs["skipPush"] is True


# Secrets


def test_a_secret_is_a_secret_of_docker_and_nowhere_in_clear() -> None:
    program = with_https(environment=json.dumps({"PASSWORD": SECRET}))
    key = text(program["key.pem"])
    assert "PRIVATE KEY" in key
    held = {name: resource for name, resource in program.resources.items() if resource.type.endswith(":Secret")}
    assert sorted(held) == ["certificate.pem", "htpasswd", "key.pem"]
    assert {name: resource.secrets for name, resource in held.items()} == {name: {"data"} for name in held}
    for name, resource in program.resources.items():
        inputs = {path: value for path, value in resource.inputs.items() if path not in resource.secrets}
        assert key.splitlines()[1] not in "".join(strings(inputs)), name
        assert text(program["htpasswd"]).strip() not in "".join(strings(inputs)), name
    assert program["configuration-test"].secrets == {"__provider", "secrets"}


def test_secret_environment_is_a_secret_for_the_replicas_user_alone() -> None:
    program = stack_of({"environment": json.dumps({"PASSWORD": SECRET})}, "environment")
    assert program["environment.json"].type == "docker:index/secret:Secret"
    assert environment(program)["PASSWORD"] == SECRET
    assert "configs" not in container(program["app"]) or container(program["app"])["configs"] == []
    (file,) = container(program["app"])["secrets"]
    assert (file["fileName"], file["fileUid"], file["fileMode"]) == (layout.ENVIRONMENT_FILE, "10001", 0o400)
    encoded = base64.b64encode(SECRET.encode()).decode()[:-4]
    for name, resource in program.resources.items():
        if name != "environment.json":
            assert SECRET not in "".join(strings(resource.inputs)), name
            assert encoded not in "".join(strings(resource.inputs)), name
    assert SECRET not in "".join(strings(program.exports))


def test_what_only_nginx_may_read_it_alone_reads() -> None:
    for file in container(with_https()["nginx"])["secrets"]:
        assert (file["fileUid"], file["fileMode"]) == (str(layout.NGINX_USER), 0o400)


# What changes when


def test_scaling_changes_the_number_and_no_task() -> None:
    assert differences(stack_of(), stack_of({"replicas": "12"})) - {"rollout/content"} == {
        "app/mode/replicated/replicas",
        "app/updateConfig/parallelism",
        "app/rollbackConfig/parallelism",
        label_at("app", "content"),
        "rollout/replicas",
    }


def test_a_release_changes_the_app_and_nothing_of_nginx() -> None:
    assert differences(stack_of(), stack_of({"appModule": "other"})) == {
        "app-image/imageName",
        "app-image/build/args/UWSGI_APP",
        "app/taskSpec/containerSpec/image",
        label_at("app", "release"),
        label_at("app", "content"),
        "rollout/content",
        "release/release",
        "release/image",
    }


def test_another_configuration_changes_nginx_and_nothing_of_the_app() -> None:
    changed = differences(stack_of(), stack_of({"maxBodySize": "7"}))
    assert {path.partition("/")[0] for path in changed} == {"nginx.conf", "configuration-test"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nginxMemory", "64"),
        ("nginxImage", "nginx:1.30"),
        ("port", "81"),
        ("drainTimeout", "31"),
        ("platform", "linux/arm64"),
        ("swarm", '{"nginxNodes": "edge=true"}'),
    ],
)
def test_whatever_makes_another_nginx_is_waited_for(key: str, value: str) -> None:
    before, after = stack_of(), stack_of({key: value})
    assert before["nginx"].inputs != after["nginx"].inputs
    assert before["release"].inputs["content"] != after["release"].inputs["content"]
    for program in (before, after):
        assert labels(program["nginx"])["uwsgi-nginx.content"] == program["release"].inputs["content"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memory", "64"),
        ("pythonImage", "python:3.12"),
        ("healthPath", "/fit"),
        ("drainTimeout", "31"),
        ("replicas", "3"),
        ("swarm", '{"appNodes": "app=1"}'),
        ("swarm", '{"reservedCpus": 0.5}'),
    ],
)
def test_whatever_makes_another_app_is_watched(key: str, value: str) -> None:
    before, after = stack_of(), stack_of({key: value})
    assert before["app"].inputs != after["app"].inputs
    assert before["rollout"].inputs["content"] != after["rollout"].inputs["content"]
    for program in (before, after):
        assert labels(program["app"])["uwsgi-nginx.content"] == program["rollout"].inputs["content"]


def test_nothing_of_a_release_is_in_what_nginx_reads() -> None:
    kept = {"paths": '{"/": {"cache": 60}}'}  # where the release of one host is in the keys
    programs = [stack_of(kept), stack_of({**kept, "appModule": "other", "environment": '{"A": "1"}', "replicas": "7"})]
    assert programs[0].exports["release"] != programs[1].exports["release"]
    files = [{name: text(program[name]) for name in NGINX_FILES} for program in programs]
    assert files[0] == files[1]
    for program in programs:
        assert program.exports["release"] not in "".join(files[0].values())


def test_from_one_orchestrator_to_the_other_all_is_created_or_deleted_but_the_images() -> None:
    on_a_swarm, on_a_host = stack_of(), run()
    shared = on_a_swarm.types.items() & on_a_host.types.items()
    assert {name for name, _ in shared} == {"app-image", "nginx-image", "replicas", "load-balancer"}
    assert {name for name, _ in shared if not on_a_host[name].custom} == {"replicas", "load-balancer"}


def test_two_stacks_of_a_swarm_are_told_apart() -> None:
    for stack in ("one", "two"):
        program = run(SWARM, stack=stack)
        assert {labels(program[name])["uwsgi-nginx.stack"] for name in ("app", "nginx")} == {stack}
        assert {program[name].inputs["labels"]["uwsgi-nginx.stack"] for name in ("rollout", "release")} == {stack}


def test_who_watches_looks_for_the_labels_that_the_service_has() -> None:
    for program in (stack_of(), stack_of({"swarm": MESH})):
        (nginx,) = (service for name, service in program.of_type(":Service").items() if name.startswith("nginx"))
        for watching, service in (("rollout", program["app"]), ("release", nginx)):
            assert program[watching].inputs["labels"].items() <= labels(service).items()


def test_the_site_is_asked_where_the_settings_have_it_answer() -> None:
    swarm = json.dumps({"nginxNodes": "edge=true"})
    program = stack_of({"port": "81", "healthPath": "/fit", "swarm": swarm})
    asked = program["release"].inputs["ask"]
    assert (asked["port"], asked["path"], asked["nodes"]) == (81, "/fit", "edge=true")
    assert asked["image"] == container(program["nginx"])["image"]


def test_through_the_mesh_every_node_answers_whichever_runs_nginx() -> None:
    swarm = json.dumps({"nginxNodes": "edge=true", "publish": "mesh"})
    inputs = stack_of({"swarm": swarm})["release"].inputs
    assert (inputs["nodes"], inputs["ask"]["nodes"]) == ("edge=true", "")

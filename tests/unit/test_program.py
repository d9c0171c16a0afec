"""The real `__main__.py` under Pulumi mocks: what it declares, in which order it changes, what it exports."""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import layout, nginx_config
from infra.settings import Settings, SettingsError
from infra.site import Site
from tests.unit.conftest import PROJECT
from tests.unit.program import UNKNOWN, Program, Registration, run, strings

COUNTS = [1, 2, 5]
# A value that no other text contains.
SECRET = "xyzzy-4711"


@cache
def stack_of(replicas: int = 2, preview: bool = False) -> Program:
    return run({"replicas": str(replicas)}, preview=preview)


def names(replicas: int) -> list[str]:
    return [f"uwsgi-{number}" for number in range(1, replicas + 1)]


def environment(container: Registration) -> dict[str, str]:
    return dict(variable.split("=", 1) for variable in container.inputs["envs"])


def labels(container: Registration) -> dict[str, str]:
    return {label["label"]: label["value"] for label in container.inputs["labels"]}


def servers(program: Program) -> list[str]:
    return re.findall(r"^\s*server unix:(\S+)", program["release"].inputs["configuration"], re.MULTILINE)


@pytest.fixture(params=COUNTS)
def count(request: pytest.FixtureRequest) -> int:
    assert isinstance(request.param, int)
    return request.param


@pytest.fixture
def program(count: int) -> Program:
    return stack_of(count)


@pytest.fixture(params=["nginx-8080", "uwsgi-1", "uwsgi-2"])
def container(request: pytest.FixtureRequest) -> Registration:
    return stack_of().containers[request.param]


# What there is


def test_a_stack_is_exactly_these_resources(program: Program, count: int) -> None:
    assert program.types == {
        "network": "docker:index/network:Network",
        "replicas": "uwsgi-nginx:index:Replicas",
        "app-image": "docker:index/image:Image",
        "sockets": "docker:index/volume:Volume",
        **dict.fromkeys(names(count), "docker:index/container:Container"),
        "load-balancer": "uwsgi-nginx:index:LoadBalancer",
        "nginx-image": "docker:index/image:Image",
        "nginx-live": "docker:index/volume:Volume",
        "metrics": "docker:index/volume:Volume",
        "nginx-8080": "docker:index/container:Container",
        "release": "pulumi-python:dynamic:Release",
    }


def test_a_preview_declares_the_same_resources(count: int) -> None:
    assert stack_of(count, preview=True).types == stack_of(count).types


def test_each_part_belongs_to_its_component(program: Program, count: int) -> None:
    parents = {name: resource.parent for name, resource in program.resources.items() if resource.parent}
    assert parents == {
        **dict.fromkeys(["app-image", "sockets", *names(count)], "replicas"),
        **dict.fromkeys(["nginx-image", "nginx-live", "metrics", "nginx-8080"], "load-balancer"),
    }


def test_nothing_is_kept_from_its_deletion_and_no_difference_is_ignored() -> None:
    resources = stack_of().resources
    assert resources
    assert [name for name, resource in resources.items() if resource.retained_on_delete] == []
    assert [name for name, resource in resources.items() if resource.ignored_changes] == []


# Network and ports


def test_every_container_is_on_the_stack_network_and_on_no_other(program: Program, count: int) -> None:
    assert sorted(program.containers) == sorted(["nginx-8080", *names(count)])
    for container in program.containers.values():
        assert [network["name"] for network in container.inputs["networksAdvanced"]] == [
            "uwsgi-nginx-test-network-4047e63"
        ]
        assert "networkMode" not in container.inputs


def test_no_replica_publishes_a_port(program: Program, count: int) -> None:
    assert sorted(program.replicas) == names(count)
    for replica in program.replicas.values():
        assert "ports" not in replica.inputs
        assert "publishAllPorts" not in replica.inputs


@pytest.mark.parametrize(
    ("config", "published", "url"),
    [
        ({}, ("127.0.0.1", 8080), "http://127.0.0.1:8080"),
        ({"port": "18080", "publishAddress": "0.0.0.0"}, ("0.0.0.0", 18080), "http://127.0.0.1:18080"),
        ({"port": "80", "publishAddress": "10.1.2.3"}, ("10.1.2.3", 80), "http://10.1.2.3"),
        ({"port": "81", "publishAddress": "::"}, ("::", 81), "http://[::1]:81"),
        ({"port": "80", "publishAddress": "fd00::1"}, ("fd00::1", 80), "http://[fd00::1]"),
    ],
)
def test_nginx_publishes_where_the_settings_say(config: dict[str, str], published: tuple[str, int], url: str) -> None:
    program = run(config)
    address, port = published
    assert program[f"nginx-{port}"].inputs["ports"] == [{"internal": layout.PORT, "external": port, "ip": address}]
    assert program.exports["url"] == url


@pytest.mark.parametrize(
    ("host", "config", "url"),
    [
        ("ssh://root@lab:22", {"publishAddress": "0.0.0.0"}, "http://lab:8080"),
        ("tcp://10.1.2.3:2376", {"publishAddress": "::"}, "http://10.1.2.3:8080"),
        ("tcp://10.1.2.3:2376", {"publishAddress": "10.9.9.9"}, "http://10.9.9.9:8080"),
        ("ssh://lab", {}, "http://127.0.0.1:8080"),
    ],
)
def test_on_another_docker_host_it_is_that_one_that_answers(host: str, config: dict[str, str], url: str) -> None:
    program = run({**config, "docker:host": host, "metrics": '{"enabled": true, "port": 9113}'})
    assert program.exports["url"] == url
    assert program.exports["status"] == url.replace("8080", "9113")


# On the host's network

HOST = {"publish": "host", "port": "18080", "publishAddress": "::1"}


def test_on_the_host_nginx_publishes_nothing_and_is_on_the_host_network() -> None:
    nginx = run(HOST)["nginx-host"]
    assert nginx.inputs["networkMode"] == "host"
    assert not {"ports", "networksAdvanced", "hostname"} & nginx.inputs.keys()


def test_on_the_host_nginx_listens_itself_and_lets_its_successor_listen_too() -> None:
    program = run(HOST)
    assert program["release"].inputs["files"]["listen.conf"] == "listen [::1]:18080 reuseport;\n"
    assert program.exports["url"] == "http://[::1]:18080"


def test_on_the_host_nginx_is_created_before_it_is_replaced() -> None:
    assert run(HOST)["nginx-host"].delete_before_replace is False


def test_on_the_host_a_new_image_boots_from_a_volume_of_its_own_and_listens_nowhere() -> None:
    one, other = run(HOST), run({**HOST, "nginxImage": "nginx:1.30"})
    volumes = [{name for name in program.types if name.startswith("nginx-live")} for program in (one, other)]
    assert len(volumes[0]) == len(volumes[1]) == 1
    assert volumes[0] != volumes[1]
    assert one["nginx-image"].inputs["build"]["args"]["BOOT_LISTEN"] == "unix:/run/nginx/boot.sock"


def test_on_the_host_another_port_is_a_matter_of_the_configuration_alone() -> None:
    one, other = run(HOST), run({**HOST, "port": "18081"})
    assert one["nginx-host"].inputs == other["nginx-host"].inputs
    assert one["release"].inputs["files"] != other["release"].inputs["files"]


def test_on_the_host_a_port_that_only_root_can_listen_on_is_refused() -> None:
    with pytest.raises(
        SettingsError, match="publish: 'host' is not accepted: should not be host with a port below 1024"
    ):
        Settings.parse({"publish": "host", "port": "443"})


# Order of change


def test_replicas_are_created_before_those_they_replace_are_deleted(program: Program, count: int) -> None:
    assert {name: replica.delete_before_replace for name, replica in program.replicas.items()} == dict.fromkeys(
        names(count), False
    )


def test_nginx_is_deleted_before_it_is_replaced_for_its_port_has_one_holder(program: Program) -> None:
    assert program["nginx-8080"].delete_before_replace is True


def test_the_gate_comes_after_nginx_and_all_replicas_so_that_their_predecessors_go_last(
    program: Program, count: int
) -> None:
    assert program["release"].dependencies >= {"nginx-8080", *names(count)}


def test_nginx_comes_after_the_replicas_so_that_its_predecessor_drains_before_theirs_go(
    program: Program, count: int
) -> None:
    volumes = {"nginx-live", "metrics", "sockets"}
    assert program["nginx-8080"].dependencies == {"network", "nginx-image", *volumes, *names(count)}


def test_containers_run_the_digest_of_the_image_not_its_tag() -> None:
    program = stack_of()
    assert program["uwsgi-1"].inputs["image"] == program["uwsgi-2"].inputs["image"] == program.exports["image"]
    for name, image in {"uwsgi-1": "app-image", "nginx-8080": "nginx-image"}.items():
        assert program[name].inputs["image"].startswith("sha256:")
        assert program[name].inputs["image"] != program[image].inputs["imageName"]
        assert image in program[name].dependencies


def test_a_container_does_not_set_both_entrypoint_and_command(container: Registration) -> None:
    assert not {"entrypoints", "command"} <= set(container.inputs)


def test_nothing_waits_for_health_or_uploads_files_but_the_gate(container: Registration) -> None:
    assert not {"wait", "waitTimeout", "uploads", "mustRun", "rm", "attach"} & set(container.inputs)


@pytest.mark.parametrize("replicas", [1, 5, 20])
def test_scaling_leaves_the_replicas_that_stay_as_they_are(replicas: int) -> None:
    scaled = run({"replicas": str(replicas)})
    for name in sorted(set(names(2)) & set(names(replicas))):
        assert scaled[name].inputs == stack_of(2)[name].inputs
    assert scaled["nginx-8080"].inputs == stack_of(2)["nginx-8080"].inputs


@pytest.mark.parametrize(
    "config",
    [
        {"environment": '{"A": "1"}'},
        {"uwsgiProcesses": "3"},
        {"uwsgiThreads": "1"},
        {"memory": "512"},
        {"cpus": "0.5"},
        {"drainTimeout": "31"},
        {"healthPath": "/"},
        {"appModule": "other"},
        {"appCallable": "other"},
        {"importCheck": "false"},
        {"pythonImage": "python:3.12-slim"},
        {"platform": "linux/arm64"},
    ],
    ids=lambda config: next(iter(config)),
)
def test_what_changes_a_replica_makes_another_release_and_another_socket(config: dict[str, str]) -> None:
    changed, before = run(config), stack_of()
    assert changed["uwsgi-1"].inputs != before["uwsgi-1"].inputs
    assert changed.exports["release"] != before.exports["release"]
    assert not set(servers(changed)) & set(servers(before))
    of_nginx_too = {"drainTimeout": "destroyGraceSeconds", "platform": "image"}.get(next(iter(config)), "")
    assert changed["nginx-8080"].inputs | {of_nginx_too: ""} == before["nginx-8080"].inputs | {of_nginx_too: ""}


@pytest.mark.parametrize(
    "config",
    [
        {"port": "81"},
        {"publishAddress": "0.0.0.0"},
        {"nginxMemory": "64"},
        {"nginxImage": "nginx:1.30"},
        {"nginxImageName": "x/y"},
        {"healthTimeout": "61"},
        {"replicas": "3"},
    ],
    ids=lambda config: next(iter(config)),
)
def test_what_does_not_change_a_replica_keeps_its_release(config: dict[str, str]) -> None:
    changed, before = run(config), stack_of()
    assert changed.exports["release"] == before.exports["release"]
    assert changed["uwsgi-1"].inputs == before["uwsgi-1"].inputs


# Sockets and configuration


def test_the_configuration_names_exactly_the_sockets_on_which_the_replicas_listen(program: Program, count: int) -> None:
    listening = [environment(program[name])["REPLICA_SOCKET"] for name in names(count)]
    release = program.exports["release"]
    assert listening == [f"/run/uwsgi/{name}-{release}.sock" for name in names(count)]
    assert servers(program) == listening


def test_the_gate_gets_each_replica_with_its_container_and_socket(program: Program, count: int) -> None:
    release = program["release"].inputs
    assert release["nginx"] == "id-of-nginx-8080"
    assert release["replicas"] == [
        {
            "name": name,
            "container": f"id-of-{name}",
            "socket": environment(program[name])["REPLICA_SOCKET"],
        }
        for name in names(count)
    ]
    assert release["files"] == nginx_config.live_files(Site(), nginx_config.Endpoints())
    assert release["configuration"] == nginx_config.render(
        [nginx_config.Upstream(replica["name"], replica["socket"]) for replica in release["replicas"]],
        site=Site(),
        release=program.exports["release"],
    )


def test_the_gate_gets_path_and_timeouts_of_the_settings() -> None:
    release = run({"healthPath": "/fit", "healthTimeout": "7", "drainTimeout": "11"})["release"].inputs
    assert (release["healthPath"], release["healthTimeout"], release["drainTimeout"]) == ("/fit", 7, 11)
    assert "worker_shutdown_timeout 11s;" in release["configuration"]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"requestTimeout": "7"}, "uwsgi_read_timeout 7s;"),
        ({"clientTimeout": "7"}, "client_header_timeout 7s;"),
        ({"maxBodySize": "7"}, "client_max_body_size 7m;"),
        ({"trustedProxies": '["10.0.0.0/8"]'}, "set_real_ip_from 10.0.0.0/8;"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_nginx_alone_is_told_reaches_it_and_replaces_no_container(config: dict[str, str], text: str) -> None:
    changed, before = run(config), stack_of()
    assert text in changed["release"].inputs["configuration"]
    assert text not in before["release"].inputs["configuration"]
    assert {name: changed[name].inputs for name in changed.containers} == {
        name: before[name].inputs for name in before.containers
    }


def test_a_preview_knows_the_configuration_so_that_its_difference_shows(count: int) -> None:
    preview, update = stack_of(count, preview=True), stack_of(count)
    assert preview["release"].inputs["configuration"] == update["release"].inputs["configuration"]
    assert preview["release"].inputs["files"] == update["release"].inputs["files"]
    assert preview.exports["release"] == update.exports["release"]
    assert preview.exports["replicas"] == update.exports["replicas"]
    assert preview.exports["url"] == update.exports["url"]


def test_a_preview_does_not_pretend_to_know_digests_and_ids() -> None:
    preview = stack_of(preview=True)
    assert preview["uwsgi-1"].inputs["image"] == UNKNOWN
    assert preview["release"].inputs["nginx"] == UNKNOWN
    assert [replica["container"] for replica in preview["release"].inputs["replicas"]] == [UNKNOWN, UNKNOWN]
    assert preview.exports["image"] == UNKNOWN


def test_replicas_and_nginx_share_the_socket_volume_and_nginx_alone_keeps_its_configuration(
    program: Program, count: int
) -> None:
    def mounts(container: Registration) -> dict[str, str]:
        assert all(set(volume) == {"containerPath", "volumeName"} for volume in container.inputs["volumes"])
        return {volume["containerPath"]: volume["volumeName"] for volume in container.inputs["volumes"]}

    sockets, live = mounts(program["nginx-8080"])["/run/uwsgi"], mounts(program["nginx-8080"])["/etc/nginx/live"]
    assert "sockets" in sockets
    assert "nginx-live" in live
    assert {name: mounts(replica) for name, replica in program.replicas.items()} == {
        name: {"/run/uwsgi": sockets} for name in names(count)
    }
    assert set(mounts(program["nginx-8080"])) == {"/run/uwsgi", "/etc/nginx/live", "/run/metrics"}


# Hardening


def test_every_container_runs_as_the_user_of_its_image(container: Registration) -> None:
    folder = "nginx" if "nginx" in container.name else "uwsgi"
    stated = re.findall(r"^USER (\S+)$", (PROJECT / folder / "Dockerfile").read_text(), re.MULTILINE)
    assert stated[-1] == container.inputs["user"]


def test_every_container_has_a_read_only_root_file_system(container: Registration) -> None:
    assert container.inputs["readOnly"] is True


def test_every_container_has_only_small_temporary_file_systems_to_write_to(container: Registration) -> None:
    expected = {"/run/nginx": "uid=101,size=64m"} if container.name == "nginx-8080" else {"/tmp": "size=16m"}
    assert container.inputs["tmpfs"] == expected


def test_every_container_has_no_capabilities_and_gains_no_privileges(container: Registration) -> None:
    assert container.inputs["capabilities"] == {"drops": ["ALL"]}
    assert container.inputs["securityOpts"] == ["no-new-privileges:true"]
    assert not {"privileged", "devices", "pidMode", "ipcMode", "usernsMode"} & set(container.inputs)


def test_every_container_has_bounded_memory_without_swap() -> None:
    program = run({"memory": "300", "nginxMemory": "70"})
    assert sorted(program.containers) == ["nginx-8080", "uwsgi-1", "uwsgi-2"]
    for name, container in program.containers.items():
        expected = 70 if name == "nginx-8080" else 300
        assert (container.inputs["memory"], container.inputs["memorySwap"]) == (expected, expected)


def test_every_container_has_a_bounded_number_of_tasks(container: Registration) -> None:
    (limit,) = container.inputs["ulimits"]
    assert limit["name"] == "nproc"
    assert 1024 <= limit["soft"] == limit["hard"] <= 65536


def test_the_number_of_tasks_suffices_for_two_releases_side_by_side() -> None:
    program = run({"replicas": "10", "uwsgiProcesses": "64", "uwsgiThreads": "256"})
    (limit,) = program["uwsgi-1"].inputs["ulimits"]
    assert limit["soft"] >= 2 * 10 * 64 * 256


def test_every_container_comes_back_by_itself(container: Registration) -> None:
    assert container.inputs["restart"] == "always"


def test_every_container_rotates_its_logs(container: Registration) -> None:
    assert container.inputs["logDriver"] == "json-file"
    assert container.inputs["logOpts"] == {"max-size": "10m", "max-file": "3"}


def test_every_container_is_found_again_by_its_labels(program: Program, count: int) -> None:
    whose = {"uwsgi-nginx.project": "uwsgi-nginx", "uwsgi-nginx.stack": "test"}
    assert {name: labels(container) for name, container in program.containers.items()} == {
        "nginx-8080": {**whose, "uwsgi-nginx.role": "nginx"},
        **{
            name: {
                **whose,
                "uwsgi-nginx.role": "replica",
                "uwsgi-nginx.replica": name,
                "uwsgi-nginx.release": program.exports["release"],
            }
            for name in names(count)
        },
    }


# Life and death of a replica


def test_a_replica_is_known_by_its_name(program: Program, count: int) -> None:
    assert {name: replica.inputs["hostname"] for name, replica in program.replicas.items()} == {
        name: name for name in names(count)
    }


def test_a_replica_asks_its_own_socket_for_its_health() -> None:
    program = run({"healthPath": "/fit"})
    for replica in program.replicas.values():
        check = replica.inputs["healthcheck"]
        command, asked, marker = check["tests"][:2], check["tests"][2:4], check["tests"][4]
        assert command == ["CMD", "healthcheck"], "a shell would cost more than the check"
        assert asked == ["/fit", environment(replica)["REPLICA_SOCKET"]]
        assert Path(marker).parent.as_posix() in replica.inputs["tmpfs"], "gone when the container starts again"
        assert check["retries"] >= 2
        assert seconds(check["interval"]) >= 10, "a tenth of a second of CPU, in Docker, for every replica"


def test_the_health_check_gives_up_before_docker_does() -> None:
    timeout = re.search(r"^#define TIMEOUT (\d+)", Path("uwsgi/healthcheck.c").read_text(), re.MULTILINE)
    assert timeout
    check = stack_of()["uwsgi-1"].inputs["healthcheck"]
    watch, pause = (int(text) for text in check["tests"][-2:])
    assert watch + pause + int(timeout[1]) < seconds(check["timeout"])


def test_a_container_is_stopped_gracefully_and_given_longer_than_its_requests_may_take() -> None:
    program = run({"drainTimeout": "40"})
    assert {name: container.inputs["stopSignal"] for name, container in program.containers.items()} == {
        "nginx-8080": "SIGQUIT",
        "uwsgi-1": "SIGTERM",
        "uwsgi-2": "SIGTERM",
    }
    for container in program.containers.values():
        assert container.inputs["destroyGraceSeconds"] > 40
    assert environment(program["uwsgi-1"])["UWSGI_WORKER_RELOAD_MERCY"] == "40"


def test_processes_and_threads_reach_uwsgi() -> None:
    variables = environment(run({"uwsgiProcesses": "3", "uwsgiThreads": "5"})["uwsgi-1"])
    assert (variables["UWSGI_PROCESSES"], variables["UWSGI_THREADS"]) == ("3", "5")


@pytest.mark.parametrize(("cpus", "expected"), [("0", None), ("1.50", 1.5), ("0.25", 0.25), ("10", 10), ("100", 100)])
def test_cpus_are_limited_only_where_the_settings_say(cpus: str, expected: float | None) -> None:
    inputs = run({"cpus": cpus})["uwsgi-1"].inputs
    if expected is None:
        assert "cpus" not in inputs
    else:
        assert float(inputs["cpus"]) == expected


def test_cpus_are_written_in_plain_digits() -> None:
    # The plugin compares the text with what Docker says of the container.
    assert run({"cpus": "10"})["uwsgi-1"].inputs["cpus"] == "10"


# Images


@pytest.mark.parametrize(
    ("image", "repository"), [("app-image", "uwsgi-nginx/app"), ("nginx-image", "uwsgi-nginx/nginx")]
)
def test_an_image_is_tagged_with_its_contents_fingerprint_and_stays_on_the_host(image: str, repository: str) -> None:
    inputs = stack_of()[image].inputs
    assert re.fullmatch(rf"{repository}:[0-9a-f]{{8}}", inputs["imageName"])
    assert inputs["skipPush"] is True
    assert inputs.get("buildOnPreview") is not True
    assert inputs["build"]["platform"] == "linux/amd64"
    assert "registry" not in inputs


def test_all_images_are_built_for_the_platform_of_the_settings() -> None:
    program = run({"platform": "linux/arm64", "metrics": '{"enabled": true}'})
    built = {
        name: image.inputs["build"]["platform"] for name, image in program.resources.items() if name.endswith("-image")
    }
    assert built == dict.fromkeys(("app-image", "nginx-image", "exporter-image"), "linux/arm64")


def test_images_are_called_as_the_settings_say() -> None:
    program = run({"appImageName": "registry.example:5000/a/b", "nginxImageName": "c"})
    assert program["app-image"].inputs["imageName"].rsplit(":", 1)[0] == "registry.example:5000/a/b"
    assert program["nginx-image"].inputs["imageName"].rsplit(":", 1)[0] == "c"


def test_the_app_image_is_built_from_the_app_folder_with_the_settings() -> None:
    build = run({"appModule": "a.b", "appCallable": "c", "importCheck": "false", "pythonImage": "python:3.12"})[
        "app-image"
    ].inputs["build"]
    assert (build["context"], build["dockerfile"]) == ("app", "uwsgi/Dockerfile")
    assert build["args"] == {
        "PYTHON_IMAGE": "python:3.12",
        "UWSGI_APP": "a.b",
        "UWSGI_CALLABLE": "c",
        "IMPORT_CHECK": "false",
        "UWSGI_INI": Path("uwsgi/uwsgi.ini").read_text(),
        "ENTRYPOINT_PY": Path("uwsgi/entrypoint.py").read_text(),
        "WSGI_PY": Path("uwsgi/wsgi.py").read_text(),
        "LIVE_RELOAD_PY": Path("uwsgi/live_reload.py").read_text(),
        "HEALTHCHECK_C": Path("uwsgi/healthcheck.c").read_text(),
    }


def test_the_nginx_image_is_built_on_the_image_of_the_settings() -> None:
    build = run({"nginxImage": "nginx:1.30"})["nginx-image"].inputs["build"]
    assert (build["context"], build["dockerfile"]) == ("nginx", "nginx/Dockerfile")
    assert build["args"] == {"NGINX_IMAGE": "nginx:1.30", "BOOT_LISTEN": "8080"}


@pytest.mark.parametrize("image", ["app-image", "nginx-image"])
def test_every_build_argument_is_one_of_the_dockerfile(image: str) -> None:
    build = stack_of()[image].inputs["build"]
    declared = set(re.findall(r"^ARG (\w+)", Path(build["dockerfile"]).read_text(), re.MULTILINE))
    assert build["args"]
    assert set(build["args"]) <= declared


def test_another_checkout_registers_the_same_inputs_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "somewhere" / "else"
    copy_project(checkout)
    monkeypatch.chdir(checkout)
    there = run()
    assert there.types == stack_of().types
    for name, resource in stack_of().resources.items():
        assert there[name].inputs == resource.inputs


def test_no_path_of_this_machine_reaches_the_state() -> None:
    texts = [text for resource in stack_of().resources.values() for text in strings(resource.inputs)]
    assert len(texts) > 100
    assert [text for text in texts if str(PROJECT) in text or str(Path.home()) + "/" in text] == []
    for image in ("app-image", "nginx-image"):
        build = stack_of()[image].inputs["build"]
        assert [path for path in (build["context"], build["dockerfile"]) if Path(path).is_absolute()] == []


@pytest.mark.parametrize(
    ("changed", "image", "other"),
    [
        ("app/webapp.py", "app-image", "nginx-image"),
        ("uwsgi/uwsgi.ini", "app-image", "nginx-image"),
        ("uwsgi/healthcheck.c", "app-image", "nginx-image"),
        ("uwsgi/Dockerfile", "app-image", "nginx-image"),
        ("nginx/boot.conf", "nginx-image", "app-image"),
        ("nginx/Dockerfile", "nginx-image", "app-image"),
    ],
)
def test_a_changed_file_makes_another_image(
    changed: str, image: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_project(tmp_path)
    with (tmp_path / changed).open("a") as file:
        file.write("\n")
    monkeypatch.chdir(tmp_path)
    there = run()
    assert there[image].inputs["imageName"] != stack_of()[image].inputs["imageName"]
    assert there[other].inputs["imageName"] == stack_of()[other].inputs["imageName"]


def test_a_changed_template_replaces_no_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_project(tmp_path)
    for template in (tmp_path / "nginx").glob("*.j2"):
        template.write_text(template.read_text() + "# changed\n")
    monkeypatch.chdir(tmp_path)
    assert run()["nginx-8080"].inputs == stack_of()["nginx-8080"].inputs


# Exports and secrets


def test_exports_answer_what_a_person_asks_next(program: Program, count: int) -> None:
    assert program.exports == {
        "url": "http://127.0.0.1:8080",
        "replicas": names(count),
        "release": labels(program["uwsgi-1"])["uwsgi-nginx.release"],
        "image": program["uwsgi-1"].inputs["image"],
        "containers": [name for name in program.exports["containers"] if name],
        "nginx": program.exports["nginx"],
        "previousImage": "",
    }
    assert [re.sub("-[0-9a-f]{7}$", "", name) for name in program.exports["containers"]] == [
        f"uwsgi-nginx-test-{name}" for name in names(count)
    ]
    assert program.exports["nginx"].startswith("uwsgi-nginx-test-nginx-8080-")


def test_the_apps_environment_reaches_every_replica_and_not_nginx() -> None:
    program = run({"environment": json.dumps({"GREETING": "Hello = World", "DEBUG": True, "WORKERS": 3})})
    for replica in program.replicas.values():
        assert environment(replica).items() >= {"GREETING": "Hello = World", "DEBUG": "true", "WORKERS": "3"}.items()
        assert replica.secrets == set()
    assert "Hello = World" not in "".join(strings(program["nginx-8080"].inputs))


def test_secret_environment_is_ciphertext_in_the_state_and_nothing_else_is() -> None:
    program = run({"environment": json.dumps({"PASSWORD": SECRET, "PLAIN": "1"})}, secret=["environment"])
    for replica in program.replicas.values():
        secret = {f"envs.{number}" for number, text in enumerate(replica.inputs["envs"]) if not own(text)}
        assert environment(replica)["PASSWORD"] == SECRET
        assert len(secret) == 2
        # The whole list may be secret, but nothing of it may be plain.
        assert replica.secrets in (secret, {"envs"})
    for name, resource in program.resources.items():
        if name not in program.replicas:
            assert SECRET not in "".join(strings(resource.inputs))
            assert resource.secrets <= {"__provider", "secrets"}
    assert SECRET not in "".join(strings(program.exports))


def test_a_secret_does_not_hide_the_configuration_from_a_preview() -> None:
    config = {"environment": json.dumps({"PASSWORD": SECRET})}
    preview, update = run(config, ["environment"], preview=True), run(config, ["environment"])
    assert preview["release"].secrets <= {"__provider", "secrets"}
    assert preview["release"].inputs["configuration"] == update["release"].inputs["configuration"]


def test_another_secret_makes_another_release_and_the_same_one_does_not() -> None:
    def release(value: str) -> Any:
        return run({"environment": json.dumps({"PASSWORD": value})}, ["environment"]).exports["release"]

    assert release("one") == release("one") != release("two")


def own(variable: str) -> bool:
    return variable.startswith(("REPLICA_SOCKET=", "UWSGI_"))


# Two stacks on one host


def test_two_stacks_share_no_physical_name() -> None:
    one, other = run(stack="one"), run(stack="two")
    assert one.types == other.types
    for program in (one, other):
        named = [
            name
            for name, resource in program.resources.items()
            if resource.custom and resource.type.startswith("docker:") and "name" in resource.inputs
        ]
        assert named == [], "the engine names it, with project and stack"
    assert labels(one["nginx-8080"])["uwsgi-nginx.stack"] == "one"
    assert labels(other["uwsgi-1"])["uwsgi-nginx.stack"] == "two"
    mine, yours = (
        {*strings(p["uwsgi-1"].inputs["volumes"]), *strings(p["nginx-8080"].inputs["volumes"])} for p in (one, other)
    )
    assert mine & yours == {"containerPath", "volumeName", "/run/uwsgi", "/etc/nginx/live", "/run/metrics"}


def test_the_engine_names_things_by_project_and_stack() -> None:
    pattern = yaml.safe_load(Path("Pulumi.yaml").read_text())["config"]["pulumi:autonaming"]["value"]["pattern"]
    for part in ("${project}", "${stack}", "${name}"):
        assert part in pattern


# Refusals


@pytest.mark.parametrize("preview", [False, True])
def test_refused_settings_stop_the_program_before_anything_is_declared(preview: bool) -> None:
    with pytest.raises(SettingsError, match="replicas: '0' is not accepted"):
        run({"replicas": "0"}, preview=preview)


def seconds(duration: str) -> float:
    """As Go writes it, and so a refresh: 90s would be a difference to 1m30s."""
    match = re.fullmatch(r"(?:(?P<m>\d+)m)?(?P<s>[1-5]?\d)s", duration)
    assert match, duration
    return 60 * int(match["m"] or 0) + int(match["s"])


def copy_project(target: Path) -> None:
    for name in ("app", "nginx", "uwsgi"):
        shutil.copytree(PROJECT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__main__.py", "Pulumi.yaml"):
        shutil.copy(PROJECT / name, target)


# Live reload


def test_live_reload_mounts_the_apps_folder_and_lets_nothing_write_to_it() -> None:
    for replica in run({"liveReload": "true"}).replicas.values():
        assert {
            "hostPath": str(Path("app").resolve()),
            "containerPath": layout.APP_FOLDER,
            "readOnly": True,
        } in replica.inputs["volumes"]
        assert environment(replica)["LIVE_RELOAD"] == "1"


def test_without_live_reload_the_host_is_not_mounted() -> None:
    for replica in run().replicas.values():
        assert [volume for volume in replica.inputs["volumes"] if "hostPath" in volume] == []
        assert "LIVE_RELOAD" not in environment(replica)


def test_with_live_reload_replicas_are_a_release_of_their_own() -> None:
    assert run().exports["release"] != run({"liveReload": "true"}).exports["release"]

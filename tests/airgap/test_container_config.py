"""A container's inputs reach the daemon as the official plugin sends them."""

from __future__ import annotations

from typing import Any

import pytest

from airgap.docker_provider import durations
from airgap.docker_provider.container_config import body, reported
from airgap.docker_provider.errors import UserError

MEBIBYTE = 1024 * 1024


def host(**inputs: Any) -> dict[str, Any]:
    return dict(body({"image": "a", **inputs})["HostConfig"])


def test_limits_are_in_the_daemon_s_units() -> None:
    config = host(memory=256, memorySwap=512, memoryReservation=64, shmSize=32, cpus="0.5", cpuShares=512)
    assert (config["Memory"], config["MemorySwap"]) == (256 * MEBIBYTE, 512 * MEBIBYTE)
    assert (config["MemoryReservation"], config["ShmSize"]) == (64 * MEBIBYTE, 32 * MEBIBYTE)
    assert (config["NanoCpus"], config["CpuShares"]) == (500_000_000, 512)
    assert "CpuPeriod" not in config


def test_swap_without_limit_stays_minus_one() -> None:
    assert host(memorySwap=-1)["MemorySwap"] == -1


def test_ports_are_exposed_and_bound() -> None:
    config = body({"image": "a", "ports": [{"internal": 8080, "external": 80, "ip": "127.0.0.1", "protocol": "tcp"}]})
    assert config["ExposedPorts"] == {"8080/tcp": {}}
    assert config["HostConfig"]["PortBindings"] == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "80"}]}


def test_a_port_without_an_external_one_is_left_to_the_daemon() -> None:
    assert host(ports=[{"internal": 1, "ip": "0.0.0.0", "protocol": "udp"}])["PortBindings"] == {
        "1/udp": [{"HostIp": "0.0.0.0", "HostPort": "0"}]
    }


def test_volumes_become_binds() -> None:
    config = body(
        {
            "image": "a",
            "volumes": [
                {"volumeName": "data", "containerPath": "/data"},
                {"hostPath": "/etc/ssl", "containerPath": "/ssl", "readOnly": True, "selinuxRelabel": "z"},
                {"containerPath": "/anonymous"},
                {"fromContainer": "other"},
            ],
        }
    )
    assert config["Volumes"] == {"/data": {}, "/ssl": {}, "/anonymous": {}}
    assert config["HostConfig"]["Binds"] == ["data:/data:rw", "/etc/ssl:/ssl:ro,z"]
    assert config["HostConfig"]["VolumesFrom"] == ["other"]


def test_a_volume_that_goes_nowhere_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"volumes\[1\]: it needs a containerPath"):
        body({"image": "a", "volumes": [{"fromContainer": "b"}, {"volumeName": "data"}]})


def test_mounts_carry_the_options_of_their_type() -> None:
    mounts = host(
        mounts=[
            {
                "type": "bind",
                "target": "/a",
                "source": "/b",
                "readOnly": True,
                "bindOptions": {"propagation": "rslave"},
            },
            {"type": "tmpfs", "target": "/c", "tmpfsOptions": {"sizeBytes": 10, "mode": 448}},
            {"type": "volume", "target": "/d", "source": "v", "volumeOptions": {"noCopy": True, "driverName": "local"}},
        ]
    )["Mounts"]
    assert mounts[0] == {
        "Type": "bind", "Target": "/a", "Source": "/b", "ReadOnly": True, "BindOptions": {"Propagation": "rslave"},
    }  # fmt: skip
    assert mounts[1]["TmpfsOptions"] == {"SizeBytes": 10, "Mode": 448}
    assert mounts[2]["VolumeOptions"] == {
        "NoCopy": True, "Labels": {}, "DriverConfig": {"Name": "local", "Options": {}},
    }  # fmt: skip


def test_isolation_is_passed_on() -> None:
    config = host(
        readOnly=True,
        capabilities={"drops": ["ALL"], "adds": ["NET_BIND_SERVICE"]},
        securityOpts=["no-new-privileges:true"],
        ulimits=[{"name": "nproc", "soft": 64, "hard": 64}],
        sysctls={"net.core.somaxconn": "1024"},
        groupAdds=["2000"],
        networkMode="host",
        init=True,
        tmpfs={"/tmp": "size=16m"},
        hosts=[{"host": "db", "ip": "10.0.0.1"}],
        restart="always",
        logDriver="json-file",
        logOpts={"max-size": "1m"},
    )
    assert config["ReadonlyRootfs"]
    assert config["Init"]
    assert (config["CapDrop"], config["CapAdd"]) == (["ALL"], ["NET_BIND_SERVICE"])
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert config["Ulimits"] == [{"Name": "nproc", "Soft": 64, "Hard": 64}]
    assert config["Sysctls"] == {"net.core.somaxconn": "1024"}
    assert config["GroupAdd"] == ["2000"]
    assert config["NetworkMode"] == "host"
    assert config["Tmpfs"] == {"/tmp": "size=16m"}
    assert config["ExtraHosts"] == ["db:10.0.0.1"]
    assert config["RestartPolicy"] == {"Name": "always", "MaximumRetryCount": 0}
    assert config["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m"}}


def test_unconfined_system_paths_are_no_option_of_the_daemon() -> None:
    config = host(securityOpts=["systempaths=unconfined", "seccomp=unconfined"])
    assert config["SecurityOpt"] == ["seccomp=unconfined"]
    assert config["MaskedPaths"] == config["ReadonlyPaths"] == []
    assert "MaskedPaths" not in host(securityOpts=["seccomp=unconfined"])


def test_a_healthcheck_is_in_nanoseconds() -> None:
    check = {"tests": ["CMD", "true"], "interval": "1m30s", "timeout": "500ms", "startPeriod": "0s", "retries": 3}
    assert body({"image": "a", "healthcheck": check})["Healthcheck"] == {
        "Test": ["CMD", "true"],
        "Interval": 90 * 10**9,
        "Timeout": 5 * 10**8,
        "StartPeriod": 0,
        "StartInterval": 0,
        "Retries": 3,
    }


def test_what_the_program_leaves_to_the_image_is_not_sent() -> None:
    config = body({"image": "a"})
    assert "Healthcheck" not in config
    assert "StopTimeout" not in config
    assert config["Cmd"] is config["Entrypoint"] is config["Env"] is None


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (0, "0s"),
        (10**9, "1s"),
        (15 * 10**8, "1.5s"),
        (90 * 10**9, "1m30s"),
        (3600 * 10**9, "1h0m0s"),
        (5 * 10**8, "500ms"),
        (1500, "1.5µs"),
        (7, "7ns"),
    ],
)
def test_durations_are_written_as_go_writes_them(duration: int, text: str) -> None:
    assert durations.text(duration) == text
    assert durations.nanoseconds(text) == duration


def daemon_reports(**changes: Any) -> dict[str, Any]:
    """The inspection of a container that was created from nothing but an image."""
    config = {**body({"image": "app"}), "StopTimeout": None}
    container = {
        "Id": "c", "Name": "/app", "Image": "sha256:1", "Platform": "linux", "Config": config,
        "HostConfig": {**config["HostConfig"], "NanoCpus": 0}, "State": {"Running": True, "ExitCode": 0},
        "NetworkSettings": {"Bridge": "", "Networks": {}, "Ports": {"80/tcp": [{"HostIp": "::", "HostPort": "8080"}]}},
    }  # fmt: skip
    for path, value in changes.items():
        section, key = path.split("_")
        container[section][key] = value  # type: ignore[index]
    return container


def test_an_image_that_was_given_by_id_is_read_as_an_id() -> None:
    assert reported(daemon_reports(), {"image": "sha256:1"})["image"] == "sha256:1"
    assert reported(daemon_reports(), {"image": "app"})["image"] == "app"


def test_ports_that_the_daemon_chose_are_read_only_where_the_program_asked_for_ports() -> None:
    assert "ports" not in reported(daemon_reports(), {})
    assert reported(daemon_reports(), {"ports": [{"internal": 80}]})["ports"] == [
        {"internal": 80, "external": 8080, "ip": "::", "protocol": "tcp"}
    ]


def test_a_stopped_container_that_may_stop_keeps_its_ports_in_the_state() -> None:
    stopped = daemon_reports(State_Running=False, NetworkSettings_Ports={})
    assert "ports" not in reported(stopped, {"ports": [{"internal": 80}], "mustRun": False})
    assert reported(stopped, {"ports": [{"internal": 80}], "mustRun": True})["ports"] == []


def test_processor_shares_are_read_as_they_are_written() -> None:
    assert reported(daemon_reports(HostConfig_NanoCpus=500_000_000), {})["cpus"] == "0.5"
    assert reported(daemon_reports(HostConfig_NanoCpus=10**10), {})["cpus"] == "10"
    assert "cpus" not in reported(daemon_reports(), {})

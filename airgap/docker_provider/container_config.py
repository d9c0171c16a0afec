"""A container's inputs as the body of Docker's POST /containers/create, and back from what the daemon reports."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

from airgap.docker_provider import durations
from airgap.docker_provider.errors import UserError
from airgap.docker_provider.kinds import label_map
from airgap.docker_provider.properties import Properties

MEBIBYTE: Final = 1024 * 1024
"""The unit of the inputs memory, memoryReservation, memorySwap and shmSize."""
NANO: Final = 10**9

HEALTHCHECK_DURATIONS: Final = {
    "interval": "Interval",
    "timeout": "Timeout",
    "startPeriod": "StartPeriod",
    "startInterval": "StartInterval",
}
_UNCONFINED: Final = "systempaths=unconfined"


def body(inputs: Properties) -> Properties:
    """The whole request body. Raises UserError on contradictory inputs."""
    exposed, _bindings = _ports(inputs)
    paths, _binds, _sources = _volumes(inputs)
    config = {
        "Image": inputs["image"],
        "Hostname": inputs.get("hostname", ""),
        "Domainname": inputs.get("domainname", ""),
        "User": inputs.get("user", ""),
        "Tty": inputs.get("tty", False),
        "OpenStdin": inputs.get("stdinOpen", False),
        "Env": inputs.get("envs"),
        "Cmd": inputs.get("command"),
        "Entrypoint": inputs.get("entrypoints"),
        "WorkingDir": inputs.get("workingDir", ""),
        "StopSignal": inputs.get("stopSignal", ""),
        "ExposedPorts": exposed or None,
        "Volumes": paths or None,
        "Labels": label_map(inputs.get("labels")) or None,
        "HostConfig": host_config(inputs),
        "NetworkingConfig": {},
    }
    if "stopTimeout" in inputs:
        config["StopTimeout"] = inputs["stopTimeout"]
    if "healthcheck" in inputs:
        config["Healthcheck"] = _healthcheck(inputs["healthcheck"])
    return config


def host_config(inputs: Properties) -> Properties:
    """The part of the body that concerns the host: limits, mounts, ports, isolation."""
    get = inputs.get
    _exposed, bindings = _ports(inputs)
    _paths, binds, sources = _volumes(inputs)
    capabilities = get("capabilities", {})
    config = {
        "AutoRemove": get("rm", False),
        "Binds": binds or None,
        "BlkioDeviceReadBps": _throttles(inputs, "deviceReadBps"),
        "BlkioDeviceReadIOps": _throttles(inputs, "deviceReadIops"),
        "BlkioDeviceWriteBps": _throttles(inputs, "deviceWriteBps"),
        "BlkioDeviceWriteIOps": _throttles(inputs, "deviceWriteIops"),
        "CapAdd": capabilities.get("adds"),
        "CapDrop": capabilities.get("drops"),
        "CgroupnsMode": get("cgroupnsMode", ""),
        "CgroupParent": get("cgroupParent", ""),
        "CpuShares": get("cpuShares", 0),
        "CpusetCpus": get("cpuSet", ""),
        "DeviceRequests": _device_requests(inputs) or None,
        "Devices": _devices(inputs) or None,
        "Dns": get("dns"),
        "DnsOptions": get("dnsOpts"),
        "DnsSearch": get("dnsSearches"),
        "ExtraHosts": [f"{entry['host']}:{entry['ip']}" for entry in get("hosts", [])] or None,
        "GroupAdd": get("groupAdds"),
        "Init": get("init", False),
        "IpcMode": get("ipcMode", ""),
        "LogConfig": {"Type": get("logDriver", ""), "Config": _texts(get("logOpts"))},
        "Memory": get("memory", 0) * MEBIBYTE,
        "MemoryReservation": get("memoryReservation", 0) * MEBIBYTE,
        "MemorySwap": swap_bytes(get("memorySwap", 0)),
        "Mounts": _mounts(inputs),
        "NetworkMode": get("networkMode", ""),
        "PidMode": get("pidMode", ""),
        "PortBindings": bindings or None,
        "Privileged": get("privileged", False),
        "PublishAllPorts": get("publishAllPorts", False),
        "ReadonlyRootfs": get("readOnly", False),
        "RestartPolicy": {"Name": get("restart", ""), "MaximumRetryCount": get("maxRetryCount", 0)},
        "Runtime": get("runtime", ""),
        "SecurityOpt": [option for option in get("securityOpts", []) if option != _UNCONFINED] or None,
        "ShmSize": get("shmSize", 0) * MEBIBYTE,
        "StorageOpt": _texts(get("storageOpts")),
        "Sysctls": _texts(get("sysctls")),
        "Tmpfs": _texts(get("tmpfs")),
        "Ulimits": [
            {"Name": limit["name"], "Soft": limit["soft"], "Hard": limit["hard"]} for limit in get("ulimits", [])
        ]
        or None,
        "UsernsMode": get("usernsMode", ""),
        "VolumesFrom": sources or None,
    }
    if _UNCONFINED in get("securityOpts", []):  # no option of the daemon: the client sends empty lists
        config |= {"MaskedPaths": [], "ReadonlyPaths": []}
    if "cpus" in inputs:
        config["NanoCpus"] = int(Decimal(inputs["cpus"]) * NANO)
    else:
        config |= {"CpuPeriod": get("cpuPeriod", 0), "CpuQuota": get("cpuQuota", 0)}
    return config


def swap_bytes(mebibytes: int) -> int:
    """The daemon's memory and swap limit; -1 stays -1, without limit."""
    return mebibytes * MEBIBYTE if mebibytes > 0 else mebibytes


def _healthcheck(check: Properties) -> Properties:
    return {
        "Test": check.get("tests", []),
        "Retries": check.get("retries", 0),
        **{name: durations.nanoseconds(check.get(key, "0s")) for key, name in HEALTHCHECK_DURATIONS.items()},
    }


def _ports(inputs: Properties) -> tuple[Properties, dict[str, list[Properties]]]:
    bindings: dict[str, list[Properties]] = {}
    for port in inputs.get("ports", []):
        binding = {"HostIp": port.get("ip", ""), "HostPort": str(port.get("external", 0))}
        bindings.setdefault(f"{port['internal']}/{port['protocol']}", []).append(binding)
    return {port: {} for port in bindings}, bindings


def _volumes(inputs: Properties) -> tuple[Properties, list[str], list[str]]:
    """Container paths, binds, and the containers whose volumes are taken over."""
    paths: Properties = {}
    binds: list[str] = []
    sources: list[str] = []
    for i, volume in enumerate(inputs.get("volumes", [])):
        source, path = volume.get("hostPath") or volume.get("volumeName"), volume.get("containerPath")
        if volume.get("fromContainer"):
            sources.append(volume["fromContainer"])
        elif not path:
            raise UserError(f"volumes[{i}]: it needs a containerPath, or a fromContainer whose volumes to take")
        else:
            paths[path] = {}
            if source:
                mode = ["ro" if volume.get("readOnly") else "rw", volume.get("selinuxRelabel")]
                binds.append(f"{source}:{path}:{','.join(filter(None, mode))}")
    return paths, binds, sources


def _mounts(inputs: Properties) -> list[Properties]:
    mounts = []
    for item in inputs.get("mounts", []):
        mount = {
            "Type": item["type"],
            "Target": item["target"],
            "Source": item.get("source", ""),
            "ReadOnly": item.get("readOnly", False),
        }
        if item["type"] == "bind" and "bindOptions" in item:
            mount["BindOptions"] = {"Propagation": item["bindOptions"].get("propagation", "")}
        if item["type"] == "volume" and "volumeOptions" in item:
            options = item["volumeOptions"]
            mount["VolumeOptions"] = {
                "NoCopy": options.get("noCopy", False),
                "Labels": label_map(options.get("labels")),
                "DriverConfig": {
                    "Name": options.get("driverName", ""),
                    "Options": _texts(options.get("driverOptions")) or {},
                },
            }
        if item["type"] == "tmpfs" and "tmpfsOptions" in item:
            options = item["tmpfsOptions"]
            mount["TmpfsOptions"] = {"SizeBytes": options.get("sizeBytes", 0), "Mode": options.get("mode", 0)}
        mounts.append(mount)
    return mounts


def _devices(inputs: Properties) -> list[Properties]:
    return [
        {
            "PathOnHost": device["hostPath"],
            "PathInContainer": device.get("containerPath") or device["hostPath"],
            "CgroupPermissions": device["permissions"],
        }
        for device in inputs.get("devices", [])
    ]


def _device_requests(inputs: Properties) -> list[Properties]:
    return [
        {
            "Driver": request["driver"],
            "Count": request.get("count", 0),
            "DeviceIDs": request.get("deviceIds"),
            "Capabilities": [request["capabilities"]] if request.get("capabilities") else None,
            "Options": _texts(request.get("options")),
        }
        for request in inputs.get("deviceRequests", [])
    ]


def _throttles(inputs: Properties, key: str) -> list[Properties] | None:
    return [{"Path": device["path"], "Rate": device["rate"]} for device in inputs.get(key, [])] or None


def _texts(values: Properties | None) -> dict[str, str] | None:
    return None if values is None else {key: str(value) for key, value in values.items()}


def reported(container: Properties, inputs: Properties) -> Properties:
    """The state keys that the daemon reports, given the inputs: some are reported only if the program wrote them."""
    config, host = container["Config"], container["HostConfig"]
    state = {
        "id": container["Id"],
        "name": container["Name"].lstrip("/"),
        "command": config["Cmd"] or [],
        "cpuSet": host["CpusetCpus"],
        "cpuShares": host["CpuShares"],
        "dns": host["Dns"] or None,
        "dnsOpts": host["DnsOptions"] or None,
        "dnsSearches": host["DnsSearch"] or None,
        "domainname": config["Domainname"],
        "entrypoints": config["Entrypoint"] or [],
        "groupAdds": host["GroupAdd"] or None,
        "hostname": config["Hostname"],
        "hosts": [dict(zip(("host", "ip"), entry.split(":", 1), strict=False)) for entry in host["ExtraHosts"] or []],
        # A container of an image id reports the id in Image, and any name of it in Config.Image.
        "image": container["Image"] if inputs.get("image", "").startswith("sha256:") else config["Image"],
        "init": bool(host.get("Init")),
        "ipcMode": host["IpcMode"],
        "logDriver": host["LogConfig"]["Type"],
        "logOpts": host["LogConfig"]["Config"] if inputs.get("logOpts") else None,
        "maxRetryCount": host["RestartPolicy"]["MaximumRetryCount"],
        "memory": host["Memory"] // MEBIBYTE,
        "memoryReservation": host["MemoryReservation"] // MEBIBYTE,
        "memorySwap": host["MemorySwap"] // MEBIBYTE if host["MemorySwap"] > 0 else host["MemorySwap"],
        "networkMode": host["NetworkMode"],
        "platform": container["Platform"],
        "privileged": host["Privileged"],
        "publishAllPorts": host["PublishAllPorts"],
        "readOnly": host["ReadonlyRootfs"],
        "restart": host["RestartPolicy"]["Name"],
        "rm": host["AutoRemove"],
        "runtime": host["Runtime"],
        "securityOpts": host["SecurityOpt"] or [],
        "shmSize": host["ShmSize"] // MEBIBYTE,
        "stdinOpen": config["OpenStdin"],
        "stopSignal": config.get("StopSignal", ""),
        "stopTimeout": config.get("StopTimeout") or 0,
        "storageOpts": host.get("StorageOpt"),
        "sysctls": host.get("Sysctls"),
        "tmpfs": host.get("Tmpfs"),
        "tty": config["Tty"],
        "user": config["User"],
        "usernsMode": host["UsernsMode"],
        "workingDir": config["WorkingDir"],
    }
    if host["CapAdd"] or host["CapDrop"]:
        state["capabilities"] = {"adds": host["CapAdd"] or [], "drops": host["CapDrop"] or []}
    if host["NanoCpus"]:
        state["cpus"] = format((Decimal(host["NanoCpus"]) / NANO).normalize(), "f")
    if inputs.get("pidMode"):
        state["pidMode"] = host["PidMode"]
    if config.get("Healthcheck"):
        state["healthcheck"] = _reported_healthcheck(config["Healthcheck"])
    return state | _reported_network(container, inputs)


def _reported_healthcheck(check: Properties) -> Properties:
    return {
        "tests": check.get("Test", []),
        "retries": check.get("Retries", 0),
        **{key: durations.text(check.get(name, 0)) for key, name in HEALTHCHECK_DURATIONS.items()},
    }


def _reported_network(container: Properties, inputs: Properties) -> Properties:
    network = container["NetworkSettings"]
    state: Properties = {
        "bridge": network.get("Bridge", ""),
        "networkDatas": [
            {
                "networkName": name,
                "ipAddress": endpoint["IPAddress"],
                "ipPrefixLength": endpoint["IPPrefixLen"],
                "gateway": endpoint["Gateway"],
                "globalIpv6Address": endpoint["GlobalIPv6Address"],
                "globalIpv6PrefixLength": endpoint["GlobalIPv6PrefixLen"],
                "ipv6Gateway": endpoint["IPv6Gateway"],
                "macAddress": endpoint["MacAddress"],
            }
            for name, endpoint in sorted(network["Networks"].items())
        ],
    }
    # A stopped container reports no ports; only if it has to run is that worth a difference.
    if inputs.get("ports") and (container["State"]["Running"] or inputs.get("mustRun")):
        state["ports"] = list(_reported_ports(network["Ports"] or {}))
    return state


def _reported_ports(ports: dict[str, list[dict[str, str]] | None]) -> Iterable[dict[str, Any]]:
    for port, bindings in sorted(ports.items()):
        internal, protocol = port.split("/")
        for binding in bindings or []:
            yield {
                "internal": int(internal),
                "external": int(binding["HostPort"]),
                "ip": binding["HostIp"],
                "protocol": protocol,
            }

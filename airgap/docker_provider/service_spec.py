"""A service's inputs as the body of Docker's POST /services/create, and back from what the daemon reports."""

from collections.abc import Mapping
from typing import Any, Final

from airgap.docker_provider import durations
from airgap.docker_provider.errors import UserError
from airgap.docker_provider.kinds import label_map, labels
from airgap.docker_provider.properties import Properties
from airgap.docker_provider.schema import Input, shaped

_HEALTHCHECK_DURATIONS: Final = {"interval": "Interval", "timeout": "Timeout", "startPeriod": "StartPeriod"}
_ARM: Final = "arm"
"""Of an image; nodes call themselves armv7l and the like, so Docker's client leaves it out."""


def body(inputs: Properties) -> Properties:
    """The whole request body. What the program leaves out is sent as the official plugin sends it: as zero, not absent.

    So a service without stopGracePeriod is killed at once, and one whose restartPolicy has no delay restarts without.
    """
    return {
        "Name": inputs["name"],
        "Labels": label_map(inputs.get("labels")) or None,
        "TaskTemplate": _task(inputs["taskSpec"]),
        "Mode": _mode(inputs.get("mode", {})),
        "UpdateConfig": _update_config(inputs.get("updateConfig")),
        "RollbackConfig": _update_config(inputs.get("rollbackConfig")),
        "EndpointSpec": _endpoint(inputs.get("endpointSpec", {})),
    }


def _task(spec: Properties) -> Properties:
    return {
        "ContainerSpec": _container(spec["containerSpec"]),
        "Resources": _resources(spec.get("resources", {})),
        "RestartPolicy": _restart_policy(spec.get("restartPolicy")),
        "Placement": _placement(spec.get("placement", {})),
        "ForceUpdate": spec.get("forceUpdate") or 0,
        "Runtime": spec.get("runtime", ""),
        "Networks": [_network(f"taskSpec.networksAdvanceds[{i}]", n) for i, n in _numbered(spec, "networksAdvanceds")],
        "LogDriver": _log_driver(spec.get("logDriver")),
    }


def _container(spec: Properties) -> Properties:
    get = spec.get
    return {
        "Image": spec["image"],
        "Labels": label_map(get("labels")),
        "Command": get("commands"),
        "Args": get("args"),
        "Hostname": get("hostname", ""),
        # Sorted. The official plugin sends them in any order, another one each time,
        # which makes Swarm replace all tasks at any update of a service with two variables or more.
        "Env": [f"{name}={value}" for name, value in sorted((get("env") or {}).items())],
        "Dir": get("dir", ""),
        "User": get("user", ""),
        "Groups": get("groups"),
        "ReadOnly": get("readOnly", False),
        "Mounts": [_mount(mount) for _, mount in _numbered(spec, "mounts")],
        "StopSignal": get("stopSignal", ""),
        "StopGracePeriod": _nanoseconds(get("stopGracePeriod")),
        "Healthcheck": _healthcheck(get("healthcheck")),
        "Hosts": [f"{entry['ip']} {entry['host']}" for _, entry in _numbered(spec, "hosts")],
        "DNSConfig": _dns(get("dnsConfig") or {}),
        "Secrets": [_reference("Secret", secret) for _, secret in _numbered(spec, "secrets")],
        "Configs": [_reference("Config", config) for _, config in _numbered(spec, "configs")],
        "Isolation": get("isolation", ""),
        "Sysctls": get("sysctl"),
        "CapabilityAdd": get("capAdds"),
        "CapabilityDrop": get("capDrops"),
        "Init": bool(get("init")),
    }


def _numbered(spec: Properties, key: str) -> list[tuple[int, Any]]:
    return list(enumerate(spec.get(key) or []))


def _nanoseconds(text: str | None) -> int:
    return durations.nanoseconds(text or "0s")


def _healthcheck(check: Properties | None) -> Properties:
    if not check:
        return {}  # the image's own
    return {
        "Test": check.get("tests", []),
        "Retries": check.get("retries") or 0,
        **{name: _nanoseconds(check.get(key)) for key, name in _HEALTHCHECK_DURATIONS.items()},
    }


def _dns(config: Properties) -> Properties:
    return {
        name: config[key]
        for key, name in {"nameservers": "Nameservers", "searches": "Search", "options": "Options"}.items()
        if config.get(key)
    }


def _mount(mount: Properties) -> Properties:
    result = {
        "Type": mount["type"],
        "Target": mount["target"],
        "Source": mount.get("source", ""),
        "ReadOnly": mount.get("readOnly", False),
    }
    if "bindOptions" in mount:
        result["BindOptions"] = {"Propagation": mount["bindOptions"].get("propagation", "")}
    if "volumeOptions" in mount:
        options = mount["volumeOptions"]
        result["VolumeOptions"] = {
            "NoCopy": options.get("noCopy", False),
            "Labels": {},
            "DriverConfig": {"Name": options.get("driverName", ""), "Options": options.get("driverOptions") or {}},
        }
    if "tmpfsOptions" in mount:
        options = mount["tmpfsOptions"]
        result["TmpfsOptions"] = {"SizeBytes": options.get("sizeBytes", 0), "Mode": options.get("mode", 0)}
    return result


def _reference(what: str, reference: Properties) -> Properties:
    """A config or a secret, as a file. Swarm wants both id and name, and refuses a pair that does not match."""
    key = what.lower()
    return {
        f"{what}ID": reference[f"{key}Id"],
        f"{what}Name": reference.get(f"{key}Name", ""),
        "File": {
            "Name": reference["fileName"],
            "UID": reference["fileUid"],
            "GID": reference["fileGid"],
            "Mode": reference["fileMode"],
        },
    }


def _resources(resources: Properties) -> Properties:
    return {
        name: {"NanoCPUs": part.get("nanoCpus", 0), "MemoryBytes": part.get("memoryBytes", 0)}
        for key, name in {"limits": "Limits", "reservation": "Reservations"}.items()
        if (part := resources.get(key)) is not None
    }


def _restart_policy(policy: Properties | None) -> Properties:
    if policy is None:
        return {}
    return {
        "Condition": policy.get("condition", ""),
        "Delay": _nanoseconds(policy.get("delay")),
        "MaxAttempts": policy.get("maxAttempts") or 0,
        "Window": _nanoseconds(policy.get("window")),
    }


def _placement(placement: Properties) -> Properties:
    return {
        "Constraints": placement.get("constraints") or [],
        "Preferences": [{"Spread": {"SpreadDescriptor": by}} for by in placement.get("prefs") or []],
        "MaxReplicas": placement.get("maxReplicas") or 0,
        "Platforms": [{"Architecture": p["architecture"], "OS": p["os"]} for p in placement.get("platforms") or []],
    }


def _network(where: str, network: Properties) -> Properties:
    if not network.get("id"):
        raise UserError(f"{where}: network 'name' or 'id' must be specified")
    return {
        "Target": network["id"],
        "Aliases": network.get("aliases") or [],
        "DriverOpts": dict(option.split("=", 1) for option in network.get("driverOpts") or []),
    }


def _log_driver(driver: Properties | None) -> Properties | None:
    return None if driver is None else {"Name": driver["name"], "Options": driver.get("options") or {}}


def _mode(mode: Properties) -> Properties:
    """Both, if the program says so: the daemon refuses that in its own words."""
    result: Properties = {}
    if mode.get("replicated") is not None:
        result["Replicated"] = {"Replicas": mode["replicated"]["replicas"]}
    if mode.get("global"):
        result["Global"] = {}
    return result


def _update_config(config: Properties | None) -> Properties | None:
    if config is None:
        return None
    return {
        "Parallelism": config["parallelism"],
        "Delay": _nanoseconds(config["delay"]),
        "FailureAction": config["failureAction"],
        "Monitor": _nanoseconds(config["monitor"]),
        "MaxFailureRatio": float(config["maxFailureRatio"]),
        "Order": config["order"],
    }


def _endpoint(endpoint: Properties) -> Properties:
    if not endpoint:
        return {}
    return {
        "Mode": endpoint.get("mode", ""),
        "Ports": [
            {
                "Name": port.get("name", ""),
                "Protocol": port["protocol"],
                "TargetPort": port["targetPort"],
                "PublishedPort": port.get("publishedPort") or 0,
                "PublishMode": port["publishMode"],
            }
            for _, port in _numbered(endpoint, "ports")
        ],
    }


def pinned(spec: Properties, registry: Properties | None) -> Properties:
    """The body of a create, with what the registry says of its image: digest and platforms.

    As Docker's client does it, which the official plugin asks to. Without an answer the image stays as it is.
    """
    task = spec["TaskTemplate"]
    container = task["ContainerSpec"]
    image = tagged(container["Image"])
    if registry is None:
        return {**spec, "TaskTemplate": {**task, "ContainerSpec": {**container, "Image": image}}}
    platforms = [
        {"Architecture": "" if p["architecture"].lower() == _ARM else p["architecture"], "OS": p["os"]}
        for p in registry.get("Platforms") or []
    ]
    if "@" not in image:
        image = f"{image}@{registry['Descriptor']['digest']}"
    placement = {**task["Placement"], **({"Platforms": platforms} if platforms else {})}
    return {
        **spec,
        "TaskTemplate": {**task, "ContainerSpec": {**container, "Image": image}, "Placement": placement},
    }


def tagged(image: str) -> str:
    """The image's name with the tag that is meant if it has none."""
    return image if "@" in image or ":" in image.rsplit("/", 1)[-1] else f"{image}:latest"


def known(fields: Mapping[str, Input], inputs: Properties, state: Properties) -> Properties:
    """The inputs, and what stands in the state for keys that the daemon chose: an update sends them back to it."""
    result = dict(inputs)
    for key, spec in fields.items():
        was, new = state.get(key), inputs.get(key)
        if new is None and spec.computed and was is not None:
            result[key] = was
        elif spec.fields and isinstance(new, dict) and isinstance(was, dict):
            result[key] = known(spec.fields, new, was)
    return result


def reported(fields: Mapping[str, Input], service: Properties) -> Properties:
    """The state keys that the daemon reports, each at every depth."""
    spec = service["Spec"]
    state = {
        "name": spec["Name"],
        "labels": labels(spec.get("Labels")),
        "taskSpec": _reported_task(spec["TaskTemplate"]),
        "mode": _reported_mode(spec["Mode"]),
        "updateConfig": _reported_update_config(spec.get("UpdateConfig")),
        "rollbackConfig": _reported_update_config(spec.get("RollbackConfig")),
        "endpointSpec": _reported_endpoint(service),
    }
    every = shaped(fields, state)
    return {"id": service["ID"], **{key: every[key] for key in state}}


def endpoint_mode(service: Properties) -> str:
    """How the service is reached; empty until the daemon has decided."""
    settled = (service.get("Endpoint") or {}).get("Spec") or {}
    asked = service["Spec"].get("EndpointSpec") or {}
    return str(settled.get("Mode") or asked.get("Mode") or "")


def _reported_task(task: Properties) -> Properties:
    policy, driver = task.get("RestartPolicy"), task.get("LogDriver")
    return {
        "containerSpec": _reported_container(task["ContainerSpec"]),
        "resources": _reported_resources(task.get("Resources")),
        "restartPolicy": policy
        and {
            "condition": policy.get("Condition", ""),
            "delay": _short(policy.get("Delay")),
            "maxAttempts": policy.get("MaxAttempts", 0),
            "window": _short(policy.get("Window")),
        },
        "placement": _reported_placement(task.get("Placement")),
        "forceUpdate": task.get("ForceUpdate", 0),
        "runtime": task.get("Runtime", ""),
        "networksAdvanceds": [
            {
                "id": network["Target"],
                "aliases": network.get("Aliases") or [],
                "driverOpts": [f"{key}={value}" for key, value in sorted((network.get("DriverOpts") or {}).items())],
            }
            for network in task.get("Networks") or []
        ],
        "logDriver": driver and {"name": driver["Name"], "options": driver.get("Options") or {}},
    }


def _reported_container(spec: Properties) -> Properties:
    check, dns = spec.get("Healthcheck"), spec.get("DNSConfig")
    return {
        "image": spec["Image"],
        "labels": labels(spec.get("Labels")),
        "commands": spec.get("Command"),
        "args": spec.get("Args"),
        "hostname": spec.get("Hostname"),
        "env": dict(entry.split("=", 1) if "=" in entry else (entry, "") for entry in spec.get("Env") or []),
        "dir": spec.get("Dir"),
        "user": spec.get("User"),
        "groups": spec.get("Groups"),
        "readOnly": spec.get("ReadOnly", False),
        "mounts": [_reported_mount(mount) for mount in spec.get("Mounts") or []],
        "stopSignal": spec.get("StopSignal"),
        "stopGracePeriod": _short(spec.get("StopGracePeriod")),
        "healthcheck": None
        if check is None
        else {
            "tests": check.get("Test") or [],
            "retries": check.get("Retries", 0),
            **{key: _short(check.get(name, 0)) for key, name in _HEALTHCHECK_DURATIONS.items()},
        },
        "hosts": [dict(zip(("ip", "host"), entry.split(" ", 1), strict=False)) for entry in spec.get("Hosts") or []],
        "dnsConfig": None
        if dns is None
        else {
            "nameservers": dns.get("Nameservers") or [],
            "searches": dns.get("Search") or [],
            "options": dns.get("Options") or [],
        },
        "secrets": [_reported_reference("Secret", secret) for secret in spec.get("Secrets") or []],
        "configs": [_reported_reference("Config", config) for config in spec.get("Configs") or []],
        "isolation": spec.get("Isolation"),
        "sysctl": spec.get("Sysctls"),
        "capAdds": spec.get("CapabilityAdd"),
        "capDrops": spec.get("CapabilityDrop"),
        "init": bool(spec.get("Init")),
    }


def _reported_mount(mount: Properties) -> Properties:
    state: Properties = {
        "type": mount["Type"],
        "target": mount["Target"],
        "source": mount.get("Source", ""),
        "readOnly": mount.get("ReadOnly", False),
    }
    if options := mount.get("BindOptions"):
        state["bindOptions"] = {"propagation": options.get("Propagation", "")}
    if options := mount.get("VolumeOptions"):
        driver = options.get("DriverConfig") or {}
        state["volumeOptions"] = {
            "noCopy": options.get("NoCopy", False),
            "driverName": driver.get("Name", ""),
            "driverOptions": driver.get("Options") or {},
        }
    if options := mount.get("TmpfsOptions"):
        state["tmpfsOptions"] = {"sizeBytes": options.get("SizeBytes", 0), "mode": options.get("Mode", 0) & 0o777}
    return state


def _reported_reference(what: str, reference: Properties) -> Properties:
    key, file = what.lower(), reference.get("File") or {}
    return {
        f"{key}Id": reference[f"{what}ID"],
        f"{key}Name": reference.get(f"{what}Name", ""),
        "fileName": file.get("Name", ""),
        "fileUid": file.get("UID", ""),
        "fileGid": file.get("GID", ""),
        "fileMode": file.get("Mode", 0),
    }


def _reported_resources(resources: Properties | None) -> Properties | None:
    if resources is None:
        return None
    return {
        key: {"nanoCpus": part.get("NanoCPUs", 0), "memoryBytes": part.get("MemoryBytes", 0)}
        for key, name in {"limits": "Limits", "reservation": "Reservations"}.items()
        if (part := resources.get(name)) is not None
    }


def _reported_placement(placement: Properties | None) -> Properties | None:
    if placement is None:
        return None
    return {
        "constraints": placement.get("Constraints") or [],
        "prefs": [entry["Spread"]["SpreadDescriptor"] for entry in placement.get("Preferences") or []],
        "maxReplicas": placement.get("MaxReplicas", 0),
        "platforms": [
            {"architecture": platform.get("Architecture", ""), "os": platform.get("OS", "")}
            for platform in placement.get("Platforms") or []
        ],
    }


def _reported_mode(mode: Properties) -> Properties:
    replicated = mode.get("Replicated")
    return {
        "replicated": None if replicated is None else {"replicas": replicated.get("Replicas", 0)},
        "global": mode.get("Global") is not None,
    }


def _reported_update_config(config: Properties | None) -> Properties | None:
    if config is None:
        return None
    return {
        "parallelism": config.get("Parallelism", 0),
        "delay": _short(config.get("Delay", 0)),
        "failureAction": config.get("FailureAction", ""),
        "monitor": _short(config.get("Monitor", 0)),
        "maxFailureRatio": f"{config.get('MaxFailureRatio', 0):.1f}",
        "order": config.get("Order", ""),
    }


def _reported_endpoint(service: Properties) -> Properties:
    """What the allocator has settled, else what was asked for."""
    endpoint = service.get("Endpoint") or {}
    settled = bool((endpoint.get("Spec") or {}).get("Mode"))
    ports = endpoint.get("Ports") if settled else (service["Spec"].get("EndpointSpec") or {}).get("Ports")
    return {
        "mode": endpoint_mode(service),
        "ports": [
            {
                "name": port.get("Name", ""),
                "protocol": port.get("Protocol", ""),
                "targetPort": port.get("TargetPort", 0),
                "publishedPort": port.get("PublishedPort", 0),
                "publishMode": port.get("PublishMode", ""),
            }
            for port in ports or []
        ],
    }


def _short(duration: int | None) -> str:
    """The duration as the official plugin writes it into the state of a service: 1m, where Go says 1m0s."""
    if duration is None:
        return ""
    text = durations.text(duration)
    text = text.removesuffix("0s") if text.endswith("m0s") else text
    return text.removesuffix("0m") if text.endswith("h0m") else text

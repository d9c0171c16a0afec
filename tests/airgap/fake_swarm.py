"""A manager of a swarm in memory: services, configs, secrets, overlay networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.airgap.fake_docker import FakeDocker

Json = Any
DIGEST = "sha256:" + "e" * 64


class FakeSwarm(FakeDocker):
    """Answers like a manager 20.10, on which a task runs as soon as it is asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.services: dict[str, Json] = {}
        self.configs: dict[str, Json] = {}
        self.secrets: dict[str, Json] = {}
        self.nodes: list[Json] = [
            {"ID": "node-1", "Status": {"State": "ready"}},
            {"ID": "node-2", "Status": {"State": "down"}},
        ]
        self.tasks: list[Json] | None = None
        """Those of every service; without it, as many run as are asked for."""
        self.update_status: Json = None
        """What becomes of the next update."""
        self.registry: Json = None
        """What the registry says about every image; None: it is not reached."""

    def __enter__(self) -> FakeSwarm:
        super().__enter__()
        return self

    def _routes(self) -> dict[str, Callable[..., tuple[int, Json]]]:
        return {
            "POST /services/create": self._create_service,
            "GET /services/([^/]+)": lambda name, **_: _one(self.services, name, "service"),
            "POST /services/([^/]+)/update": self._update_service,
            "DELETE /services/([^/]+)": lambda name, **_: _gone(self.services, name, "service"),
            "GET /tasks": self._tasks,
            "GET /nodes": lambda **_: (200, json.dumps(self.nodes).encode()),
            "GET /distribution/(.+)/json": self._distribution,
            "POST /configs/create": lambda body, **_: self._keep(self.configs, "cfg", body),
            "GET /configs/([^/]+)": lambda name, **_: _one(self.configs, name, "config"),
            "DELETE /configs/([^/]+)": lambda name, **_: _gone(self.configs, name, "config"),
            "POST /secrets/create": lambda body, **_: self._keep(self.secrets, "sec", {**body, "Data": None}),
            "GET /secrets/([^/]+)": lambda name, **_: _one(self.secrets, name, "secret"),
            "DELETE /secrets/([^/]+)": lambda name, **_: _gone(self.secrets, name, "secret"),
            **super()._routes(),
        }

    def _keep(self, objects: dict[str, Json], prefix: str, spec: Json) -> tuple[int, Json]:
        object_id = f"{prefix}{len(objects) + 1}"
        objects[object_id] = {"ID": object_id, "Spec": spec}
        return 201, {"ID": object_id}

    def _create_service(self, *, body: Json, **_: Json) -> tuple[int, Json]:
        status, answer = self._keep(self.services, "svc", as_swarm_keeps_it(body))
        service = self.services[answer["ID"]]
        service |= {"Version": {"Index": 11}, "Endpoint": endpoint(service["Spec"])}
        return status, answer

    def _update_service(self, name: str, *, query: dict[str, list[str]], body: Json, **_: Json) -> tuple[int, Json]:
        service = self.services[name]
        if int(query["version"][0]) != service["Version"]["Index"]:
            return 500, {"message": "rpc error: code = Unknown desc = update out of sequence"}
        spec = as_swarm_keeps_it(body)
        service |= {"Spec": spec, "Endpoint": endpoint(spec), "UpdateStatus": self.update_status}
        service["Version"]["Index"] += 1
        return 200, {"Warnings": None}

    def _tasks(self, *, query: dict[str, list[str]], **_: Json) -> tuple[int, Json]:
        wanted = json.loads(query["filters"][0])
        states = wanted.get("desired-state", [])
        if self.tasks is not None:
            return 200, json.dumps(
                [task for task in self.tasks if not states or task["DesiredState"] in states]
            ).encode()
        replicas = self.services[wanted["service"][0]]["Spec"]["Mode"].get("Replicated", {}).get("Replicas", 0)
        return 200, json.dumps([task(slot) for slot in range(1, replicas + 1)]).encode()

    def _distribution(self, image: str, **_: Json) -> tuple[int, Json]:
        assert unquote(image)
        return (200, self.registry) if self.registry else (500, {"message": "the registry is not reached"})


def task(slot: int, state: str = "running", desired: str = "running", **more: Json) -> Json:
    """A task on the node that is up."""
    status = {"State": state, **more.pop("Status", {})}
    return {"ID": f"task{slot}", "Slot": slot, "DesiredState": desired, "NodeID": "node-1", "Status": status, **more}


def as_swarm_keeps_it(spec: Json) -> Json:
    """The spec with what the daemon adds on its way in and out (daemon/cluster/convert of moby/moby)."""
    kept = json.loads(json.dumps(spec))
    kept["Labels"] = kept.get("Labels") or {}
    kept["Mode"] = kept.get("Mode") or {"Replicated": {"Replicas": 1}}
    template = kept["TaskTemplate"]
    template["Runtime"] = "container"
    policy = template["RestartPolicy"]
    policy["Condition"] = policy.get("Condition") or "any"
    policy.setdefault("MaxAttempts", 0)
    template["ContainerSpec"]["Isolation"] = template["ContainerSpec"]["Isolation"] or "default"
    kept["EndpointSpec"]["Mode"] = kept["EndpointSpec"].get("Mode") or "vip"
    return kept


def endpoint(spec: Json) -> Json:
    """Of a service: how it is reached, when the manager has decided."""
    asked = spec["EndpointSpec"]
    ports = [{**port, "PublishedPort": port["PublishedPort"] or 30000} for port in asked.get("Ports") or []]
    return {"Spec": asked, "Ports": ports}


def _one(objects: dict[str, Json], name: str, what: str) -> tuple[int, Json]:
    return (200, objects[name]) if name in objects else (404, {"message": f"{what} {name} not found"})


def _gone(objects: dict[str, Json], name: str, what: str) -> tuple[int, Json]:
    return (200, None) if objects.pop(name, None) else (404, {"message": f"{what} {name} not found"})

"""A Docker daemon in memory: HTTP on a unix socket, with as much of the Engine API as the plugin uses."""

from __future__ import annotations

import io
import itertools
import json
import re
import socketserver
import tarfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = Any

IMAGE_CONFIG: dict[str, Json] = {
    "Cmd": None,
    "Entrypoint": ["uwsgi", "--ini"],
    "User": "admin",
    "WorkingDir": "/webapp",
}
"""What containers take from the image if they are not told otherwise."""


class FakeDocker:
    """Answers like a daemon 20.10. What it was asked is in `calls`, what it holds in the other attributes."""

    def __init__(self, path: Path) -> None:
        self.host = f"unix://{path}"
        self.calls: list[tuple[str, str, dict[str, list[str]], Json]] = []
        self.image_config = dict(IMAGE_CONFIG)
        self.images = {"known:1": "sha256:" + "1" * 64}
        self.networks: dict[str, Json] = {}
        self.volumes: dict[str, Json] = {}
        self.containers: dict[str, Json] = {}
        self.health: Json = {"Status": "healthy", "Log": []}
        self.refusals: dict[str, tuple[int, str]] = {}
        """Method and path of a call, as a regular expression -> the status and message it gets."""
        self.build_output: list[Json] = []
        self.build_context: dict[str, bytes] = {}
        self.push_output: list[Json] = []
        self.logs = b""
        self.hangs_up = False
        """It closes every connection without an answer."""
        self.start_delay = 0.0
        """Seconds that a container takes to start."""
        self._ids = itertools.count()
        self._server = _Server(str(path), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> FakeDocker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, call: str) -> list[Json]:
        """The bodies of the calls whose method and path match the regular expression."""
        return [body for method, path, _query, body in self.calls if re.fullmatch(call, f"{method} {path}")]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Json) -> tuple[int, Json]:
        """Status and content of the answer to a call."""
        self.calls.append((method, path, query, body))
        call = f"{method} {path}"
        for pattern, (status, message) in self.refusals.items():
            if re.fullmatch(pattern, call):
                return status, {"message": message}
        for pattern, handler in self._routes().items():
            if match := re.fullmatch(pattern, call):
                return handler(*match.groups(), query=query, body=body)
        return 404, {"message": f"the fake daemon knows no {call}"}

    def _routes(self) -> dict[str, Callable[..., tuple[int, Json]]]:
        return {
            "GET /version": lambda **_: (200, {"ApiVersion": "1.41", "MinAPIVersion": "1.12"}),
            "POST /networks/create": self._create_network,
            "GET /networks/([^/]+)": lambda name, **_: _found(self.networks, name),
            "DELETE /networks/([^/]+)": lambda name, **_: _removed(self.networks, name),
            "POST /networks/([^/]+)/connect": self._connect,
            "POST /networks/([^/]+)/disconnect": lambda name, **_: (200, None),
            "POST /volumes/create": self._create_volume,
            "GET /volumes/([^/]+)": lambda name, **_: _found(self.volumes, name),
            "DELETE /volumes/([^/]+)": lambda name, **_: _removed(self.volumes, name),
            "GET /images/(.+)/json": self._image,
            "POST /images/(.+)/push": lambda name, **_: (200, self.push_output),
            "POST /build": self._build,
            "POST /containers/create": self._create_container,
            "GET /containers/([^/]+)/json": lambda name, **_: _found(self.containers, name),
            "GET /containers/([^/]+)/logs": lambda name, **_: (200, self.logs),
            "POST /containers/([^/]+)/start": self._start,
            "POST /containers/([^/]+)/stop": lambda name, **_: (
                (204, None) if name in self.containers else _found({}, "")
            ),
            "POST /containers/([^/]+)/update": self._update,
            "DELETE /containers/([^/]+)": lambda name, **_: _removed(self.containers, name),
            "PUT /containers/([^/]+)/archive": lambda name, **_: (200, None),
        }

    def _create_network(self, *, body: Json, **_: Json) -> tuple[int, Json]:
        given = {key: value for key, value in body.items() if value is not None}
        ipam = {"Driver": "default", "Options": None, **given.pop("IPAM")}
        ipam["Config"] = ipam["Config"] or [{"Subnet": "172.22.0.0/16", "Gateway": "172.22.0.1"}]
        flags = dict.fromkeys(("Internal", "Attachable", "Ingress", "EnableIPv6"), False)
        network = {"Id": "net" + "0" * 61, "Scope": "local", "Options": {}, **flags, **given, "IPAM": ipam}
        self.networks[network["Id"]] = network
        return 201, {"Id": network["Id"]}

    def _create_volume(self, *, body: Json, **_: Json) -> tuple[int, Json]:
        name = body["Name"]
        self.volumes[name] = {
            "Name": name,
            "Driver": body.get("Driver") or "local",
            "Labels": body.get("Labels"),
            "Options": body.get("DriverOpts"),
            "Mountpoint": f"/var/lib/docker/volumes/{name}/_data",
        }
        return 201, self.volumes[name]

    def _image(self, name: str, **_: Json) -> tuple[int, Json]:
        image = self.images.get(name) or (name if name in self.images.values() else None)
        if image is None:
            return 404, {"message": f"No such image: {name}"}
        return 200, {"Id": image, "RepoDigests": [f"{name.partition(':')[0]}@sha256:{'d' * 64}"]}

    def _build(self, *, query: dict[str, list[str]], body: bytes, **_: Json) -> tuple[int, Json]:
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            files = {entry.name: tar.extractfile(entry) for entry in tar if entry.isreg()}
            self.build_context = {name: file.read() for name, file in files.items() if file}
        self.images[query["t"][0]] = "sha256:" + "b" * 64
        return 200, self.build_output

    def _create_container(self, *, query: dict[str, list[str]], body: Json, **_: Json) -> tuple[int, Json]:
        container_id = f"{next(self._ids):064d}"
        config = {key: body.get(key) or self.image_config.get(key, body.get(key)) for key in body | self.image_config}
        host = {**config.pop("HostConfig")}
        config["Hostname"] = config["Hostname"] or container_id[:12]
        config.setdefault("StopTimeout", None)
        host["ShmSize"] = host["ShmSize"] or 64 * 1024 * 1024
        host["IpcMode"] = host["IpcMode"] or "private"
        host["Runtime"] = host["Runtime"] or "runc"
        host.setdefault("NanoCpus", 0)
        image = body["Image"]
        self.containers[container_id] = {
            "Id": container_id,
            "Name": f"/{query['name'][0]}",
            "Image": image if image.startswith("sha256:") else self.images[image],
            "Platform": "linux",
            "Config": config,
            "HostConfig": host,
            "State": {"Running": False, "Status": "created", "ExitCode": 0},
            "NetworkSettings": {"Bridge": "", "Networks": {}, "Ports": {}},
        }
        return 201, {"Id": container_id}

    def _connect(self, name: str, *, body: Json, **_: Json) -> tuple[int, Json]:
        networks = self.containers[body["Container"]]["NetworkSettings"]["Networks"]
        networks[name] = {
            "IPAddress": f"172.22.0.{len(self.containers) + 1}",
            "IPPrefixLen": 16,
            "Gateway": "172.22.0.1",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "IPv6Gateway": "",
            "MacAddress": f"02:42:ac:16:00:{len(self.containers) + 1:02x}",
        }
        return 200, None

    def _start(self, name: str, **_: Json) -> tuple[int, Json]:
        container = self.containers[name]
        time.sleep(self.start_delay)
        container["State"] = {"Running": True, "Status": "running", "ExitCode": 0}
        if container["Config"].get("Healthcheck"):
            container["State"]["Health"] = self.health
        container["NetworkSettings"]["Ports"] = container["HostConfig"]["PortBindings"]
        return 204, None

    def _update(self, name: str, *, body: Json, **_: Json) -> tuple[int, Json]:
        self.containers[name]["HostConfig"].update(body)
        return 200, {"Warnings": None}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def _handler(docker: FakeDocker) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            self.close_connection = True
            if docker.hangs_up:
                return
            url = urlsplit(self.path)
            path = re.sub(r"^/v[\d.]+", "", url.path)
            raw = self._body()
            body = json.loads(raw) if raw and "json" in self.headers.get("Content-Type", "") else raw
            status, content = docker.answer(self.command, path, parse_qs(url.query), body)
            self.send_response(status)
            self.send_header("Connection", "close")
            self.send_header("Content-Type", "application/json")
            if isinstance(content, list):
                self._stream(content)
            else:
                payload = _payload(content)
                if status != 204:
                    self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

        def _stream(self, lines: list[Json]) -> None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in lines:
                chunk = json.dumps(line).encode() + b"\r\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 (named by http.server)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler


def _payload(content: Json) -> bytes:
    if content is None:
        return b""
    return content if isinstance(content, bytes) else json.dumps(content).encode()


def _found(objects: dict[str, Json], name: str) -> tuple[int, Json]:
    for key, found in objects.items():
        if name in (key, found.get("Name")):
            return 200, found
    return 404, {"message": f"No such object: {name}"}


def _removed(objects: dict[str, Json], name: str) -> tuple[int, Json]:
    return (204, None) if objects.pop(name, None) is not None else (404, {"message": f"No such object: {name}"})

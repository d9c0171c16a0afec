"""A client that sees what an answer is made of, header by header."""

import http.client
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import yaml

from tests.live.stack import Stack

TIMEOUT = 40  # seconds


@dataclass(frozen=True)
class Answer:
    """What came back, and how long it took.

    Attributes:
        headers: names, in lower case, and values, in order.
        seconds: until all of it was there.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    seconds: float

    def all(self, name: str) -> list[str]:
        """The values of all headers of that name."""
        return [value for known, value in self.headers if known == name.lower()]

    @property
    def cache(self) -> str:
        """What NGINX says became of the request in the cache; empty where there is none."""
        return ", ".join(self.all("X-Cache"))


class Client:
    """Asks a stack over its port, each time by a connection of its own."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def ask(
        self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET", body: bytes | None = None
    ) -> Answer:
        begin = time.monotonic()
        with closing(http.client.HTTPConnection("127.0.0.1", self._stack.port, timeout=TIMEOUT)) as connection:
            connection.request(method, path, body, dict(headers or {}))
            with connection.getresponse() as response:
                content = response.read()
        lines = [(name.lower(), value) for name, value in response.getheaders()]
        return Answer(response.status, lines, content, time.monotonic() - begin)


def configure(stack: Stack, **settings: Any) -> None:
    """Sets keys of the stack's configuration, nested ones too; None removes one."""
    file = stack.folder / f"Pulumi.{stack.name}.yaml"
    content = yaml.safe_load(file.read_text())
    for key, value in settings.items():
        content["config"].pop(f"uwsgi-nginx:{key}", None)
        if value is not None:
            content["config"][f"uwsgi-nginx:{key}"] = value
    file.write_text(yaml.safe_dump(content))

"""What every plugin of the Pulumi engine does: import its stubs, serve gRPC, print the port, end without noise."""

import importlib.util
import os
import signal
import socket
import sys
import types
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    import grpc

MESSAGE_LIMIT: Final = 400 * 1024 * 1024
"""Largest message in bytes, either way; what the Pulumi SDKs allow."""

CHANNEL_OPTIONS: Final = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
]


def end_quietly() -> None:
    """Exit with status 0 and without a traceback on SIGINT and SIGTERM, which is how the engine ends a plugin.

    Call it before the slow imports: a preview that fails at once interrupts plugins that are still starting.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: os._exit(0))


def import_only_stubs() -> None:
    """Make `pulumi.runtime.proto` importable without running the `pulumi` package, the slowest import of a plugin.

    Only for a process that is a plugin and nothing else: afterwards `import pulumi` yields an empty package.
    """
    spec = importlib.util.find_spec("pulumi")
    if "pulumi" in sys.modules or spec is None or spec.origin is None:
        return
    root = Path(spec.origin).parent
    for name, folder in (
        ("pulumi", root),
        ("pulumi.runtime", root / "runtime"),
        ("pulumi.runtime.proto", root / "runtime" / "proto"),
    ):
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module


def start(register: Callable[[Any], object], workers: int) -> "tuple[grpc.Server, int]":
    """Start a gRPC server on a free loopback port with what `register` adds to it; the server and its port."""
    import grpc

    server = grpc.server(futures.ThreadPoolExecutor(workers), options=CHANNEL_OPTIONS)
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def serve(register: Callable[[Any], object], workers: int) -> NoReturn:
    """Serve until a signal ends the process. The engine reads the port from the first line of standard output."""
    _server, port = start(register, workers)
    # Python runs signal handlers in this thread only. A lock that it waits for is not always interrupted, a socket is:
    # a signal that arrives just before the wait has written to it.
    waiting, woken = socket.socketpair()
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    print(port, flush=True)
    while True:
        waiting.recv(1)

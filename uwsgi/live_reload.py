"""`live_reload.py COMMAND …`: runs COMMAND, which is uWSGI, and has it load the app anew when a file of it changes.

uWSGI's own `py-autoreload` ends with the first syntax error, and the site with it. Here the changed app is imported on
trial: while that fails, the one before goes on serving.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

APP = Path("/app")
INTERVAL = 0.5  # seconds between two looks; no events tell of changes that are made outside a virtual machine
IGNORED = ("__pycache__", "node_modules")
TRIAL = (
    "import os; getattr(__import__(os.environ['UWSGI_APP'], fromlist=['__name__']), os.environ['UWSGI_CALLABLE']); "
    "os._exit(0)"
)
TRIAL_TIMEOUT = 30  # seconds
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
APP_FAILED = 22  # uWSGI's exit code when it has no app to serve

Snapshot = dict[str, tuple[int, int, int]]


def snapshot(folder: Path) -> Snapshot:
    """What tells whether any file below `folder` has changed; hidden ones are those of editors and version control."""
    found = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in IGNORED]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            with suppress(OSError):  # gone since
                status = path.stat()
                found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def can_be_imported() -> bool:
    """Whether the app can, as it stands now; if not, its traceback says why."""
    try:
        trial = subprocess.run([sys.executable, "-c", TRIAL], cwd=APP, timeout=TRIAL_TIMEOUT)
    except subprocess.TimeoutExpired:
        print(f"live reload: the app is not imported within {TRIAL_TIMEOUT} s")
        return False
    return trial.returncode == 0


def handles(process: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal, which would end it otherwise."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "SigCgt":
            return bool(int(value, 16) & 1 << (number - 1))
    return False


def main(command: list[str]) -> int:
    """Follows the app until the server ends, unless that was for want of an app; returns its exit code."""
    seen = snapshot(APP)
    server = subprocess.Popen(command)
    shall_stop = is_due = False

    def forward(number: int, _frame: object) -> None:
        nonlocal shall_stop
        shall_stop = shall_stop or number in STOPS
        server.send_signal(number)

    for number in (*STOPS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)
    while True:
        time.sleep(INTERVAL)
        code = server.poll()
        if code is not None and (shall_stop or code != APP_FAILED):
            return code if code >= 0 else 128 - code
        now = snapshot(APP)
        if now != seen:
            seen = now
            is_due = can_be_imported()
            print(
                f"live reload: the app has changed{'' if is_due else ', but cannot be imported; the one before stays'}"
            )
        if is_due and code == APP_FAILED:
            server = subprocess.Popen(command)
            is_due = False
        elif is_due and handles(server.pid, signal.SIGHUP):
            server.send_signal(signal.SIGHUP)
            is_due = False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

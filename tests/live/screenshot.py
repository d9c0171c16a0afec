"""`python -m tests.live.screenshot [MINUTES]` takes docs/images/status.png: the status page of a stack under load."""

import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.live.browser import browser
from tests.live.load import Load
from tests.live.stack import ROOT, Stack, eventually, free_port

PICTURE = ROOT / "docs" / "images" / "status.png"
MINUTES = 5.0  # as long as the page's history
WIDTH, HEIGHT = 1120, 1130
CLIENTS = (1, 2, 4, 8, 6, 3, 2, 5)  # one after the other, again and again
STEP = 10  # seconds


def main(minutes: float = MINUTES) -> None:
    """Takes the picture; nothing of the stack is left."""
    folder = Path(tempfile.mkdtemp())
    stack = Stack(folder)
    try:
        port = free_port()
        metrics = ("--plaintext=metrics.enabled=true", f"--plaintext=metrics.port={port}")
        stack.configure(replicas="3")
        stack.pulumi("config", "set-all", "--path", *metrics)
        stack.up()
        _load(stack, minutes * 60)
        with browser(WIDTH, HEIGHT) as opened:
            opened.get(f"http://127.0.0.1:{port}")
            eventually(lambda: "3 of 3" in opened.title, 15, "the page shows all replicas")
            PICTURE.parent.mkdir(exist_ok=True)
            opened.save_screenshot(str(PICTURE))
    finally:
        stack.remove()
        shutil.rmtree(folder)


def _load(stack: Stack, seconds: float) -> None:
    end, step = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        with Load(stack.port, keep_alive=CLIENTS[step % len(CLIENTS)], fresh=1, slow=0, pause=0.02):
            time.sleep(STEP)
            if step % 3 == 0:
                stack.status("/nothing-here")
        step += 1


if __name__ == "__main__":
    main(*(float(argument) for argument in sys.argv[1:]))

"""A release while clients ask as fast as they can: how far does throughput drop, and does a request fail?"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from typing import Any

from bench import load
from bench.session import Session
from tests.live.stack import Stack
from tooling import pulumi_cli

BEFORE = 5.0  # seconds of steady load before the release
WINDOW = 10  # tenths of a second over which throughput is taken
RELEASED = "Hello again, World!"


def measure(session: Session, stack: Stack, seconds: float) -> dict[str, Any]:
    """Runs a load for `seconds`, and a release within."""
    session.say(f"a release under load, {seconds:.0f} s")
    command = [*load.wrk("timeline.lua", seconds), stack.url + "/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            time.sleep(BEFORE)
            stack.edit("app/webapp.py", "Hello, World!", RELEASED)
            begin = time.time()
            priority = os.getpriority(os.PRIO_PROCESS, 0)
            pulumi_cli.give_way()  # as `make up` does
            try:
                released = stack.up()
            finally:
                os.setpriority(os.PRIO_PROCESS, 0, priority)
            end = time.time()
            said, error = process.communicate(timeout=seconds + load.MARGIN)
        finally:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"wrk failed: {error}")
    if RELEASED not in stack.get():
        raise RuntimeError("the release is not live after its `up`")
    found = json.loads(said.splitlines()[-1])
    answers = {int(tenth): count for tenth, count in found["tenths"].items()}
    figures = dips(answers, begin, end)
    session.say(
        f"a release under load: {released.seconds:.1f} s, throughput never below {figures['lowest_share']:.0%} of "
        f"{figures['steady']:,.0f}/s, {found['failures']} of {found['requests']:,} failed"
    )
    return {
        **figures,
        "requests": found["requests"],
        "failures": found["failures"],
        "up_seconds": released.seconds,
        "covered": end < (max(answers) / 10 if answers else 0),
    }


def dips(answers: dict[int, int], begin: float, end: float) -> dict[str, Any]:
    """Steady throughput before `begin`, and the lowest between `begin` and `end`, over windows of a second.

    Args:
        answers: good ones by tenth of a second since the epoch.
        begin, end: of the release, in seconds since the epoch.
    """
    first, last = min(answers), max(answers)

    def rate(tenth: int) -> float:
        return sum(answers.get(tenth + step, 0) for step in range(WINDOW)) * 10 / WINDOW

    # Without the first second, in which connections are opened.
    steady = statistics.median(rate(tenth) for tenth in range(first + 10, int(begin * 10) - WINDOW))
    during = [rate(tenth) for tenth in range(int(begin * 10), min(int(end * 10), last - WINDOW))]
    return {
        "steady": steady,
        "lowest": min(during),
        "lowest_share": min(during) / steady,
        "median_share": statistics.median(during) / steady,
        "timeline": [rate(tenth) for tenth in range(first, last - WINDOW, 5)],
        "began": begin - first / 10,
        "ended": end - first / 10,
    }

"""`python -m bench [--quick] [--only=NAME,…]`: measures, prints tables, writes results, plot and document."""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import deploys, footprint, machine, nodes, plot, results, rollout, tools, workers
from bench.contenders import PEERS, Field
from bench.plan import FULL, QUICK
from bench.session import ROOT, Session
from bench.throughput import SCENARIOS, Throughput, figures
from tooling import console, files
from tooling.console import Failure, say

MEASURES = (*SCENARIOS, "open_loop", "workers", "footprint", "rollout", "deploys", "nodes")
RESULTS = ROOT / "bench" / "results.json"
PLOT = ROOT / "docs" / "performance.svg"
DOCUMENT = ROOT / "docs" / "performance.md"


def main(arguments: list[str]) -> int:
    """Runs the bench; its tables go to standard output, its progress to standard error."""
    options = _parsed(arguments)
    # However it is ended, what it has made goes.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    only = options.only or list(MEASURES)
    try:
        measured = _measure(only, quick=options.quick)
    except Failure as failure:
        console.report(failure, "make bench")
        return 1
    except AssertionError as error:  # a command of a stack failed, which so says what it printed
        console.report(Failure(str(error)), "make bench")
        return 1
    except KeyboardInterrupt:
        say("\nmake bench was interrupted. What it had made is gone again.")
        return 130
    print("\n\n".join(_sections(measured).values()))
    if options.only:
        _write_json(files.local(ROOT) / "bench" / "partial.json", measured)
    else:
        publish(measured)
    return 0


def publish(measured: dict[str, Any]) -> None:
    """Writes all figures, the plot, and the sections of the document."""
    _write_json(RESULTS, measured)
    files.write(PLOT, plot.svg(measured["throughput"], measured["nodes"]))
    document = DOCUMENT.read_text(encoding="utf-8")
    for name, text in _sections(measured).items():
        begin, end = marks(name)
        before, _, rest = document.partition(begin)
        document = f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"
    files.write(DOCUMENT, document)


def _sections(measured: dict[str, Any]) -> dict[str, str]:
    found = {"figures": results.markdown(measured)}
    return found | ({"nodes": results.across_nodes(measured["nodes"])} if "nodes" in measured else {})


def marks(name: str) -> tuple[str, str]:
    """Between which a section of the document is."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run, to see that everything works")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        help=f"some of {', '.join(MEASURES)}; the committed figures then stay as they are",
    )
    options = parser.parse_args(arguments)
    for name in options.only or ():
        if name not in MEASURES:
            parser.error(f"there is no {name}; known are {', '.join(MEASURES)}")
    return options


def _interrupted(number: int, frame: object) -> None:
    del number, frame
    # Cleaning up is not interrupted. Not SIG_IGN: commands would inherit it, and the engine ends its plugins by SIGINT.
    for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(again, lambda *_: None)
    raise KeyboardInterrupt


def _measure(only: list[str], *, quick: bool) -> dict[str, Any]:
    plan = QUICK if quick else FULL
    built = tools.ensure()
    measured: dict[str, Any] = {}
    with Session() as session:
        contenders = Field(session)
        load = Throughput(session, contenders, built, plan)
        scenarios = [name for name in SCENARIOS if name in only or (name == "hello" and "open_loop" in only)]
        if scenarios:
            samples = load.closed_loop(scenarios)
            measured["throughput"] = figures(samples)
            if "open_loop" in only:
                capacity = {key: statistics.median(run.rate for run in samples["hello"][key]) for key in PEERS}
                measured["open_loop"] = load.open_loop(capacity)
        if "workers" in only:
            measured["workers"] = workers.measure(session, contenders, built, plan)
        if "footprint" in only:
            measured["footprint"] = footprint.measure(session, contenders)
        description = machine.describe(session, contenders)
        if "rollout" in only:
            port = contenders["port"]
            measured["rollout"] = rollout.measure(session, contenders.stacks[port.key], plan.rollout_seconds)
        contenders.close()
        if "deploys" in only:
            measured["deploys"] = deploys.measure(session, contenders, plan)
        if "nodes" in only:
            measured["nodes"] = nodes.measure(session, plan, quick=quick)
    return {
        "ratios": results.ratios(measured),
        "quick": quick,
        "machine": description,
        "plan": asdict(plan),
        **measured,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    files.write(path, json.dumps(_rounded(value), indent=1, ensure_ascii=False) + "\n")
    say(f"All figures: {path.relative_to(ROOT)}")


def _rounded(value: Any) -> Any:
    """With the digits that say something, so that the file can be read."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

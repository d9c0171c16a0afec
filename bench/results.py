"""From what was measured to what it says: ratios, goals, and tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.contenders import PEERS, TITLES
from bench.throughput import SCENARIOS

Measured = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """What a ratio or figure should be."""

    what: str
    reached: float
    bound: float
    at_least: bool
    unit: str = ""

    @property
    def is_met(self) -> bool:
        return self.reached >= self.bound if self.at_least else self.reached <= self.bound


# Key of `ratios` → what it is, its bound, and whether that is a lower one.
RATIOS = {
    "original": ("throughput, of the original's", 3.5, True),
    "haproxy": ("throughput, of HAProxy's", 1.8, True),
    "traefik": ("throughput, of Traefik's", 2.5, True),
    "caddy": ("throughput, of Caddy's", 2.5, True),
    "ceiling": ("throughput, of the ceiling's", 0.9, True),
    "original_host": ("throughput with `publish: host`, of the original's", 5.5, True),
    "noop_up_vs_empty": ("`up` with nothing to do, of an empty program's", 1.3, False),
    "create_vs_compose": ("`up` from nothing, of Compose's", 1.5, False),
    "noop_32_vs_2": ("`up` with nothing to do and 32 replicas, of the same with 2", 1.5, False),
}


def ratios(measured: Measured) -> dict[str, float]:
    """What the issue asks for; nothing of what was not measured."""
    found: dict[str, float] = {}
    hello = measured.get("throughput", {}).get("hello", {})
    for key in ("original", "haproxy", "traefik", "caddy", "ceiling"):
        if key in hello and "port" in hello:
            found[key] = paired(hello["port"], hello[key])
    if "host" in hello and "original" in hello:
        found["original_host"] = paired(hello["host"], hello["original"])
    if deploys := measured.get("deploys"):
        seconds = deploys["seconds"]
        noop = {replicas: statistics.median(times) for replicas, times in seconds["noop"].items()}
        found["noop_up_vs_empty"] = noop["2"] / statistics.median(deploys["empty_program"])
        found["create_vs_compose"] = statistics.median(seconds["create"]["2"]) / statistics.median(
            seconds["compose"]["2"]
        )
        if "32" in noop:
            found["noop_32_vs_2"] = noop["32"] / noop["2"]
    return {key: round(value, 3) for key, value in found.items()}


def paired(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]]) -> float:
    """The median over the rounds of how many times theirs ours is: what disturbs a round disturbs both."""
    return statistics.median(one["rate"] / other["rate"] for one, other in zip(ours, theirs, strict=True))


def goals(measured: Measured) -> list[Goal]:
    """All that is to be reached and was measured."""
    reached = ratios(measured)
    found = [Goal(*_goal(key, reached[key])) for key in RATIOS if key in reached]
    if loop := measured.get("open_loop"):
        p99 = {key: statistics.median(one["p99"] for one in runs) for key, runs in loop["samples"].items()}
        best = min(p99[key] for key in PEERS)
        found.append(Goal("p99 at equal load, of the best peer's", p99["port"] / best, 1, at_least=False))
    if rollout := measured.get("rollout"):
        share = rollout["lowest_share"]
        found.append(Goal("throughput during a release, never below, of steady state", share, 0.5, at_least=True))
        found.append(Goal("requests failed during it", rollout["failures"], 0, at_least=False))
    if deploys := measured.get("deploys"):
        change = statistics.median(deploys["seconds"]["change"]["2"])
        found.append(Goal("code change to live", change, 8, at_least=False, unit=" s"))
        if deploys["idle"]:
            idle = sum(deploys["idle"]["cores"].values())
            what = f"idle CPU with {deploys['idle']['replicas']} replicas, Docker's daemon with it, of a core"
            found.append(Goal(what, idle, 0.05, at_least=False))
    if footprint := measured.get("footprint"):
        added = footprint["images"]["app"]["added_mb"]
        found.append(Goal("what the app image adds to its base", added, 40, at_least=False, unit=" MB"))
    return found


def _goal(key: str, value: float) -> tuple[str, float, float, bool]:
    what, bound, at_least = RATIOS[key]
    return what, value, bound, at_least


# -- tables
def markdown(measured: Measured) -> str:
    """All tables of what was measured."""
    parts: dict[str, Callable[[Any], str]] = {
        "throughput": _throughput,
        "open_loop": _open_loop,
        "rollout": _rollout,
        "workers": _workers,
        "deploys": _deploys,
        "footprint": _footprint,
    }
    texts = [_machine(measured), _goals(measured)]
    texts += [table(measured[key]) for key, table in parts.items() if measured.get(key)]
    return "\n\n".join(text for text in texts if text)


def _machine(measured: Measured) -> str:
    machine, plan = measured["machine"], measured["plan"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    kind = " A quick run: rough figures." if measured["quick"] else ""
    return (
        f"Measured on {machine['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}; {versions}. {plan['rounds']} rounds of {plan['seconds']} s; medians, and from the "
        f"lowest to the highest round.{kind}"
    )


def _goals(measured: Measured) -> str:
    rows = [
        [
            goal.what,
            f"{goal.reached:.2f}{goal.unit}",
            f"{'≥' if goal.at_least else '≤'} {goal.bound:g}{goal.unit}",
            "yes" if goal.is_met else "**no**",
        ]
        for goal in goals(measured)
    ]
    return _table(["goal", "reached", "bound", "met"], rows) if rows else ""


def _throughput(throughput: Mapping[str, Mapping[str, Sequence[Measured]]]) -> str:
    names = list(throughput)
    rows = []
    for key, title in TITLES.items():
        if any(key in throughput[name] for name in names):
            rows.append([title, *(_rate(throughput[name].get(key)) for name in names)])
    text = _table(["requests a second", *(SCENARIOS[name].title for name in names)], rows)
    failed = [
        f"{TITLES[key]}, {SCENARIOS[name].title}: {sum(run['failures'] for run in runs):,} of "
        f"{sum(run['requests'] for run in runs):,}"
        for name, by_key in throughput.items()
        for key, runs in by_key.items()
        if any(run["failures"] for run in runs)
    ]
    text += "\n\nFailed requests: " + ("; ".join(failed) or "none") + "."
    return f"{text}\n\n{_parts(throughput['hello'])}" if "hello" in throughput else text


def _rate(runs: Sequence[Measured] | None) -> str:
    if not runs:
        return ""
    rates = [run["rate"] for run in runs]
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})"


def _parts(hello: Mapping[str, Sequence[Measured]]) -> str:
    """Where the time goes: µs of CPU a request."""
    names: list[str] = []
    for runs in hello.values():
        names += [name for name in runs[0]["cpu"] if name not in names]
    rows = []
    for key, title in TITLES.items():
        if key not in hello:
            continue
        each = {
            name: statistics.median(run["cpu"].get(name, 0) / run["requests"] * 1e6 for run in hello[key])
            for name in names
        }
        client = statistics.median(run["client_cpu"] / run["requests"] * 1e6 for run in hello[key])
        known = hello[key][0]["cpu"]
        rows.append(
            [
                title,
                f"{client:.0f}",
                *(f"{each[name]:.0f}" if name in known else "" for name in names),
                f"{client + sum(each.values()):.0f}",
            ]
        )
    return _table(["µs of CPU for a hello world", "client", *names, "all"], rows)


def _open_loop(loop: Measured) -> str:
    rows = [
        [TITLES[key], *(_milliseconds(runs, name) for name in ("p50", "p99", "max")), _sum(runs, "failures")]
        for key, runs in sorted(loop["samples"].items(), key=lambda item: list(TITLES).index(item[0]))
    ]
    title = f"open loop, {loop['rate']:,} requests a second"
    return _table([title, "p50", "p99", "longest", "failed"], rows)


def _milliseconds(runs: Sequence[Measured], name: str) -> str:
    values = [run[name] * 1000 for run in runs]
    return f"{statistics.median(values):.1f} ms ({min(values):.1f}–{max(values):.1f})"


def _sum(runs: Sequence[Measured], name: str) -> str:
    return f"{sum(run[name] for run in runs):.0f}"


def _rollout(rollout: Measured) -> str:
    return _table(
        ["a release under load", ""],
        [
            ["`up` takes", f"{rollout['up_seconds']:.1f} s"],
            ["throughput before", f"{rollout['steady']:,.0f}/s"],
            ["the lowest second, of that", f"{rollout['lowest_share']:.0%}"],
            ["the median, of that", f"{rollout['median_share']:.0%}"],
            ["failed requests", f"{rollout['failures']:,} of {rollout['requests']:,}"],
        ],
    )


def _workers(workers: Sequence[Measured]) -> str:
    rows = [
        [
            f"{row['processes']} x {row['threads']}",
            *(f"{statistics.median(row[name]):,.0f} ({min(row[name]):,.0f}–{max(row[name]):,.0f})" for name in _PATHS),
            f"{statistics.median(row['cpu_us']):.0f} µs",
            f"{row['memory_mib']:.0f} MiB",
        ]
        for row in workers
    ]
    return _table(
        ["processes x threads of each of 2 replicas", *_PATHS.values(), "CPU a hello world", "memory of one"], rows
    )


_PATHS = {"hello": "hello world", "wait": "an app that waits 50 ms"}


def _deploys(deploys: Measured) -> str:
    seconds = deploys["seconds"]
    counts = list(seconds["noop"])
    names = {
        "create": "`up` from nothing, images cached",
        "compose": f"Compose doing the same ({deploys['compose_is']})",
        "noop": "`up` with nothing to do",
        "change": "code change to live",
        "destroy": "`destroy`",
    }
    rows = [[title, *(_seconds(seconds[name][count]) for count in counts)] for name, title in names.items()]
    rows.append(["an empty program", _seconds(deploys["empty_program"]), *("" for _ in counts[1:])])
    if deploys["memory_mib"]:
        rows.append(["memory of a replica", *(f"{deploys['memory_mib'][count]:.0f} MiB" for count in counts)])
    text = _table(["", *(f"{count} replicas" for count in counts)], rows)
    if not deploys["idle"]:
        return text
    idle = deploys["idle"]
    parts = ", ".join(f"{part} {share:.1%}" for part, share in idle["cores"].items())
    return f"{text}\n\nIdle, {idle['replicas']} replicas, parts of a core: {parts}."


def _seconds(times: Sequence[float]) -> str:
    middle = f"{statistics.median(times):.1f} s"
    return f"{middle} ({min(times):.1f}–{max(times):.1f})" if len(times) > 1 else middle


def _footprint(footprint: Measured) -> str:
    memory, images = footprint["memory_mib"], footprint["images"]
    rows = [
        ["memory of a replica, after load", *(f"{memory[key]['uWSGI']:.0f} MiB" for key in ("port", "original"))],
        ["memory of NGINX", f"{memory['port']['NGINX']:.0f} MiB", f"{memory['original']['proxy']:.0f} MiB"],
        ["app image", *(f"{images[key]['image_mb']:.0f} MB" for key in ("app", "original"))],
        [
            "of it, base image",
            *(f"{images[key]['base_mb']:.0f} MB ({images[key]['base']})" for key in ("app", "original")),
        ],
        ["of it, added", *(f"{images[key]['added_mb']:.0f} MB" for key in ("app", "original"))],
    ]
    return _table(["", "this stack", "original"], rows)


# Key → what it is called, and how many of its requests a replica on another node answers; in the order of tables.
NODES = {
    "containers": ("1 node, unix sockets", "none"),
    "one": ("1 node", "none"),
    "two": ("2 nodes", "half"),
    "three": ("3 nodes", "two thirds"),
    "crossed": ("2 nodes, crossed", "all"),
}


BUSY = 1.5  # load average before a run


def across_nodes(nodes: Measured) -> str:
    """The tables of a section of its own, or why they are not there."""
    if "left_out" in nodes:
        return f"Left out of this run: {nodes['left_out']}."
    rows = []
    for key, (title, elsewhere) in NODES.items():
        runs, latency = nodes["throughput"][key], nodes["latency"].get(key, [])
        shares = [one["rate"] / other["rate"] for one, other in zip(runs, nodes["throughput"]["one"], strict=True)]
        rows.append(
            [
                title,
                elsewhere,
                _rate(runs),
                f"{statistics.median(shares):.2f} ({min(shares):.2f}–{max(shares):.2f})" if key != "one" else "1",
                f"{statistics.median(sum(run['cpu'].values()) / run['requests'] * 1e6 for run in runs):.0f} µs",
                f"{statistics.median(latency) * 1000:.2f} ms" if latency else "",
            ]
        )
    head = ["", "answered elsewhere", "requests a second", "of 1 node's", "CPU a request", "p50, one client"]
    failed = sum(run["failures"] for runs in nodes["throughput"].values() for run in runs)
    asked = sum(run["requests"] for runs in nodes["throughput"].values() for run in runs)
    releases = nodes["releases"]
    titles = {
        "first": "first answer of the new release",
        "last": "last answer of the one before",
        "up": "`up` ends",
    }
    times = [
        [title, *(_seconds([run[what] for run in runs]) for runs in releases.values())]
        for what, title in titles.items()
    ]
    return "\n\n".join(
        [
            _conditions(nodes),
            _table(head, rows),
            f"Failed requests: {failed:,} of {asked:,}." if failed else "Failed requests: none.",
            _table(["a code change, 3 nodes, after", *(f"{count} replicas" for count in releases)], times),
        ]
    )


def _conditions(nodes: Measured) -> str:
    kind = " A quick run: rough figures." if nodes["quick"] else ""
    if float(nodes["load_average"]) >= BUSY:
        kind += " Others used the machine meanwhile: trust the ratios more than the figures."
    return (
        f"Measured on {nodes['date']}, at a load average of {nodes['load_average']} before it began: "
        f"{nodes['quota']:.2g} cores a node, {nodes['replicas']} replicas on each, {nodes['connections']} connections "
        f"to each NGINX, {nodes['rounds']} rounds of {nodes['seconds']} s.{kind}"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *("--:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

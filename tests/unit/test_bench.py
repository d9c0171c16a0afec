"""The bench, as far as it can be tried without a load: what it makes of figures, how it asks, what it leaves behind."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree

import crossplane
import pytest
import yaml
from flask import Flask

from bench import __main__ as command
from bench import accounting, compose, deploys, load, nodes, plot, results, rollout, session, throughput, tools
from bench.contenders import FOLDER, PEERS, REPLICAS, TITLES, Contender, Field
from bench.load import Sample
from bench.plan import FULL, QUICK
from bench.session import Session
from bench.throughput import SCENARIOS, Throughput
from bench.tools import Tools

# The keys that whoever reads bench/results.json finds there.
RATIOS = {
    *("original", "haproxy", "traefik", "caddy", "ceiling", "original_host"),
    *("noop_up_vs_empty", "create_vs_compose", "noop_32_vs_2"),
}
SVG = "{http://www.w3.org/2000/svg}"


def run(rate: float, failures: int = 0, p99: float = 0.01) -> dict[str, Any]:
    cpu = {"NGINX": 0.1, "uWSGI": 0.4}
    return {"rate": rate, "requests": 2000, "failures": failures, "p99": p99, "cpu": cpu, "client_cpu": 0.02}


@pytest.fixture
def measured() -> dict[str, Any]:
    """A whole run, in which this stack takes 400, 800 and 100 requests a second, and the others less."""
    shares = {"host": 1.5, "no_log": 1.1, "original": 0.25, "haproxy": 0.5, "caddy": 0.4, "traefik": 0.4, "ceiling": 1}
    rates = (400.0, 800.0, 100.0)
    hello = {"port": [run(rate) for rate in rates]}
    hello |= {key: [run(rate * share) for rate in rates] for key, share in shares.items()}
    open_loop = {key: [{"p50": 0.001, "p99": 0.004, "max": 0.1, "failures": 0, "rate": 70}] for key in ("host", *PEERS)}
    open_loop["port"] = [{"p50": 0.001, "p99": 0.002, "max": 0.1, "failures": 0, "rate": 70}]
    seconds = {
        "create": {"2": [8.0, 9.0, 7.0], "32": [20.0]},
        "compose": {"2": [5.0, 4.0, 6.0], "32": [30.0]},
        "noop": {"2": [4.0, 3.0, 5.0], "32": [6.0]},
        "change": {"2": [7.0], "32": [15.0]},
        "destroy": {"2": [3.0], "32": [9.0]},
    }
    return {
        "quick": False,
        "machine": {
            "date": "2026-11-22",
            "cpu": "A CPU",
            "cores": 4,
            "memory_gib": 8.0,
            "kernel": "6.18",
            "versions": {"docker": "20.10", "caddy": ""},
        },
        "plan": {"rounds": 3, "seconds": 5},
        "throughput": {"hello": hello, "tls": {key: [run(90.0)] for key in ("port", *PEERS)}},
        "open_loop": {"rate": 70, "slowest_peer": "original", "samples": open_loop},
        "workers": [
            {"processes": 2, "threads": 8, "hello": [900.0], "wait": [600.0], "memory_mib": 50.0, "cpu_us": [130.0]}
        ],
        "footprint": {
            "memory_mib": {
                "port": {"NGINX": 4.0, "uWSGI": 50.0},
                "original": {"proxy": 5.0, "uWSGI": 40.0},
            },
            "images": {
                "app": {"image_mb": 184.0, "base": "slim", "base_mb": 178.0, "added_mb": 6.0},
                "nginx": {"image_mb": 95.0, "base": "nginx", "base_mb": 95.0, "added_mb": 0.0},
                "original": {"image_mb": 1000.0, "base": "full", "base_mb": 900.0, "added_mb": 100.0},
            },
        },
        "rollout": {
            "steady": 800.0,
            "lowest": 480.0,
            "lowest_share": 0.6,
            "median_share": 0.9,
            "requests": 9000,
            "failures": 0,
            "up_seconds": 9.0,
        },
        "deploys": {
            "seconds": seconds,
            "empty_program": [2.0, 3.0, 2.0],
            "compose_is": "docker compose",
            "memory_mib": {"2": 50.0, "32": 30.0},
            "idle": {"cores": {"uWSGI": 0.02, "daemon": 0.01}, "replicas": 32},
        },
        "nodes": {
            "date": "2026-11-23",
            "quick": False,
            "load_average": "0.42",
            "quota": 0.7,
            "replicas": 2,
            "connections": 32,
            "rounds": 3,
            "seconds": 4,
            "throughput": {
                key: [run(rate * times) for rate in rates]
                for key, times in {"containers": 1.25, "one": 1, "two": 1.75, "three": 2.5, "crossed": 1.5}.items()
            },
            "latency": {"containers": [0.00037], "one": [0.0005], "crossed": [0.0006]},
            "releases": {"3": [{"first": 5.0, "last": 11.0, "up": 14.0}], "12": [{"first": 4, "last": 12, "up": 15}]},
        },
    }


# -- what it makes of figures
def test_all_ratios_have_their_keys(measured: dict[str, Any]) -> None:
    assert set(results.RATIOS) == RATIOS
    assert results.ratios(measured) == {
        "original": 4,
        "haproxy": 2,
        "traefik": 2.5,
        "caddy": 2.5,
        "ceiling": 1,
        "original_host": 6,
        "noop_up_vs_empty": 2,
        "create_vs_compose": 1.6,
        "noop_32_vs_2": 1.5,
    }


def test_a_round_is_compared_with_itself() -> None:
    """A machine that is twice as fast in one round, for both, changes nothing."""
    ours, theirs = [run(200), run(100), run(100)], [run(100), run(50), run(49)]
    assert results.paired(ours, theirs) == 2


@pytest.mark.parametrize("missing", ["throughput", "deploys"])
def test_what_was_not_measured_has_no_ratio(measured: dict[str, Any], missing: str) -> None:
    whole = set(results.ratios(measured))
    del measured[missing]
    assert set(results.ratios(measured)) < whole


def test_goals_say_what_is_not_reached(measured: dict[str, Any]) -> None:
    missed = {goal.what for goal in results.goals(measured) if not goal.is_met}
    assert missed == {results.RATIOS["noop_up_vs_empty"][0], results.RATIOS["create_vs_compose"][0]}
    measured["rollout"]["failures"] = 1
    assert "requests failed during it" in {goal.what for goal in results.goals(measured) if not goal.is_met}


def test_tables_have_every_figure_and_hide_no_failure(measured: dict[str, Any]) -> None:
    measured["throughput"]["hello"]["haproxy"][1]["failures"] = 7
    text = results.markdown(measured)
    for said in ("A CPU", "docker 20.10", "400 (100–800)", "2 x 8", "docker compose", "178 MB (slim)", "60%"):
        assert said in text, said
    assert "Failed requests: HAProxy, hello world: 7 of 6,000." in text
    # µs a request: 0.02 s, 0.1 s and 0.4 s over 2,000 of them.
    assert "| this stack | 10 | 50 | 200 | 260 |" in text
    for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        columns = {line.count("|") for line in table.splitlines()}
        assert len(columns) == 1, f"a table has rows of different lengths:\n{table}"


def test_tables_take_part_of_a_run(measured: dict[str, Any]) -> None:
    for name in ("throughput", "open_loop", "workers", "footprint", "rollout"):
        del measured[name]
    measured["quick"] = True
    text = results.markdown(measured)
    assert "A quick run" in text
    assert "2 replicas" in text
    assert "hello" not in text


def test_nodes_are_compared_round_by_round_and_no_failure_is_hidden(measured: dict[str, Any]) -> None:
    found = measured["nodes"]
    text = results.across_nodes(found)
    assert "0.7 cores a node" in text
    assert "load average of 0.42" in text
    # 0.5 s of CPU over 2,000 requests.
    assert "| 3 nodes | two thirds | 1,000 (250–2,000) | 2.50 (2.50–2.50) | 250 µs |  |" in text
    assert "| 1 node | none | 400 (100–800) | 1 | 250 µs | 0.50 ms |" in text
    assert "| first answer of the new release | 5.0 s | 4.0 s |" in text
    assert "Failed requests: none." in text
    found["throughput"]["two"][1]["failures"] = 3
    assert "Failed requests: 3 of 30,000." in results.across_nodes(found)
    assert "Others used the machine" not in text
    assert "Others used the machine" in results.across_nodes({**found, "load_average": "3.1"})


def test_a_machine_without_a_cluster_says_why_there_are_no_figures(measured: dict[str, Any]) -> None:
    assert "takes root" in results.across_nodes({"left_out": "it takes root"})
    panels = len(list(ElementTree.fromstring(plot.svg(measured["throughput"], measured["nodes"])).iter(f"{SVG}g")))
    assert (
        len(list(ElementTree.fromstring(plot.svg(measured["throughput"], {"left_out": ""})).iter(f"{SVG}g"))) < panels
    )


def test_the_plot_has_a_bar_for_each_and_colours_for_dark_and_light(measured: dict[str, Any]) -> None:
    text = plot.svg(measured["throughput"], measured["nodes"])
    drawn = ElementTree.fromstring(text)
    assert "prefers-color-scheme: dark" in text
    panels = list(drawn.iter(f"{SVG}g"))
    bars = [[float(bar.get("width", "")) for bar in panel.iter(f"{SVG}rect")] for panel in panels]
    assert [len(panel) for panel in bars] == [len(TITLES), 1 + len(PEERS), len(nodes.CONTENDERS)]
    by_key = dict(zip(TITLES, bars[0], strict=True))
    assert by_key["original"] == pytest.approx(by_key["port"] / 4, rel=0.01)
    labels = [text.text or "" for text in drawn.iter(f"{SVG}text") if text.get("text-anchor")]
    assert max(map(len, labels)) * 7 < plot.LABEL, "a label is cut off"
    _, _, width, height = map(float, drawn.get("viewBox", "").split())
    for rect in drawn.iter(f"{SVG}rect"):
        assert float(rect.get("x", "")) + float(rect.get("width", "")) < width
    assert height > max(len(panel) for panel in bars) * plot.BAR


@pytest.mark.parametrize("during", [0, 30, 100])
def test_the_lowest_second_of_a_release_is_found(during: int) -> None:
    """100 answers each tenth of a second for ten seconds, of which one second has fewer."""
    answers = dict.fromkeys(range(1000, 1100), 100) | dict.fromkeys(range(1060, 1070), during)
    found = rollout.dips({tenth: count for tenth, count in answers.items() if count}, begin=104.5, end=108.0)
    assert found["steady"] == 1000
    assert found["lowest"] == during * 10
    assert found["lowest_share"] == during / 100


def test_what_falls_after_the_release_is_not_its_fault() -> None:
    answers = dict.fromkeys(range(1000, 1100), 100) | dict.fromkeys(range(1085, 1100), 1)
    assert rollout.dips(answers, begin=104.0, end=106.0)["lowest_share"] == 1


# -- how it asks
@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Programs that write down how they are called, and say something."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def make(name: str, says: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho \"{name} $*\" >> {tmp_path}/calls\ncat <<'END'\n{says}\nEND\n")
        path.chmod(0o755)
        return path

    return make


WRK = {"requests": 100, "seconds": 2.0, "bytes": 1, "failures": 3, "statuses": 7, "p50": 0.1, "p99": 0.2}


def test_a_bad_answer_and_none_are_no_throughput(fake: Callable[[str, str], Path]) -> None:
    fake("wrk", f"Running …\n{json.dumps(WRK)}")
    sample = load.closed_loop("http://127.0.0.1:1/", 2)
    assert (sample.failures, sample.rate) == (10, 45)


def test_new_connections_and_another_network_are_asked_for(fake: Callable[[str, str], Path], tmp_path: Path) -> None:
    fake("wrk", json.dumps(WRK))
    fake("within", json.dumps(WRK))
    load.closed_loop("http://127.0.0.1:1/", 2, fresh=True)
    load.closed_loop("http://127.0.0.1:1/", 2, prefix=("within",))
    fresh, within = (tmp_path / "calls").read_text().splitlines()
    assert "--header Connection: close" in fresh
    assert within.startswith("within wrk ")
    assert "Connection" not in within


def test_a_load_generator_that_fails_is_an_error(fake: Callable[[str, str], Path]) -> None:
    fake("wrk", "").write_text("#!/bin/sh\necho unable to connect >&2\nexit 1\n")
    with pytest.raises(RuntimeError, match="unable to connect"):
        load.closed_loop("http://127.0.0.1:1/", 2)


def test_the_open_loop_keeps_its_rate_whatever_the_answers_take(
    fake: Callable[[str, str], Path], tmp_path: Path
) -> None:
    latencies = {"50th": 1e6, "99th": 5e6, "max": 9e6}
    vegeta = fake("vegeta", json.dumps({"requests": 200, "rate": 70.0, "success": 0.99, "latencies": latencies}))
    found = load.open_loop(vegeta, "http://127.0.0.1:1/", 70, 2)
    assert found == {"requests": 200, "rate": 70, "failures": 2, "p50": 0.001, "p99": 0.005, "max": 0.009}
    attack = (tmp_path / "calls").read_text().splitlines()[0]
    assert "-rate=70" in attack
    assert "workers" not in attack, "a bound of workers would make it a closed loop"


class Fakes:
    """Contenders, and a load that gives each what it is known for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, str]] = []
        self.open: list[tuple[str, int]] = []
        ports = {key: number for number, key in enumerate(TITLES, start=1)}
        names = {number: key for key, number in ports.items()}

        def closed_loop(url: str, seconds: float, **options: Any) -> Sample:
            scheme, port = re.findall(r"^(\w+)://[^:]+:(\d+)/", url)[0]
            self.asked.append((scheme, names[int(port)]))
            return Sample(requests=100, failures=0, seconds=seconds, p50=0.1, p99=0.2)

        def open_loop(vegeta: Path, url: str, rate: int, seconds: float) -> dict[str, float]:
            self.open.append((names[int(re.findall(r":(\d+)/", url)[0])], rate))
            return {"p99": 0.1, "rate": rate, "failures": 0}

        monkeypatch.setattr(load, "closed_loop", closed_loop)
        monkeypatch.setattr(load, "uwsgi_sockets", lambda *_: Sample(100, 0, 1.0, 0.1, 0.2))
        monkeypatch.setattr(load, "open_loop", open_loop)
        monkeypatch.setattr(accounting, "used", lambda *_: {"uWSGI": float(len(self.asked))})
        contenders = {key: Contender(key, TITLES[key], port, port) for key, port in ports.items()}
        contenders["ceiling"] = Contender("ceiling", TITLES["ceiling"], sockets=("/socket",))

        class Started(dict[str, Contender]):
            with_tls = dict.__getitem__

        quiet = cast(Session, SimpleNamespace(say=lambda _: None, docker=None))
        field = cast(Field, Started(contenders))
        self.throughput = Throughput(quiet, field, Tools(Path("load"), Path("vegeta")), replace(QUICK, rounds=3))


def test_every_contender_is_asked_once_a_round_and_nobody_is_measured_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch)
    samples = fakes.throughput.closed_loop(["hello", "tls"])
    assert {name: set(by_key) for name, by_key in samples.items()} == {
        name: set(SCENARIOS[name].contenders) for name in ("hello", "tls")
    }
    assert {len(runs) for by_key in samples.values() for runs in by_key.values()} == {3}
    assert fakes.asked.count(("http", "haproxy")) == 1 + 3
    assert fakes.asked.count(("https", "haproxy")) == 1 + 3
    assert all(sample.cpu == {"uWSGI": 1.0} for sample in samples["hello"]["port"])


def test_all_get_the_same_open_loop_which_the_slowest_peer_can_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(monkeypatch)
    found = fakes.throughput.open_loop({"original": 1000.0, "haproxy": 2000.0, "caddy": 1500.0, "traefik": 1400.0})
    assert found["rate"] == 700
    assert {rate for _, rate in fakes.open} == {700}
    assert {key for key, _ in fakes.open} == {"port", "host", *PEERS}


CGROUPS = {
    "version 1": (
        "3:memory:/docker/{0}\n2:cpu,cpuacct:/docker/{0}\n0::/docker/{0}\n",
        "cpu,cpuacct/docker/{0}/cpuacct.usage",
    ),
    "version 2": ("0::/system.slice/docker-{0}.scope\n", "system.slice/docker-{0}.scope/cpu.stat"),
}
USAGE = {"version 1": "2500000000\n", "version 2": "usage_usec 2500000\nuser_usec 1\n"}


@pytest.mark.parametrize("version", CGROUPS)
def test_cpu_is_counted_by_part_with_the_proxy_of_the_port(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = dict.fromkeys(("abc", "def", "ghi"), (*CGROUPS[version], USAGE[version]))
    fields = "S 1 1 1 0 -1 4194560 0 0 0 0 {} 20 0 1"
    for number, (command_line, ticks) in enumerate(
        {
            "/usr/sbin/docker-proxy -host-port 1234 ": "100 50 0 0",
            "/usr/sbin/docker-proxy -host-port 4321 ": "900 900 0 0",
            "/usr/bin/containerd-shim-runc-v2 -id abc ": "10 10 20 10",
            "/usr/bin/dockerd ": "30 20 0 0",
            "/usr/bin/python 1234 ": "999 999 999 999",
        }.items()
    ):
        process = tmp_path / str(number)
        process.mkdir()
        (process / "cmdline").write_text(command_line.replace(" ", "\0"))
        (process / "stat").write_text(f"{number} (a (strange) name) {fields.format(ticks)}")
    monkeypatch.setattr(accounting, "PROC", tmp_path)
    monkeypatch.setattr(accounting, "_TICKS", 100)
    monkeypatch.setattr(accounting, "CGROUPS", tmp_path / "cgroups")
    for number, (identity, (cgroups, file, text)) in enumerate(kernel.items(), start=100):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cgroup").write_text(cgroups.format(identity))
        counted = tmp_path / "cgroups" / file.format(identity)
        counted.parent.mkdir(parents=True)
        counted.write_text(text)
    pids = {identity: number for number, identity in enumerate(kernel, start=100)}
    api = SimpleNamespace(inspect_container=lambda identity: {"State": {"Pid": pids[identity]}})
    client: Any = SimpleNamespace(api=api)
    assert accounting.used(client, {"NGINX": ["abc"], "uWSGI": ["def", "ghi"]}, [1234]) == {
        "NGINX": 2.5,
        "uWSGI": 5.0,
        "userland proxy": 1.5,
        "shims": 0.5,
        "daemon": 0.5,
    }


@pytest.mark.parametrize(
    ("files", "counted", "written"),
    [
        (
            ("cpu/own/cpu.cfs_quota_us", "cpu/own/cpu.cfs_period_us", "cpuacct/own/cpuacct.usage"),
            ("cpuacct/own/cpuacct.usage", "1500000000\n"),
            {"cpu/own/cpu.cfs_period_us": "20000", "cpu/own/cpu.cfs_quota_us": "14000"},
        ),
        (
            ("own/cpu.max", "own/cpu.stat"),
            ("own/cpu.stat", "usage_usec 1500000\n"),
            {"own/cpu.max": "14000 20000"},
        ),
    ],
    ids=["version 1", "version 2"],
)
def test_a_node_is_limited_and_counted_by_its_cgroup(
    files: tuple[str, ...],
    counted: tuple[str, str],
    written: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accounting, "CGROUPS", tmp_path)
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / counted[0]).write_text(counted[1])
    assert accounting.of_group("own") == 1.5
    accounting.limit("own", 0.7, 0.02)
    assert {file: (tmp_path / file).read_text() for file in written} == written
    with pytest.raises(RuntimeError, match="does not limit"):
        accounting.limit("others", 0.7, 0.02)


# -- across nodes
@pytest.mark.parametrize("available", [1, 2, 4, 64])
def test_all_nodes_and_the_client_fit_on_the_machine(available: int) -> None:
    share = nodes.quota(available)
    assert 0 < share <= nodes.QUOTA
    assert share * nodes.SIZE < available
    if available >= 4:
        assert share == nodes.QUOTA


def test_each_stack_finds_its_nodes_by_label() -> None:
    by_node = [nodes.labels(number) for number in range(nodes.SIZE)]
    for key, placed in nodes.STACKS.items():
        for role, numbers in (("nginx", placed.nginx), ("app", placed.app)):
            assert [number for number, found in enumerate(by_node) if f"{key}-{role}" in found] == list(numbers)
    assert not set(nodes.STACKS["there"].nginx) & set(nodes.STACKS["there"].app)
    assert set(nodes.CONTENDERS) == set(results.NODES)
    assert set(nodes.ALONE.values()) <= set(nodes.STACKS)


def test_what_several_clients_got_is_one_figure() -> None:
    first, second = Sample(100, 1, 4.0, 0.01, 0.2), Sample(50, 2, 4.1, 0.03, 0.1)
    assert nodes.together([first, second]) == Sample(150, 3, 4.1, 0.03, 0.2)


def test_no_cluster_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def without_registry(*_: object) -> None:
        pytest.skip("docker-registry is not there")

    said: list[str] = []
    monkeypatch.setattr(nodes, "Cluster", without_registry)
    own = cast(Session, SimpleNamespace(folder=tmp_path, say=said.append))
    assert nodes.measure(own, QUICK, quick=True) == {"left_out": "docker-registry is not there"}
    assert "left out" in said[-1]


# -- whom it compares
def test_each_peer_balances_over_the_same_replicas() -> None:
    wanted = {f"uwsgi-{number}:8000" for number in range(1, REPLICAS + 1)}
    for peer in PEERS:
        texts = {path.name: path.read_text() for path in (FOLDER / peer).iterdir() if path.is_file()}
        assert set(re.findall(r"uwsgi-\d+:\d+", "".join(texts.values()))) == wanted, peer
        dockerfile = texts["proxy.Dockerfile" if peer == "original" else "Dockerfile"]
        copied = re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE)[0].split()
        made = {"certificate.pem", "key.pem", "both.pem"}
        assert set(copied) - made == set(texts) & set(copied), f"{peer}: not all that is copied is there"
    routes = yaml.safe_load((FOLDER / "traefik" / "routes.yml").read_text())
    assert len(routes["http"]["services"]["app"]["loadBalancer"]["servers"]) == REPLICAS


def test_the_original_is_asked_as_when_it_was_written(tmp_path: Path) -> None:
    names = [f"uwsgi-{number}" for number in range(1, 9)]
    own = cast(Session, SimpleNamespace(folder=tmp_path))
    made = compose._context(own, Field(own), names)
    assert all((made / name).is_file() for name in compose._MOUNTED)
    parsed = crossplane.parse(str(made / "nginx.conf"), single=True)
    assert parsed["status"] == "ok", parsed["errors"]
    http = next(one for one in parsed["config"][0]["parsed"] if one["directive"] == "http")["block"]
    upstream = next(one for one in http if one["directive"] == "upstream")["block"]
    assert [one["args"] for one in upstream] == [[f"{name}:8000"] for name in names]
    assert ["1.0"] in [one["args"] for one in http if one["directive"] == "proxy_http_version"]


def test_all_run_the_shipped_app_with_two_paths_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    shipped = Flask("webapp")
    shipped.add_url_rule("/", view_func=lambda: "shipped")
    module = ModuleType("webapp")
    module.__dict__["app"] = shipped
    monkeypatch.setitem(sys.modules, "webapp", module)
    monkeypatch.delitem(sys.modules, "bench.bench_app", raising=False)
    from bench.bench_app import app

    client = app.test_client()
    assert client.get("/").text == "shipped"
    assert len(client.get("/body").data) == 64 * 1024
    assert client.get("/wait").status_code == 200
    monkeypatch.delitem(sys.modules, "bench.bench_app")


def test_paths_of_scenarios_are_the_apps() -> None:
    source = (Path(session.ROOT) / "bench" / "bench_app.py").read_text()
    asked = {scenario.path for scenario in SCENARIOS.values()} - {"/"}
    assert asked == set(re.findall(r'@app\.get\("(.+)"\)', source))


# -- what it leaves behind
class Daemon:
    """A Docker daemon that knows names and labels."""

    def __init__(self) -> None:
        self.removed: list[str] = []
        named = self._named
        self.containers = SimpleNamespace(list=self._containers)
        self.networks = SimpleNamespace(list=lambda: [named("bench-dead-peers"), named("others")])
        self.volumes = SimpleNamespace(list=lambda: [named("uwsgi-nginx-test-1-sockets"), named("uwsgi-nginx-dev-x")])
        self.images = SimpleNamespace(list=self._images, remove=lambda tag, force: self.removed.append(tag))

    def _named(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, remove=lambda **_: self.removed.append(name))

    def _containers(self, filters: dict[str, str], **options: bool) -> list[SimpleNamespace]:
        assert options == {"all": True, "sparse": True}, "one that has stopped would stay"
        return [self._named(filters["label"])]

    def _images(self, filters: dict[str, str]) -> list[SimpleNamespace]:
        owner = filters["reference"].removesuffix("/*")
        return [SimpleNamespace(tags=[f"{owner}/app:1", "others/app:1"])]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "bench-dead.json"
    path.write_text(json.dumps({"name": "bench-dead", "stacks": ["test-1"], "folder": str(tmp_path / "folder")}))
    (tmp_path / "folder").mkdir()
    return path


def test_what_a_killed_run_left_behind_goes_and_nothing_else(record: Path) -> None:
    daemon = Daemon()
    session._sweep_dead(cast(Any, daemon), record)
    assert set(daemon.removed) == {
        *("uwsgi-nginx.bench=bench-dead", "uwsgi-nginx.stack=test-1"),  # containers with these labels
        *("bench-dead-peers", "uwsgi-nginx-test-1-sockets", "bench-dead/app:1", "test-1/app:1"),
    }
    assert not record.exists()
    assert not (record.parent / "folder").exists()


def test_ports_are_none_that_clients_connect_from() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = {session.free_port() for _ in range(5)}
    assert max(ports) < max(first, 20000)
    assert len(ports) > 1, "the same port is given to everybody"


# -- the command
def test_an_unknown_measure_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command._parsed(["--only=hello,speed"])
    said = capsys.readouterr().err
    assert "there is no speed" in said
    assert all(name in said for name in command.MEASURES)


@pytest.fixture
def outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: dict[str, Any]) -> Path:
    """Where a run writes, which measures nothing."""
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(command, "PLOT", tmp_path / "plot.svg")
    monkeypatch.setattr(command, "DOCUMENT", tmp_path / "document.md")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(command, "_measure", lambda only, quick: {"ratios": results.ratios(measured), **measured})
    sections = [f"{begin}\nold\n{end}" for begin, end in map(command.marks, ("figures", "nodes"))]
    (tmp_path / "document.md").write_text("\n".join(["Before.", *sections, "After.\n"]))
    return tmp_path


def test_a_whole_run_writes_results_plot_and_document(outcome: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    assert set(json.loads((outcome / "results.json").read_text())["ratios"]) == RATIOS
    assert (outcome / "plot.svg").exists()
    document = (outcome / "document.md").read_text()
    assert document.startswith("Before.\n")
    assert "first answer of the new release" in document
    assert document.endswith("After.\n")
    assert "old" not in document
    assert all(line in document for line in capsys.readouterr().out.splitlines())
    assert command.main([]) == 0
    assert (outcome / "document.md").read_text() == document


def test_a_part_of_a_run_leaves_the_committed_figures_alone(outcome: Path) -> None:
    before = (outcome / "document.md").read_text()
    assert command.main(["--only=hello"]) == 0
    assert (outcome / "document.md").read_text() == before
    assert not (outcome / "results.json").exists()
    assert json.loads((outcome / ".local" / "bench" / "partial.json").read_text())["ratios"]


def test_the_document_has_a_place_for_the_figures_and_shows_the_plot() -> None:
    text = (session.ROOT / "docs" / "performance.md").read_text()
    for name in ("figures", "nodes"):
        begin, end = command.marks(name)
        assert text.index(begin) < text.index(end)
    assert f"({command.PLOT.name})" in text


def test_each_cleaning_signal_is_heard_once(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[int, Any]] = []
    monkeypatch.setattr("signal.signal", lambda number, handler: heard.append((number, handler)))
    with pytest.raises(KeyboardInterrupt):
        command._interrupted(15, None)
    assert {number for number, _ in heard} == {1, 2, 15}
    assert all(callable(handler) for _, handler in heard), "commands inherit a signal that is ignored"


def test_the_go_programs_are_pinned() -> None:
    modules = (tools.SOURCES / "go.mod").read_text()
    package = tools.PACKAGES["vegeta"]
    assert re.search(rf"^require {re.escape(package)} v\d+\.\d+\.\d+$", modules, re.MULTILINE)
    assert f'import _ "{package}"' in (tools.SOURCES / "tools.go").read_text()


def test_a_compose_file_waits_for_each_replica(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compose, "is_installed", lambda: True)
    images = {"nginxImage": "nginx:x", "pythonImage": "python:x"}
    own = cast(Session, SimpleNamespace(folder=tmp_path, name="bench-1", images=images))
    monkeypatch.setattr(Field, "full_python", "python:x")
    written = compose.Compose(own, Field(own), 3)._file()["services"]
    replicas = {"uwsgi-1", "uwsgi-2", "uwsgi-3"}
    assert set(written) == {"nginx", *replicas}
    assert set(written["nginx"]["depends_on"]) == replicas
    assert all("$line" not in written[name]["healthcheck"]["test"][-1].replace("$$", "") for name in replicas)


def test_more_replicas_come_later_in_each_plan() -> None:
    for plan in (FULL, QUICK):
        assert all(fewer < more for fewer, more in pairwise(plan.replicas))
        assert {2, 32} <= set(plan.replicas), "the ratios are of 2 and 32"
    assert deploys.RELEASED not in (session.ROOT / "app" / "webapp.py").read_text()
    assert throughput.OPEN_LOOP_SHARE == 0.7

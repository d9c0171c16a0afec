"""The exporter: lines in, figures out, whatever the lines are and whoever else is there; and its place in a stack."""

from __future__ import annotations

import http.client
import json
import os
import re
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from exporter import healthcheck
from exporter import replicas as replicas_module
from exporter.__main__ import PAGE, Reader, status
from exporter.log import CHUNK, Log
from exporter.replicas import Replicas
from exporter.traffic import BUCKETS, FIELDS, INTERVAL, MOST_REPLICAS, POINTS, Traffic, quantile
from exporter.web import MOST_CLIENTS, Server, Site
from infra import layout, nginx_config
from infra.nginx_config import Endpoints, Upstream
from infra.settings import SettingsError
from infra.site import Metrics
from infra.site import Site as Settings
from tests.unit.program import Program, run

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
ADDRESS = "unix:/run/uwsgi/uwsgi-1-0a1b2c3d.sock"


def line(**values: object) -> bytes:
    """A line as NGINX writes it, of a request that ended just now."""
    usual: dict[str, object] = {
        "msec": f"{time.time():.3f}",
        "status": 200,
        "request_method": "GET",
        "server_protocol": "HTTP/1.1",
        "scheme": "http",
        "connection_requests": 1,
        "request_length": 100,
        "bytes_sent": 300,
        "request_time": "0.020",
        "upstream_cache_status": "-",
        "upstream_addr": ADDRESS,
        "upstream_status": 200,
        "upstream_response_time": "0.018",
    }
    assert set(values) <= set(usual) == set(FIELDS)
    merged = usual | values
    return "\t".join(str(merged[name]) for name in FIELDS).encode()


def figures(collector: Collector) -> dict[str, float]:
    """What Prometheus reads: each sample with its labels, in the order of their names, and its value."""
    registry = CollectorRegistry()
    registry.register(collector)
    samples = [
        sample
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    ]
    return {
        sample.name + "".join(f" {sample.labels[key]}" for key in sample.labels): sample.value for sample in samples
    }


# -- lines


def test_requests_are_counted_by_status_and_method() -> None:
    traffic = Traffic()
    traffic.add([line(), line(), line(status=404, request_method="POST"), line(status=301, request_method="HEAD")])
    found = figures(traffic)
    assert found["nginx_http_requests_total 200 GET"] == 2
    assert found["nginx_http_requests_total 404 POST"] == 1
    assert found["nginx_http_requests_total 301 HEAD"] == 1
    assert found["nginx_http_request_duration_seconds_count 2xx"] == 2
    assert found["nginx_http_request_duration_seconds_sum 2xx"] == pytest.approx(0.04)
    assert found["nginx_http_request_bytes_total"] == 400
    assert found["nginx_http_response_bytes_total"] == 1200


def test_a_time_on_a_bound_is_within_it() -> None:
    traffic = Traffic()
    traffic.add([line(request_time="0.025"), line(request_time="0.026"), line(request_time="61")])
    found = figures(traffic)
    buckets = {bound: found[f"nginx_http_request_duration_seconds_bucket 2xx {bound}"] for bound in ("0.01", "0.025")}
    assert buckets == {"0.01": 0, "0.025": 1}
    assert found["nginx_http_request_duration_seconds_bucket 2xx 60.0"] == 2
    assert found["nginx_http_request_duration_seconds_bucket 2xx +Inf"] == 3


def test_each_try_of_a_replica_counts() -> None:
    traffic = Traffic()
    second = ADDRESS.replace("uwsgi-1", "uwsgi-canary-2")
    traffic.add(
        [line(upstream_addr=f"{ADDRESS}, {second}", upstream_status="502, 200", upstream_response_time="-, 0.5")]
    )
    found = figures(traffic)
    assert found["nginx_upstream_responses_total 502 uwsgi-1"] == 1
    assert found["nginx_upstream_responses_total 200 uwsgi-canary-2"] == 1
    assert found["nginx_upstream_response_duration_seconds_count uwsgi-canary-2"] == 1
    assert "nginx_upstream_response_duration_seconds_count uwsgi-1" not in found
    assert sum(value for name, value in found.items() if name.startswith("nginx_http_requests_total")) == 1


def test_tries_after_an_internal_redirect_count_too() -> None:
    traffic = Traffic()
    traffic.add(
        [line(upstream_addr=f"{ADDRESS} : {ADDRESS}", upstream_status="404 : 200", upstream_response_time="1 : 1")]
    )
    found = figures(traffic)
    assert found["nginx_upstream_responses_total 404 uwsgi-1"] == 1
    assert found["nginx_upstream_responses_total 200 uwsgi-1"] == 1


def test_a_request_that_reached_no_replica_is_none_of_any() -> None:
    traffic = Traffic()
    traffic.add([line(status=499, upstream_addr="-", upstream_status="-", upstream_response_time="-")])
    assert not [name for name in figures(traffic) if name.startswith("nginx_upstream")]


def test_releases_are_no_label_of_what_counts_on() -> None:
    traffic = Traffic()
    traffic.add(
        [line(upstream_addr=f"unix:/run/uwsgi/uwsgi-1-{number:08x}.sock") for number in range(3 * MOST_REPLICAS)]
    )
    found = figures(traffic)
    responses = [name for name in found if name.startswith("nginx_upstream_responses_total")]
    assert responses == ["nginx_upstream_responses_total 200 uwsgi-1"]
    assert found[responses[0]] == 3 * MOST_REPLICAS


def test_what_the_cache_did_is_counted() -> None:
    traffic = Traffic()
    traffic.add([line(upstream_cache_status=result) for result in ("HIT", "HIT", "MISS", "STALE", "-")])
    found = figures(traffic)
    assert found["nginx_cache_requests_total hit"] == 2
    assert found["nginx_cache_requests_total miss"] == 1
    recent: Any = traffic_after_a_while(traffic)["recent"]
    assert recent["cache"] == {"requests": 4, "hits": 3}


def test_a_connection_is_counted_with_its_first_request() -> None:
    traffic = Traffic()
    traffic.add([line(connection_requests=number) for number in (1, 2, 3, 1)])
    assert figures(traffic)["nginx_http_connections_total"] == 2


def test_what_clients_make_up_becomes_no_label() -> None:
    traffic = Traffic()
    traffic.add(
        [
            line(request_method=f"M{n}", server_protocol=f"HTTP/1.{n}", scheme=f"s{n}", status=600 + n)
            for n in range(500)
        ]
    )
    found = figures(traffic)
    assert [name for name in found if name.startswith("nginx_http_requests_total")] == [
        "nginx_http_requests_total other other"
    ]
    assert found["nginx_http_requests_total other other"] == 500
    assert found["nginx_http_requests_by_protocol_total other other"] == 498


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"GET / HTTP/1.1",
        b"\t" * (len(FIELDS) - 1),
        b"\t" * 10_000,
        line(request_time="nan"),
        line(request_time="inf"),
        line(request_time="-1"),
        line(bytes_sent="-5"),
        line(msec="1e300"),
        line() + b"\tmore",
        b"\xff\xfe\x00" * 50,
    ],
)
def test_a_line_that_is_none_is_counted_as_such(text: bytes) -> None:
    traffic = Traffic()
    traffic.add([text, line()])
    found = figures(traffic)
    assert found["exporter_malformed_lines_total"] == 1
    assert found["nginx_http_requests_total 200 GET"] == 1


@given(st.lists(st.lists(st.binary(max_size=12) | st.sampled_from(line().split(b"\t")), max_size=15), max_size=20))
def test_no_line_breaks_it(lines: list[list[bytes]]) -> None:
    traffic = Traffic()
    traffic.add(b"\t".join(fields) for fields in lines)
    found = figures(traffic)
    counted = sum(value for name, value in found.items() if name.startswith("nginx_http_requests_total"))
    assert counted + found["exporter_malformed_lines_total"] == len(lines)
    assert len(found) < 1000
    json.dumps(traffic.summary(), allow_nan=False)


# -- the last minutes


def traffic_after_a_while(traffic: Traffic) -> dict[str, object]:
    """What the page shows when the interval that just runs is over."""
    with pytest.MonkeyPatch.context() as patch:
        later = time.time() + INTERVAL
        patch.setattr("exporter.traffic.time.time", lambda: later)
        return traffic.summary()


def test_the_last_minutes_are_shown_point_by_point() -> None:
    traffic = Traffic()
    traffic.add([line(request_time="0.02"), line(status=500, request_time="0.3")])
    shown: Any = traffic_after_a_while(traffic)
    assert len(shown["series"]) == POINTS
    assert shown["series"][-1]["rate"] == 2 / INTERVAL
    assert shown["series"][0] == {"time": shown["series"][0]["time"], "rate": 0, "p50": None, "p90": None, "p99": None}
    assert 0.01 < shown["series"][-1]["p50"] <= 0.025
    assert 0.25 < shown["recent"]["p99"] <= 0.5
    assert shown["recent"]["classes"] == {"1xx": 0, "2xx": 1, "3xx": 0, "4xx": 0, "5xx": 1, "other": 0}


def test_lines_that_waited_count_when_they_happened() -> None:
    traffic = Traffic()
    moment = time.time() - 60
    traffic.add([line(msec=f"{moment:.3f}")])
    shown: Any = traffic.summary()
    (point,) = [point for point in shown["series"] if point["rate"]]
    assert point["time"] <= moment < point["time"] + INTERVAL


def test_the_history_does_not_grow() -> None:
    traffic = Traffic()
    traffic.add([line(msec=time.time() + offset) for offset in range(-100_000, 100_000, INTERVAL)])
    assert len(traffic._points) <= 2 * POINTS + 1


@pytest.mark.parametrize(("part", "expected"), [(0.5, 0.025), (0.25, 0.0175), (1.0, 0.05)])
def test_quantiles_are_those_of_prometheus(part: float, expected: float) -> None:
    counts = [0] * (len(BUCKETS) + 1)
    counts[BUCKETS.index(0.025)] = 2
    counts[BUCKETS.index(0.05)] = 2
    assert quantile(part, counts) == pytest.approx(expected)


def test_quantiles_of_nothing_and_beyond_all_bounds() -> None:
    assert quantile(0.5, [0] * (len(BUCKETS) + 1)) is None
    assert quantile(0.5, [*[0] * len(BUCKETS), 3]) == BUCKETS[-1]


# -- the log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "requests.log"


def append(path: Path, data: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(data)


def read(log: Log) -> list[bytes]:
    return [text for lines in log.read() for text in lines]


def test_nothing_is_there_before_nginx_writes(log: Path) -> None:
    reader = Log(log)
    assert read(reader) == []
    append(log, b"one\ntwo\n")
    assert read(reader) == [b"one", b"two"]
    assert read(reader) == []


def test_half_a_line_waits_for_its_other_half(log: Path) -> None:
    reader = Log(log)
    append(log, b"one\ntw")
    assert read(reader) == [b"one"]
    append(log, b"o\n")
    assert read(reader) == [b"two"]


def test_what_was_read_takes_no_space(log: Path) -> None:
    reader = Log(log)
    append(log, b"x" * 99 + b"\n")
    first = log.stat().st_size
    for _ in range(5):
        append(log, (b"x" * 99 + b"\n") * 10_000)
        assert len(read(reader)) >= 10_000
        assert log.stat().st_blocks * 512 <= 2 * PAGE_SIZE
    assert log.stat().st_size == first + 5_000_000


def test_the_next_reader_goes_on_where_the_last_one_ended(log: Path) -> None:
    lines = [f"{number:06}".encode() for number in range(10_000)]
    append(log, b"\n".join(lines[:7000]) + b"\n")
    before = Log(log)
    assert read(before) == lines[:7000]
    before.close()
    append(log, b"\n".join(lines[7000:]) + b"\n")
    assert read(Log(log)) == lines[7000:]


def test_a_hole_without_end_is_skipped(log: Path) -> None:
    with log.open("wb") as file:
        file.truncate(3 * CHUNK)
    append(log, b"one\n")
    assert read(Log(log)) == [b"one"]


def test_a_line_without_end_is_given_up(log: Path) -> None:
    reader = Log(log)
    append(log, b"x" * (CHUNK + 10) + b"\none\n")
    assert read(reader)[-1] == b"one"


def test_another_file_at_its_place_is_read_from_its_start(log: Path) -> None:
    reader = Log(log)
    append(log, b"one\n")
    assert read(reader) == [b"one"]
    log.unlink()
    append(log, b"two\n")
    assert read(reader) == [b"two"]


def test_nothing_is_lost_between_writers_and_the_reader(log: Path) -> None:
    log.touch()
    reader, seen = Log(log), []

    def write(name: int) -> None:
        for number in range(3000):
            append(log, f"{name} {number}\n".encode() * 5)

    writers = [threading.Thread(target=write, args=(name,)) for name in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen += read(reader)
    seen += read(reader)
    expected = sorted(f"{name} {number}".encode() for name in range(3) for number in range(3000) for _ in range(5))
    assert sorted(seen) == expected


def test_a_full_file_system_is_counted_once(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, free = Log(log), [0, 0, 5, 0]
    append(log, b"one\n")
    monkeypatch.setattr(os, "fstatvfs", lambda _: os.statvfs_result((1, 1, 1, free.pop(0), *[0] * 6)))
    for _ in range(4):
        read(reader)
    assert reader.overflows == 2


def test_a_log_that_cannot_be_read_is_said_once_and_heals(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.mkdir()
    reader = Reader(Log(log), Traffic())
    reader.look()
    reader.look()
    assert capsys.readouterr().err.count("cannot be read") == 1
    assert "cannot be read" in str(reader.problem())
    log.rmdir()
    append(log, line() + b"\n")
    reader.look()
    assert reader.problem() is None


# -- replicas


def worker(**values: object) -> dict[str, object]:
    """A worker as uWSGI 2.0.31 shows it, of what is looked at."""
    usual: dict[str, object] = {
        "requests": 10,
        "exceptions": 1,
        "harakiri_count": 0,
        "respawn_count": 1,
        "status": "idle",
        "running_time": 2_000_000,
        "avg_rt": 4000,
        "tx": 500,
        "rss": 0,
        "cores": [{"in_request": 0}, {"in_request": 0}],
    }
    return usual | values


class FakeReplica:
    """Answers on a socket as uWSGI's statistics server does."""

    def __init__(self, path: Path, body: bytes, before: Callable[[], object] = lambda: None) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.recv(1024)
                before()
                with suppress(OSError):  # who asks may have given up
                    self.request.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Its socket's file stays, as that of a killed container does."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Bench:
    """A folder of sockets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replicas = Replicas(folder)
        self.running: dict[str, FakeReplica] = {}

    def start(self, name: str, *workers: dict[str, object], **more: Any) -> None:
        body = more.pop("body", json.dumps({"workers": workers or [worker()]}).encode())
        self.running[name] = FakeReplica(self.folder / f"{name}.sock.stats", body, **more)

    def stop(self, name: str) -> None:
        self.running.pop(name).stop()

    def members(self, *names: str) -> None:
        (self.folder / "members").write_text("".join(f"{name}.sock\n" for name in names))

    def states(self) -> dict[str, str]:
        self.replicas._asked = 0.0
        return {f"{replica.name}-{replica.release}": replica.state for replica in self.replicas.now()}


@pytest.fixture
def bench() -> Iterator[Bench]:
    # Not tmp_path: the path of a socket has 108 characters at most.
    with tempfile.TemporaryDirectory() as folder:
        made = Bench(Path(folder))
        yield made
        for running in made.running.values():
            running.stop()
        made.replicas.close()


def test_a_replicas_workers_are_added_up(bench: Bench) -> None:
    bench.start(
        "uwsgi-1-aa", worker(status="busy", cores=[{"in_request": 1}, {"in_request": 0}]), worker(avg_rt=8000, rss=4096)
    )
    found = figures(bench.replicas)
    named = {name.removesuffix(" aa uwsgi-1"): value for name, value in found.items()}
    assert named == {
        "uwsgi_up": 1,
        "uwsgi_in_rotation": 1,
        "uwsgi_requests_total": 20,
        "uwsgi_exceptions_total": 2,
        "uwsgi_harakiri_total": 0,
        "uwsgi_worker_starts_total": 2,
        "uwsgi_request_seconds_total": 4,
        "uwsgi_response_bytes_total": 1000,
        "uwsgi_workers": 2,
        "uwsgi_busy_workers": 1,
        "uwsgi_threads": 4,
        "uwsgi_busy_threads": 1,
        "uwsgi_average_response_seconds": 0.006,
        "uwsgi_resident_memory_bytes": 4096,
    }


def test_headers_of_requests_at_work_do_not_matter_whatever_they_are(bench: Bench) -> None:
    text = json.dumps({"workers": [worker(cores=[{"vars": ["HTTP_X=?"], "in_request": 1}])]})
    bench.start("uwsgi-1-aa", body=text.encode().replace(b"?", b"\xff\xfe\x01\t\n"))
    assert bench.states() == {"uwsgi-1-aa": "serving"}
    assert b"HTTP_X" not in generate_latest(registered(bench.replicas))


def registered(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def test_a_member_that_does_not_answer_is_down(bench: Bench) -> None:
    bench.start("uwsgi-1-aa")
    bench.start("uwsgi-2-aa")
    bench.members("uwsgi-1-aa", "uwsgi-2-aa", "uwsgi-3-aa")
    bench.stop("uwsgi-2-aa")
    assert bench.states() == {"uwsgi-1-aa": "serving", "uwsgi-2-aa": "down", "uwsgi-3-aa": "down"}
    found = figures(bench.replicas)
    assert (found["uwsgi_up aa uwsgi-1"], found["uwsgi_up aa uwsgi-2"]) == (1, 0)
    assert "uwsgi_requests_total aa uwsgi-2" not in found


def test_what_answers_and_is_not_asked_waits(bench: Bench) -> None:
    bench.start("uwsgi-1-aa")
    bench.start("uwsgi-1-bb")
    bench.members("uwsgi-1-aa")
    assert bench.states() == {"uwsgi-1-aa": "serving", "uwsgi-1-bb": "waiting"}
    assert figures(bench.replicas)["uwsgi_in_rotation bb uwsgi-1"] == 0


def test_sockets_of_replicas_that_went_are_not_missed(bench: Bench) -> None:
    for name in ("uwsgi-1-aa", "uwsgi-2-aa", "uwsgi-1-bb"):
        bench.start(name)
    bench.stop("uwsgi-1-aa")
    bench.stop("uwsgi-2-aa")
    bench.members("uwsgi-1-bb")
    assert bench.states() == {"uwsgi-1-bb": "serving"}


def test_before_any_release_said_who_serves_the_newest_of_a_name_counts(bench: Bench) -> None:
    for name in ("uwsgi-1-aa", "uwsgi-2-aa", "uwsgi-1-bb", "uwsgi-2-bb"):
        bench.start(name)
    for name in ("uwsgi-1-aa", "uwsgi-2-aa", "uwsgi-2-bb"):
        bench.stop(name)
    os.utime(bench.folder / "uwsgi-2-aa.sock.stats", (1, 1))
    assert bench.states() == {"uwsgi-1-bb": "serving", "uwsgi-2-bb": "down"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"not json", b'{"workers":[{}]}', b'{"workers":7}', b"\x00" * 100])
def test_an_answer_that_is_not_uwsgis_is_none(bench: Bench, body: bytes) -> None:
    bench.start("uwsgi-1-aa", body=body)
    bench.start("uwsgi-2-aa")
    assert bench.states() == {"uwsgi-1-aa": "down", "uwsgi-2-aa": "serving"}


def test_an_answer_without_end_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas_module, "MOST_BYTES", 100_000)
    bench.start("uwsgi-1-aa", body=b"[" * 10_000_000)
    assert bench.states() == {"uwsgi-1-aa": "down"}


def test_silent_replicas_are_waited_for_at_once_and_not_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas_module.statistics, "__defaults__", (0.3,))
    over = threading.Event()
    for number in range(8):
        bench.start(f"uwsgi-{number}-aa", before=over.wait)
    bench.start("uwsgi-9-aa")
    begin = time.monotonic()
    states = bench.states()
    took = time.monotonic() - begin
    over.set()
    assert states["uwsgi-9-aa"] == "serving"
    assert list(states.values()).count("down") == 8
    assert took < 1.5


def test_who_asks_at_once_is_answered_at_once(bench: Bench) -> None:
    asked: list[int] = []
    bench.start("uwsgi-1-aa", before=lambda: asked.append(1))
    threads = [threading.Thread(target=bench.replicas.now) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1


def test_other_files_in_the_folder_are_left_alone(bench: Bench) -> None:
    for name in ("uwsgi-1-aa.sock", "metrics.sock", "x.sock.stats", "members.next", ".sock.stats"):
        (bench.folder / name).touch()
    assert bench.states() == {}


# -- where it answers


class Running:
    """The exporter's server, and what it is asked."""

    def __init__(self, site: Site) -> None:
        self.server = Server(("127.0.0.1", 0), site)
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response, text

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@contextmanager
def running(bench: Bench, problem: Callable[[], str | None] = lambda: None) -> Iterator[Running]:
    traffic = Traffic()
    traffic.add([line()])
    registry = CollectorRegistry()
    registry.register(traffic)
    registry.register(bench.replicas)
    made = Running(Site(registry, PAGE.read_text(), lambda: status("prod", traffic, bench.replicas), problem))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def site(bench: Bench) -> Iterator[Running]:
    with running(bench) as made:
        yield made


def test_prometheus_gets_its_format(site: Running) -> None:
    response, text = site.ask("/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert 'nginx_http_requests_total{code="200",method="GET"} 1.0' in text


def test_every_metric_has_a_help_and_a_conventional_name(bench: Bench, site: Running) -> None:
    bench.start("uwsgi-1-aa", worker(rss=1))
    bench.replicas._asked = 0.0
    families = list(text_string_to_metric_families(site.ask("/metrics")[1]))
    assert len(families) > 20
    for family in families:
        assert family.documentation.endswith(".")
        assert re.fullmatch(r"(nginx|uwsgi|exporter)_[a-z_]+", family.name)
        if family.type == "counter":
            assert {sample.name for sample in family.samples} <= {f"{family.name}_total"}


def test_the_page_runs_nothing_but_its_own_script(site: Running) -> None:
    response, text = site.ask("/")
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for source in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/=]{44}'", policy[source])
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    assert not re.search(r"\sstyle=|\son[a-z]+=|innerHTML|eval\(", text)


def test_the_pages_figures_are_json(bench: Bench, site: Running) -> None:
    bench.start("uwsgi-1-aa")
    bench.replicas._asked = 0.0
    response, text = site.ask("/status.json?at=1")
    assert response.headers["Content-Type"] == "application/json"
    found = json.loads(text)
    assert (found["stack"], found["requests"]) == ("prod", 1)
    assert [replica["name"] for replica in found["replicas"]] == ["uwsgi-1"]
    keys = set(found["replicas"][0])
    assert set(re.findall(r"replica\.(\w+)", PAGE.read_text())) <= keys
    assert set(re.findall(r"status\.(\w+)", PAGE.read_text())) - {"json"} <= set(found)


def test_health_says_what_is_wrong(bench: Bench) -> None:
    with running(bench, lambda: "the disk is gone") as site:
        response, text = site.ask("/health")
        assert (response.status, text) == (503, "the disk is gone\n")
        assert healthcheck.check(site.port) == "the disk is gone"


def test_health_is_ok(site: Running) -> None:
    assert site.ask("/health")[1] == "ok\n"
    assert healthcheck.check(site.port) is None


def test_the_health_check_finds_nobody_where_nobody_is(site: Running) -> None:
    site.stop()
    assert "refused" in str(healthcheck.check(site.port)).lower()


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/etc/passwd", 404), ("POST", "/metrics", 501)])
def test_there_is_nothing_else(site: Running, method: str, path: str, code: int) -> None:
    assert site.ask(path, method)[0].status == code


def test_head_has_the_headers_alone(site: Running) -> None:
    response, text = site.ask("/", "HEAD")
    assert (response.status, text) == (200, "")
    assert int(response.headers["Content-Length"]) > 1000


def test_clients_that_say_nothing_keep_nobody_out_for_long(site: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.web.Handler.timeout", 0.5)
    silent = [http.client.HTTPConnection("127.0.0.1", site.port) for _ in range(MOST_CLIENTS + 5)]
    for connection in silent:
        connection.connect()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert site.ask("/health")[1] == "ok\n"
            break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for connection in silent:
        connection.close()


# -- its place in a stack


ON = {"metrics": '{"enabled": true}'}


def stack(**config: str) -> Program:
    return run(config)


def test_there_is_none_unless_asked_for() -> None:
    assert "exporter" not in stack().resources
    assert "status" not in stack().exports


def test_with_metrics_there_is_one_more_container_and_its_image_and_nginx_stays_as_it_is() -> None:
    off, on = stack(), stack(**ON)
    added = {name: registered.type for name, registered in on.resources.items() if name not in off.resources}
    assert added == {
        "monitoring": "uwsgi-nginx:index:Exporter",
        "exporter-image": "docker:index/image:Image",
        "exporter": "docker:index/container:Container",
    }
    assert on["nginx-8080"].inputs == off["nginx-8080"].inputs
    assert on["uwsgi-1"].inputs == off["uwsgi-1"].inputs


def test_it_is_not_published_unless_a_port_is_set() -> None:
    assert "ports" not in stack(**ON)["exporter"].inputs
    assert stack(**ON).exports["status"] == "http://exporter:9113"


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])
def test_a_port_publishes_it_where_nginx_is(address: str) -> None:
    program = stack(metrics='{"enabled": true, "port": 9200}', publishAddress=address)
    assert program["exporter"].inputs["ports"] == [{"internal": 9113, "external": 9200, "ip": address}]
    assert program.exports["status"] == f"http://{'[::1]' if address == '::' else '127.0.0.1'}:9200"


def test_a_port_that_nginx_has_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"metrics\.port is 8080, as port is"):
        stack(metrics='{"enabled": true, "port": 8080}')


def test_it_sees_the_sockets_and_the_log_and_no_configuration() -> None:
    program = stack(**ON)
    mounts, nginx = (
        {volume["containerPath"]: volume["volumeName"] for volume in program[name].inputs["volumes"]}
        for name in ("exporter", "nginx-8080")
    )
    assert set(mounts) == {layout.SOCKET_FOLDER, layout.METRICS_FOLDER}
    assert mounts.items() <= nginx.items()


def test_there_are_never_two_that_read_the_same_log() -> None:
    assert stack(**ON)["exporter"].delete_before_replace is True


def test_its_image_runs_as_nginx_which_owns_the_log() -> None:
    dockerfile = Path("exporter/Dockerfile").read_text()
    assert f"\nUSER {layout.NGINX_USER}:{layout.SOCKET_GROUP}\n" in dockerfile
    volume = stack()["metrics"].inputs
    assert f"uid={layout.NGINX_USER},gid={layout.SOCKET_GROUP},mode=0770" in volume["driverOpts"]["o"]


def test_nginx_writes_what_the_exporter_reads() -> None:
    settings = Settings(metrics=Metrics(enabled=True))
    text = nginx_config.render([Upstream("uwsgi-1", "/x.sock")], site=settings, release="aa")
    found = re.search(r"log_format metrics\s+((?:'[^']*'\s*)+);", text)
    assert found
    written = "".join(re.findall(r"'([^']*)'", found[1]))
    assert written == "\\t".join(f"${name}" for name in FIELDS)
    (directive,) = re.findall(
        r"access_log (\S+) metrics", nginx_config.live_files(settings, Endpoints())[nginx_config.INSTANCE_FILE]
    )
    assert directive == layout.REQUEST_LOG


def test_the_gates_probe_is_not_counted() -> None:
    assert "metrics" not in nginx_config.probe_files([])[nginx_config.INSTANCE_FILE]


@pytest.mark.parametrize("access_log", [True, False])
def test_without_metrics_nginx_writes_no_line_for_them(access_log: bool) -> None:
    settings = Settings(access_log=access_log)
    assert "metrics" not in nginx_config.render([Upstream("uwsgi-1", "/x.sock")], site=settings, release="aa")
    assert "metrics" not in nginx_config.live_files(settings, Endpoints())[nginx_config.INSTANCE_FILE]

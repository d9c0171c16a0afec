"""What the lines say: counters and histograms of all requests, and a history of the last minutes."""

import re
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, zip_longest

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

# In the order of `log_format metrics` in NGINX's configuration, with tabs between them.
FIELDS = (
    "msec",
    "status",
    "request_method",
    "server_protocol",
    "scheme",
    "connection_requests",
    "request_length",
    "bytes_sent",
    "request_time",
    "upstream_cache_status",
    "upstream_addr",
    "upstream_status",
    "upstream_response_time",
)
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
INTERVAL = 5  # seconds of one point of the history
POINTS = 60

# Clients choose their method and protocol, so that only known ones become values of a label.
OTHER = "other"
METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
}
PROTOCOLS = {name.encode(): name for name in ("HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/3.0")}
SCHEMES = {b"http": "http", b"https": "https"}
CODES = {str(code).encode(): str(code) for code in range(100, 600)}
CACHE_RESULTS = {
    name.encode(): name.lower() for name in ("MISS", "BYPASS", "EXPIRED", "STALE", "UPDATING", "REVALIDATED", "HIT")
}
FROM_CACHE = ("hit", "stale", "updating", "revalidated")
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", OTHER)

REPLICA = re.compile(rb"unix:.*/(?P<name>[A-Za-z0-9._-]+)-[0-9a-f]+\.sock")
MOST_REPLICAS = 1000  # names that become values of a label, and addresses that are remembered
NONE = b"-"  # NGINX writes it for a variable without a value
# One after the other tried for a request, and then again after an internal redirect:
# https://nginx.org/en/docs/http/ngx_http_upstream_module.html#var_upstream_addr
TRIES = re.compile(rb", | : ")


class Malformed(Exception):
    """This is no line of the format."""


class Histogram:
    """How many values fell into which bucket, and their sum."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(BUCKETS, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """As Prometheus wants it: upper bounds, and how many are not above."""
        bounds = [*(repr(bound) for bound in BUCKETS), "+Inf"]
        return [(bound, float(count)) for bound, count in zip(bounds, accumulate(self.counts), strict=True)]


def quantile(part: float, counts: Sequence[int]) -> float | None:
    """The value that `part` of all are not above, as Prometheus' histogram_quantile estimates it; None of nothing."""
    rank, below = part * sum(counts), 0
    if not rank:
        return None
    for index, count in enumerate(counts[:-1]):
        if count and below + count >= rank:
            low = BUCKETS[index - 1] if index else 0.0
            return low + (BUCKETS[index] - low) * (rank - below) / count
        below += count
    return BUCKETS[-1]


@dataclass
class Point:
    """What happened within one interval of the history."""

    classes: Counter[str] = field(default_factory=Counter)
    cache: Counter[str] = field(default_factory=Counter)
    durations: Histogram = field(default_factory=Histogram)


class Traffic(Collector):
    """All requests that `add` was told of; a Prometheus collector."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._protocols: Counter[tuple[str, str]] = Counter()
        self._cache: Counter[str] = Counter()
        self._connections = self._received = self._sent = self._malformed = 0
        self._durations = {name: Histogram() for name in CLASSES}
        self._responses: Counter[tuple[str, str]] = Counter()
        self._response_times: dict[str, Histogram] = {}
        self._replicas: dict[bytes, str] = {}
        self._names: set[str] = set()
        self._points: dict[int, Point] = {}
        self._last = 0.0

    def add(self, lines: Iterable[bytes]) -> None:
        """Counts lines, and those that are none."""
        with self._lock:
            for line in lines:
                try:
                    self._count(line)
                except Malformed:
                    self._malformed += 1

    def _count(self, line: bytes) -> None:
        values = line.split(b"\t")
        if len(values) != len(FIELDS):
            raise Malformed
        end, status, method, protocol, scheme, serial, received, sent, duration, cache, *upstream = values
        try:
            moment, seconds = float(end), float(duration)
            bytes_in, bytes_out, number = int(received), int(sent), int(serial)
        except ValueError:
            raise Malformed from None
        if not (0 <= moment < 1e11 and 0 <= seconds < 1e9 and bytes_in >= 0 and bytes_out >= 0):  # nor `nan`
            raise Malformed
        code = CODES.get(status, OTHER)
        kind = OTHER if code == OTHER else f"{code[0]}xx"
        self._requests[code, METHODS.get(method, OTHER)] += 1
        self._protocols[SCHEMES.get(scheme, OTHER), PROTOCOLS.get(protocol, OTHER)] += 1
        self._connections += number == 1
        self._received += bytes_in
        self._sent += bytes_out
        self._durations[kind].add(seconds)
        self._last = max(self._last, moment)
        point = self._points.setdefault(int(moment // INTERVAL), Point())
        point.classes[kind] += 1
        point.durations.add(seconds)
        if cache != NONE:
            result = CACHE_RESULTS.get(cache, OTHER)
            self._cache[result] += 1
            point.cache[result] += 1
        if upstream[0] != NONE:
            self._count_tries(*upstream)
        if len(self._points) > 2 * POINTS:
            self._forget()

    def _count_tries(self, addresses: bytes, codes: bytes, times: bytes) -> None:
        tries = zip_longest(*(TRIES.split(texts) for texts in (addresses, codes, times)), fillvalue=NONE)
        for address, status, duration in tries:
            replica = self._replica(address)
            self._responses[replica, CODES.get(status, OTHER)] += 1
            try:
                seconds = float(duration)
            except ValueError:  # it was not reached
                continue
            if 0 <= seconds < 1e9:
                self._response_times.setdefault(replica, Histogram()).add(seconds)

    def _replica(self, address: bytes) -> str:
        known = self._replicas.get(address)
        if known is None:
            found = REPLICA.fullmatch(address)
            known = found["name"].decode() if found else OTHER
            if known not in self._names and len(self._names) >= MOST_REPLICAS:
                return OTHER
            self._names.add(known)
            if len(self._replicas) >= MOST_REPLICAS:  # each release brings new ones
                self._replicas.clear()
            self._replicas[address] = known
        return known

    def _forget(self) -> None:
        """Drops what is older than the history goes, and what a wrong clock has put beyond."""
        newest = int(time.time() // INTERVAL)
        self._points = {at: point for at, point in self._points.items() if newest - POINTS <= at <= newest}

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        with self._lock:
            yield from self._families()

    def _families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "nginx_http_requests", "Requests that NGINX has answered.", labels=("code", "method")
        )
        for labels, count in self._requests.items():
            requests.add_metric(labels, count)
        yield requests
        protocols = CounterMetricFamily(
            "nginx_http_requests_by_protocol", "The same by protocol.", labels=("scheme", "protocol")
        )
        for labels, count in self._protocols.items():
            protocols.add_metric(labels, count)
        yield protocols
        durations = HistogramMetricFamily(
            "nginx_http_request_duration_seconds",
            "From a request's first byte until its answer was handed to the kernel.",
            labels=("code_class",),
        )
        for name, histogram in self._durations.items():
            durations.add_metric((name,), histogram.cumulative(), histogram.sum)
        yield durations
        cache = CounterMetricFamily(
            "nginx_cache_requests", "Requests for what may be cached, by what the cache did.", labels=("result",)
        )
        for name, count in self._cache.items():
            cache.add_metric((name,), count)
        yield cache
        responses = CounterMetricFamily(
            "nginx_upstream_responses",
            "Tries of replicas, which are more than requests where one was tried after another.",
            labels=("replica", "code"),
        )
        for labels, count in self._responses.items():
            responses.add_metric(labels, count)
        yield responses
        times = HistogramMetricFamily(
            "nginx_upstream_response_duration_seconds",
            "From the connection to a replica until its last byte, its queue included.",
            labels=("replica",),
        )
        for name, histogram in self._response_times.items():
            times.add_metric((name,), histogram.cumulative(), histogram.sum)
        yield times
        for name, value, text in (
            ("nginx_http_connections", self._connections, "Client connections with at least one request."),
            ("nginx_http_request_bytes", self._received, "Bytes of requests, headers included."),
            ("nginx_http_response_bytes", self._sent, "Bytes of answers, headers included."),
            ("exporter_malformed_lines", self._malformed, "Lines in NGINX's log of requests that are none."),
        ):
            yield CounterMetricFamily(name, text, value=value)

    def summary(self) -> dict[str, object]:
        """For people: totals, the last minutes, and these point by point."""
        with self._lock:
            self._forget()
            newest = int(time.time() // INTERVAL)  # not over yet
            points = [(at, self._points.get(at, Point())) for at in range(newest - POINTS, newest)]
            return {
                "requests": self._requests.total(),
                "last": self._last or None,
                "interval": INTERVAL,
                "recent": _recent([point for _, point in points]),
                "series": [
                    {
                        "time": at * INTERVAL,
                        "rate": point.classes.total() / INTERVAL,
                        **_percentiles(point.durations.counts),
                    }
                    for at, point in points
                ],
            }


def _recent(points: Sequence[Point]) -> dict[str, object]:
    classes: Counter[str] = Counter()
    cache: Counter[str] = Counter()
    for point in points:
        classes += point.classes
        cache += point.cache
    counts = [sum(column) for column in zip(*(point.durations.counts for point in points), strict=True)]
    return {
        "seconds": len(points) * INTERVAL,
        "requests": classes.total(),
        "rate": classes.total() / (len(points) * INTERVAL),
        "classes": {name: classes[name] for name in CLASSES},
        "cache": {"requests": cache.total(), "hits": sum(cache[name] for name in FROM_CACHE)},
        **_percentiles(counts),
    }


def _percentiles(counts: Sequence[int]) -> dict[str, float | None]:
    return {f"p{part}": quantile(part / 100, counts) for part in (50, 90, 99)}

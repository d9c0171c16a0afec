"""The exporter in a real stack: it counts every request, costs the site nothing, and shows people how things are."""

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.live.browser import browser, complaints
from tests.live.load import Load
from tests.live.stack import ROOT, Stack, eventually, free_port

LOG = "/run/metrics/requests.log"
IDLE_SECONDS = 5
MEMORY_BUDGET = 50 * 1024 * 1024  # bytes; its container has 64 MiB


class Exporter:
    """The exporter as Prometheus and a person meet it."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.port = stack, free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return str(response.read().decode())

    def figures(self) -> dict[str, float]:
        """Each sample with its labels, in the order of their names, and its value."""
        return {
            " ".join((sample.name, *(sample.labels[key] for key in sorted(sample.labels)))): sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
        }

    def answers(self) -> bool:
        try:
            return bool(self.figures())
        except OSError:
            return False

    def requests(self) -> int:
        """All that NGINX has answered."""
        return total(self.figures(), "nginx_http_requests_total")

    def until(self, holds: Callable[[dict[str, float]], bool], seconds: float, what: str) -> dict[str, float]:
        """The first figures of which it holds."""
        seen: dict[str, float] = {}

        def look() -> bool:
            seen.clear()
            seen.update(self.figures())
            return holds(seen)

        eventually(look, seconds, what)
        return seen


def total(figures: dict[str, float], name: str) -> int:
    return int(sum(value for key, value in figures.items() if key.split()[0] == name))


def settled(read: Callable[[], int]) -> int:
    """The number when it no longer grows: NGINX hands on what it has once a second."""
    seen: list[int] = []

    def rests() -> bool:
        seen.append(read())
        return len(seen) > 30 and len(set(seen[-30:])) == 1

    eventually(rests, 30, "the counter rests")
    return seen[-1]


@pytest.fixture(scope="module")
def exporter(running: Stack) -> Exporter:
    return Exporter(running)


def tooling(stack: Stack, *arguments: str) -> list[str]:
    """`make COMMAND` for that stack: the command that it runs."""
    return [sys.executable, "-m", "tooling", arguments[0], stack.name, *arguments[1:]]


@pytest.fixture(scope="module")
def followed(running: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What `make logs ARGS=-f` shows, from the beginning."""
    shown = tmp_path_factory.mktemp("logs") / "shown"
    with shown.open("w") as file:
        process = subprocess.Popen(tooling(running, "logs", "-f"), stdout=file, cwd=ROOT, env=running.environment)
    try:
        eventually(lambda: "uwsgi-2 | " in shown.read_text(), 20, "the replicas' logs are shown")
        yield shown
    finally:
        process.terminate()
        process.wait(10)


def test_ps_shows_how_everything_is_without_an_exporter_too(running: Stack) -> None:
    for _ in range(8):
        running.get()
    said = subprocess.run(
        tooling(running, "ps"), cwd=ROOT, env=running.environment, capture_output=True, text=True, check=True
    ).stdout
    rows = {line.split()[0]: line.split() for line in said.splitlines()[1:]}
    assert set(rows) == {"nginx", "uwsgi-1", "uwsgi-2"}
    assert all(row[1] == "running" for row in rows.values())
    asked = [int(next(cell for cell in rows[name][4:] if cell.isdigit())) for name in ("uwsgi-1", "uwsgi-2")]
    assert sum(asked) >= 8
    assert rows["nginx"][-2].startswith(f"{running.name}/nginx:")


def test_it_comes_under_load_with_a_release_and_nginx_stays_as_it_is(
    running: Stack, exporter: Exporter, followed: Path
) -> None:
    before = running.nginx.id
    with Load(running.port, slow=0, pause=0.02) as load:
        metrics = ("--plaintext=metrics.enabled=true", f"--plaintext=metrics.port={exporter.port}")
        running.pulumi("config", "set-all", "--path", *metrics)
        running.edit("app/webapp.py", 'RELEASE = "one"', 'RELEASE = "two"')
        running.up()
    load.assert_nothing_was_dropped()
    assert running.nginx.id == before
    assert running.outputs()["status"] == exporter.url
    eventually(exporter.answers, 10, "the exporter answers")


def test_logs_follow_the_replicas_that_came_with_it(running: Stack, followed: Path) -> None:
    def starts() -> int:
        return len(re.findall(r"^uwsgi-1 +\| .*spawned uWSGI worker 1", followed.read_text(), re.MULTILINE))

    eventually(lambda: starts() == 2, 10, "both replicas of that name have said that they start")
    running.get("/health?seen")
    line = re.compile(r"^nginx +\| \d\d:\d\d:\d\d 200 GET /health\?seen \(\d+ ms, .* by uwsgi-[12] in ", re.MULTILINE)
    eventually(lambda: line.search(followed.read_text()), 10, "NGINX's line is shown")


def test_nothing_else_changes_after_that(running: Stack) -> None:
    assert set(running.up().changes) == {"unchanged"}
    assert set(running.refresh().changes) == {"unchanged"}


def test_each_request_is_counted_under_full_load_and_across_a_reload(running: Stack, exporter: Exporter) -> None:
    before = settled(exporter.requests)
    with Load(running.port, keep_alive=6, slow=0, pause=0.0) as load:
        running.configure(requestTimeout="61")
        running.up()
    load.assert_nothing_was_dropped()
    expected = before + load.sent
    figures = exporter.until(lambda f: total(f, "nginx_http_requests_total") >= expected, 20, "all are counted")
    assert total(figures, "nginx_http_requests_total") == expected
    assert total(figures, "exporter_log_overflows_total") == total(figures, "exporter_malformed_lines_total") == 0
    for replica in ("uwsgi-1", "uwsgi-2"):
        assert figures[f"nginx_upstream_responses_total 200 {replica}"] > 100
        assert figures[f"nginx_upstream_response_duration_seconds_count {replica}"] > 100


def test_replicas_tell_how_they_are_by_release(running: Stack, exporter: Exporter) -> None:
    release = running.outputs()["release"]
    figures = exporter.until(
        lambda f: len([name for name in f if name.startswith("uwsgi_up ")]) == 2, 15, "the release before is gone"
    )
    for replica in ("uwsgi-1", "uwsgi-2"):
        where = f"{release} {replica}"
        assert figures[f"uwsgi_up {where}"] == figures[f"uwsgi_in_rotation {where}"] == 1
        assert figures[f"uwsgi_threads {where}"] == 16
        assert figures[f"uwsgi_requests_total {where}"] > 0
    counters = [f"uwsgi_requests_total {release} {replica}" for replica in ("uwsgi-1", "uwsgi-2")]
    before = sum(figures[name] for name in counters)
    for _ in range(10):
        running.get()
    exporter.until(lambda f: sum(f[name] for name in counters) >= before + 10, 5, "they tell of the requests")


def test_statuses_methods_and_clients_that_make_things_up(running: Stack, exporter: Exporter) -> None:
    assert running.status("/nothing-here") == 404
    request = urllib.request.Request(running.url + "/", method="NONSENSE")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=10)

    def methods(figures: dict[str, float]) -> set[str]:
        return {name.split()[2] for name in figures if name.startswith("nginx_http_requests_total ")}

    figures = exporter.until(
        lambda f: "nginx_http_requests_total 404 GET" in f and "other" in methods(f), 10, "both are counted"
    )
    assert methods(figures) == {"GET", "other"}


def test_what_happens_while_it_is_away_is_counted_when_it_is_back(running: Stack, exporter: Exporter) -> None:
    settled(exporter.requests)
    (container,) = running.containers("exporter")
    container.stop()
    said = len(running.nginx.logs().splitlines())
    for _ in range(200):
        running.get()
    container.start()
    eventually(exporter.answers, 10, "the exporter answers")
    # Its own counters begin anew; what it had not read yet is what it begins with.
    eventually(lambda: exporter.requests() == 200, 10, "all requests are counted")
    new = running.nginx.logs().decode().splitlines()[said:]
    assert [line for line in new if not line.startswith("{")] == [], "NGINX does not even notice"


def test_space_that_is_used_up_harms_nothing(running: Stack, exporter: Exporter) -> None:
    (container,) = running.containers("exporter")
    container.stop()
    assert running.run_in(running.nginx, f"head -c 9m /dev/zero >> {LOG}")[0] != 0
    with Load(running.port, slow=0, pause=0.02) as load:
        pass
    load.assert_nothing_was_dropped(at_least=100)
    container.start()
    eventually(exporter.answers, 10, "the exporter answers")
    exporter.until(lambda f: f["exporter_log_overflows_total"] == 1, 10, "it says so")
    before = exporter.requests()
    running.get()
    eventually(lambda: exporter.requests() > before, 10, "it goes on")
    assert int(running.run_in(running.nginx, f"du -k {LOG}")[1].split()[0]) <= 4


def test_it_costs_little(running: Stack, exporter: Exporter) -> None:
    before, begin = exporter.figures(), time.monotonic()
    eventually(lambda: time.monotonic() > begin + IDLE_SECONDS, IDLE_SECONDS + 1, "some time has passed")
    after = exporter.figures()
    share = (after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]) / IDLE_SECONDS
    print(f"\nidle: {share:.2%} of a core, {after['process_resident_memory_bytes'] / 2**20:.1f} MiB", file=sys.stderr)
    assert share < 0.005
    assert after["process_resident_memory_bytes"] < MEMORY_BUDGET


def test_it_may_do_little(running: Stack) -> None:
    (container,) = running.containers("exporter")
    assert running.run_in(container, "id -u; id -g")[1].split() == ["101", "10001"]
    assert "Read-only file system" in running.run_in(container, "touch /srv/intruder", user="0")[1]
    host = container.attrs["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 64 * 1024 * 1024
    assert host["CapDrop"] == ["ALL"]


# -- the page


@pytest.fixture(scope="module")
def page(running: Stack, exporter: Exporter) -> Iterator[Chrome]:
    with browser() as opened:
        opened.get(exporter.url)
        yield opened


def rows(page: Chrome) -> dict[str, list[str]]:
    """The table of replicas, as it is read."""
    script = "return [...find('replicas').tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.innerText))"
    return {cells[0]: cells for cells in page.execute_script(script)}


def number(page: Chrome, identity: str) -> int:
    return int(re.sub(r"\D", "", page.find_element(By.ID, identity).text.split("request")[0]) or 0)


def test_the_page_shows_every_replica(page: Chrome) -> None:
    eventually(lambda: set(rows(page)) == {"uwsgi-1", "uwsgi-2"}, 10, "both replicas are shown")
    assert [cells[1] for cells in rows(page).values()] == ["Serving", "Serving"]
    assert page.find_element(By.ID, "summary").text == "2 of 2 replicas serve"


def test_its_numbers_rise_by_themselves(running: Stack, page: Chrome) -> None:
    eventually(lambda: number(page, "total") > 0, 10, "there are requests")
    before = number(page, "total")
    for _ in range(25):
        running.get()
    eventually(lambda: number(page, "total") == before + 25, 15, "the page shows them")
    eventually(lambda: page.find_elements(By.CSS_SELECTOR, "#rate path.rate[d*='L']"), 15, "the chart has a curve")


def test_a_replica_that_is_stopped_is_shown_as_down(running: Stack, page: Chrome) -> None:
    replica = running.replica("uwsgi-2")
    replica.stop()
    eventually(lambda: rows(page)["uwsgi-2"][1] == "Down", 15, "it is down")
    assert page.find_element(By.ID, "summary").text == "1 of 2 replicas serve; down: uwsgi-2"
    replica.start()
    eventually(lambda: rows(page)["uwsgi-2"][1] == "Serving", 15, "it serves")


def test_the_browser_has_nothing_to_complain_about(page: Chrome) -> None:
    assert complaints(page) == []
    page.execute_script("const s = document.createElement('style'); s.textContent = '*{}'; document.head.append(s)")
    assert "Content Security Policy" in complaints(page)[0]["message"], "what this test listens to says nothing"


def test_without_the_exporter_the_page_says_that_its_figures_are_old(running: Stack, page: Chrome) -> None:
    (container,) = running.containers("exporter")
    container.stop()
    eventually(lambda: "does not answer" in page.find_element(By.ID, "problem").text, 20, "it says so")
    container.start()
    eventually(lambda: page.find_element(By.ID, "problem").text == "", 20, "all is well again")


def test_dark_and_narrow_it_is_readable_too(exporter: Exporter) -> None:
    with browser(400, 800, dark=True) as opened:
        opened.get(exporter.url)
        eventually(lambda: len(rows(opened)) == 2, 10, "both replicas are shown")
        overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert opened.execute_script(overflow) == 0
        assert complaints(opened) == []


def test_it_goes_under_load_and_nginx_stays_as_it_is(running: Stack) -> None:
    before = running.nginx.id
    with Load(running.port, slow=0, pause=0.02) as load:
        running.configure(metrics="")
        running.up()
    load.assert_nothing_was_dropped()
    assert running.nginx.id == before
    assert running.containers("exporter") == []

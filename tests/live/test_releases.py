"""Releases under load: not one request is dropped, whether they succeed or are refused."""

import re
from collections.abc import Iterator

import pytest

from tests.live.figures import Record
from tests.live.load import Load, saturating
from tests.live.stack import Stack, eventually

RELEASE = re.compile(r'RELEASE = "\w+"')


def release(stack: Stack, name: str) -> None:
    """Changes the app's source so that it calls itself `name`."""
    file = stack.folder / "app" / "webapp.py"
    text, count = RELEASE.subn(f'RELEASE = "{name}"', file.read_text())
    assert count == 1
    file.write_text(text)


def served(stack: Stack) -> str:
    return stack.get().split()[0]


def assert_only_the_declared_runs(stack: Stack, replicas: int = 2) -> None:
    """No orphan, and a socket for each."""
    names = [container.labels["uwsgi-nginx.replica"] for container in stack.containers("replica")]
    assert sorted(names) == [f"uwsgi-{number}" for number in range(1, replicas + 1)]
    assert len(stack.containers("nginx")) == 1
    sockets = stack.run_in(stack.nginx, "ls /run/uwsgi")[1].split()
    current = stack.outputs()["release"]
    assert {f"uwsgi-{number}-{current}.sock" for number in range(1, replicas + 1)} <= set(sockets)


def test_a_new_release_drops_nothing(running: Stack, record: Record) -> None:
    """Changes the app's source and runs `pulumi up` under load."""
    with Load(running.port) as load:
        release(running, "two")
        running.up()
    record("a new release", load)
    load.assert_nothing_was_dropped()
    assert {body.split()[0] for body in load.bodies} == {"one", "two"}
    assert served(running) == "two"


def test_a_new_release_drops_nothing_when_saturated(running: Stack, record: Record) -> None:
    """The same with 96 connections that never rest."""
    with saturating(running.port) as load:
        release(running, "three")
        running.up()
    record("a new release, saturated with 96 connections", load)
    load.assert_nothing_was_dropped()
    assert served(running) == "three"


def test_scaling_drops_nothing(running: Stack, record: Record) -> None:
    """Sets `replicas` to 5, 1 and 2, each with an `up`."""
    with Load(running.port) as load:
        for number in (5, 1, 2):
            running.configure(replicas=str(number))
            running.up()
            assert_only_the_declared_runs(running, number)
    record("scaling 2 → 5 → 1 → 2", load)
    load.assert_nothing_was_dropped()


def test_a_change_of_the_nginx_configuration_alone_drops_nothing(running: Stack, record: Record) -> None:
    """Edits NGINX's template; no container is replaced."""
    before = {container.id for container in running.containers()}
    with saturating(running.port) as load:
        running.edit("nginx/nginx.conf.j2", "server_tokens off;", "server_tokens off;\n    gzip on;")
        changes = running.up().changes
    record("a change of the NGINX configuration alone, saturated", load)
    load.assert_nothing_was_dropped()
    assert changes["update"] == 1
    assert {container.id for container in running.containers()} == before


@pytest.fixture
def good(running: Stack) -> Iterator[Stack]:
    """The stack with a release in force; whatever the test breaks in its source is taken back."""
    sources = [path for path in (running.folder / "app", running.folder / "nginx") for path in path.iterdir()]
    texts = {path: path.read_bytes() for path in sources if path.is_file()}
    yield running
    for path, text in texts.items():
        path.write_bytes(text)


BROKEN = {
    "an app that does not start": ('RELEASE = "', 'raise RuntimeError("no database")\nRELEASE = "', "no database"),
    "an app that never gets healthy": ("WELL = True", "WELL = False", "answered with 500"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_release_is_refused_each_time_and_drops_nothing(good: Stack, record: Record, broken: str) -> None:
    """`up`, `up`, `up --refresh` of a broken release, each refused; then the source as before."""
    old, new, words = BROKEN[broken]
    before = served(good)
    good.configure(importCheck="false")
    good.up()
    with Load(good.port) as load:
        good.edit("app/webapp.py", old, new)
        for arguments in ([], [], ["--refresh"]):
            refused = good.up(*arguments, check=False)
            assert refused.code != 0, refused.output
            assert words in refused.output
            assert re.search(r"uwsgi-[12] \(", refused.output), "it says which replica"
            assert "dynamic/__main__.py" not in refused.output, "no traceback of ours"
        assert served(good) == before
        good.edit("app/webapp.py", new, old)
        good.up()
    record(f"{broken}, three times, then the release before it", load)
    load.assert_nothing_was_dropped()
    assert served(good) == before
    assert_only_the_declared_runs(good)


def test_an_app_that_cannot_be_imported_is_refused_by_its_build(good: Stack, record: Record) -> None:
    """With `importCheck` its image is not even built."""
    good.configure(importCheck="true")
    good.up()
    before = {container.id for container in good.containers()}
    with Load(good.port) as load:
        good.edit("app/webapp.py", 'RELEASE = "', 'import nothing_of_that_name\nRELEASE = "')
        refused = good.up(check=False)
    record("an app that cannot be imported", load)
    assert refused.code != 0
    assert "No module named 'nothing_of_that_name'" in refused.output
    load.assert_nothing_was_dropped()
    assert {container.id for container in good.containers()} == before


def test_the_next_good_release_recovers_from_an_app_that_exits_after_a_while(good: Stack) -> None:
    """A release passes the gate and dies later; the next `up` replaces it and leaves no orphan."""
    good.edit("app/webapp.py", "DIES_AFTER = 0.0", "DIES_AFTER = 12.0")
    good.up()
    eventually(lambda: good.replica("uwsgi-1").attrs["RestartCount"] > 0, 60, "the app exits and is started again")
    good.edit("app/webapp.py", "DIES_AFTER = 12.0", "DIES_AFTER = 0.0")
    good.up()
    with Load(good.port) as load:
        pass
    load.assert_nothing_was_dropped(at_least=100)
    assert_only_the_declared_runs(good)


def test_a_configuration_that_nginx_rejects_is_refused_each_time(good: Stack, record: Record) -> None:
    """A misspelt value in NGINX's template, `up` twice, then mended."""
    with Load(good.port) as load:
        good.edit("nginx/nginx.conf.j2", "server_tokens off;", "server_tokens perhaps;")
        for _ in range(2):
            refused = good.up(check=False)
            assert refused.code != 0
            assert 'invalid value "perhaps"' in refused.output
            assert "stays in force" in refused.output
        good.edit("nginx/nginx.conf.j2", "server_tokens perhaps;", "server_tokens off;")
        good.up()
    record("a configuration that NGINX rejects, twice, then mended", load)
    load.assert_nothing_was_dropped()


def test_a_configuration_that_does_not_reach_the_app_is_refused(good: Stack, record: Record) -> None:
    """A template that is valid but answers 404, `up` twice, then mended."""
    with Load(good.port) as load:
        good.edit("nginx/pass.conf.j2", "uwsgi_pass {{ upstream }};", "return 404;")
        for _ in range(2):
            refused = good.up(check=False)
            assert refused.code != 0
            assert "not reached through the new NGINX configuration" in refused.output
            assert "answered with 404" in refused.output
        good.edit("nginx/pass.conf.j2", "return 404;", "uwsgi_pass {{ upstream }};")
        good.up()
    record("a configuration that does not reach the app, twice, then mended", load)
    load.assert_nothing_was_dropped()


def test_a_configuration_changed_by_hand_shows_in_a_refresh_and_is_put_right(good: Stack) -> None:
    """Edits the live file in the container; `up --refresh` puts it right."""
    append = "echo '# by hand' >> /etc/nginx/live/current/nginx.conf"
    assert good.run_in(good.nginx, append)[0] == 0
    assert good.pulumi("preview", "--refresh", "--expect-no-changes", check=False).code != 0
    good.up("--refresh")
    assert "by hand" not in good.run_in(good.nginx, "cat /etc/nginx/live/current/nginx.conf")[1]


def test_a_new_nginx_image_leaves_a_gap_that_is_known(running: Stack, record: Record) -> None:
    """Changes NGINX's Dockerfile; the port has no holder between the two containers."""
    with Load(running.port, slow=0) as load:
        running.edit("nginx/Dockerfile", "EXPOSE 8080", 'LABEL test="another"\nEXPOSE 8080')
        running.up()
    record("a new NGINX image on a published port", load, f"gap {load.gap:.1f} s")
    assert load.gap < 10
    assert set(running.answering(10)) == {"uwsgi-1", "uwsgi-2"}

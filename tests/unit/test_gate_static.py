"""Static files on their way from a replica to NGINX: what is copied, what is left out, what is kept for how long."""

import dataclasses
import io
import itertools
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from infra import gate, layout, nginx_config, static_files
from infra.gate import Gate, Replica, Rollout
from infra.nginx_config import Endpoints, Upstream
from infra.refusal import Refused
from infra.site import Canary, Site
from infra.static_files import StaticFiles, repacked
from tests.unit.fake_docker import FakeClock, FakeMachine, FakeReplica

FOLDERS = {"/static": "static"}

# A tar out of an image


def archive(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], folder: str = "static") -> bytes:
    """As `docker cp` gives it: everything below the name of the folder itself."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry(folder, tarfile.DIRTYPE))
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            info.name = f"{folder}/{info.name}"
            if info.islnk():
                info.linkname = f"{folder}/{info.linkname}"
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o600) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime = kind, target, mode, 1700000000
    info.uid, info.gid, info.uname, info.gname = 0, 0, "root", "root"
    return info


def file(name: str, content: bytes = b"content", mode: int = 0o600) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, mode=mode), content


def pieces(data: bytes, size: int = 700) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def served(data: bytes, size: int = 700) -> dict[str, tarfile.TarInfo]:
    """What of an archive is put before NGINX."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(repacked(pieces(data, size))))) as tar:
        return {member.name: member for member in tar}


@pytest.mark.parametrize("size", [1, 511, 512, 513, 100_000, 10_000_000])
def test_files_and_folders_arrive_as_they_are_in_whatever_pieces_they_come(size: int) -> None:
    contents = {"a.css": b"", "deep/er/b.js": b"x" * 511, "deep/c.bin": bytes(range(256)) * 5000, "d": b"y" * 512}
    data = archive(entry("deep", tarfile.DIRTYPE), *(file(name, content) for name, content in contents.items()))
    with tarfile.open(fileobj=io.BytesIO(b"".join(repacked(pieces(data, size))))) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]
    assert found == contents


@pytest.mark.parametrize("name", ["n" * 99, "n" * 100, "/".join(["n" * 200] * 5), "ä ö\n.css", "\udcff.css"])
def test_a_file_may_have_any_name(name: str) -> None:
    assert name in served(archive(file(name)))


def test_what_is_served_belongs_to_nginx_is_read_by_nobody_else_and_keeps_its_time() -> None:
    members = served(archive(entry("sub", tarfile.DIRTYPE, mode=0o700), file("sub/a.sh", mode=0o4755)))
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members.values()} == {
        (layout.NGINX_USER, layout.SOCKET_GROUP, "", "")
    }
    assert (members["sub"].mode, members["sub/a.sh"].mode) == (0o755, 0o644)
    assert members["sub/a.sh"].mtime == 1700000000


@pytest.mark.parametrize(
    "member",
    [
        entry("link", tarfile.SYMTYPE, "/etc/passwd"),
        entry("link", tarfile.SYMTYPE, "../../app/settings.py"),
        entry("link", tarfile.SYMTYPE, "a.css"),
        entry("pipe", tarfile.FIFOTYPE),
        entry("disk", tarfile.BLKTYPE),
        entry("null", tarfile.CHRTYPE),
        file(".env"),
        file(".git/config"),
        file("deep/.htpasswd"),
        file("deep/.well-known-not/a"),
    ],
    ids=lambda member: (member[0] if isinstance(member, tuple) else member).name,
)
def test_links_devices_and_hidden_names_are_left_out(member: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> None:
    assert set(served(archive(file("a.css"), member, file("z.css")))) == {"a.css", "z.css"}


def test_a_well_known_folder_is_not_hidden() -> None:
    assert ".well-known/security.txt" in served(archive(file(".well-known/security.txt")))


def test_one_file_under_two_names_stays_so_unless_the_first_was_left_out() -> None:
    members = served(
        archive(
            file(".hidden"),
            entry("of-a-hidden-one", tarfile.LNKTYPE, ".hidden"),
            entry("of-a-link-to-it", tarfile.LNKTYPE, "of-a-hidden-one"),
            file("a.css"),
            entry("b.css", tarfile.LNKTYPE, "a.css"),
        )
    )
    assert set(members) == {"a.css", "b.css"}
    assert (members["b.css"].type, members["b.css"].linkname) == (tarfile.LNKTYPE, "a.css")


def test_a_large_file_is_never_in_memory_as_a_whole() -> None:
    size = 64 * static_files.CHUNK

    def large() -> Iterator[bytes]:
        info = entry("static/large.bin")
        info.size = size
        yield entry("static", tarfile.DIRTYPE).tobuf()
        yield info.tobuf()
        for _ in range(size // static_files.CHUNK):
            yield bytes(static_files.CHUNK)
        yield bytes(2 * tarfile.BLOCKSIZE)

    lengths = [len(piece) for piece in repacked(large())]
    assert sum(lengths) >= size
    assert max(lengths) <= static_files.CHUNK


# With the gate


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(gate, "time", clock)
    monkeypatch.setattr(gate, "datetime", clock.datetime)
    monkeypatch.setattr(gate, "POLL_INTERVAL", 0.5)
    return clock


@pytest.fixture
def machine(tmp_path: Path, clock: FakeClock) -> FakeMachine:
    return FakeMachine(tmp_path / "nginx", clock)


def rollout(machine: FakeMachine, *releases: str, folders: dict[str, str] | None = None) -> Rollout:
    """Of one release, or of two, a replica each; their images have static/RELEASE.css and static/same.css."""
    canary = Canary(share=10 if len(releases) > 1 else None)
    site = Site(static=FOLDERS if folders is None else folders, drain_timeout=2, canary=canary)
    sets = []
    for prefix, release in zip(("uwsgi", "uwsgi-canary"), releases, strict=False):
        name, socket = f"{prefix}-1", f"/run/uwsgi/{prefix}-1-{release}.sock"
        key = f"{name}-{release}"
        machine.replicas[key] = FakeReplica(key, env=[f"REPLICA_SOCKET={socket}"])
        (machine.sockets / f"{prefix}-1-{release}.sock").touch()
        whole = archive(file(f"{release}.css"), file("same.css", release.encode()))
        machine.archives[f"{key}:/app/static"] = list(pieces(whole))
        sets.append(Replica(key, f"id-of-{key}", socket))
    upstreams = [[Upstream(replica.name, replica.socket)] for replica in sets]
    return Rollout(
        nginx="id-of-nginx",
        replicas=sets,
        configuration=nginx_config.render(
            *upstreams,
            site=site,
            release=releases[0],
            canary_release=releases[1] if len(releases) > 1 else "",
        ),
        files=nginx_config.live_files(site, Endpoints()),
        probe_files=nginx_config.probe_files([upstream for known in upstreams for upstream in known]),
        health_path="/health",
        health_timeout=3,
        drain_timeout=2,
        static=[
            StaticFiles(nginx_config.static_name(site, release), replica.container, site.static)
            for release, replica in zip(releases, sets, strict=True)
            if site.static
        ],
    )


@pytest.fixture
def release(machine: FakeMachine) -> Callable[..., Rollout]:
    """Makes a release go live, or one with a canary."""

    def go_live(*releases: str, folders: dict[str, str] | None = None) -> Rollout:
        what = rollout(machine, *releases, folders=folders)
        Gate(machine.client()).let_pass(what)
        return what

    return go_live


def found(machine: FakeMachine, what: Rollout, uri: str) -> str | None:
    """What NGINX finds at `uri`: the first of `try_files` that is there."""
    tried: str
    (tried,) = set(re.findall(r"try_files (.*) @", what.configuration))
    for template in tried.split():
        place = template.replace("$uri", uri).replace("$release", what.static[0].name.split("-")[0])
        path = machine.root / layout.STATIC_FOLDER.lstrip("/") / place.lstrip("/")
        if path.is_file():
            return path.read_text()
    return None


def kept(machine: FakeMachine) -> set[str]:
    return {path.name.partition("-")[0] for path in (machine.live / ".static").iterdir() if not path.is_symlink()}


def test_the_files_are_there_before_the_release_is_live(machine: FakeMachine, release: Callable[..., Rollout]) -> None:
    what = release("0a")
    assert found(machine, what, "/static/0a.css") == "content"
    events = machine.events
    put = [position for position, event in enumerate(events) if event == "put"]
    assert len(put) == 2, "the configuration, then the files"
    assert events.index("probe stopped") > put[0]
    assert put[1] < next(position for position, event in enumerate(events) if event.startswith("swap"))


def test_what_is_there_already_is_not_copied_again(machine: FakeMachine, release: Callable[..., Rollout]) -> None:
    release("0a")
    release("0a")
    assert machine.events.count("put") == 3


def test_a_copy_that_was_cut_short_is_begun_anew(machine: FakeMachine, release: Callable[..., Rollout]) -> None:
    what = rollout(machine, "0a")
    whole = machine.archives["uwsgi-1-0a:/app/static"]

    def cut_short() -> Iterator[bytes]:
        yield from itertools.islice(whole, 3)
        raise requests.exceptions.ChunkedEncodingError("Connection broken")

    machine.archives["uwsgi-1-0a:/app/static"] = cut_short()
    with pytest.raises(Refused, match="Connection broken"):
        Gate(machine.client()).let_pass(what)
    assert machine.current == "boot"
    assert found(machine, what, "/static/same.css") is None
    machine.archives["uwsgi-1-0a:/app/static"] = whole
    Gate(machine.client()).let_pass(what)
    assert found(machine, what, "/static/same.css") == "0a"
    assert kept(machine) == {"0a"}


def test_pages_that_were_loaded_before_still_find_their_files(
    machine: FakeMachine, release: Callable[..., Rollout]
) -> None:
    release("0a")
    what = release("0b")
    assert found(machine, what, "/static/0a.css") == "content"
    assert found(machine, what, "/static/same.css") == "0b", "the new one comes first"
    what = release("0c")
    assert found(machine, what, "/static/0b.css") == "content"
    assert found(machine, what, "/static/0a.css") is None
    assert kept(machine) == {"0b", "0c"}


def test_a_change_of_the_configuration_alone_keeps_the_release_before(
    machine: FakeMachine, release: Callable[..., Rollout]
) -> None:
    release("0a")
    what = release("0b")
    again = dataclasses.replace(what, configuration=what.configuration + "# changed\n")
    Gate(machine.client()).let_pass(again)
    assert found(machine, again, "/static/0a.css") == "content"
    assert kept(machine) == {"0a", "0b"}


def test_back_to_the_release_before_finds_the_files_of_the_one_that_goes(
    machine: FakeMachine, release: Callable[..., Rollout]
) -> None:
    release("0a")
    release("0b")
    what = release("0a")
    assert found(machine, what, "/static/same.css") == "0a"
    assert found(machine, what, "/static/0b.css") == "content"


def test_a_canary_and_the_first_release_have_their_files_and_those_of_whoever_goes(
    machine: FakeMachine, release: Callable[..., Rollout]
) -> None:
    release("0a")
    both = release("0a", "0c")
    assert found(machine, both, "/static/0c.css") == "content"
    assert found(machine, both, "/static/same.css") == "0a"
    promoted = release("0c")
    assert found(machine, promoted, "/static/same.css") == "0c"
    assert found(machine, promoted, "/static/0a.css") == "content"
    assert kept(machine) == {"0a", "0c"}


def test_a_release_that_is_refused_copies_nothing(machine: FakeMachine, release: Callable[..., Rollout]) -> None:
    release("0a")
    what = rollout(machine, "0b")
    machine.replicas["uwsgi-1-0b"].answer = lambda: (500, "")
    with pytest.raises(Refused):
        Gate(machine.client()).let_pass(what)
    assert kept(machine) == {"0a"}


def test_static_files_turned_off_leave_nothing(machine: FakeMachine, release: Callable[..., Rollout]) -> None:
    release("0a")
    release("0a", folders={})
    assert kept(machine) == set()


def test_other_paths_for_the_same_release_are_another_copy(
    machine: FakeMachine, release: Callable[..., Rollout]
) -> None:
    release("0a")
    what = release("0a", folders={"/assets": "static", "/assets/more": "static"})
    assert found(machine, what, "/assets/0a.css") == "content"
    assert found(machine, what, "/assets/more/0a.css") == "content"


def test_a_folder_that_the_image_lacks_is_told_and_left_to_the_app(
    machine: FakeMachine, release: Callable[..., Rollout]
) -> None:
    told: list[str] = []
    what = rollout(machine, "0a", folders={"/static": "static", "/other": "other"})
    Gate(machine.client(), told.append).let_pass(what)
    assert found(machine, what, "/static/0a.css") == "content"
    assert [line for line in told if "no folder other" in line]
    assert machine.current != "boot"


def test_recovery_removes_what_nobody_needs(machine: FakeMachine, release: Callable[..., Rollout]) -> None:
    release("0a")
    release("0b")
    for name in ("0f-00000000", "0f-00000001.part", "0f-00000000.before"):
        (machine.live / ".static" / name).mkdir()
    assert sorted(Gate(machine.client()).sweep("id-of-nginx")) == [
        f"{layout.STATIC_FOLDER}/0f-00000000",
        f"{layout.STATIC_FOLDER}/0f-00000000.before",
        f"{layout.STATIC_FOLDER}/0f-00000001.part",
    ]
    assert kept(machine) == {"0a", "0b"}

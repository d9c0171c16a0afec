"""What the images' sources hold: the options that uWSGI needs for this design, the promises of the Dockerfiles."""

import re
import subprocess
from pathlib import Path

import pytest

from infra import layout

DOCKERFILES = {"uwsgi": Path("uwsgi/Dockerfile"), "nginx": Path("nginx/Dockerfile")}


@pytest.fixture
def options() -> list[tuple[str, str]]:
    """Those of uwsgi.ini in order: uWSGI allows the same one more than once, and conditions between them."""
    lines = Path("uwsgi/uwsgi.ini").read_text().splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[uwsgi]"]
    pairs = []
    for line in lines:
        if line.strip() and not line.startswith((";", "[")):
            name, equals, value = line.partition("=")
            assert equals, f"no option: {line}"
            pairs.append((name.strip(), value.strip()))
    return pairs


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", "\n".join(x for x in dockerfile.read_text().splitlines() if not x.startswith("#")))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in text.splitlines() if line.strip()]


def last_stage(dockerfile: Path) -> list[tuple[str, str]]:
    all_of_them = instructions(dockerfile)
    start = max(number for number, (name, _) in enumerate(all_of_them) if name == "FROM")
    return all_of_them[start:]


# uwsgi.ini


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("strict", "true"),
        ("need-app", "true"),
        ("master", "true"),
        ("single-interpreter", "true"),
        ("enable-threads", "true"),
        ("wsgi-file", "/usr/local/bin/wsgi.py"),
        ("callable", "application"),
        ("stats", "$(REPLICA_SOCKET).stats"),
        ("hook-master-start", "unix_signal:15 gracefully_kill_them_all"),
    ],
)
def test_uwsgi_is_told_once(options: list[tuple[str, str]], option: str, value: str) -> None:
    assert [found for name, found in options if name == option] == [value]


def test_uwsgi_binds_another_name_and_takes_the_socket_over_when_it_accepts(options: list[tuple[str, str]]) -> None:
    assert ("socket", "$(REPLICA_SOCKET).starting") in options
    (hook,) = [value for name, value in options if name == "hook-accepting1-once"]
    assert hook.endswith('mv -f "$(REPLICA_SOCKET).starting" "$(REPLICA_SOCKET)"')


@pytest.mark.parametrize(("reloads", "renames"), [("0", True), ("1", False)])
def test_a_reload_finds_nothing_to_rename(
    options: list[tuple[str, str]], tmp_path: Path, reloads: str, renames: bool
) -> None:
    (hook,) = [value for name, value in options if name == "hook-accepting1-once"]
    script = hook.removeprefix("exec:").replace("$(REPLICA_SOCKET)", str(tmp_path / "socket"))
    (tmp_path / "socket.starting").touch()
    # uWSGI counts them in this variable, and dies where the hook fails.
    subprocess.run(["sh", "-c", script], env={"PATH": "/usr/bin:/bin", "UWSGI_RELOADS": reloads}, check=True)
    assert (tmp_path / "socket").exists() == renames


def test_uwsgi_listens_on_the_socket_in_a_stack_over_tcp_too_in_a_swarm_and_on_http_by_hand(
    options: list[tuple[str, str]],
) -> None:
    inside: dict[str, list[tuple[str, str]]] = {}
    condition = ""
    for name, value in options:
        if name in ("if-env", "if-not-env"):
            assert not condition, "conditions do not nest"
            condition = f"{name} {value}"
        elif name == "endif":
            assert condition
            condition = ""
        elif name in ("socket", "chmod-socket", "http-socket", "stats", "stats-http"):
            inside.setdefault(condition, []).append((name, value))
    assert not condition, "a condition without its end"
    assert inside == {
        "if-env REPLICA_SOCKET": [
            ("socket", "$(REPLICA_SOCKET).starting"),
            ("chmod-socket", "660"),
            ("stats", "$(REPLICA_SOCKET).stats"),
            ("stats-http", "true"),
        ],
        "if-env REPLICA_PORT": [("socket", "$(REPLICA_ADDRESS):$(REPLICA_PORT)")],
        "if-not-env REPLICA_SOCKET": [("http-socket", ":$(UWSGI_HTTP_PORT)")],
    }
    assert {layout.SOCKET_VARIABLE, layout.PORT_VARIABLE} == {"REPLICA_SOCKET", "REPLICA_PORT"}


@pytest.mark.parametrize(
    "option", ["vacuum", "die-on-term", "lazy-apps", "daemonize", "lazy", "uid", "gid", "log-master", "py-autoreload"]
)
def test_uwsgi_is_not_told_what_breaks_the_design(options: list[tuple[str, str]], option: str) -> None:
    assert option not in [name for name, _ in options]


def test_nginx_reaches_the_socket_by_its_group_and_nobody_else_does(options: list[tuple[str, str]]) -> None:
    assert ("chmod-socket", "660") in options


def test_the_program_and_uwsgi_agree_on_the_variable_with_the_socket() -> None:
    assert f"$({layout.SOCKET_VARIABLE})" in Path("uwsgi/uwsgi.ini").read_text()


HANDED_OVER = {
    "UWSGI_INI": "uwsgi.ini",
    "ENTRYPOINT_PY": "entrypoint.py",
    "WSGI_PY": "wsgi.py",
    "LIVE_RELOAD_PY": "live_reload.py",
    "HEALTHCHECK_C": "healthcheck.c",
}


@pytest.mark.parametrize("file", HANDED_OVER.values())
def test_a_file_handed_over_as_build_argument_survives_it(file: str) -> None:
    content = Path("uwsgi", file).read_bytes()
    assert content
    assert b"\0" not in content
    assert b"\r" not in content
    assert len(content) < 100_000, "an argument of execve is at most 128 KiB"


def test_every_file_is_handed_over_and_written_into_the_image() -> None:
    assert {path.name for path in Path("uwsgi").glob("*.*")} == set(HANDED_OVER.values())
    (written,) = [value for name, value in last_stage(DOCKERFILES["uwsgi"]) if name == "RUN" and "printf" in value]
    for argument, file in HANDED_OVER.items():
        if file.endswith(".c"):  # compiled where the compiler is
            line = f"ARG {argument}\nRUN printf '%s' \"${{{argument}:?}}\" | gcc "
            assert line in Path("uwsgi/Dockerfile").read_text()
            continue
        assert ("ARG", argument) in last_stage(DOCKERFILES["uwsgi"])
        assert re.search(rf"printf '%s' \"\${{{argument}:\?}}\" > (/etc/)?{re.escape(file)}( |$)", written)


# Dockerfiles


@pytest.mark.parametrize("image", DOCKERFILES)
def test_an_image_runs_as_a_numbered_user_who_is_not_root(image: str) -> None:
    users = [value for name, value in last_stage(DOCKERFILES[image]) if name == "USER"]
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


@pytest.mark.parametrize("image", DOCKERFILES)
def test_an_image_has_an_entrypoint_in_exec_form_so_that_signals_arrive(image: str) -> None:
    entrypoints = [value for name, value in last_stage(DOCKERFILES[image]) if name == "ENTRYPOINT"]
    assert len(entrypoints) == 1
    assert entrypoints[0].startswith("[")
    assert "CMD" not in [name for name, _ in last_stage(DOCKERFILES[image])]


def test_the_app_image_leaves_the_compiler_behind() -> None:
    stage = last_stage(DOCKERFILES["uwsgi"])
    assert [value for name, value in instructions(DOCKERFILES["uwsgi"]) if name == "FROM"][-1] == "${PYTHON_IMAGE}"
    assert [value for name, value in stage if name == "RUN" and ("gcc" in value or "apt-get" in value)] == []


def test_uwsgi_is_built_with_web_sockets_and_is_seen_to_start_without_what_it_was_built_with() -> None:
    builder = DOCKERFILES["uwsgi"].read_text().partition("\nFROM ${PYTHON_IMAGE}\n")[0]
    assert "libssl-dev" in builder
    assert [value for name, value in last_stage(DOCKERFILES["uwsgi"]) if "/opt/venv/bin/uwsgi --version" in value]


def test_the_app_image_serves_by_hand_with_the_arguments_of_the_original_project() -> None:
    stage = last_stage(DOCKERFILES["uwsgi"])
    arguments = {value for name, value in stage if name == "ARG"}
    assert {"UWSGI_APP=webapp", "UWSGI_HTTP_PORT=8000"} <= arguments
    (environment,) = [value for name, value in stage if name == "ENV"]
    assert "UWSGI_APP=${UWSGI_APP}" in environment
    assert "UWSGI_HTTP_PORT=${UWSGI_HTTP_PORT}" in environment


def test_the_import_check_can_be_turned_off_and_runs_as_the_apps_user() -> None:
    stage = last_stage(DOCKERFILES["uwsgi"])
    (check,) = [value for name, value in stage if name == "RUN" and "import_module" in value]
    (user,) = [value for name, value in stage if name == "USER"]
    uid, gid = user.split(":")
    assert f"setpriv --reuid {uid} --regid {gid} --clear-groups python -c" in check
    assert 'if [ "${IMPORT_CHECK}" = true ]; then' in check


def test_a_change_of_the_app_builds_nothing_again_but_what_copies_and_compiles_it() -> None:
    names = [name for name, _ in last_stage(DOCKERFILES["uwsgi"])]
    copied = len(names) - names[::-1].index("COPY") - 1
    assert names[copied:] == ["COPY", "RUN", "USER"]


def test_everything_agrees_on_who_owns_the_sockets_and_the_configuration() -> None:
    user, group = layout.NGINX_USER, layout.SOCKET_GROUP
    assert ("USER", f"{user}:{group}") in last_stage(DOCKERFILES["nginx"])
    assert ("USER", f"{group}:{group}") in last_stage(DOCKERFILES["uwsgi"])
    for dockerfile in DOCKERFILES.values():
        assert f"--group {group} --mode 2770 {layout.SOCKET_FOLDER}" in dockerfile.read_text()


def test_everything_agrees_on_the_places_in_nginxs_container() -> None:
    (entrypoint,) = [value for name, value in last_stage(DOCKERFILES["nginx"]) if name == "ENTRYPOINT"]
    assert f"{layout.CURRENT}/{layout.CONFIGURATION_FILE}" in entrypoint
    assert f"pid {layout.PID_FILE};" in entrypoint
    assert ("EXPOSE", str(layout.PORT)) in last_stage(DOCKERFILES["nginx"])
    assert ("STOPSIGNAL", "SIGQUIT") in last_stage(DOCKERFILES["nginx"])


def test_what_only_the_program_reads_is_not_in_the_nginx_image() -> None:
    ignored = Path("nginx/.dockerignore").read_text().split()
    assert {"*.j2", "Dockerfile"} <= set(ignored)

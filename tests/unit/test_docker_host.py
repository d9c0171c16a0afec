"""The daemon is asked where the plugin asks it: on a socket, by TLS, by ssh."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import DockerException
from requests.adapters import HTTPAdapter

from infra import docker_host

# In the place of ssh: notes how it was called, and is a daemon on its standard input, which is a socket.
SSH = """\
#!{python}
import json, socket, sys
from http.server import BaseHTTPRequestHandler
open({calls!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
{before}
class Daemon(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        answer = {{"ApiVersion": "1.41", "path": self.path}}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
    do_HEAD = do_GET
    def log_message(self, *_): pass
Daemon(socket.socket(fileno=0), ("client", 0), None)
"""


class Ssh:
    """A PATH with that ssh."""

    def __init__(self, folder: Path) -> None:
        self._program, self._calls = folder / "ssh", folder / "calls"
        self.does()

    def does(self, before: str = "") -> None:
        """What it does before it is a daemon."""
        text = SSH.format(python=sys.executable, calls=str(self._calls), before=before)
        self._program.write_text(text, encoding="utf-8")
        self._program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text(encoding="utf-8").splitlines() if self._calls.exists() else []


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    monkeypatch.setenv("PATH", str(tmp_path))
    return Ssh(tmp_path)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments with which the SDK's clients were made."""
    made: list[dict[str, Any]] = []
    for name in ("DOCKER_HOST", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)

    class FakeClient:
        def __init__(self, **options: Any) -> None:
            self.options = options
            made.append(options)

        def mount(self, prefix: str, adapter: Any) -> None:
            self.options[prefix] = adapter

        def version(self, *, api_version: bool) -> dict[str, str]:
            assert not api_version
            return {"ApiVersion": "1.41"}

    monkeypatch.setattr(docker, "DockerClient", FakeClient)
    return made


def certificates(folder: Path) -> Path:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (folder / name).touch()
    return folder


def test_without_a_host_the_environment_says_which_daemon(
    clients: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docker_host.connect()
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2376")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates(tmp_path)))
    docker_host.connect()
    local, _, remote = clients
    assert (local["base_url"], local["tls"], local["timeout"]) == (docker_host.LOCAL, None, docker_host.TIMEOUT)
    assert (remote["base_url"], remote["tls"].ca_cert) == ("tcp://10.0.0.1:2376", f"{tmp_path}/ca.pem")


@pytest.mark.parametrize("host", ["unix:///run/other.sock", "tcp://10.0.0.1:2375"])
def test_a_host_is_the_one_that_is_asked(clients: list[dict[str, Any]], host: str) -> None:
    docker_host.connect(host)
    (options,) = clients
    assert options["base_url"] == host
    assert not options["tls"]


def test_certificates_are_used_for_tls(clients: list[dict[str, Any]], tmp_path: Path) -> None:
    docker_host.connect("tcp://10.0.0.1:2376", str(certificates(tmp_path)))
    first, options = clients
    assert (first["version"], options["version"]) == (docker_host.OLDEST_API, "1.41")
    assert options["tls"].ca_cert == f"{tmp_path}/ca.pem"
    assert options["tls"].cert == (f"{tmp_path}/cert.pem", f"{tmp_path}/key.pem")
    assert options["tls"].verify


def test_no_other_authority_is_believed(
    clients: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The HTTP library lets REQUESTS_CA_BUNDLE go before what a session says."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(HTTPAdapter, "send", lambda _self, _request, **options: asked.update(options))
    docker_host.connect("tcp://10.0.0.1:2376", str(certificates(tmp_path)))
    clients[-1]["https://"].send(None, verify="/etc/ssl/everybody.pem", timeout=1)
    certificate = (f"{tmp_path}/cert.pem", f"{tmp_path}/key.pem")
    assert asked == {"verify": f"{tmp_path}/ca.pem", "cert": certificate, "timeout": 1}


def test_certificates_are_not_for_a_socket(clients: list[dict[str, Any]]) -> None:
    docker_host.connect("unix:///run/other.sock", "/nowhere")
    (options,) = clients
    assert not options["tls"]


@pytest.mark.parametrize("missing", ["ca.pem", "cert.pem", "key.pem"])
def test_a_certificate_that_is_missing_is_named(clients: list[dict[str, Any]], tmp_path: Path, missing: str) -> None:
    (certificates(tmp_path) / missing).unlink()
    with pytest.raises(DockerException, match=f"docker:certPath: there is no {tmp_path}/{missing}"):
        docker_host.connect("tcp://10.0.0.1:2376", str(tmp_path))
    assert not clients


@pytest.mark.parametrize(
    ("host", "arguments"),
    [
        ("ssh://lab", "-- lab"),
        ("ssh://root@lab", "-l root -- lab"),
        ("ssh://root@lab:2222", "-l root -p 2222 -- lab"),
        ("ssh://root@[::1]:2222", "-l root -p 2222 -- ::1"),
    ],
)
def test_by_ssh_docker_there_is_asked(ssh: Ssh, host: str, arguments: str) -> None:
    docker_host.connect(host).close()
    assert ssh.calls == [f"-T -o ConnectTimeout=30 {arguments} docker system dial-stdio"]


def test_one_login_does_for_many_calls_in_the_api_that_the_daemon_speaks(ssh: Ssh) -> None:
    client = docker_host.connect("ssh://lab")
    answers = [client.info()["path"] for _ in range(5)] + [client.version()["path"]]
    client.close()
    assert answers == ["/v1.41/info"] * 5 + ["/v1.41/version"]
    assert len(ssh.calls) == 1


def test_calls_at_a_time_have_a_login_each_and_keep_it(ssh: Ssh) -> None:
    client = docker_host.connect("ssh://lab")
    together = threading.Barrier(6)

    def ask(_: int) -> str:
        together.wait()
        return str(client.info()["path"])

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(ask, range(6))) == {"/v1.41/info"}
    logins = len(ssh.calls)
    client.info()
    client.close()
    assert 1 <= logins <= 6
    assert len(ssh.calls) == logins


def test_what_ssh_says_is_told(ssh: Ssh) -> None:
    ssh.does("sys.exit('Warning: so and so\\nHost key verification failed.')")
    with pytest.raises(DockerException, match=r"^Warning: so and so Host key verification failed\.$"):
        docker_host.connect("ssh://lab")


def test_a_machine_without_ssh_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DockerException) as refused:
        docker_host.connect("ssh://lab")
    assert str(refused.value) == "there is no ssh on this machine"


def test_a_host_that_says_nothing_is_given_up(ssh: Ssh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_host, "TIMEOUT", 0.5)
    monkeypatch.setattr(docker_host, "END_TIMEOUT", 0.1)
    ssh.does("import time; time.sleep(60)")
    with pytest.raises(DockerException, match=r"^ssh: timed out$"):
        docker_host.connect("ssh://lab")


def test_a_connection_that_was_lost_is_made_anew(ssh: Ssh) -> None:
    client = docker_host.connect("ssh://lab")
    adapter = client.api.get_adapter("http+docker://localhost")
    assert isinstance(adapter, docker_host.SshAdapter)
    for process in adapter._running:
        process.kill()
        process.wait()
    assert client.info()["path"] == "/v1.41/info"
    client.close()
    assert len(ssh.calls) == 2


@pytest.mark.parametrize("host", ["ssh://lab/run/docker.sock", "ssh://root:secret@lab", "ssh://"])
def test_what_ssh_does_not_take_is_refused(ssh: Ssh, host: str) -> None:
    with pytest.raises(DockerException, match="should be ssh://HOST, ssh://USER@HOST or ssh://USER@HOST:PORT"):
        docker_host.connect(host)
    assert not ssh.calls

"""`make certificate`: a certificate for development that clients take, renewed under the same authority."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from infra.certificate import check
from infra.site import Tls
from tests.tooling.conftest import Bench
from tooling import certificate, cli
from tooling.certificate import make
from tooling.console import Failure

OURS = {"certificateFile": ".local/tls/dev/certificate.pem", "keyFile": ".local/tls/dev/key.pem"}
SET = (
    "pulumi --non-interactive config set-all --path --plaintext=tls.certificateFile=.local/tls/dev/certificate.pem "
    "--plaintext=tls.keyFile=.local/tls/dev/key.pem --stack dev"
)


def configured(bench: Bench, **config: Any) -> None:
    """A `pulumi` that knows this configuration, as `config --json` shows it."""
    known = {
        f"uwsgi-nginx:{key}": {"secret": True}
        if value == "[secret]"
        else {"value": value if isinstance(value, str) else json.dumps(value), "secret": False}
        | ({} if isinstance(value, str) else {"objectValue": value})
        for key, value in config.items()
    }
    bench.write("config.json", json.dumps(known | {"other:tls": {"value": "x"}}))
    bench.fake("pulumi", f'case "$*" in *"config --json"*) cat "{bench.root}/config.json";; esac')


def folder(bench: Bench) -> Path:
    return bench.root / ".local" / "tls" / "dev"


def certificate_of(bench: Bench, name: str = "certificate") -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder(bench) / f"{name}.pem").read_bytes())


def names(bench: Bench) -> set[str]:
    found = certificate_of(bench).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))}


def handshake(bench: Bench, host: str) -> None:
    """Between a client that trusts the authority, and a server that has certificate and key."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder(bench) / "certificate.pem", folder(bench) / "key.pem")
    client_context = ssl.create_default_context(cafile=str(folder(bench) / "ca.pem"))
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(down, up, server_hostname=host)
    server = server_context.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.getpeercert()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "shop.test", "192.0.2.1"])
def test_clients_that_trust_the_authority_take_it(bench: Bench, host: str) -> None:
    configured(bench)
    assert make(bench.root, "dev", ["shop.test", "192.0.2.1"]) == 0
    handshake(bench, host)


def test_the_stack_takes_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(bench)
    make(bench.root, "dev", [])
    assert bench.calls[-1] == SET
    monkeypatch.chdir(bench.root)
    tls = Tls.model_validate({**OURS, "hosts": ["localhost", "127.0.0.1", "::1"]}, by_alias=True)
    assert check(tls, key_is_secret=False).warnings == ()


def test_nobody_else_may_read_its_keys(bench: Bench) -> None:
    configured(bench)
    make(bench.root, "dev", [])
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder(bench).iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600, "certificate.pem": 0o644, "key.pem": 0o600}
    assert folder(bench).stat().st_mode & 0o777 == 0o700


def test_again_it_is_renewed_for_the_same_names_and_trusted_as_before(bench: Bench) -> None:
    configured(bench)
    make(bench.root, "dev", ["shop.test"])
    before, authority = certificate_of(bench), certificate_of(bench, "ca")
    configured(bench, tls=OURS)
    make(bench.root, "dev", ["Other.Test"])
    after = certificate_of(bench)
    assert certificate_of(bench, "ca") == authority
    assert after.serial_number != before.serial_number
    assert after.public_key() != before.public_key()
    assert names(bench) == {"localhost", "127.0.0.1", "::1", "shop.test", "other.test"}
    handshake(bench, "shop.test")
    assert bench.called(SET) == [SET], "what is set already is not set again"


def test_it_is_for_what_the_stack_says_of_itself(bench: Bench) -> None:
    configured(bench, tls={"hosts": ["shop.test"], "port": 443}, publishAddress="192.0.2.7", port="80")
    make(bench.root, "dev", [])
    assert {"shop.test", "192.0.2.7"} < names(bench)


def test_every_system_takes_how_long_it_is_valid(bench: Bench) -> None:
    configured(bench)
    make(bench.root, "dev", [])
    made = certificate_of(bench)
    assert made.not_valid_before_utc <= datetime.now(UTC)
    assert timedelta(days=365) < made.not_valid_after_utc - made.not_valid_before_utc < timedelta(days=398)


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ({}, "https://127.0.0.1:8443"),
        ({"publishAddress": "0.0.0.0", "tls": {"port": 443}}, "https://127.0.0.1"),
        ({"tls": {"hosts": ["shop.test", "localhost"], "port": 9443}}, "https://shop.test:9443"),
    ],
)
def test_it_ends_with_the_url_and_says_how_to_trust(
    bench: Bench, config: dict[str, Any], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configured(bench, **config)
    make(bench.root, "dev", [])
    said = capsys.readouterr()
    assert said.out == f"{url}\n"
    assert f"curl    --cacert .local/tls/dev/ca.pem {url}\n" in said.err
    assert "browser import .local/tls/dev/ca.pem" in said.err


@pytest.mark.parametrize(
    "tls",
    [
        "[secret]",
        {"certificate": "-----BEGIN …"},
        {"certificateFile": "/etc/letsencrypt/live/x/fullchain.pem", "keyFile": "/etc/letsencrypt/live/x/privkey.pem"},
    ],
)
def test_a_certificate_that_it_did_not_make_is_left_alone(bench: Bench, tls: Any) -> None:
    configured(bench, tls=tls)
    with pytest.raises(Failure, match="a certificate that this did not make"):
        make(bench.root, "dev", [])
    assert not folder(bench).exists()
    assert bench.called("pulumi --non-interactive config set") == []


@pytest.mark.parametrize("name", ["a b", "*.test", "--diff", "http://x", ""])
def test_a_name_that_is_none_is_refused(bench: Bench, name: str) -> None:
    configured(bench)
    with pytest.raises(Failure, match="should be "):
        make(bench.root, "dev", [name])
    assert not folder(bench).exists()


def test_a_pulumi_that_fails_is_told_in_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.fake("pulumi", "echo incorrect passphrase >&2; exit 255")
    monkeypatch.setattr(certificate, "ROOT", bench.root)
    monkeypatch.setattr("sys.argv", ["certificate", "dev"])
    assert certificate.main() == 1
    said = capsys.readouterr().err
    assert "make certificate stopped" in said
    assert "incorrect passphrase" in said


def test_it_gets_the_machine_ready_and_runs_in_the_virtual_environment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready: list[str | None] = []
    monkeypatch.setattr(cli, "ROOT", bench.root)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("tooling.bootstrap.ensure", lambda root, name: ready.append(name))
    bench.fake("python", "exit 7", bench.root / ".venv/bin")
    assert cli.main(["certificate", "shop", "shop.test"]) == 7
    assert ready == ["shop"]
    assert bench.calls == ["python -m tooling.certificate shop shop.test"]

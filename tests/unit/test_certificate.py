"""Certificates and keys: which are served, and which are refused, in which words."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pulumi
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from cryptography.x509.oid import ExtendedKeyUsageOID

from infra.settings import Settings, SettingsError
from tests.unit.certificates import DAY, NOW, Issued, rsa_key, secrets_of

ROOT = Issued.make(subject="Root", authority=True)
BETWEEN = Issued.make(subject="Between", authority=True, issuer=ROOT)
OTHER = Issued.make(subject="Other", authority=True)
SHOP = Issued.make("shop.example", "*.shop.example", "10.1.2.3", "fd00::1", issuer=BETWEEN)


def parse(certificate: str = SHOP.chain, key: str = SHOP.key, *, secret: bool = True, **tls: Any) -> Settings:
    values = {"certificate": certificate, "key": key, **tls}
    given = {name: value for name, value in values.items() if value != ""}
    return Settings.parse({"tls": json.dumps(given)}, {"tls"} if secret else set())


def refusal(*args: Any, **tls: Any) -> str:
    """What is said; it never holds a line of a key."""
    with pytest.raises(SettingsError) as refused:
        parse(*args, **tls)
    message = str(refused.value)
    assert message.startswith("The configuration is refused, nothing was changed:\n  tls.")
    keys = [text for text in [*args, *tls.values(), SHOP.key] if isinstance(text, str) and "PRIVATE KEY" in text]
    assert [line for key in keys for line in secrets_of(key) if line in message] == []
    return message


# Accepted


@pytest.mark.parametrize(
    "issued",
    [
        SHOP,
        Issued.make("shop.example"),
        Issued.make("shop.example", authority=True),  # as `openssl req -x509` makes it
        Issued.make("shop.example", issuer=ROOT, key=rsa_key(2048)),
        Issued.make("shop.example", issuer=ROOT, key=ec.generate_private_key(ec.SECP384R1())),
        Issued.make("shop.example", usage=None),
    ],
    ids=["chain", "self-signed", "self-signed authority", "RSA", "P-384", "for any use"],
)
def test_what_fits_is_served(issued: Issued) -> None:
    settings = parse(issued.chain, issued.key, hosts=["shop.example"])
    assert settings.tls.enabled
    served = load_pem_x509_certificates(settings.tls.certificate.encode())
    assert served == load_pem_x509_certificates(issued.chain.encode())
    key = load_pem_private_key(settings.tls.key.encode(), None)
    assert key.public_key() == issued.certificate.public_key()
    assert settings.warnings == ()


def test_a_root_at_the_end_of_the_chain_does_no_harm() -> None:
    assert parse(SHOP.chain + ROOT.pem).tls.certificate == SHOP.chain + ROOT.pem


def test_files_are_read_and_give_the_same_as_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "requirements.txt").touch()
    monkeypatch.chdir(tmp_path)
    Path("fullchain.pem").write_text(SHOP.chain)
    (tmp_path / "key.pem").write_text(SHOP.key)
    # The configuration holds names of files, and so is no secret.
    settings = parse("", "", secret=False, certificateFile="fullchain.pem", keyFile=str(tmp_path / "key.pem"))
    assert (settings.tls.certificate, settings.tls.key) == (parse().tls.certificate, parse().tls.key)


def test_what_is_served_is_what_was_checked_and_nothing_that_stood_around_it() -> None:
    # `openssl ecparam -genkey` writes the parameters before the key, exports from other programs write notes.
    private = SHOP.private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    settings = parse("Bag Attributes\r\n" + SHOP.chain.replace("\n", "\r\n"), parameters + private)
    assert (settings.tls.certificate, settings.tls.key) == (SHOP.chain, SHOP.key)


@pytest.mark.parametrize("text", ["{}", None])
def test_without_any_tls_nothing_is_checked_and_nothing_imported(text: str | None) -> None:
    values = {} if text is None else {"tls": text}
    assert not Settings.parse(values).tls.enabled
    code = "import sys; from infra.settings import Settings; Settings.parse({}); print('cryptography' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False", "it takes a tenth of a second"


def test_a_key_is_shown_by_no_settings() -> None:
    settings = parse()
    assert [line for line in secrets_of(SHOP.key) if line in repr(settings)] == []


# Settings that do not go together


def test_a_key_in_plain_text_is_refused_with_how_to_set_it() -> None:
    message = refusal(secret=False)
    assert "tls.key: it stands in the stack's configuration in plain text" in message
    assert "pulumi config set --secret --path tls.key" in message


@pytest.mark.parametrize(
    "tls",
    [
        {"key": {"a": SHOP.key}},
        {"key": [SHOP.key]},
        {"hsts": SHOP.key},
        {"hosts": [SHOP.key]},
        SHOP.key,
        [SHOP.key],
    ],
)
def test_a_key_in_a_wrong_place_is_not_shown_even_where_it_is_no_secret(tls: Any) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.parse({"tls": tls if isinstance(tls, str) else json.dumps(tls)})
    assert [line for line in secrets_of(SHOP.key) if line in str(refused.value)] == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"certificate": ""}, "tls.certificate: it is missing, tls.key alone is set"),
        ({"key": ""}, "tls.key: it is missing, tls.certificate alone is set"),
        ({"certificate": "", "key": "", "certificateFile": "a.pem"}, "tls.key: it is missing, tls.certificateFile"),
        ({"certificate": "", "key": "", "keyFile": "a.pem"}, "tls.certificate: it is missing, tls.keyFile"),
        ({"certificateFile": "a.pem"}, "tls.certificateFile: tls.certificate is set as well. Keep one of them"),
        ({"keyFile": "a.pem"}, "tls.keyFile: tls.key is set as well. Keep one of them"),
    ],
)
def test_certificate_and_key_are_given_once_each(given: dict[str, str], words: str) -> None:
    assert words in refusal(**given)


def test_settings_of_tls_without_a_certificate_do_not_pass_for_encryption() -> None:
    message = refusal("", "", hosts=["shop.example"], hsts=60)
    assert "tls.certificate: there is none, so nothing would be encrypted, though tls.hosts, tls.hsts is set" in message
    assert "pulumi config rm tls" in message


def test_all_that_is_wrong_is_told_at_once() -> None:
    old = Issued.make("other.example", issuer=OTHER, ends=NOW - timedelta(hours=1))
    message = refusal(old.pem, SHOP.key, hosts=["shop.example"])
    assert [line.split(":")[0].strip() for line in message.splitlines()[1:]] == [
        "tls.key",
        "tls.certificate",
        "tls.hosts",
    ]


@pytest.mark.parametrize("name", ["certificate", "key"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "it cannot be read: No such file or directory"),
        (lambda path: path.mkdir(), "it cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"\x30\x82\xff"), "it is no text"),
    ],
    ids=["none", "folder", "DER"],
)
def test_a_file_that_cannot_be_read_is_named(
    name: str, make: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.pem"
    make(file)
    message = refusal(**{name: "", f"{name}File": str(file)})
    assert f"tls.{name}File ({file}): {words}" in message


def test_a_file_whose_name_cannot_be_one_is_refused() -> None:
    assert "tls.keyFile (a\0b): it cannot be read" in refusal(key="", keyFile="a\0b")


@pytest.mark.parametrize("name", ["certificate", "key"])
@pytest.mark.parametrize("secret", [True, False])
def test_a_text_where_a_file_is_wanted_is_refused_and_not_repeated(name: str, secret: bool) -> None:
    text = SHOP.key if name == "key" else SHOP.chain
    certificate, others = (SHOP.chain, {}) if name == "key" else ("", {"keyFile": "b.pem"})
    message = refusal(certificate, "", secret=secret, **{**others, f"{name}File": text})
    assert f"tls.{name}File: it is the text, and should be the name of a file." in message
    assert "-----BEGIN" not in message


def test_a_key_without_its_first_and_last_line_is_not_repeated_either() -> None:
    text = "".join(SHOP.key.splitlines()[1:-1])
    message = refusal(SHOP.chain, "", keyFile=text)
    assert "tls.keyFile: it is the text, and should be the name of a file." in message
    assert text[:20] not in message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": "8443"}, "tls.port is 8443, as port is"),
        ({"publish": "host", "tls.port": 443}, "tls.port is 443, and publish is host"),
    ],
)
def test_https_has_a_port_that_it_can_have(settings: dict[str, Any], words: str) -> None:
    tls = {"certificate": SHOP.chain, "key": SHOP.key}
    if "tls.port" in settings:
        tls["port"] = settings.pop("tls.port")
    with pytest.raises(SettingsError, match=words):
        Settings.parse({**settings, "tls": json.dumps(tls)}, {"tls"})


# What is no certificate, and what is no key


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        ("garbage", "it is no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "it is no certificate in PEM"),
        (SHOP.pem.replace("MII", "MIX"), "it is no certificate in PEM"),
        (SHOP.pem[:200], "it is no certificate in PEM"),
        (SHOP.key, "a private key stands in it"),
        (SHOP.pem + SHOP.key, "a private key stands in it"),
    ],
)
def test_what_is_no_certificate_is_refused(certificate: str, words: str) -> None:
    assert f"tls.certificate: {words}" in refusal(certificate)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("garbage", "it is no private key in PEM"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "it is no private key in PEM"),
        (SHOP.key[:100], "it is no private key in PEM"),
        (SHOP.pem, "it is no private key in PEM, such as begins with -----BEGIN PRIVATE KEY-----. There is a certif"),
        (SHOP.encrypted_key("xyzzy"), "it is encrypted, and NGINX has nobody to ask for the passphrase"),
    ],
)
def test_what_is_no_key_is_refused(key: str, words: str) -> None:
    assert f"tls.key: {words}" in refusal(SHOP.chain, key)


# What does not fit


def test_a_key_of_another_certificate_is_refused() -> None:
    message = refusal(SHOP.chain, Issued.make("shop.example").key)
    assert "tls.key: it is not the key of the certificate (CN=shop.example)" in message


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (BETWEEN.pem + SHOP.pem, "are in the wrong order, the key is that of number 2 (CN=shop.example)"),
        (ROOT.pem + BETWEEN.pem + SHOP.pem, "are in the wrong order, the key is that of number 3"),
        (SHOP.pem + ROOT.pem + BETWEEN.pem, "number 1 (CN=shop.example) was not issued by number 2 (CN=Root), but by"),
        (SHOP.chain + OTHER.pem, "number 2 (CN=Between) was not issued by number 3 (CN=Other), but by CN=Root"),
        (SHOP.pem + SHOP.pem, "number 1 (CN=shop.example) was not issued by number 2"),
    ],
)
def test_a_chain_that_no_browser_could_follow_is_refused(certificate: str, words: str) -> None:
    message = refusal(certificate)
    assert words in message
    assert "The site's own comes first, then the one that issued it" in message


def test_a_chain_over_what_is_no_authority_is_refused() -> None:
    nobody = Issued.make("nobody.example", issuer=ROOT)
    made = Issued.make("shop.example", issuer=nobody)
    assert "its chain is broken" in refusal(made.chain, made.key)


def test_a_chain_signed_by_a_key_of_the_same_name_is_refused() -> None:
    same = Issued.make(subject="Between", authority=True, issuer=ROOT)
    assert "its chain is broken" in refusal(SHOP.pem + same.pem)


# Time


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        (NOW - 90 * DAY, NOW - timedelta(minutes=1), "tls.certificate: it expired on"),
        (NOW + timedelta(hours=1), NOW + 90 * DAY, "tls.certificate: it is not valid before"),
    ],
)
def test_a_certificate_that_is_not_valid_now_is_refused(begins: Any, ends: Any, words: str) -> None:
    made = Issued.make("shop.example", begins=begins, ends=ends)
    assert words in refusal(made.pem, made.key)


def test_an_authority_that_expired_is_refused() -> None:
    old = Issued.make(subject="Old", authority=True, issuer=ROOT, ends=NOW - timedelta(minutes=1))
    made = Issued.make("shop.example", issuer=old)
    assert "tls.certificate: number 2 (CN=Old) expired on" in refusal(made.chain, made.key)


@pytest.mark.parametrize(("left", "warned"), [(13.9 * DAY, True), (14.1 * DAY, False), (timedelta(hours=1), True)])
def test_a_certificate_that_ends_soon_is_served_with_a_warning(left: timedelta, warned: bool) -> None:
    made = Issued.make("shop.example", ends=NOW + left)
    settings = parse(made.pem, made.key)
    assert settings.tls.enabled
    assert len(settings.warnings) == warned
    if warned:
        assert settings.warnings[0].startswith("tls.certificate ends on ")
        assert f"in {left.days} days. Renew it" in settings.warnings[0] or left < DAY
        assert [line for line in secrets_of(made.key) if line in settings.warnings[0]] == []


def test_the_warning_is_one_of_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Issued.make("shop.example", ends=NOW + 3 * DAY)
    monkeypatch.setattr(pulumi, "get_project", lambda: "uwsgi-nginx")
    config = {"uwsgi-nginx:tls": json.dumps({"certificate": made.pem, "key": made.key})}
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(config))
    monkeypatch.setenv("PULUMI_CONFIG_SECRET_KEYS", json.dumps(["uwsgi-nginx:tls"]))
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    assert Settings.load().tls.enabled
    assert [text.split(" ends on ")[0] for text in said] == ["tls.certificate"]


# Strength


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Issued.make("shop.example", key=rsa_key(1024)), "is weak: RSA with 1024 bits"),
        (Issued.make("shop.example", key=ec.generate_private_key(ec.SECP521R1())), "browsers do not take"),
        (Issued.make("shop.example", key=ec.generate_private_key(ec.SECP256K1())), "browsers do not take"),
    ],
    ids=["RSA 1024", "P-521", "secp256k1"],
)
def test_a_key_that_is_weak_or_of_a_rare_kind_is_refused(made: Issued, words: str) -> None:
    assert words in refusal(made.pem, made.key)


def test_a_key_of_ed25519_is_refused() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    assert "tls.key: it is not the key of the certificate" in refusal(SHOP.chain, key)


def test_a_weak_authority_is_refused() -> None:
    weak = Issued.make(subject="Weak", authority=True, issuer=ROOT, key=rsa_key(1024))
    made = Issued.make("shop.example", issuer=weak)
    assert "the key of number 2 (CN=Weak) is weak" in refusal(made.chain, made.key)


@pytest.mark.parametrize("root", [False, True])
def test_a_signature_by_sha_1_is_refused_but_for_a_roots_own(root: bool, tmp_path: Path) -> None:
    """The library makes none any more, so OpenSSL does."""
    subject = "/CN=Root" if root else "/CN=shop.example"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha1", "-days", "30", "-subj", subject]
    extensions = (
        ["-addext", "basicConstraints=critical,CA:TRUE"] if root else ["-addext", "subjectAltName=DNS:shop.example"]
    )
    subprocess.run([*command, *extensions, "-out", "c", "-keyout", "k"], cwd=tmp_path, check=True, capture_output=True)
    certificate, key = (tmp_path / "c").read_text(), (tmp_path / "k").read_text()
    if root:
        private = load_pem_private_key(key.encode(), None)
        authority = Issued(load_pem_x509_certificates(certificate.encode())[0], private)  # type: ignore[arg-type]
        made = Issued.make("shop.example", issuer=authority)
        assert parse(made.pem + certificate, made.key).tls.enabled
    else:
        assert "the signature of number 1 (CN=shop.example) is weak: sha1" in refusal(certificate, key)


# Names


@pytest.mark.parametrize(
    ("hosts", "as_written"),
    [
        (["shop.example"], ("shop.example",)),
        (["SHOP.example."], ("shop.example",)),
        (["www.shop.example", "10.1.2.3", "FD00:0::1"], ("www.shop.example", "10.1.2.3", "fd00::1")),
        (["shop.example", "Shop.Example"], ("shop.example",)),
    ],
)
def test_names_that_the_certificate_has_are_accepted(hosts: list[str], as_written: tuple[str, ...]) -> None:
    assert parse(hosts=hosts).tls.hosts == as_written


@pytest.mark.parametrize(
    "host",
    [
        "example",
        "other.example",
        "a.b.shop.example",  # a star is one label
        "notshop.example",
        "shop.example.evil.example",
        "10.1.2.4",
        "fd00::2",
        "127.0.0.1",
    ],
)
def test_a_name_that_the_certificate_does_not_have_is_refused(host: str) -> None:
    message = refusal(hosts=["shop.example", host])
    assert f"tls.hosts: {host} is none of the certificate's names, which are shop.example, *.shop.example" in message


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("w*.shop.example", "www.shop.example"),
        ("www.*.example", "www.shop.example"),
        ("*", "shop"),
        ("*.*.example", "www.shop.example"),
        ("10.1.2.3.", "10.1.2.3"),  # an address is one by its kind, not by how a name reads
    ],
)
def test_no_other_pattern_counts(name: str, host: str) -> None:
    made = Issued.make(name)
    assert f"tls.hosts: {host} is none" in refusal(made.pem, made.key, hosts=[host])


def test_names_beyond_ascii_are_those_that_certificates_hold() -> None:
    made = Issued.make("xn--bcher-kva.example", "xn--strae-oqa.example")
    assert parse(made.pem, made.key, hosts=["Bücher.example", "straße.example"]).tls.hosts == (
        "xn--bcher-kva.example",
        "xn--strae-oqa.example",
    )


@pytest.mark.parametrize(
    "host",
    [
        *(
            "",
            "a b",
            "*.shop.example",
            "shop..example",
            "-a.example",
            "a_b",
            "1.2.3",
            "300.1.2.3",
            "a;b",
            "${a}",
            "a/b",
        ),
        *("shop.example:443", "[::1]", "https://shop.example", "a" * 64, "a." * 127 + "ab", "bü..example", "a\n"),
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match=r"tls\.hosts\.0: "):
        Settings.parse({"tls": json.dumps({"hosts": [host]})})


def test_a_certificate_without_names_is_refused() -> None:
    made = Issued.make(subject="shop.example")
    message = refusal(made.pem, made.key)
    assert "it names no host (subjectAltName), and the common name (CN=shop.example) counts for no browser" in message


def test_a_certificate_for_clients_is_refused() -> None:
    made = Issued.make("shop.example", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    assert "it is not for servers (extendedKeyUsage)" in refusal(made.pem, made.key)


def test_a_long_list_of_names_is_shortened() -> None:
    made = Issued.make(*(f"n{number}.example" for number in range(40)))
    assert "n9.example and 30 more." in refusal(made.pem, made.key, hosts=["shop.example"])

"""A certificate for development, signed by an authority of the stack's own. It runs in `.venv`.

All of it is kept in `.local/tls/STACK`. Who trusts the authority once trusts every renewal.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from pydantic import TypeAdapter, ValidationError

from infra.load_balancer import url
from infra.site import Host, Tls
from tooling import console, files, stack
from tooling.console import Failure, say

ROOT = Path(__file__).resolve().parent.parent
ORGANIZATION = "uwsgi-nginx"
ALWAYS = ("localhost", "127.0.0.1", "::1")
# Apple's systems take no certificate for longer than 825 days, browsers in general none of a public authority beyond
# 398. https://support.apple.com/en-us/103769
VALID = timedelta(days=397)


def make(root: Path, name: str, names: Iterable[str]) -> int:
    """Makes or renews the certificate of stack `name`, and sets its configuration to it.

    Args:
        root: of the clone.
        name: of the stack.
        names: for which it is besides this machine's own; those of the one before stay.
    """
    folder = files.local(root) / "tls" / name
    config = _configuration(root, name)
    tls, address = config.get("tls", {}), config.get("publishAddress", "127.0.0.1")
    ours = {f"{kind}File": (folder / f"{kind}.pem").relative_to(root).as_posix() for kind in ("certificate", "key")}
    _refuse_anothers(tls, ours, name)
    wanted = [*ALWAYS, *_of_the_one_before(folder), *tls.get("hosts", []), *_hosts(names)]
    wanted += [] if ip_address(address).is_unspecified else [address]
    wanted = list(dict.fromkeys(wanted))
    ends = _issue(folder, name, wanted)
    if not ours.items() <= tls.items():
        texts = [f"--plaintext=tls.{key}={value}" for key, value in ours.items()]
        _pulumi(root, name, "config", "set-all", "--path", *texts)
    _tell(folder.relative_to(root), name, wanted, ends, url((tls.get("hosts") or [address])[0], _port(tls), "https"))
    return 0


def _configuration(root: Path, name: str) -> dict[str, Any]:
    """What is set, by key: a text or an object; those with secrets as {"secret": True}."""
    known = json.loads(_pulumi(root, name, "config", "--json"))
    prefix = f"{stack.project(root)}:"
    return {
        key.removeprefix(prefix): entry.get("objectValue", entry.get("value", {"secret": True}))
        for key, entry in known.items()
        if key.startswith(prefix)
    }


def _refuse_anothers(tls: dict[str, Any], ours: dict[str, str], name: str) -> None:
    others = {"secret", "certificate", "key"} & tls.keys()
    others |= {key for key, file in ours.items() if tls.get(key, file) != file}
    if others:
        raise Failure(
            f"Stack {name} has a certificate that this did not make; it is left as it is.",
            "docs/tls.md says how to renew it. To have one for development instead, take it away first:\n"
            f'eval "$(make -s env)"; pulumi config rm tls --stack {name}',
        )


def _hosts(names: Iterable[str]) -> list[str]:
    try:
        return [TypeAdapter(Host).validate_python(name) for name in names]
    except ValidationError as error:
        problem = error.errors()[0]
        reason = str(problem["msg"]).removeprefix("Value error, ")
        raise Failure(f"{problem['input']!r} {reason}", 'make certificate ARGS="shop.test 192.0.2.1"') from None


def _of_the_one_before(folder: Path) -> list[str]:
    file = folder / "certificate.pem"
    if not file.exists():
        return []
    before = x509.load_pem_x509_certificate(file.read_bytes())
    names = before.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _issue(folder: Path, name: str, names: list[str]) -> datetime:
    """Writes certificate and key; returns when it ends."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    certificate, key = folder / "ca.pem", folder / "ca-key.pem"
    if certificate.exists() and key.exists():
        authority = trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
    else:
        authority = trustme.CA(organization_name=ORGANIZATION, organization_unit_name=f"development, stack {name}")
        _write(key, authority.private_key_pem, 0o600)
        _write(certificate, authority.cert_pem, 0o644)
    now = datetime.now(UTC)
    issued = authority.issue_cert(
        *names, organization_name=ORGANIZATION, not_before=now - timedelta(hours=1), not_after=now + VALID
    )
    _write(folder / "key.pem", issued.private_key_pem, 0o600)
    _write(folder / "certificate.pem", issued.cert_chain_pems[0], 0o644)
    return now + VALID


def _write(path: Path, pem: trustme.Blob, mode: int) -> None:
    files.write(path, pem.bytes().decode(), mode)


def _port(tls: dict[str, Any]) -> int:
    return int(tls.get("port", Tls().port))


def _tell(folder: Path, name: str, names: list[str], ends: datetime, address: str) -> None:
    option = "" if name == stack.DEV else f" STACK={name}"
    say(
        f"{folder}/certificate.pem is for {', '.join(names)}, until {ends:%Y-%m-%d}; this again renews it.\n"
        f"`make up{option}` serves it at {address}, and sends those who come by HTTP there. (The first time NGINX is "
        "replaced, a gap of a second or two.)\n"
        "To trust it:\n"
        f"  curl    --cacert {folder}/ca.pem {address}\n"
        f"  browser import {folder}/ca.pem where it keeps its authorities (Chrome: chrome://certificate-manager;\n"
        "          Firefox: Settings, Certificates, View Certificates, Authorities)\n"
        f"  Debian  sudo cp {folder}/ca.pem /usr/local/share/ca-certificates/uwsgi-nginx-{name}.crt\n"
        "          sudo update-ca-certificates\n"
        f"Who has {folder}/ca-key.pem can pose as any site to those who trust it: do not pass it on."
    )
    print(address)


def _pulumi(root: Path, name: str, *arguments: str) -> str:
    command = ["pulumi", "--non-interactive", *arguments, "--stack", name]
    environment = stack.full_environment(root, name)
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise Failure(f"pulumi {arguments[0]} did not work: {done.stderr.strip()}", "Mend that, then run this again.")
    return done.stdout


def main() -> int:
    """`python -m tooling.certificate STACK [NAME …]`."""
    try:
        return make(ROOT, sys.argv[1], sys.argv[2:])
    except Failure as failure:
        console.report(failure, "make certificate")
        return 1


if __name__ == "__main__":
    sys.exit(main())

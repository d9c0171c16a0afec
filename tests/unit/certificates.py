"""Certificates of every kind, good and bad, for tests."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key; with `issuer` it has a chain above it."""

    certificate: x509.Certificate
    private: CertificateIssuerPrivateKeyTypes
    issuer: "Issued | None" = None

    @classmethod
    def make(
        cls,
        *names: str,
        issuer: "Issued | None" = None,
        authority: bool = False,
        subject: str = "",
        begins: datetime = NOW - DAY,
        ends: datetime = NOW + 90 * DAY,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> Self:
        """One for `names` (hosts and addresses), self-signed without an issuer."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject or (names[0] if names else "nobody"))])
        builder = (
            x509.CertificateBuilder()
            .subject_name(called)
            .issuer_name(issuer.certificate.subject if issuer else called)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), False)
        if usage and not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        signer = issuer.private if issuer else key
        return cls(builder.sign(signer, hashes.SHA256()), key, issuer)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def chain(self) -> str:
        """Its PEM, then those of its issuers, the root apart."""
        above = self.issuer.chain if self.issuer and self.issuer.issuer else ""
        return self.pem + above

    @property
    def key(self) -> str:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def encrypted_key(self, passphrase: str) -> str:
        how = BestAvailableEncryption(passphrase.encode())
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode()


def self_signed(*names: str) -> tuple[str, str]:
    """Certificate and key, good in all but the trust in them."""
    made = Issued.make(*names)
    return made.pem, made.key


def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def secrets_of(key: str) -> Sequence[str]:
    """The lines of a key that nobody else may see."""
    return [line for line in key.splitlines() if line and not line.startswith("-----")]


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)

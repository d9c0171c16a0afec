"""The certificate and the key that NGINX serves HTTPS with: read, and refused in words before anything changes.

What is refused would fail only later, in NGINX or at a visitor's browser. No message holds anything of the key.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from infra.site import Tls

WARN_BEFORE = timedelta(days=14)
SMALLEST_RSA = 2048  # bits
CURVES = (ec.SECP256R1, ec.SECP384R1)  # as the groups in nginx/tls.conf.j2: with TLS 1.2 no other could be used
WEAK_HASHES = (hashes.MD5, hashes.SHA1)
MAX_SHOWN = 10  # names in a message
MAX_PLAIN_NAME = 40  # characters of a file's name without a dot; the shortest key, of 32 bytes, has 43


class CertificateRefused(Exception):
    """Each problem names the setting, the reason and what to do."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Checked:
    """What may be served: PEM as NGINX reads it, and what somebody should know of it."""

    certificate: str
    key: str = field(repr=False)
    warnings: tuple[str, ...]


def check(tls: Tls, *, key_is_secret: bool, now: datetime | None = None) -> Checked:
    """Reads what `tls` says and checks it.

    Args:
        tls: as it is set.
        key_is_secret: whether the configuration holds `tls.key` encrypted.
        now: for tests.

    Raises:
        CertificateRefused: it must not be served.
    """
    _raise_any(_setting_problems(tls, key_is_secret))
    certificate, key = _Source.of("certificate", tls), _Source.of("key", tls)
    chain, private = _chain(certificate), _private_key(key)
    now = now or datetime.now(UTC)
    try:
        _raise_any(
            [
                *_fit_problems(certificate, chain, key, private),
                *_strength_problems(certificate, chain),
                *_time_problems(certificate, chain, now),
                *_use_problems(certificate, chain[0], tls.hosts),
            ]
        )
    except ValueError as error:  # extensions are read only when they are asked for
        raise CertificateRefused([f"{certificate.place}: it cannot be read: {error}."]) from None
    return Checked(
        # Written anew, so that NGINX reads exactly what was checked.
        certificate="".join(_pem(one) for one in chain),
        key=private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        warnings=tuple(_warnings(certificate, chain, now)),
    )


@dataclass(frozen=True)
class _Source:
    """A text, and where it came from: the setting, with the file."""

    place: str
    text: str = field(repr=False)

    @classmethod
    def of(cls, name: str, tls: Tls) -> "_Source":
        file = str(getattr(tls, f"{name}_file"))
        if not file:
            return cls(f"tls.{name}", getattr(tls, name))
        place = f"tls.{name}File ({file})"
        # Base64, in which keys are written, has no dot.
        if "-----BEGIN" in file or (name == "key" and "." not in file and len(file) > MAX_PLAIN_NAME):
            raise CertificateRefused(
                [f"tls.{name}File: it is the text, and should be the name of a file. The text belongs into tls.{name}."]
            )
        try:
            return cls(place, Path(file).expanduser().read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            reason = "it is no text. PEM is wanted; `openssl` makes it of other formats"
        except (OSError, ValueError, RuntimeError) as error:
            reason = f"it cannot be read: {getattr(error, 'strerror', None) or error}"
        raise CertificateRefused([f"{place}: {reason}."])


def _raise_any(problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        raise CertificateRefused(found)


def _setting_problems(tls: Tls, key_is_secret: bool) -> Iterator[str]:
    given = {
        name: [
            key
            for key, value in ((f"tls.{name}", getattr(tls, name)), (f"tls.{name}File", getattr(tls, f"{name}_file")))
            if value
        ]
        for name in ("certificate", "key")
    }
    for keys in given.values():
        if len(keys) > 1:
            yield f"{keys[1]}: {keys[0]} is set as well. Keep one of them: `pulumi config rm --path {keys[1]}`."
    if tls.key and not key_is_secret:
        yield (
            "tls.key: it stands in the stack's configuration in plain text. Set it with `pulumi config set --secret "
            "--path tls.key < key.pem`; and make a new one, if others may have read it there."
        )
    if not given["certificate"] and not given["key"]:
        others = ", ".join(sorted(f"tls.{Tls.model_fields[name].alias or name}" for name in tls.model_fields_set))
        yield (
            f"tls.certificate: there is none, so nothing would be encrypted, though {others} is set. Set it and "
            "tls.key, or take away all of it: `pulumi config rm tls`."
        )
    elif not given["certificate"]:
        yield f"tls.certificate: it is missing, {given['key'][0]} alone is set. Set it, or tls.certificateFile."
    elif not given["key"]:
        yield f"tls.key: it is missing, {given['certificate'][0]} alone is set. Set it, or tls.keyFile."


def _chain(source: _Source) -> list[x509.Certificate]:
    if "PRIVATE KEY-----" in source.text:
        raise CertificateRefused(
            [f"{source.place}: a private key stands in it. Give the certificates alone, and the key as tls.key."]
        )
    try:
        return x509.load_pem_x509_certificates(source.text.encode())
    except ValueError:
        raise CertificateRefused(
            [
                f"{source.place}: it is no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----. Give "
                "what ACME clients call fullchain.pem: the site's own, then those of the authorities between."
            ]
        ) from None


def _private_key(source: _Source) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(source.text.encode(), password=None)
    except TypeError:
        reason = (
            "it is encrypted, and NGINX has nobody to ask for the passphrase. Decrypt it (`openssl pkey -in key.pem`)"
        )
    except (ValueError, UnsupportedAlgorithm):  # its words may hold some of what was read
        reason = "it is no private key in PEM, such as begins with -----BEGIN PRIVATE KEY-----"
        if "BEGIN CERTIFICATE" in source.text:
            reason += ". There is a certificate in it"
    raise CertificateRefused([f"{source.place}: {reason}."])


def _fit_problems(
    certificate: _Source, chain: Sequence[x509.Certificate], key: _Source, private: PrivateKeyTypes
) -> Iterator[str]:
    order = "The site's own comes first, then the one that issued it, then the one that issued that"
    fitting = [number for number, one in enumerate(chain, 1) if one.public_key() == private.public_key()]
    if not fitting:
        yield (
            f"{key.place}: it is not the key of the certificate ({_subject(chain[0])}). Take both from the same "
            "renewal: the key is made first, and the certificate for it."
        )
    elif fitting[0] > 1:
        yield (
            f"{certificate.place}: its certificates are in the wrong order, the key is that of number {fitting[0]} "
            f"({_subject(chain[fitting[0] - 1])}). {order}."
        )
        return
    for number, (one, issuer) in enumerate(pairwise(chain), 1):
        try:
            one.verify_directly_issued_by(issuer)
            if _is_authority(issuer):
                continue
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            pass
        yield (
            f"{certificate.place}: its chain is broken, number {number} ({_subject(one)}) was not issued by number "
            f"{number + 1} ({_subject(issuer)}), but by {one.issuer.rfc4514_string()}. {order}."
        )
        return


def _strength_problems(source: _Source, chain: Sequence[x509.Certificate]) -> Iterator[str]:
    own = chain[0].public_key()
    if not isinstance(own, rsa.RSAPublicKey) and not _is_of(own, CURVES):
        yield (
            f"{source.place}: its key is of a kind that browsers do not take. Make one of ECDSA on P-256 or P-384, or "
            f"of RSA with {SMALLEST_RSA} bits."
        )
    for number, one in enumerate(chain, 1):
        key = one.public_key()
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < SMALLEST_RSA:
            yield (
                f"{source.place}: the key of number {number} ({_subject(one)}) is weak: RSA with {key.key_size} bits. "
                f"Make one with {SMALLEST_RSA} or more, or of ECDSA on P-256."
            )
        try:
            signed = one.signature_hash_algorithm
        except UnsupportedAlgorithm:
            signed = None
        # Nobody looks at the signature of a root, which is trusted as it is.
        if isinstance(signed, WEAK_HASHES) and (number == 1 or one.issuer != one.subject):
            yield (
                f"{source.place}: the signature of number {number} ({_subject(one)}) is weak: {signed.name}. Have it "
                "signed with SHA-256."
            )


def _time_problems(source: _Source, chain: Sequence[x509.Certificate], now: datetime) -> Iterator[str]:
    for number, one in enumerate(chain, 1):
        which = "it" if number == 1 else f"number {number} ({_subject(one)})"
        if one.not_valid_after_utc < now:
            yield f"{source.place}: {which} expired on {_moment(one.not_valid_after_utc)}. Renew it: docs/tls.md."
        if one.not_valid_before_utc > now:
            yield (
                f"{source.place}: {which} is not valid before {_moment(one.not_valid_before_utc)}. Wait for that, or "
                f"set this machine's clock, which says {_moment(now)}."
            )


def _use_problems(source: _Source, certificate: x509.Certificate, hosts: Sequence[str]) -> Iterator[str]:
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:  # then it is for any
        pass
    else:
        if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(uses):
            yield f"{source.place}: it is not for servers (extendedKeyUsage). Have one issued for serverAuth."
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        yield (
            f"{source.place}: it names no host (subjectAltName), and the common name ({_subject(certificate)}) counts "
            "for no browser. Have one issued with the names of the site."
        )
        return
    domains = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    missing = [host for host in hosts if not _is_covered(host, domains, addresses)]
    if missing:
        yield (
            f"tls.hosts: {_listed(missing)} is none of the certificate's names, which are "
            f"{_listed([*domains, *addresses])}. Have one issued that has it as well, or take it from tls.hosts."
        )


def _is_covered(host: str, domains: Iterable[str], addresses: Iterable[str]) -> bool:
    """By the rules of https://www.rfc-editor.org/rfc/rfc9525#section-6: a `*` stands for the whole first label."""
    try:
        return str(ipaddress.ip_address(host)) in addresses
    except ValueError:
        first, _, rest = host.partition(".")
        return any(domain == host or (first and rest and domain == f"*.{rest}") for domain in domains)


def _warnings(source: _Source, chain: Sequence[x509.Certificate], now: datetime) -> Iterator[str]:
    ends = min(one.not_valid_after_utc for one in chain)
    if ends - now < WARN_BEFORE:
        yield f"{source.place} ends on {_moment(ends)}, in {(ends - now).days} days. Renew it: docs/tls.md."


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _is_of(key: PublicKeyTypes, curves: tuple[type[ec.EllipticCurve], ...]) -> bool:
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, curves)


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"serial number {certificate.serial_number:x}"


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more if names else "none"

"""X.509 certificates of one fleet: its own authority, a certificate for each identity, one for its broker.

Needs the package `cryptography` (the extra `secure`): only who makes certificates does, not who shows them.

An identity's certificate is good for connecting to the broker and nothing else, the broker's for being connected to:
a vehicle cannot pose as the broker. Keys are on the curve P-256, which hardware that keeps keys knows as well.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import ConfigurationError

_AUTHORITY_DAYS = 3650
# A clock that is behind must not find a fresh certificate to be of the future.
_BEFORE = datetime.timedelta(days=1)
# A list of revoked certificates that has run out would lock everybody out; a broker's is replaced when it changes.
_REVOCATIONS_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, both PEM. serial: hexadecimal. ends_at: not valid any more from then on."""

    certificate: bytes
    key: bytes = field(repr=False)
    serial: str
    ends_at: datetime.datetime


class Authority:
    """Signs the certificates of one fleet. `certificate`: its own, PEM; `key`: its private key, PEM."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, fleet: str) -> Authority:
        """A new authority, unrelated to any other."""
        key = ec.generate_private_key(ec.SECP256R1())
        # Its key's beginning keeps two authorities of fleets with one name apart.
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        name = _name(f"roadside {fleet[:32]} CA {identifier.digest.hex()[:8]}")
        usage = _key_usage(key_cert_sign=True, crl_sign=True)
        builder = _builder(name, name, key, datetime.timedelta(days=_AUTHORITY_DAYS))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(identifier, critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def read(cls, certificate: bytes, key: bytes) -> Authority:
        """From PEM; raises ConfigurationError where the two are not such, or do not belong together."""
        try:
            read, private = x509.load_pem_x509_certificate(certificate), serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"the fleet's ca.crt or ca.key cannot be read ({error}): restore them") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != read.public_key():
            raise ConfigurationError("ca.key is not the key of ca.crt: restore the two that belong together")
        return cls(read, private)

    @property
    def certificate(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key(self) -> bytes:
        return _key_pem(self._key)

    def issue_identity(self, name: str, lifetime: datetime.timedelta) -> Issued:
        """For a client; its common name is the name that stands in the addresses it may publish to."""
        return self._issue(name, lifetime, ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName(name)])

    def issue_broker(self, hosts: Iterable[str], lifetime: datetime.timedelta) -> Issued:
        """For a broker that is reached under these host names and IP addresses; the first is its common name."""
        hosts = list(hosts)
        return self._issue(hosts[0][:64], lifetime, ExtendedKeyUsageOID.SERVER_AUTH, [_host(host) for host in hosts])

    def revocations(self, serials: Iterable[str]) -> bytes:
        """The list of revoked certificates, PEM; it may be empty."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._certificate.subject)
        builder = builder.last_update(now - _BEFORE).next_update(now + datetime.timedelta(days=_REVOCATIONS_DAYS))
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(now)
            builder = builder.add_revoked_certificate(revoked.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _issue(
        self, name: str, lifetime: datetime.timedelta, purpose: x509.ObjectIdentifier, names: list[x509.GeneralName]
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), self._certificate.subject, key, lifetime)
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_key_usage(digital_signature=True), True),
            (x509.ExtendedKeyUsage([purpose]), False),
            (x509.SubjectAlternativeName(names), False),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False),
        ]
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        signed = builder.sign(self._key, hashes.SHA256())
        return Issued(
            certificate=signed.public_bytes(serialization.Encoding.PEM),
            key=_key_pem(key),
            serial=f"{signed.serial_number:x}",
            ends_at=signed.not_valid_after_utc,
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + lifetime)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise ConfigurationError(f"{host!r} is no host name or IP address: write it as in the broker's URL") from None


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

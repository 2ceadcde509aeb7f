"""A certificate authority of one test server: its serving certificate, and one for any user's name."""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK = "127.0.0.1"


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key: made in under a millisecond, where RSA takes a tenth of a second."""
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private key as Kubernetes reads it, unencrypted."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def subject(user: str, groups: tuple[str, ...]) -> x509.Name:
    """The name in which Kubernetes reads a user (common name) and groups (organizations).

    X.509 bounds a common name to 64 characters, Kubernetes does not, and a service account's is often longer.
    """
    attributes = [(NameOID.ORGANIZATION_NAME, group) for group in groups] + [(NameOID.COMMON_NAME, user)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Attribute's length", category=UserWarning)
        return x509.Name([x509.NameAttribute(oid, value, _validate=False) for oid, value in attributes])


@dataclass(frozen=True)
class Authority:
    """Signs for the life of one test session, with keys in `home` alone."""

    home: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    name: x509.Name = field(default_factory=lambda: subject("tradewind-tests", ()))

    @property
    def certificate(self) -> Path:
        """The authority's own certificate, written on first use with its key beside it (ca.key)."""
        path = self.home / "ca.crt"
        if not path.exists():
            constraints = x509.BasicConstraints(ca=True, path_length=0)
            usage = _usage(signs_certificates=True)
            builder = self._builder(self.name, self.key).add_extension(constraints, critical=True)
            path.write_bytes(self._signed(builder.add_extension(usage, critical=True)))
            (self.home / "ca.key").write_bytes(pem(self.key))
        return path

    def serving(
        self, file: str = "serving", names: Sequence[str] = (), *, addresses: Sequence[str] = (LOOPBACK,)
    ) -> tuple[Path, Path]:
        """Certificate and key, in files called `file`, of a server at these addresses and DNS names."""
        at = [x509.IPAddress(IPv4Address(address)) for address in addresses]
        called = [x509.DNSName(name) for name in ("localhost", *names)]
        alternatives = x509.SubjectAlternativeName([*at, *called])
        return self._issue(file, subject(file, ()), ExtendedKeyUsageOID.SERVER_AUTH, alternatives)

    def user(self, file: str, user: str, groups: tuple[str, ...]) -> tuple[Path, Path]:
        """Certificate and key, in files called `file`, with which `user` is who he says."""
        return self._issue(file, subject(user, groups), ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _issue(
        self,
        file: str,
        name: x509.Name,
        purpose: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None,
    ) -> tuple[Path, Path]:
        key = new_key()
        builder = self._builder(name, key).add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate, secret = self.home / f"{file}.crt", self.home / f"{file}.key"
        certificate.write_bytes(self._signed(builder))
        secret.write_bytes(pem(key))
        return certificate, secret

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        holder = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = x509.CertificateBuilder(self.name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(
            now + dt.timedelta(days=2)
        )
        return builder.add_extension(signer, critical=False).add_extension(holder, critical=False)

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

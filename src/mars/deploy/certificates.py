"""Certificates of a cluster's own authority: the adapter of the package cryptography.

Keys are of the curve P-256, certificates of X.509 version 3, both as PEM. Reads and writes private
files only. Called by `mars.deploy.credentials`.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from mars.deploy import private_files
from mars.errors import CredentialsError
from mars.settings import CREDENTIALS_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec


def make_authority(certificate: Path, key: Path, valid_for: datetime.timedelta) -> None:
    """Write the certificate and the private key of a new authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    own = ec.generate_private_key(ec.SECP256R1())
    # Its name is its own: OpenSSL confuses authorities of one name.
    name = _name(f"mars cluster {secrets.token_hex(8)}")
    until = datetime.datetime.now(datetime.UTC) + valid_for
    builder = _builder(name, name, own.public_key(), until)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False
    )
    _write(certificate, key, builder, own, own)


def issue(
    authority: tuple[Path, bytes], certificate: Path, key: Path, names: Iterable[str], server: bool
) -> None:
    """Write a key, and a certificate for it that is valid as long as its authority.

    Parameters
    ----------
    authority : pair of Path and bytes
        Where its certificate is, and its key, which need not be in a file.
    certificate, key : Path
        Where they are written.
    names : iterable of str
        Names and addresses of the host that gets them.
    server : bool
        False: its holder can be a client only.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        ca_key = serialization.load_pem_private_key(authority[1], password=None)
    except ValueError:
        ca_key = None
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise CredentialsError(f"the key for {authority[0]} is none of an authority that mars made")
    ca = _read(authority[0])
    own = ec.generate_private_key(ec.SECP256R1())
    oids = x509.oid.ExtendedKeyUsageOID
    usages = [oids.SERVER_AUTH, oids.CLIENT_AUTH] if server else [oids.CLIENT_AUTH]
    name = _name("mars node" if server else "mars client")
    builder = _builder(name, ca.subject, own.public_key(), ca.not_valid_after_utc)
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs=False), True),
        (x509.ExtendedKeyUsage(usages), False),
        (x509.SubjectAlternativeName([_alternative(text) for text in sorted(set(names))]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    _write(certificate, key, builder, own, ca_key)


def expiry(certificate: Path) -> datetime.datetime:
    """When a certificate ends."""
    return _read(certificate).not_valid_after_utc


def missing_names(certificate: Path, names: Iterable[str]) -> set[str]:
    """Which of some names and addresses a certificate is not for."""
    from cryptography import x509

    try:
        found = _read(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set(names)
    return {text for text in names if _alternative(text) not in found.value}


def is_for_servers(certificate: Path) -> bool:
    """Whether the holder of a certificate may be a server, too, and so a node."""
    return _may_serve(_read(certificate))


def may_serve(certificate: bytes) -> bool:
    """The same of one in DER, as a TLS connection shows it.

    One that names no purposes is for all of them, as of authorities that are not ours.
    """
    from cryptography import x509

    try:
        return _may_serve(x509.load_der_x509_certificate(certificate))
    except ValueError:
        return False


def _may_serve(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    oids = x509.oid.ExtendedKeyUsageOID
    return oids.SERVER_AUTH in usages or oids.ANY_EXTENDED_KEY_USAGE in usages


def _read(certificate: Path) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(private_files.read(certificate))
    except ValueError as error:
        raise CredentialsError(f"{certificate} is damaged ({error}); import it again") from error


def _write(
    certificate: Path,
    key: Path,
    builder: x509.CertificateBuilder,
    own: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
) -> None:
    from cryptography.hazmat.primitives import hashes, serialization

    pem = own.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    private_files.write_new(key, pem)
    signed = builder.sign(signer, hashes.SHA256())
    private_files.write_new(certificate, signed.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, until: datetime.datetime
) -> x509.CertificateBuilder:
    from cryptography import x509

    skew = datetime.timedelta(seconds=CREDENTIALS_SKEW_S)
    since = min(datetime.datetime.now(datetime.UTC), until) - skew
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


def _name(text: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])


def _alternative(text: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _usage(*, signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

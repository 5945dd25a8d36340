"""Certificates for 127.0.0.1 and provider.test, made for tests."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.common.tls import CERTIFICATE_SETTING, PRIVATE_KEY_SETTING

Settings = dict[str, str]

# The second is for servers that are found by a proxy.
_NAMES = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("provider.test")]


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates for 127.0.0.1 and writes them to files."""

    directory: Path
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, directory: Path, name: str) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(name, key, name, key, is_authority=True)
        (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(directory, name, key, certificate)

    @property
    def path(self) -> str:
        return str(self.directory / f"{self.name}.pem")

    def sign(self, subject: str) -> Settings:
        """The settings of a service with a certificate of this authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(subject, key, self.name, self.key, is_authority=False)
        certificate_path, key_path = self.directory / f"{subject}.pem", self.directory / f"{subject}.key"
        certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return {CERTIFICATE_SETTING: str(certificate_path), PRIVATE_KEY_SETTING: str(key_path)}


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(_NAMES), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )

"""TLS between our services, by setting: none where the network is trusted, one-sided, or mutual.

Files are PEM and read when a service starts; after a renewal it is started again.
"""

from dataclasses import dataclass, field

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.common.settings import Environment, SettingError

CERTIFICATE_SETTING = "TOLLGATE_TLS_CERTIFICATE_FILE"
PRIVATE_KEY_SETTING = "TOLLGATE_TLS_PRIVATE_KEY_FILE"
CLIENT_CA_SETTING = "TOLLGATE_TLS_CLIENT_CA_FILE"
SERVER_CA_SETTING = "TOLLGATE_TLS_SERVER_CA_FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What a service proves itself with, and whom it believes."""

    # Its certificate and those between it and the authority, with the key. Both or none.
    certificates: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    # Who signs the certificates that clients must show. None where they need none.
    client_ca: bytes | None = None
    # Who signs the certificates of the servers that it calls. None where they speak without TLS.
    server_ca: bytes | None = None

    @classmethod
    def read(cls, environment: Environment) -> "Tls":
        """Raises SettingError naming the file that is missing, is none, or does not fit."""
        certificates = _read_certificates(environment, CERTIFICATE_SETTING)
        private_key = _read(environment, PRIVATE_KEY_SETTING)
        client_ca = _read_certificates(environment, CLIENT_CA_SETTING)
        _require_pair(certificates, private_key)
        if client_ca is not None and certificates is None:
            raise SettingError(f"{CLIENT_CA_SETTING} needs {CERTIFICATE_SETTING}: without TLS no client shows anything")
        return cls(
            certificates=certificates,
            private_key=private_key,
            client_ca=client_ca,
            server_ca=_read_certificates(environment, SERVER_CA_SETTING),
        )

    def server_credentials(self) -> grpc.ServerCredentials | None:
        """None for a server without TLS."""
        if self.certificates is None or self.private_key is None:
            return None
        pairs = [(self.private_key, self.certificates)]
        return grpc.ssl_server_credentials(pairs, self.client_ca, require_client_auth=self.client_ca is not None)

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """None for channels without TLS."""
        if self.server_ca is None:
            return None
        return grpc.ssl_channel_credentials(self.server_ca, self.private_key, self.certificates)


NO_TLS = Tls()


def _read(environment: Environment, name: str) -> bytes | None:
    if environment.optional_text(name) is None:
        return None
    path = environment.path(name)
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingError(f"{name}: cannot read {path}: {error.strerror}") from error


def _read_certificates(environment: Environment, name: str) -> bytes | None:
    content = _read(environment, name)
    if content is not None:
        try:
            x509.load_pem_x509_certificates(content)
        except ValueError as error:
            raise SettingError(f"{name} must hold certificates in PEM: {error}") from error
    return content


def _require_pair(certificates: bytes | None, private_key: bytes | None) -> None:
    """gRPC itself would start, and then refuse every connection without saying why."""
    if certificates is None and private_key is None:
        return
    if certificates is None or private_key is None:
        missing = CERTIFICATE_SETTING if certificates is None else PRIVATE_KEY_SETTING
        raise SettingError(f"{missing} is not set; a certificate and its key go together")
    try:
        public_key = load_pem_private_key(private_key, password=None).public_key()
    except (ValueError, TypeError) as error:
        raise SettingError(f"{PRIVATE_KEY_SETTING} must hold a private key in PEM, not encrypted") from error
    if x509.load_pem_x509_certificates(certificates)[0].public_key() != public_key:
        raise SettingError(f"{PRIVATE_KEY_SETTING} is not the key of the first certificate in {CERTIFICATE_SETTING}")

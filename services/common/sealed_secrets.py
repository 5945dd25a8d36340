"""Seals secrets that one service keeps and only another may open: HPKE (RFC 9180), base mode, no state.

The suite is X25519, HKDF-SHA256 and ChaCha20-Poly1305. A seal is bound to the organization and the provider it was made
for, so that moved to another row it does not open. `python -m services.common.sealed_secrets` prints a fresh key pair.
"""

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from services.common.settings import Environment, SettingError

PUBLIC_SETTING = "TOLLGATE_PROVIDER_KEY_PUBLIC"
PRIVATE_SETTING = "TOLLGATE_PROVIDER_KEY_PRIVATE"
KEY_BYTES = 32

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_PURPOSE = "tollgate provider key 1"


class SealBrokenError(Exception):
    """The seal was made with another key, for another organization or provider, or has been altered."""


def seal(secret: str, public_key: X25519PublicKey, *, organization_id: str, provider: str) -> bytes:
    """The secret as only the holder of the private key can read it. The same secret gives another seal each time."""
    return _SUITE.encrypt(secret.encode(), public_key, _purpose(organization_id, provider))


def open_sealed(sealed_secret: bytes, private_key: X25519PrivateKey, *, organization_id: str, provider: str) -> str:
    """The secret. Raises SealBrokenError when it was not sealed for just this."""
    try:
        return _SUITE.decrypt(sealed_secret, private_key, _purpose(organization_id, provider)).decode()
    except InvalidTag as error:
        raise SealBrokenError(
            f"the sealed key for {provider} of organization {organization_id} does not open"
        ) from error


def read_public_key(environment: Environment) -> X25519PublicKey:
    """Raises SettingError unless TOLLGATE_PROVIDER_KEY_PUBLIC holds one."""
    return X25519PublicKey.from_public_bytes(_key_bytes(environment, PUBLIC_SETTING))


def read_private_key(environment: Environment) -> X25519PrivateKey:
    """Raises SettingError unless TOLLGATE_PROVIDER_KEY_PRIVATE holds one."""
    return X25519PrivateKey.from_private_bytes(_key_bytes(environment, PRIVATE_SETTING))


def new_key_settings() -> dict[str, str]:
    """A fresh pair, as the values of the two settings."""
    private_key = X25519PrivateKey.generate()
    return {
        PUBLIC_SETTING: base64.b64encode(private_key.public_key().public_bytes_raw()).decode(),
        PRIVATE_SETTING: base64.b64encode(private_key.private_bytes_raw()).decode(),
    }


def _purpose(organization_id: str, provider: str) -> bytes:
    # Neither part can hold a NUL, so no two pairs read the same.
    return "\0".join((_PURPOSE, organization_id, provider)).encode()


def _key_bytes(environment: Environment, name: str) -> bytes:
    try:
        key = base64.b64decode(environment.text(name), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        # The value is not shown: it may be the private key with a letter missing.
        raise SettingError(
            f"{name} must be {KEY_BYTES} bytes in base64; `python -m services.common.sealed_secrets` makes a pair"
        )
    return key


if __name__ == "__main__":
    for name, value in new_key_settings().items():
        print(f"{name}={value}")

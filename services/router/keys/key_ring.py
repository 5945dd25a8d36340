"""The keys to call providers with: the platform's, and those of organizations, opened when they are needed."""

import logging
from collections import OrderedDict
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.common.sealed_secrets import SealBrokenError, open_sealed
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyResponse

_OPENED_MAX = 10_000

log = logging.getLogger("tollgate.keys")


class KeyRing:
    """Opens sealed provider keys and remembers the latest. Lives as long as its worker, in memory only."""

    def __init__(self, private_key: X25519PrivateKey) -> None:
        self._private_key = private_key
        self._opened: OrderedDict[tuple[str, str, bytes], str | None] = OrderedDict()

    def own_keys(self, grant: ResolveKeyResponse) -> Mapping[str, str]:
        """The organization's keys by provider. One that does not open counts as missing, and is in our log."""
        keys = {
            sealed.provider: self._open(grant.organization_id, sealed.provider, sealed.sealed_secret)
            for sealed in grant.provider_keys
        }
        return {provider: key for provider, key in keys.items() if key is not None}

    def own_key_names(self, grant: ResolveKeyResponse) -> Mapping[str, str]:
        """What tells the organization's keys apart, by provider. A key that is replaced gets another name."""
        return {
            sealed.provider: f"{hash(sealed.sealed_secret):x}"
            for sealed in grant.provider_keys
            if self._open(grant.organization_id, sealed.provider, sealed.sealed_secret) is not None
        }

    def _open(self, organization_id: str, provider: str, sealed_secret: bytes) -> str | None:
        name = (organization_id, provider, sealed_secret)
        if name not in self._opened:
            self._opened[name] = self._try_to_open(organization_id, provider, sealed_secret)
            if len(self._opened) > _OPENED_MAX:
                self._opened.popitem(last=False)
        return self._opened[name]

    def _try_to_open(self, organization_id: str, provider: str, sealed_secret: bytes) -> str | None:
        try:
            return open_sealed(sealed_secret, self._private_key, organization_id=organization_id, provider=provider)
        except SealBrokenError as error:
            log.error("own provider key does not open", extra={"why": str(error)})
            return None

"""Where deliveries may go: what a webhook's URL may be, and which addresses may be connected to. Pure.

URLs are read by the client that connects, so that what is checked and what is called is the same host.
"""

import ipaddress
from dataclasses import dataclass

from pyreqwest.http import Url

from services.common.errors import InvalidRequestError

URL_LENGTH_MAX = 2_048
_FIELD = "webhook_url"
# Names of this machine wherever they are resolved (RFC 6761).
_LOCALHOST = "localhost"
# Of protocols, not of hosts; the library calls some of these global.
_PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")
# Addresses of IPv6 that stand for one of IPv4, which a gateway on the way would connect to.
_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


@dataclass(frozen=True, slots=True)
class WebhookPolicy:
    """What an operator allows besides https to public addresses: for development."""

    http_allowed: bool = False
    private_allowed: bool = False


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """A URL that can be called."""

    text: str
    scheme: str
    # In lower case; an address of IPv6 without its brackets.
    host: str
    port: int
    # False where the host is an address already.
    is_name: bool

    @classmethod
    def of(cls, text: str) -> "WebhookUrl":
        """Raises InvalidRequestError for what is not http or https, or says more than where to call."""
        try:
            url = Url(text)
        except ValueError as error:
            raise InvalidRequestError(_FIELD, "must be a URL such as https://example.com/alerts") from error
        # As it is sent, which may be longer.
        length = len(str(url))
        if length > URL_LENGTH_MAX:
            raise InvalidRequestError(_FIELD, f"must have at most {URL_LENGTH_MAX} characters, got {length}")
        host, port = url.host_str, url.port_or_known_default
        if url.scheme not in ("http", "https") or host is None or port is None:
            raise InvalidRequestError(_FIELD, "must be a URL such as https://example.com/alerts")
        if url.username or url.password is not None or url.fragment is not None:
            raise InvalidRequestError(_FIELD, "must not have a user name, password or fragment")
        return cls(str(url), url.scheme, host.strip("[]"), port, url.domain is not None)

    def require_allowed(self, policy: WebhookPolicy) -> None:
        """Raises InvalidRequestError for what can be told to be forbidden without resolving the host."""
        if self.scheme != "https" and not policy.http_allowed:
            raise InvalidRequestError(_FIELD, "must begin with https://")
        if policy.private_allowed:
            return
        name = self.host.rstrip(".")
        is_local = name == _LOCALHOST or name.endswith(f".{_LOCALHOST}")
        if is_local or not (self.is_name or is_public(self.host)):
            raise InvalidRequestError(_FIELD, "must have a public host")


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody on the internet could mean, and nothing of ours."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        is_translated = ip.sixtofour is not None or ip.teredo is not None or any(ip in net for net in _TRANSLATED)
        if is_translated or ip.is_site_local:
            return False
    elif ip in _PROTOCOLS:
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)

"""The proxy that the environment names for calls to the outside: HTTPS_PROXY, HTTP_PROXY and NO_PROXY."""

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from services.common.settings import SettingError


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    # By which we show who we are; none where its URL names nobody.
    headers: Mapping[str, str] = field(repr=False)


def proxy_for(url: SplitResult) -> Proxy | None:
    """None when the provider is reached without one. Raises SettingError for a kind of proxy that we cannot use."""
    host = url.hostname or ""
    if _is_local(host) or proxy_bypass(host):
        # A proxy of the environment cannot mean this machine.
        return None
    proxies = getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named:
        return None
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise SettingError(f"{url.scheme}_proxy must be the http:// URL of a proxy, got one of {proxy.scheme!r}")
    return Proxy(proxy.hostname, proxy.port or 80, _credentials(proxy))


def _credentials(proxy: SplitResult) -> Mapping[str, str]:
    if proxy.username is None:
        return {}
    credentials = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"proxy-authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

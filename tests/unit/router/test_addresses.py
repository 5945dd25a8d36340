"""Whose address counts."""

import pytest

from services.router.faces.addresses import client_address


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "trusted_proxy_count", "expected"),
    [
        pytest.param("192.0.2.1:4711", "10.0.0.1", 0, "192.0.2.1", id="what anybody can write does not count"),
        pytest.param("127.0.0.1:1", "10.0.0.1, 192.0.2.1", 1, "192.0.2.1", id="whom our proxy was called by"),
        pytest.param("127.0.0.1:1", "192.0.2.1, 10.0.0.1", 2, "192.0.2.1", id="two proxies"),
        pytest.param("127.0.0.1:1", "192.0.2.1", 2, "192.0.2.1", id="fewer hops than proxies"),
        pytest.param("192.0.2.1:1", "", 1, "192.0.2.1", id="past the proxy"),
        pytest.param("[2001:db8::1]:4711", "", 0, "2001:db8::1", id="IPv6"),
    ],
)
def test_the_client_s_address(peer: str, forwarded_for: str, trusted_proxy_count: int, expected: str) -> None:
    assert client_address(peer, forwarded_for, trusted_proxy_count) == expected

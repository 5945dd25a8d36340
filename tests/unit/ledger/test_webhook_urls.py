import pytest

from services.common.errors import InvalidRequestError
from services.ledger.alerts.webhook_urls import WebhookPolicy, WebhookUrl, is_public

STRICT = WebhookPolicy()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("https://example.com/alerts?team=web", "example.com", 443),
        ("https://EXAMPLE.com:8443", "example.com", 8443),
        ("https://93.184.215.14/", "93.184.215.14", 443),
        ("https://[2606:4700::1111]/", "2606:4700::1111", 443),
    ],
)
def test_a_public_https_url_may_be_called(text: str, host: str, port: int) -> None:
    url = WebhookUrl.of(text)
    url.require_allowed(STRICT)

    assert (url.host, url.port) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "https://",
        "https://user@example.com",
        "https://user:secret@example.com",
        "https://example.com/#top",
        "https://example.com:70000",
        "https://exa mple.com",
        "https://example.com/" + "x" * 2_048,
    ],
)
def test_what_is_no_plain_url_is_refused_by_the_name_of_its_field(text: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        WebhookUrl.of(text)

    assert refused.value.metadata["field"] == "webhook_url"
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    "text",
    [
        "http://example.com",
        "https://localhost/",
        "https://localhost./",
        "https://api.localhost/",
        "https://127.0.0.1/",
        # The same address, as clients of HTTP read it.
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://%31%32%37.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data/",
    ],
)
def test_what_is_not_public_is_refused_unless_an_operator_allows_it(text: str) -> None:
    url = WebhookUrl.of(text)

    with pytest.raises(InvalidRequestError):
        url.require_allowed(STRICT)
    url.require_allowed(WebhookPolicy(http_allowed=True, private_allowed=True))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.8",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2001::1",
        "2002:7f00:1::",
        "fc00::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_that_the_internet_does_not_reach_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)

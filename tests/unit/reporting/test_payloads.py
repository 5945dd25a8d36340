import base64
import zlib

import pytest

from services.reporting.payloads import BODY_BYTES_MAX, Body, body_from_compressed


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        pytest.param(b"", Body("", is_base64=False), id="nothing"),
        pytest.param("grüezi 🙂".encode(), Body("grüezi 🙂", is_base64=False), id="text"),
        pytest.param("grüezi 🙂".encode()[:-2], Body("grüezi ", is_base64=False), id="text cut within a character"),
        pytest.param(b"\x89PNG\r\n", Body(base64.b64encode(b"\x89PNG\r\n").decode(), is_base64=True), id="no text"),
    ],
)
def test_a_body_is_text_where_it_is_and_base64_elsewhere(body: bytes, shown: Body) -> None:
    assert body_from_compressed(zlib.compress(body)) == shown


def test_no_body_is_kept_as_nothing() -> None:
    assert body_from_compressed(b"") == Body("", is_base64=False)


def test_a_body_that_cannot_be_expanded_is_not_shown() -> None:
    assert body_from_compressed(b"no zlib") == Body("", is_base64=False)


def test_a_compressed_body_that_was_cut_shows_its_beginning() -> None:
    compressed = zlib.compress(b"0123456789" * 10_000, level=0)

    assert body_from_compressed(compressed[:50_000]).text.startswith("0123456789")


def test_a_few_bytes_never_expand_to_more_than_a_body_may_have() -> None:
    bomb = zlib.compress(bytes(100 * BODY_BYTES_MAX))

    assert len(body_from_compressed(bomb).text) == BODY_BYTES_MAX

import random
import zlib

import pytest

from services.router.calls.payloads import BODY_BYTES_MAX, COMPRESSED_BYTES_MAX, Body, PayloadKeeper


def body_of(*pieces: bytes) -> Body:
    body = Body()
    for piece in pieces:
        body.feed(piece)
    return body


def test_a_body_comes_back_as_it_came_however_it_was_cut() -> None:
    pieces = [b"data: {}\n\n" * count for count in (1, 5_000, 0, 3)]

    assert zlib.decompress(body_of(*pieces).finish()) == b"".join(pieces)


def test_no_body_is_nothing_rather_than_a_compressed_nothing() -> None:
    assert body_of(b"", b"").finish() == b""


def test_of_a_body_that_is_too_large_the_beginning_is_kept() -> None:
    text = b"0123456789" * (BODY_BYTES_MAX // 10)
    whole, cut = body_of(text), body_of(text, b"and more than there is room for")

    assert zlib.decompress(whole.finish()) == text
    assert not whole.is_truncated
    assert zlib.decompress(cut.finish()) == (text + b"and more than there is room for")[:BODY_BYTES_MAX]
    assert cut.is_truncated


@pytest.mark.parametrize("piece_bytes", [1_000, 100_000, BODY_BYTES_MAX])
def test_a_body_that_cannot_be_compressed_never_takes_more_than_it_may(piece_bytes: int) -> None:
    noise = random.Random(7).randbytes(BODY_BYTES_MAX)
    body = body_of(*(noise[start : start + piece_bytes] for start in range(0, len(noise), piece_bytes)))

    compressed = body.finish()

    assert COMPRESSED_BYTES_MAX // 2 < len(compressed) <= COMPRESSED_BYTES_MAX
    assert body.is_truncated
    assert noise.startswith(zlib.decompress(compressed))


def test_a_call_is_truncated_where_either_body_is() -> None:
    payload = PayloadKeeper()
    payload.request.feed(b"asked")
    payload.response.feed(bytes(BODY_BYTES_MAX + 1))

    kept = payload.finish()

    assert payload.is_truncated
    assert (kept.request_truncated, kept.response_truncated) == (False, True)


def test_a_media_type_is_as_long_as_the_ledger_takes() -> None:
    payload = PayloadKeeper()
    payload.request.content_type = "x" * 1_000

    assert len(payload.finish().request_content_type) == 128

"""Entries on disk: what is read is what was written, or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.spool.entry import OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, Damage, Entry, Kind, decode, encode, scan

MARKER = b"\x8a\x01\xfe\x77"
SEQUENCE_MAX = 2**64 - 1

entries = st.tuples(
    st.sampled_from(Kind), st.integers(min_value=0, max_value=SEQUENCE_MAX), st.binary(min_size=1, max_size=200)
)
logs = st.lists(entries, min_size=1, max_size=8)
# Payloads that try to pass for entries of their own.
hostile = st.builds(lambda entry: encode(b"\0\0\0\0", *entry), entries)

Fields = tuple[Kind, int, bytes]


def written(fields: list[Fields]) -> bytes:
    return b"".join(encode(MARKER, *entry) for entry in fields)


def read(data: bytes) -> list[Fields]:
    return [(found.kind, found.sequence, found.payload) for found in scan(data, MARKER) if isinstance(found, Entry)]


def damages(data: bytes) -> list[Damage]:
    return [found for found in scan(data, MARKER) if isinstance(found, Damage)]


@given(logs, st.integers(min_value=0, max_value=500))
def test_what_was_written_is_read_and_zeros_after_it_are_its_end(fields: list[Fields], zero_count: int) -> None:
    data = written(fields) + bytes(zero_count)

    assert read(data) == fields
    assert damages(data) == []


@given(logs, st.data())
def test_a_cut_log_gives_its_whole_entries_and_one_torn_tail(fields: list[Fields], data: st.DataObject) -> None:
    whole = written(fields)
    cut = whole[: data.draw(st.integers(min_value=0, max_value=len(whole)))]

    found = read(cut)

    assert found == fields[: len(found)]
    kept = len(written(found))
    # Zeros cannot be told from space that was never written.
    assert damages(cut) == ([Damage(kept, len(cut), is_tail=True)] if cut[kept:].strip(b"\0") else [])


@given(logs, st.data())
def test_a_flipped_bit_loses_one_entry_at_most_and_never_changes_one(fields: list[Fields], data: st.DataObject) -> None:
    whole = bytearray(written(fields))
    bit = data.draw(st.integers(min_value=0, max_value=len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8

    lost = next(index for index in range(len(fields)) if bit // 8 < len(written(fields[: index + 1])))

    assert read(bytes(whole)) == fields[:lost] + fields[lost + 1 :]
    assert len(damages(bytes(whole))) == 1


@given(st.binary(max_size=400), logs)
def test_a_log_is_read_again_after_any_garbage(garbage: bytes, fields: list[Fields]) -> None:
    assert read(garbage + written(fields)) == fields


@given(st.binary(max_size=2000))
def test_garbage_is_never_an_entry(garbage: bytes) -> None:
    assert read(garbage) == []


@given(hostile, st.data())
def test_an_entry_inside_a_payload_is_not_taken_for_one(payload: bytes, data: st.DataObject) -> None:
    whole = bytearray(encode(MARKER, Kind.FINISHED, 1, payload))
    whole[data.draw(st.integers(min_value=0, max_value=OVERHEAD_BYTES - 1))] ^= 0xFF

    assert read(bytes(whole)) == []


@given(st.binary(max_size=100), entries)
def test_an_entry_of_another_segment_is_not_read(before: bytes, entry: Fields) -> None:
    assert read(before + encode(b"\x11\x22\x33\x44", *entry)) == []


def test_positions_are_those_of_the_file() -> None:
    data = encode(MARKER, Kind.FINISHED, 7, b"record")

    entry = decode(data, MARKER, 0, origin=4096)

    assert entry is not None
    assert (entry.start, entry.end) == (4096, 4096 + len(data))


@pytest.mark.parametrize("size", [0, PAYLOAD_BYTES_MAX + 1], ids=["empty", "too large"])
def test_a_payload_no_reader_would_take_is_not_written(size: int) -> None:
    with pytest.raises(ValueError, match="payload"):
        encode(MARKER, Kind.FINISHED, 1, bytes(size))

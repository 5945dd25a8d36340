"""PostgreSQL's binary COPY format, packed by hand.

The driver can do this too, value by value; rows of sixty columns and seven arrays go eight times as fast when runs of
columns of fixed width are packed as one. Only the types we store are here. Every function returns whole fields: their
length, then their bytes.
"""

import struct
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import TypeVar
from uuid import UUID

import orjson

KeyT = TypeVar("KeyT")

INT8_MAX = 2**63 - 1
BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"

# The formats of struct, and the widths, of types whose values all have one width.
_FORMATS = {"bool": "?", "int2": "h", "int4": "i", "int8": "q", "date": "i", "timestamptz": "q", "uuid": "16s"}
_ELEMENT_OIDS = {"bool": 16, "int8": 20, "int2": 21, "int4": 23}
_NUMERIC_OID = 1700
_NUMERIC_BASE = 10_000
_NUMERIC_NEGATIVE = 0x4000
# The width of the field, how many groups of four digits, the power of the first, the sign and the scale.
_HISTOGRAM_HEAD = struct.Struct("!ihhHH")
# The twelve digits that a histogram has of each bucket.
_COUNT = struct.Struct("!3H")
_LENGTH = struct.Struct("!i")
_FIELD_COUNT = struct.Struct("!h")
_JSONB_VERSION = b"\x01"
_MICROSECONDS_TO_2000 = 946_684_800_000_000
_DAYS_TO_2000 = 10_957


class FixedFields:
    """Packs a run of fields whose types have one width each: `FixedFields("int2", "uuid")(3, bytes16)`."""

    def __init__(self, *types: str) -> None:
        formats = [_FORMATS[name] for name in types]
        self._pack = struct.Struct("!" + "".join(f"i{one}" for one in formats)).pack
        self._template: list[object] = []
        for one in formats:
            self._template += (struct.calcsize("!" + one), None)

    def __call__(self, *values: object) -> bytes:
        arguments = self._template.copy()
        arguments[1::2] = values
        return self._pack(*arguments)


class NullableFields:
    """Packs such a run where any field but a bool may be None. Without any it takes as long as `FixedFields`."""

    def __init__(self, *types: str) -> None:
        self._without_nulls = FixedFields(*types)
        self._one_by_one = [FixedFields(name) for name in types]

    def __call__(self, *values: object) -> bytes:
        try:
            return self._without_nulls(*values)
        except struct.error:
            pairs = zip(self._one_by_one, values, strict=True)
            return b"".join(NULL if value is None else pack(value) for pack, value in pairs)


class FixedArrays:
    """Packs a run of arrays of one length, whose elements have one width each.

    `FixedArrays("int2", "bool")([1, 2], [True, False])` is two fields.
    """

    def __init__(self, *element_types: str) -> None:
        self._types = element_types
        self._packers: dict[int, _ArraysOfLength] = {}

    def __call__(self, *arrays: Sequence[object]) -> bytes:
        length = len(arrays[0])
        packer = self._packers.get(length)
        if packer is None:
            packer = self._packers[length] = _ArraysOfLength(self._types, length)
        return packer(arrays)


class _ArraysOfLength:
    """Packs arrays of this length."""

    def __init__(self, element_types: Sequence[str], length: int) -> None:
        self._template: list[object] = []
        self._places: list[slice] = []
        form = "!"
        for name in element_types:
            width = struct.calcsize("!" + _FORMATS[name])
            form += "iiiI" + "ii" * bool(length) + f"i{_FORMATS[name]}" * length
            head = (1, 0, _ELEMENT_OIDS[name], length, 1) if length else (0, 0, _ELEMENT_OIDS[name])
            self._template += (4 * len(head) + length * (4 + width), *head)
            start = len(self._template) + 1
            self._template += (width, None) * length
            self._places.append(slice(start, start + 2 * length, 2))
        self._pack = struct.Struct(form).pack

    def __call__(self, arrays: Sequence[Sequence[object]]) -> bytes:
        arguments = self._template.copy()
        for place, values in zip(self._places, arrays, strict=True):
            arguments[place] = values
        return self._pack(*arguments)


def row_head(field_count: int) -> bytes:
    """What every row begins with."""
    return _FIELD_COUNT.pack(field_count)


def bytes_field(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


@lru_cache(maxsize=8192)
def text_field(value: str) -> bytes:
    """The value must not contain a NUL character, which PostgreSQL cannot store."""
    return bytes_field(value.encode())


def jsonb_field(value: object) -> bytes:
    return bytes_field(_JSONB_VERSION + orjson.dumps(value))


@lru_cache(maxsize=8192)
def numeric_field(value: Decimal | int) -> bytes:
    """Any finite number, exactly, without zeros at its end: equal numbers share one place in the cache."""
    if isinstance(value, int):
        unscaled, scale = abs(value), 0
    else:
        unscaled, scale = _unscaled(value)
    # The decimals are filled up to whole groups of four, so that the point falls between two groups.
    fraction_groups = -(-scale // 4)
    unscaled *= 10 ** (fraction_groups * 4 - scale)
    groups: list[int] = []
    while unscaled:
        unscaled, group = divmod(unscaled, _NUMERIC_BASE)
        groups.append(group)
    weight = len(groups) - fraction_groups - 1 if groups else 0
    sign = _NUMERIC_NEGATIVE if value < 0 else 0
    groups.reverse()
    return struct.pack(f"!ihhHH{len(groups)}H", 8 + 2 * len(groups), len(groups), weight, sign, scale, *groups)


def histogram_field(counts: Mapping[int, int]) -> bytes:
    """Counts by bucket as the one number that `services.common.latency_buckets` makes of them."""
    if not counts:
        return numeric_field(0)
    last = max(counts)
    length = last - min(counts) + 1
    head = _HISTOGRAM_HEAD.pack(8 + _COUNT.size * length, 3 * length, 3 * last + 2, 0, 0)
    # Most of them are zero.
    packed = bytearray(head + bytes(_COUNT.size * length))
    for bucket, count in counts.items():
        high, low = divmod(count, _NUMERIC_BASE)
        _COUNT.pack_into(packed, len(head) + _COUNT.size * (last - bucket), *divmod(high, _NUMERIC_BASE), low)
    return bytes(packed)


def _unscaled(value: Decimal) -> tuple[int, int]:
    """The digits without the point, and how many of them are behind it."""
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"cannot store {value}")
    scale = max(0, -exponent)
    unscaled = int("".join(map(str, digits))) * 10 ** max(0, exponent)
    while scale and unscaled % 10 == 0:
        unscaled, scale = unscaled // 10, scale - 1
    return unscaled, scale


def numeric_array(values: Sequence[Decimal | int]) -> bytes:
    if not values:
        return bytes_field(struct.pack("!iiI", 0, 0, _NUMERIC_OID))
    head = struct.pack("!iiIii", 1, 0, _NUMERIC_OID, len(values), 1)
    return bytes_field(head + b"".join(map(numeric_field, values)))


@lru_cache(maxsize=8192)
def uuid_bytes(text: str) -> bytes:
    """For ids that come again and again: organizations and keys."""
    return UUID(text).bytes


def in_rounds(sums: Mapping[KeyT, Sequence[int]]) -> list[Mapping[KeyT, Sequence[int]]]:
    """The sums as addends that each fit into an int8. Nearly always one round, of the sums themselves."""
    rounds: list[Mapping[KeyT, Sequence[int]]] = []
    while beyond := {key: more for key, more in sums.items() if max(more) > INT8_MAX}:
        rounds.append({key: [min(one, INT8_MAX) for one in more] for key, more in sums.items()})
        sums = {key: [max(0, one - INT8_MAX) for one in more] for key, more in beyond.items()}
    return [*rounds, sums]


def timestamp_value(microseconds: int) -> int:
    """A moment, given as microseconds since 1970, as PostgreSQL counts it."""
    return microseconds - _MICROSECONDS_TO_2000


def date_value(days: int) -> int:
    """A day, given as days since 1970, as PostgreSQL counts it."""
    return days - _DAYS_TO_2000

"""Arrays as PostgreSQL packs them, for parameters that hold a whole column of a batch.

Rows that go from parameters into a table need no table to be staged in, which must be filled, read and emptied.
"""

import struct
from collections.abc import Sequence

from psycopg import Connection
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

# How many dimensions, whether there are nulls, the type of the elements, the length and the first subscript.
_HEAD = struct.Struct("!iiIii")
_WIDTH = struct.Struct("!i")


class PackedArray(bytes):
    """One dimension of elements of one width, which are never null: `UuidArray.of([uuid.bytes for uuid in uuids])`."""

    oid: int
    element_oid: int

    @classmethod
    def of(cls, elements: Sequence[bytes]) -> "PackedArray":
        """At least one element, each as PostgreSQL packs it."""
        width = _WIDTH.pack(len(elements[0]))
        return cls(_HEAD.pack(1, 0, cls.element_oid, len(elements), 1) + width + width.join(elements))


class UuidArray(PackedArray):
    oid, element_oid = 2951, 2950


class DateArray(PackedArray):
    oid, element_oid = 1182, 1082


class ByteaArray(PackedArray):
    oid, element_oid = 1001, 17


class _UuidArrayDumper(Dumper):
    format, oid = Format.BINARY, UuidArray.oid

    def dump(self, obj: bytes) -> Buffer:
        return obj


class _DateArrayDumper(_UuidArrayDumper):
    oid = DateArray.oid


class _ByteaArrayDumper(_UuidArrayDumper):
    oid = ByteaArray.oid


def prepare_session(connection: Connection) -> None:
    """Makes the connection take such parameters."""
    connection.adapters.register_dumper(UuidArray, _UuidArrayDumper)
    connection.adapters.register_dumper(DateArray, _DateArrayDumper)
    connection.adapters.register_dumper(ByteaArray, _ByteaArrayDumper)

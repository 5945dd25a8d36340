"""Tables as files: CSV as RFC 4180 has it, harmless in spreadsheets, and JSON lines. Pure."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence

# Small enough to leave at once, large enough that a file is not mostly messages.
CHUNK_BYTES = 64 * 1024
# What a spreadsheet takes for the beginning of a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")

Cell = str | int | float
Table = Iterable[Sequence[Cell]]


def csv_lines(names: Sequence[str], rows: Table) -> Iterator[bytes]:
    """A header, then a line per row."""
    yield _csv_line(names)
    for row in rows:
        yield _csv_line([_harmless(cell) for cell in row])


def jsonl_lines(names: Sequence[str], rows: Table) -> Iterator[bytes]:
    """An object per row."""
    for row in rows:
        yield json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False).encode() + b"\n"


def chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines, several at a time."""
    gathered = bytearray()
    for line in lines:
        gathered += line
        if len(gathered) >= CHUNK_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


def _csv_line(cells: Sequence[Cell]) -> bytes:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().encode()


def _harmless(cell: Cell) -> Cell:
    """A number may begin with a minus; a text that does is told to be one."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell

"""How a benchmark says what it found: rows of three columns on standard output, which `make bench` gathers."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure with its unit, and the goal where there is one."""

    what: str
    figure: str = ""
    goal: str = ""

    def __str__(self) -> str:
        return f"| {self.what} | {self.figure} | {self.goal} |"


def report(
    what: str, value: float, unit: str = "", *, at_most: float | None = None, at_least: float | None = None
) -> None:
    """Prints one figure, and beside it the goal where there is one, and whether it is met."""
    print(Row(what, _with_unit(value, unit), _goal(value, unit, at_most, at_least)), flush=True)


def report_unmeasured(what: str, why: str) -> None:
    """Prints a row that says why there is no figure."""
    print(Row(what, f"not measured: {' '.join(why.split()).replace('|', '/')}"), flush=True)


def rows_in(output: str) -> Iterator[Row]:
    """The rows that a benchmark printed; all its lines, as they are, where it prints in another way."""
    found = [[cell.strip() for cell in line[1:-1].split("|")] for line in output.splitlines() if line.startswith("| ")]
    rows = [Row(*cells) for cells in found if len(cells) == 3]
    yield from rows or (Row(line.strip()) for line in output.splitlines() if line.strip())


def _goal(value: float, unit: str, at_most: float | None, at_least: float | None) -> str:
    if at_most is not None:
        return f"≤ {_with_unit(at_most, unit)} {'met' if value <= at_most else 'MISSED'}"
    if at_least is not None:
        return f"≥ {_with_unit(at_least, unit)} {'met' if value >= at_least else 'MISSED'}"
    return ""


def _with_unit(value: float, unit: str) -> str:
    return f"{_rounded(value)} {unit}".rstrip()


def _rounded(value: float) -> str:
    """About three digits that count."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"

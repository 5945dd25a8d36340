"""The table of faults that `make faults` prints."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.faults.runs import Run


@dataclass
class Row:
    """All runs of one fault."""

    fault: str
    run_count: int = 0
    call_count: int = 0
    finished_count: int = 0
    lost_count: int = 0
    doubled_count: int = 0
    wrong_count: int = 0
    problem_count: int = 0

    def add(self, run: Run) -> None:
        self.run_count += 1
        self.problem_count += len(run.problems)
        if run.comparison is not None:
            self.call_count += run.comparison.call_count
            self.finished_count += run.comparison.finished_count
            self.lost_count += len(run.comparison.lost)
            self.doubled_count += len(run.comparison.doubled)
            self.wrong_count += len(run.comparison.misbilled) + len(run.comparison.invented)

    @property
    def cells(self) -> tuple[str, ...]:
        counts = (
            self.run_count,
            self.call_count,
            self.finished_count,
            self.lost_count,
            self.doubled_count,
            self.wrong_count,
            self.problem_count,
        )
        return (self.fault, *(f"{count:,}" for count in counts))


_HEAD = ("Fault", "Runs", "Calls", "Seen finished", "Lost", "Doubled", "Charged wrongly", "Problems")


def render(runs: Iterable[Run]) -> str:
    """In Markdown, a line for each fault and one for all."""
    rows: dict[str, Row] = {}
    total = Row("all")
    for run in runs:
        rows.setdefault(run.fault, Row(run.fault)).add(run)
        total.add(run)
    lines = [_HEAD, ("---", *("---:",) * (len(_HEAD) - 1)), *(row.cells for row in rows.values()), total.cells]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)

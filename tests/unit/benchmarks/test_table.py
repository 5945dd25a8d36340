from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks.figures import Row, report, report_unmeasured, rows_in


def test_a_figure_stands_beside_its_goal_and_whether_it_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    report("plain call ÷ Envoy alone", 5.31, at_most=5)
    report("records", 15_400.4, "records/s", at_least=15_000)
    report("memory", 0.0421, "MiB")

    assert list(rows_in(capsys.readouterr().out)) == [
        Row("plain call ÷ Envoy alone", "5.31", "≤ 5 MISSED"),
        Row("records", "15,400 records/s", "≥ 15,000 records/s met"),
        Row("memory", "0.042 MiB"),
    ]


def test_what_was_not_measured_is_one_row_that_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    report_unmeasured("LiteLLM", "it does not start:\n a | b")

    assert list(rows_in(capsys.readouterr().out)) == [Row("LiteLLM", "not measured: it does not start: a / b")]


def test_other_lines_than_rows_are_for_whoever_runs_a_benchmark_alone() -> None:
    assert list(rows_in("3 kinds\n| one | 1 |  |\n\n")) == [Row("one", "1")]


def test_a_benchmark_that_prints_in_its_own_way_is_shown_as_it_prints() -> None:
    assert list(rows_in("reads   4 ms\n\nwrites  5 ms\n")) == [Row("reads   4 ms"), Row("writes  5 ms")]


def test_a_benchmark_that_fails_says_so_and_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "OUTPUT", tmp_path)

    rows, failure = bench.run("does_not_exist", seconds_max=20)

    assert rows == []
    assert "No module named benchmarks.does_not_exist" in failure


def test_every_module_that_can_be_run_is_a_benchmark() -> None:
    names = bench.every_name()

    assert {"exactness", "ledger_ingest", "router_calls", "spool", "whole_system"} <= set(names)
    assert not {"__main__", "figures", "load"} & set(names)

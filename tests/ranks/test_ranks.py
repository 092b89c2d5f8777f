"""Metrics, triggers, and extensions on several ranks."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pte_tracking as pte
from pte_tracking import extensions, triggers
from pte_tracking._data.position import rescaled_position
from pte_tracking._interface.progress import Progress
from tests.ranks import monitor_scenarios, scenarios, snapshot_scenarios
from tests.ranks.components import read_rows
from tests.ranks.forked import on_ranks

pytestmark = pytest.mark.slow


def test_means_on_two_ranks_equal_single_process_means(tmp_path: Path) -> None:
    first, second = on_ranks(scenarios.log_means, 2, tmp_path)
    assert first == second
    # A single process that reports the same values in sequence computes bit-identical means.
    single_process_rows = []
    for interval in (slice(0, 3), slice(3, 6)):
        interval_values = [values for rank in scenarios.REPORTED for values in rank[interval]]
        out = tmp_path / str(interval.start)
        with pte.ExtensionsManager(
            {}, 1, [extensions.LogReport()], iters_per_epoch=len(interval_values), out_dir=out
        ) as manager:
            for values in interval_values:
                with manager.run_iteration():
                    pte.report(values)
        single_process_rows += read_rows(out)
    evaluated = [value for rank in scenarios.EVALUATED for value in rank]
    single_process_rows[1]["val/x"] = sum(evaluated) / len(evaluated)
    clocks = {"epoch", "iteration"}
    assert [{key: row[key] for key in row.keys() - clocks} for row in first] == [
        {key: row[key] for key in row.keys() - clocks} for row in single_process_rows
    ]
    assert [row["iteration"] for row in first] == [3, 6]


def test_weighted_and_large_means_cover_both_ranks(tmp_path: Path) -> None:
    for (row,), best in on_ranks(scenarios.log_weighted_means, 2, tmp_path):
        assert (row["x"], row["large"], row["none"]) == (3.3, pytest.approx(1.25e308), None)
        assert best in ([3.3], [])  # Only rank 0 reads the run.


def test_last_row_covers_all_ranks_only_if_all_reach_the_end(tmp_path: Path) -> None:
    for rows in on_ranks(scenarios.log_last_rows, 2, tmp_path):
        assert rows == {
            "stop": [[3, 6.0], [5, 8.5]],
            "break": [[3, 6.0], [4, 3.0]],  # the value of rank 0
            "error on rank 1": [[3, 6.0], [4, 3.0]],
        }


def test_row_uses_one_collective_and_other_iterations_none(tmp_path: Path) -> None:
    for counts in on_ranks(scenarios.count_collectives_per_iteration, 2, tmp_path):
        assert counts[2:] == [{}, {"all_reduce": 1}] * 3
        assert sum(counts[1].values()) <= 4  # The first row also synchronizes the keys.


def test_triggers_and_stop_are_decided_for_all_ranks(tmp_path: Path) -> None:
    first, second = on_ranks(scenarios.record_trigger_decisions, 2, tmp_path)
    assert first == second
    assert first["best"] == [1, 2, 3]
    assert first["function"] == [2, 4, 6], "rank 0 decides function triggers"
    assert first["stopped"] == 6, "the lowest mean of both ranks is in interval 3, and patience is 3"


def test_early_stopping_in_single_process_matches_two_ranks(tmp_path: Path) -> None:
    stop = triggers.EarlyStoppingTrigger((1, "iteration"), "loss", patience=3, mode="min", max_trigger=(8, "iteration"))
    manager = pte.ExtensionsManager({}, 1, stop_trigger=stop, iters_per_epoch=8, out_dir=tmp_path)
    for value in (5.5, 5, 2.5, 3.5, 4.5, 6, 7.5, 9):
        if not manager.stop_trigger:
            with manager.run_iteration():
                pte.report({"loss": value})
    assert manager.iteration == 6


def test_disagreeing_ranks_raise_before_first_iteration(tmp_path: Path) -> None:
    first, second = on_ranks(scenarios.collect_disagreement_errors, 2, tmp_path)
    assert first == second
    assert len(first) == 11
    for name, message in first.items():
        assert message.startswith("Ranks disagree at ")
        assert f"{name.partition(' ')[0].strip(chr(39))}: rank 1 has " in message
        assert message.endswith("after 0")


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3)])
def test_resume_on_other_world_size_merges_partial_sums(before: int, after: int, tmp_path: Path) -> None:
    on_ranks(scenarios.resume_within_interval, before, tmp_path)
    values = [float(rank) for rank in range(before)] * 3 + [10.0 + rank for rank in range(after)]
    mean = sum(values) / len(values)
    for result in on_ranks(scenarios.resume_within_interval, after, tmp_path):
        (row,) = result["rows"]
        assert row["x"] == row["ratio"] == mean
        assert result["best"] == -mean


def test_resume_on_other_world_size_merges_sums_of_user_extension(tmp_path: Path) -> None:
    on_ranks(scenarios.sum_in_user_extension, 2, tmp_path)
    summed = on_ranks(scenarios.sum_in_user_extension, 3, tmp_path)
    assert [state["x"] for state in summed] == [5, 1, 1]


def test_manager_groups_use_default_group_timeout(tmp_path: Path) -> None:
    assert on_ranks(scenarios.read_group_timeouts, 2, tmp_path) == [[30.0, 30.0]] * 2


def test_plateau_scheduler_uses_mean_of_all_ranks(tmp_path: Path) -> None:
    # The means are 4, 5, 6 and 2: the second and third do not improve.
    assert on_ranks(scenarios.record_plateau_learning_rates, 2, tmp_path) == [[1.0, 0.5, 0.25, 0.25]] * 2


def test_print_report_pending_rows_are_printed_by_rank_0(tmp_path: Path) -> None:
    on_ranks(scenarios.print_pending_rows, 2, tmp_path)
    assert on_ranks(scenarios.print_pending_rows, 3, tmp_path) == [["iteration", "1", "2", "3"], [], []]


def test_snapshot_condition_is_decided_by_rank_0(tmp_path: Path) -> None:
    assert on_ranks(snapshot_scenarios.save_on_condition, 2, tmp_path) == [["snapshot_iter_2"]] * 2


def test_warnings_about_all_ranks_are_issued_by_rank_0(tmp_path: Path) -> None:
    first, second = on_ranks(scenarios.collect_warnings, 2, tmp_path)
    assert second == []
    expected = [
        "the name 'not reported' does not show",
        "'not reported' was not",
        "No extension is a LogReport",
        "'stray' was reported between",
        "PlotReport: no data",
    ]
    assert len(first) == len(expected)
    for message in expected:
        assert sum(message in each for each in first) == 1


def test_stop_trigger_resumes_exactly_on_each_rank(tmp_path: Path) -> None:
    for uninterrupted, resumed in on_ranks(scenarios.resume_stop_trigger, 2, tmp_path):
        assert resumed == uninterrupted


def test_logging_before_restore_does_not_prevent_resume(tmp_path: Path) -> None:
    assert on_ranks(scenarios.log_before_restore, 2, tmp_path) == [{"load_state_dict": 2, "autoload": 1}] * 2


def test_rank_0_extension_with_collective_trigger_runs(tmp_path: Path) -> None:
    assert on_ranks(scenarios.run_statistics_on_rank_0, 2, tmp_path) == [2, 2]


def test_signal_to_one_rank_saves_and_exits_on_all_ranks(tmp_path: Path) -> None:
    status = 128 + signal.SIGUSR1
    assert (
        on_ranks(snapshot_scenarios.save_on_signal, 2, tmp_path)
        == [{"status": status, "iteration": 3, "snapshot exists": True}] * 2
    )


@given(before=st.integers(1, 50), after=st.integers(1, 50), completed=st.integers(0, 200))
def test_progress_and_data_position_agree_on_other_world_size(before: int, after: int, completed: int) -> None:
    saved = Progress(before)
    saved.iteration = completed
    resized = Progress(after)
    resized.load_state_dict(saved.state_dict())
    assert resized.rescaled_iteration % after == rescaled_position(completed % before, before, after)
    assert resized.epoch == saved.epoch


def test_value_reported_on_one_rank_is_logged(tmp_path: Path) -> None:
    results = on_ranks(scenarios.report_on_one_rank, 3, tmp_path)
    assert results == [[{"x": 4.0, "epoch": 1, "iteration": 2}]] * 3


def test_monitor_sharded_model_reports_norm_of_all_shards(tmp_path: Path) -> None:
    for reported, expected in on_ranks(monitor_scenarios.monitor_sharded, 2, tmp_path):
        assert reported == pytest.approx(expected)
        assert expected > 0

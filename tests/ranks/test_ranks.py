"""Several processes that train together: one run, one log, one mind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pte_tracking as pte
from pte_tracking import extensions, triggers
from pte_tracking._data.loader import _same_place
from pte_tracking._interface.progress import Progress
from tests.ranks import scenarios
from tests.ranks.forked import on_ranks

pytestmark = pytest.mark.slow


def test_means_weigh_each_value_the_same_on_whichever_rank_it_was_seen(tmp_path: Path) -> None:
    first, second = on_ranks("means", 2, tmp_path)
    assert first == second
    # One process that sees the same values, one after the other, has the same means to the last bit.
    alone = []
    for interval in (slice(0, 3), slice(3, 6)):
        seen = [values for rank in scenarios.SEEN for values in rank[interval]]
        out = tmp_path / str(interval.start)
        with pte.ExtensionsManager({}, 1, [extensions.LogReport()], iters_per_epoch=len(seen), out_dir=out) as manager:
            for values in seen:
                with manager.run_iteration():
                    pte.report(values)
        alone += scenarios.rows(out)
    evaluated = [value for rank in scenarios.EVALUATED for value in rank]
    alone[1]["val/x"] = sum(evaluated) / len(evaluated)
    clocks = {"epoch", "iteration"}
    assert [{key: row[key] for key in row.keys() - clocks} for row in first] == [
        {key: row[key] for key in row.keys() - clocks} for row in alone
    ]
    assert [row["iteration"] for row in first] == [3, 6]


def test_a_row_costs_one_collective_and_an_iteration_without_one_none(tmp_path: Path) -> None:
    for counted in on_ranks("collectives", 2, tmp_path):
        assert counted[2:] == [{}, {"all_reduce": 1}] * 3
        assert sum(counted[1].values()) <= 4  # the first one agrees upon the keys


def test_triggers_and_the_stop_are_decided_for_all_ranks(tmp_path: Path) -> None:
    first, second = on_ranks("decisions", 2, tmp_path)
    assert first == second
    assert first["best"] == [1, 2, 3]
    assert first["function"] == [2, 4, 6], "rank 0 decides"
    assert first["stopped"] == 6, "three intervals after the best mean of both"


def test_one_process_decides_alike_about_the_means_of_both(tmp_path: Path) -> None:
    stop = triggers.EarlyStoppingTrigger((1, "iteration"), "loss", patience=3, mode="min", max_trigger=(8, "iteration"))
    manager = pte.ExtensionsManager({}, 1, stop_trigger=stop, iters_per_epoch=8, out_dir=tmp_path)
    for value in (5.5, 5, 2.5, 3.5, 4.5, 6, 7.5, 9):
        if not manager.stop_trigger:
            with manager.run_iteration():
                pte.report({"loss": value})
    assert manager.iteration == 6


def test_ranks_that_disagree_are_all_told_before_the_first_iteration(tmp_path: Path) -> None:
    first, second = on_ranks("disagreements", 2, tmp_path)
    assert first == second
    assert len(first) == 11
    for name, message in first.items():
        assert message.startswith("the ranks do not agree, at ")
        assert f"{name.partition(' ')[0].strip(chr(39))}: rank 1 has " in message
        assert message.endswith("after 0")


@pytest.mark.parametrize(("before", "now"), [(1, 2), (2, 1), (2, 3)])
def test_another_number_of_ranks_takes_over_the_sums_under_way(before: int, now: int, tmp_path: Path) -> None:
    on_ranks("sums_pooled", before, tmp_path)
    values = [float(rank) for rank in range(before)] * 3 + [10.0 + rank for rank in range(now)]
    mean = sum(values) / len(values)
    for result in on_ranks("sums_pooled", now, tmp_path):
        (row,) = result["rows"]
        assert row["x"] == row["ratio"] == mean
        assert result["best"] == -mean


def test_sums_of_a_users_extension_are_taken_over_too(tmp_path: Path) -> None:
    on_ranks("own_sums", 2, tmp_path)
    summed = on_ranks("own_sums", 3, tmp_path)
    assert [one["x"] for one in summed] == [5, 1, 1]


def test_a_rank_that_is_late_is_waited_for_as_long_as_the_script_has_said(tmp_path: Path) -> None:
    assert on_ranks("timeouts", 2, tmp_path) == [[30.0, 30.0]] * 2


def test_a_plateau_is_one_of_all_ranks(tmp_path: Path) -> None:
    # The means are 4, 5, 6 and 2: twice no better.
    assert on_ranks("plateau", 2, tmp_path) == [[1.0, 0.5, 0.25, 0.25]] * 2


def test_rows_that_were_not_printed_yet_are_printed_by_rank_0(tmp_path: Path) -> None:
    on_ranks("printed", 2, tmp_path)
    assert on_ranks("printed", 3, tmp_path) == [["iteration", "1", "2", "3"], [], []]


def test_rank_0_decides_whether_a_condition_holds(tmp_path: Path) -> None:
    assert on_ranks("on_condition", 2, tmp_path) == [["snapshot_iter_2"]] * 2


def test_what_concerns_all_ranks_is_said_by_one(tmp_path: Path) -> None:
    assert on_ranks("warned", 2, tmp_path) == [
        [
            "sinks are given",
            "'not reported' was not reported in a whole interval; reported was nothing",
            "PlotReport: nothing was reported as 'not reported either' with its x 'iteration'; the nearest of the last "
            "reported are none",
        ],
        [],
    ]


def test_a_stop_trigger_goes_on_exactly_on_each_rank(tmp_path: Path) -> None:
    for uninterrupted, again in on_ranks("stops_exactly", 2, tmp_path):
        assert again == uninterrupted


def test_what_is_logged_before_a_state_is_restored_does_no_harm(tmp_path: Path) -> None:
    assert on_ranks("logged_before", 2, tmp_path) == [{"load_state_dict": 2, "autoload": 1}] * 2


def test_an_extension_for_rank_0_may_have_a_trigger_that_needs_all(tmp_path: Path) -> None:
    assert on_ranks("statistics", 2, tmp_path) == [2, 2]


def test_a_signal_to_one_rank_saves_on_all_and_they_leave_together(tmp_path: Path) -> None:
    status = 128 + signal.SIGUSR1
    assert on_ranks("signalled", 2, tmp_path) == [{"status": status, "iteration": 3, "is there": True}] * 2


@given(before=st.integers(1, 50), now=st.integers(1, 50), done=st.integers(0, 200))
def test_a_place_in_the_data_and_the_progress_stay_in_step_on_other_ranks(before: int, now: int, done: int) -> None:
    saved = Progress(before)
    saved.iteration = done
    resized = Progress(now)
    resized.load_state_dict(saved.state_dict(), is_resized=True)
    assert resized.position % now == _same_place(done % before, before, now)
    assert resized.epoch == saved.epoch


def test_more_ranks_than_values_do_no_harm(tmp_path: Path) -> None:
    results = on_ranks("reported_by_one", 3, tmp_path)
    assert results == [[{"x": 4.0, "epoch": 1, "iteration": 2}]] * 3

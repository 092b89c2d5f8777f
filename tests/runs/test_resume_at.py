"""Continuation of a run at a step, to which another library restored the training."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import pte_tracking as pte
from pte_tracking.sinks import JOURNAL, AnyEvent, Metrics, Rewound, RunEnded, RunStarted, find_events, read_effective


def log_steps(run: pte.Run, *steps: int, value: float = 0.0) -> None:
    for step in steps:
        run.log_metrics({"loss": value}, step)


def points(directory: Path) -> list[tuple[str, int, object]]:
    rows = [event for event in history(directory) if isinstance(event, Metrics)]
    return [(key, row.step, value) for row in rows for key, value in row.values.items()]


def history(directory: Path) -> list[AnyEvent]:
    return [event for event, _ in read_effective(directory / JOURNAL)]


def register(run: pte.Run, name: str, step: int) -> None:
    (run.directory / name).write_bytes(b"weights")
    run.log_checkpoint(name, step, f"{step:064x}", 7)


def test_resume_at_supersedes_later_steps_of_same_run(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as first:
        log_steps(first, 1, 2, 3, 4)
    with pte.Run(tmp_path, resume=True) as second:
        second.resume_at(2)
        log_steps(second, 3, value=1.0)
    assert second.id == first.id
    assert points(tmp_path) == [("loss", 1, 0.0), ("loss", 2, 0.0), ("loss", 3, 1.0)]
    assert [type(event) for event in history(tmp_path)].count(RunStarted) == 2
    assert len((tmp_path / "log").read_text().splitlines()) >= 3


def test_resume_at_last_step_appends_without_rewind(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        log_steps(run, 1, 2)
    with pte.Run(tmp_path, resume=True) as run:
        run.resume_at(2)
        log_steps(run, 3)
    assert points(tmp_path) == [("loss", 1, 0.0), ("loss", 2, 0.0), ("loss", 3, 0.0)]
    assert list(find_events(tmp_path / JOURNAL, Rewound)) == []


def test_resume_at_keeps_earlier_steps_and_events_without_step(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        log_steps(run, 1, 3)
        run.log_metrics({"val/loss": 0.5}, 2)
        run.set_tags({"color": "red"})
        run.log_params({"lr": 0.1})
        log_steps(run, 4)
    before = {event.time for event in history(tmp_path) if getattr(event, "step", 0) <= 2}
    with pte.Run(tmp_path, resume=True) as run:
        run.resume_at(2)
        log_steps(run, 3)
    assert points(tmp_path) == [("loss", 1, 0.0), ("val/loss", 2, 0.5), ("loss", 3, 0.0)]
    kinds = [type(event).__name__ for event in history(tmp_path)]
    assert kinds.count("Tags") == kinds.count("Params") == 1
    assert {event.time for event in history(tmp_path) if isinstance(event, Metrics) and event.step <= 2} <= before


def test_resume_at_keeps_checkpoints_of_earlier_steps_only(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        register(run, "a.ckpt", 1)
        log_steps(run, 3)
        register(run, "b.ckpt", 2)
        register(run, "last.ckpt", 2)
        register(run, "c.ckpt", 3)
        register(run, "last.ckpt", 3)
        run.remove_checkpoint("a.ckpt", 1)
    with pte.Run(tmp_path, resume=True) as run:
        run.resume_at(2)
        assert [checkpoint.path for checkpoint in run.checkpoints()] == ["b.ckpt"]
    assert [checkpoint.path for checkpoint in pte.Run(tmp_path).checkpoints()] == ["b.ckpt"]


def test_resume_at_value_logged_again_is_kept_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pte.Run(tmp_path) as run:
        run.log_metrics({"loss": 0.5}, 2)
        run.log_text("note", "first", 2)
        log_steps(run, 3)
    with pte.Run(tmp_path, resume=True) as run, caplog.at_level(logging.WARNING, "pte_tracking"):
        run.resume_at(2)
        run.log_metrics({"loss": 0.75, "val/loss": 0.25}, 2)
        run.log_metrics({"loss": 0.75}, 1)
        run.log_text("note", "second", 2)
        run.log_histogram("weights", np.arange(3), 2)
    assert points(tmp_path) == [("loss", 2, 0.5), ("val/loss", 2, 0.25)]
    kinds = [type(event).__name__ for event in history(tmp_path)]
    assert (kinds.count("Text"), kinds.count("Histogram")) == (1, 1)
    (message,) = caplog.messages
    assert "'loss' was logged again at step 2" in message


def test_resume_at_open_run_repeats_start_of_session(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        log_steps(run, 1, 2, 3)
        run.resume_at(1)
        log_steps(run, 2, 3, value=1.0)
        run.resume_at(2)
        log_steps(run, 3, value=2.0)
    assert points(tmp_path) == [("loss", 1, 0.0), ("loss", 2, 1.0), ("loss", 3, 2.0)]
    with pte.Run(tmp_path, resume=True) as run:
        log_steps(run, 5)
        run.resume_at(2)
        log_steps(run, 3, value=3.0)
    assert points(tmp_path)[-1] == ("loss", 3, 3.0)
    assert [type(event) for event in history(tmp_path)].count(RunStarted) == 2


def test_resume_at_held_values_belong_to_continued_run(tmp_path: Path) -> None:
    with pte.Run(tmp_path, params={"lr": 1}) as first:
        log_steps(first, 1, 2)
    run = pte.Run(tmp_path)
    run.hold()
    run.log_params({"lr": 2})
    run.resume_at(1)
    log_steps(run, 2, value=1.0)
    run.close()
    assert run.id == first.id
    assert points(tmp_path) == [("loss", 1, 0.0), ("loss", 2, 1.0)]
    assert [type(event).__name__ for event in history(tmp_path)] == [
        *("RunStarted", "Params", "Metrics"),
        *("RunStarted", "Params", "Metrics", "RunEnded"),
    ]


def test_resume_at_closed_run_opens_it_with_new_status(tmp_path: Path) -> None:
    run = pte.Run(tmp_path)
    log_steps(run, 1, 2)
    run.close("FAILED", "error")
    run.resume_at(1)
    log_steps(run, 2)
    run.close()
    assert [end.status for end, _ in find_events(tmp_path / JOURNAL, RunEnded)] == ["FAILED", "FINISHED"]
    assert points(tmp_path) == [("loss", 1, 0.0), ("loss", 2, 0.0)]


def test_resume_at_empty_directory_starts_run_with_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = pte.Run(tmp_path / "other")
    with caplog.at_level(logging.WARNING, "pte_tracking"):
        other.resume_at(5)
    log_steps(other, 6)
    other.close()
    assert points(other.directory) == [("loss", 6, 0.0)]
    assert "contains no run" in caplog.text


def test_resume_at_other_rank_writes_nothing(tmp_path: Path) -> None:
    run = pte.Run(tmp_path, rank=1, world_size=2)
    run.resume_at(3)
    run.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["3", 1.5, None])
def test_resume_at_wrong_step_raises(tmp_path: Path, step: object) -> None:
    with pytest.raises(TypeError, match="step: expected an integer"):
        pte.Run(tmp_path).resume_at(step)  # type: ignore[arg-type]

"""Loops over ``manager.iterations(loader)``, and the ways in which they are left."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._store.status import read_status
from pte_tracking.sinks import JOURNAL, Text, find_events


def make(directory: Path, *entries: Any, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager(
        nn.Linear(1, 1), 2, [extensions.LogReport(trigger=(1, "iteration")), *entries], out_dir=directory, **options
    )


def losses(directory: Path) -> list[float]:
    return [row["loss"] for row in json.loads((directory / "log").read_text())]


def test_iterations_report_each_batch_in_its_own_row_and_end_the_run(tmp_path: Path) -> None:
    manager = make(tmp_path)
    completed = []
    for batch in manager.iterations([1, 2, 3]):
        completed.append(manager.iteration)
        pte.report({"loss": batch})
    assert completed == [0, 1, 2, 3, 4, 5]
    assert losses(tmp_path) == [1, 2, 3, 1, 2, 3]
    assert manager.is_ended


def leave_by_break(manager: pte.ExtensionsManager) -> None:
    for batch in manager.iterations([1, 2, 3]):
        pte.report({"loss": batch})
        if batch == 2:
            break


def leave_by_return(manager: pte.ExtensionsManager) -> int:
    for batch in manager.iterations([1, 2, 3]):
        pte.report({"loss": batch})
        if batch == 2:
            return batch * 2
    return 0


def leave_by_break_in_blocks(manager: pte.ExtensionsManager) -> None:
    for batch in manager.iterations([1, 2, 3]):
        with contextlib.nullcontext():
            try:
                pte.report({"loss": batch})
                if batch == 2:
                    break
            finally:
                manager.run.log_text("note", str(batch))


def leave_through_wrappers(manager: pte.ExtensionsManager) -> None:
    for number, batch in enumerate(tqdm(manager.iterations([1, 2, 3]), file=sys.stdout)):
        pte.report({"loss": batch})
        if number == 1:
            break


def leave_by_length(manager: pte.ExtensionsManager) -> None:
    for batch in itertools.islice(manager.iterations([1, 2, 3]), 2):
        pte.report({"loss": batch})


def leave_by_zip(manager: pte.ExtensionsManager) -> None:
    for _, batch in zip(range(2), manager.iterations([1, 2, 3])):  # noqa: B905
        pte.report({"loss": batch})


def leave_from_generator(manager: pte.ExtensionsManager) -> None:
    def train() -> Iterator[int]:
        for batch in manager.iterations([1, 2, 3]):
            pte.report({"loss": batch})
            yield batch

    for batch in train():
        if batch == 2:
            break


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_break,
        leave_by_return,
        leave_by_break_in_blocks,
        leave_through_wrappers,
        leave_by_length,
        leave_by_zip,
        leave_from_generator,
    ],
)
def test_loop_left_by_statement_completes_its_last_iteration(
    tmp_path: Path, leave: Callable[[pte.ExtensionsManager], object]
) -> None:
    manager = make(tmp_path)
    leave(manager)
    assert manager.iteration == 2
    manager.close()
    assert losses(tmp_path) == [1, 2]


def test_run_that_ends_within_a_loop_left_by_break_logs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(tmp_path)
    progress = tqdm(manager.iterations([1, 2, 3]), file=sys.stdout)
    for batch in progress:
        if batch == 2:
            break
    assert not caplog.messages
    manager.close()
    (message,) = caplog.messages
    assert message.startswith("The iteration after iteration 1 was not counted")


def test_second_loop_while_a_variable_refers_to_the_first_one_raises_error_with_the_remedy(tmp_path: Path) -> None:
    manager = make(tmp_path)
    progress = tqdm(manager.iterations([1, 2, 3]), file=sys.stdout)
    next(iter(progress))
    with pytest.raises(RuntimeError, match="delete the variable"):
        next(manager.iterations([1, 2, 3]))
    del progress


def raise_in_body(manager: pte.ExtensionsManager) -> None:
    for batch in manager.iterations([1, 2, 3]):
        pte.report({"loss": batch})
        if batch == 2:
            raise ZeroDivisionError


def raise_in_blocks(manager: pte.ExtensionsManager) -> None:
    for batch in manager.iterations([1, 2, 3]):
        with contextlib.nullcontext():
            try:
                pte.report({"loss": batch})
                assert batch == 1 or 1 / 0
            finally:
                manager.run.log_text("note", str(batch))


def raise_through_wrapper(manager: pte.ExtensionsManager) -> None:
    for batch in tqdm(manager.iterations([1, 2, 3]), file=sys.stdout):
        pte.report({"loss": batch})
        if batch == 2:
            int(1 / 0)


def raise_in_wrapper(manager: pte.ExtensionsManager) -> None:
    def convert(batch: int) -> int:
        return 1 // (2 - batch)

    for _ in map(convert, manager.iterations([1, 2, 3])):
        pte.report({"loss": 1})


@pytest.mark.parametrize("leave", [raise_in_body, raise_in_blocks, raise_through_wrapper, raise_in_wrapper])
def test_loop_left_by_exception_does_not_count_its_last_iteration(
    tmp_path: Path, leave: Callable[[pte.ExtensionsManager], object]
) -> None:
    manager = make(tmp_path)
    with pytest.raises(ZeroDivisionError), manager:
        leave(manager)
    assert manager.iteration == 1
    assert losses(tmp_path) == [1]
    assert read_status(tmp_path) == "FAILED"


def test_interrupted_cell_that_runs_again_continues_the_training(tmp_path: Path) -> None:
    manager = make(tmp_path)
    with pytest.raises(ZeroDivisionError):
        raise_in_body(manager)
    for batch in manager.iterations([1, 2, 3]):
        pte.report({"loss": 10 * batch})
    assert manager.iteration == 6
    assert losses(tmp_path)[0] == 1
    assert all(loss >= 10 for loss in losses(tmp_path)[1:])


def test_new_manager_in_the_same_process_ends_the_run_that_an_exception_left(tmp_path: Path) -> None:
    abandoned = make(tmp_path, extensions.snapshot(trigger=(1, "iteration")))
    with pytest.raises(ZeroDivisionError):
        raise_in_body(abandoned)
    manager = make(tmp_path, extensions.snapshot(trigger=(1, "iteration")))
    resumed = manager.resume()
    assert resumed is not None
    assert resumed.step == 1
    leave_by_break(manager)
    assert abandoned.is_ended
    manager.close()
    assert losses(tmp_path) == [1, 2]


def test_exception_that_leaves_the_script_fails_the_run_and_saves_a_snapshot(tmp_path: Path) -> None:
    script = """
import torch
import pte_tracking as pte
from pte_tracking import extensions

manager = pte.ExtensionsManager(torch.nn.Linear(1, 1), 2, [extensions.snapshot(snapshot_on_error=True)])
for batch in manager.iterations([1, 2, 3]):
    if batch == 2:
        raise ValueError("broken batch")
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "broken batch" in result.stderr
    (run,) = pte.open_runs(tmp_path / "result")
    assert run.status == "FAILED"
    assert (tmp_path / "result" / "snapshot_iter_1_on_error").exists()


def test_exception_of_an_extension_is_raised_in_the_loop_and_fails_the_run(tmp_path: Path) -> None:
    def fail(manager: pte.Manager) -> None:
        if manager.iteration == 2:
            raise ZeroDivisionError("extension")

    manager = make(tmp_path, fail)
    with pytest.raises(ZeroDivisionError, match="extension"):
        for _ in manager.iterations([1, 2, 3]):
            pass
    assert read_status(tmp_path) == "FAILED"


def test_run_iteration_within_iterations_raises_error_with_the_remedy(tmp_path: Path) -> None:
    manager = make(tmp_path)
    batches = manager.iterations([1, 2, 3])
    next(batches)
    with pytest.raises(RuntimeError, match="remove the 'with' block"), manager.run_iteration():
        pass


def test_max_iterations_stops_the_training_without_epochs(tmp_path: Path) -> None:
    stream = (batch for batch in itertools.count(1))
    manager = pte.ExtensionsManager(
        nn.Linear(1, 1), max_iterations=5, extensions=[extensions.LogReport(trigger=(2, "iteration"))], out_dir=tmp_path
    )
    for batch in manager.iterations(stream):
        pte.report({"loss": batch})
    assert manager.iteration == 5
    assert losses(tmp_path) == [1.5, 3.5, 5]
    assert manager.training_length == (5, "iteration")


def test_max_iterations_limits_a_stop_trigger_without_a_length(tmp_path: Path) -> None:
    manager = pte.ExtensionsManager(
        nn.Linear(1, 1), None, max_iterations=5, stop_trigger=lambda manager: False, out_dir=tmp_path, sinks=[]
    )
    for _ in manager.iterations([1, 2]):
        pass
    assert manager.iteration == 5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, TypeError, "length of the training is missing"),
        ({"max_epochs": float("inf")}, TypeError, "length of the training is missing"),
        ({"max_iterations": 0}, ValueError, "expected a positive number, got 0"),
        ({"max_iterations": 2.5}, TypeError, "expected an integer, got 2.5"),
        ({"max_iterations": True}, TypeError, "expected an integer, got True"),
        ({"max_iterations": 5, "max_epochs": 1}, ValueError, "got 5 together with max_epochs=1"),
    ],
)
def test_invalid_length_of_the_training_raises_error(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pte.ExtensionsManager(nn.Linear(1, 1), out_dir=tmp_path, **options)


def test_default_extensions_log_print_and_save(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manager = pte.ExtensionsManager(nn.Linear(1, 1), 4, extensions.defaults(), out_dir=tmp_path)
    for batch in manager.iterations([1, 3]):
        pte.report({"loss": batch})
    assert losses(tmp_path) == [2, 2, 2, 2]
    assert capsys.readouterr().out.split()[:2] == ["epoch", "loss"]
    assert [checkpoint.path for checkpoint in manager.run.checkpoints()] == ["snapshot_iter_6", "snapshot_iter_8"]


def test_media_logged_in_an_iteration_without_a_step_have_its_step(tmp_path: Path) -> None:
    def log_text(manager: pte.Manager) -> None:
        manager.run.log_text("extension", "text")

    manager = make(tmp_path, log_text)
    manager.run.log_text("before", "text")
    for _ in manager.iterations([1]):
        manager.run.log_text("body", "text")
    steps = [(event.key, event.step) for event, _ in find_events(tmp_path / JOURNAL, Text)]
    assert steps == [("before", 0), ("body", 1), ("extension", 1), ("body", 2), ("extension", 2)]


def test_iteration_that_takes_several_batches_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(tmp_path)
    batches = manager.batches([1, 2, 3, 4])
    while not manager.stop_trigger and manager.iteration < 6:
        with manager.run_iteration():
            next(batches)
            next(batches)
    assert [message for message in caplog.messages if "iters_per_epoch=2" in message] == [caplog.messages[0]]


def test_several_batches_of_a_resumed_iteration_warn_about_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def train(stop: int) -> None:
        manager = make(tmp_path, extensions.snapshot(trigger=(1, "iteration")), iters_per_epoch=2)
        manager.resume()
        batches = manager.batches([1, 2, 3, 4])
        while not manager.stop_trigger and manager.iteration < stop:
            with manager.run_iteration():
                pte.report({"loss": next(batches) + next(batches)})
        manager.close()

    train(1)
    train(4)
    assert losses(tmp_path) == [3, 7, 3, 7]
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


def test_loop_over_epochs_around_a_complete_training_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(tmp_path)
    seen = [batch for _ in range(3) for batch in manager.iterations([1, 2])]
    assert seen == [1, 2, 1, 2]
    assert len([message for message in caplog.messages if "remove a loop over epochs" in message]) == 1


def test_epoch_before_the_first_iteration_is_zero_although_its_length_is_unknown(tmp_path: Path) -> None:
    manager = pte.ExtensionsManager({}, max_iterations=2, out_dir=tmp_path, sinks=[])
    manager.resume()
    assert (manager.epoch, manager.epoch_detail) == (0, 0.0)
    with manager.run_iteration(), pytest.raises(RuntimeError, match=r"Iterate over manager\.iterations\(loader\), or "):
        assert manager.iters_per_epoch
    for value in ("epoch", "epoch_detail"):
        with pytest.raises(RuntimeError, match="The epoch length is not set"):
            getattr(manager, value)


def test_iterations_without_a_loader_yield_the_number_of_completed_iterations(tmp_path: Path) -> None:
    manager = make(tmp_path, iters_per_epoch=2)
    for step in manager.iterations():
        assert step == manager.iteration
        pte.report({"loss": step})
    assert losses(tmp_path) == [0, 1, 2, 3]
    assert manager.is_ended


@pytest.mark.parametrize("loader", [torch.nn.Linear(2, 1), torch.nn.Sequential(torch.nn.ReLU())])
def test_iterations_over_a_model_are_refused_in_one_line(tmp_path: Path, loader: Any) -> None:
    manager = pte.ExtensionsManager({}, 1, out_dir=tmp_path, sinks=[])
    with pytest.raises(TypeError, match=r"^loader: expected a DataLoader .*, got an object of type \w+$"):
        manager.iterations(loader)


def test_iterations_without_a_loader_require_an_epoch_length(tmp_path: Path) -> None:
    manager = pte.ExtensionsManager({}, 1, out_dir=tmp_path, sinks=[])
    with pytest.raises(ValueError, match=r"Write manager\.iterations\(loader\), or pass iters_per_epoch="):
        next(manager.iterations())
    batches = manager.batches([0.5, 0.25])
    assert [next(batches) for _ in manager.iterations()] == [0.5, 0.25]


def test_iterations_without_a_loader_left_by_break_continue_in_the_next_loop(tmp_path: Path) -> None:
    manager = make(tmp_path, iters_per_epoch=2)
    for step in manager.iterations():
        if step == 1:
            break
    assert list(manager.iterations()) == [2, 3]


def test_iterations_without_a_loader_of_a_complete_training_yield_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert list(make(tmp_path, extensions.snapshot(), iters_per_epoch=2).iterations()) == [0, 1, 2, 3]
    manager = make(tmp_path, extensions.snapshot(), iters_per_epoch=2)
    manager.resume()
    assert list(manager.iterations()) == []
    assert manager.is_ended
    assert "nothing is left to train" in caplog.text


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_iterations_that_request_several_batches_each_resume_exactly(tmp_path: Path, stop: int) -> None:
    def train(directory: Path, stop: int | None = None) -> list[float]:
        torch.manual_seed(0)
        save = extensions.snapshot(trigger=(1, "iteration"))
        manager = make(directory, save, iters_per_epoch=3)
        manager.resume()
        batches = manager.batches(DataLoader(range(12), 2, shuffle=True))  # type: ignore[arg-type]
        with contextlib.suppress(KeyboardInterrupt):
            for step in manager.iterations():
                if step == stop:
                    raise KeyboardInterrupt
                pte.report({"loss": float(next(batches)[0] + 10 * next(batches)[0] + torch.rand(()))})
        manager.close()
        return losses(directory)

    whole = train(tmp_path / "whole")
    assert train(tmp_path / "parts", stop) == whole[:stop]
    assert train(tmp_path / "parts") == whole

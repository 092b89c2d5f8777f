"""Interrupts at any line of the library, as of a notebook cell that runs again."""

from __future__ import annotations

import collections
import gc
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._snapshots import file
from pte_tracking._snapshots.writer import SnapshotWriter
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking.sinks import JOURNAL, RunEnded, find_events

PACKAGE = str(Path(pte.__file__).parent)
DATA: Any = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
#: Executed line: file, number, and the count of its execution.
Line = tuple[str, int, int]


@pytest.fixture(autouse=True)
def interactive(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setenv("PTE_TRACKING_PROVENANCE", "off")
    for name in ("last_exc", "last_value"):
        monkeypatch.setattr(sys, name, None, raising=False)
    trace = sys.gettrace()
    yield
    sys.settrace(trace)
    gc.collect()


def build(directory: Path) -> tuple[nn.Module, pte.ExtensionsManager, Callable[[], None]]:
    """Return a model, its manager, and the function of its loop."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(DATA, 2, shuffle=True)

    def evaluate(x: Any) -> None:
        pte.report({"val/loss": model(x).square().mean()})

    manager = pte.ExtensionsManager(
        model,
        max_epochs=2,
        extensions=[
            extensions.Evaluator([torch.ones(1, 2)], model, eval_func=evaluate),
            extensions.LogReport(),
            extensions.PrintReport(["epoch", "loss"], out=io.StringIO()),
            extensions.snapshot(),
        ],
        optimizers=optimizer,
        out_dir=directory,
    )

    def loop() -> None:
        for x in manager.iterations(loader):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            pte.report({"loss": loss})

    return model, manager, loop


def train(directory: Path) -> list[float]:
    model, manager, loop = build(directory)
    manager.resume()
    loop()
    return [value for parameter in model.parameters() for value in parameter.flatten().tolist()]


class Cell:
    """Notebook cell that trains.

    Args:
        directory: Run directory.

    Attributes:
        weights: Weights after the last complete training.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.weights: list[float] = []

    def run(self) -> None:
        self.weights = train(self.directory)


def run_cell(function: Callable[[], object], interrupt_at: Line | None = None) -> BaseException | None:
    """Run a function as an interactive session does, which keeps its exception, and interrupt it at a line."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if interrupt_at and frame.f_code.co_filename == interrupt_at[0]:
            if event == "line" and frame.f_lineno == interrupt_at[1]:
                count += 1
                if count == interrupt_at[2]:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace
        return None

    if interrupt_at:
        sys.settrace(trace)
    try:
        function()
    except BaseException as error:
        sys.last_value = sys.last_exc = error  # type: ignore[attr-defined]
        return error
    finally:
        sys.settrace(None)
    return None


def executed_lines(function: Callable[[], object]) -> list[Line]:
    """Return the first and the last execution of each line of the library that a function executes."""
    counts: collections.Counter[tuple[str, int]] = collections.Counter()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            counts[frame.f_code.co_filename, frame.f_lineno] += 1
        return trace

    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(None)
    return [(*line, number) for line, count in sorted(counts.items()) for number in sorted({1, count})]


def rows(directory: Path) -> list[tuple[float, ...]]:
    return [(row["epoch"], row["loss"], row["val/loss"]) for row in json.loads((directory / "log").read_text())]


@pytest.mark.slow
# Python ignores an interrupt that arrives while it deletes a generator, and prints it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("part", range(4))
def test_cell_interrupted_at_any_line_and_run_again_equals_uninterrupted_one(tmp_path: Path, part: int) -> None:
    train(tmp_path / "warm")  # modules are imported, and values cached
    lines = executed_lines(lambda: train(tmp_path / "traced"))
    assert len(lines) > 4000
    weights, expected = train(tmp_path / "whole"), rows(tmp_path / "whole")
    failed = []
    for number, line in enumerate(lines[part * 67 :: 4 * 67]):
        cell = Cell(tmp_path / str(number))
        run_cell(cell.run, line)
        error = run_cell(cell.run)
        if error or cell.weights != weights or rows(cell.directory) != expected:
            failed.append((line, repr(error)))
    assert failed == []


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "method",
    [
        "pte_tracking._engine.registry.ExtensionRegistry.initialize",
        "pte_tracking._engine.lifecycle.Lifecycle.open",
        "pte_tracking._engine.lifecycle.Lifecycle.save_due",
        "pte_tracking._engine.iteration.IterationScope.__enter__",
        "pte_tracking._data.registry.LoaderRegistry.register",
        "pte_tracking.extensions.LogReport.__call__",
        "pte_tracking.extensions.Evaluator.__call__",
        "pte_tracking.extensions.LogReport.finalize",
        "pte_tracking._runs.base.Claim.check_id",
        "pte_tracking._runs.writer.RunWriter.finish",
        "pte_tracking._runs.writer.RunWriter.close",
    ],
)
def test_interrupted_loop_that_runs_again_continues_or_names_the_remedy(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, manager, loop = build(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(method, interrupt)
        assert isinstance(run_cell(loop), KeyboardInterrupt)
    error = run_cell(loop)
    assert error is None or "To continue, create another manager" in str(error)
    if error is None:
        assert manager.iteration == 6
    weights = train(tmp_path)  # also while a variable refers to the interrupted manager
    assert weights == train(tmp_path.parent / "whole") or error is None
    assert [epoch for epoch, *_ in rows(tmp_path)] == [1, 2]


def test_second_manager_in_interactive_session_ends_the_interrupted_run_as_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, manager, _ = build(tmp_path)
    batches = manager.iterations([1, 2, 3])
    next(batches)
    run_cell(interrupt)
    _, resumed, _ = build(tmp_path)
    resumed.resume()
    assert manager.is_ended
    statuses = [event.status for event, _ in find_events(tmp_path / JOURNAL, RunEnded)]
    assert statuses == ["KILLED"]
    assert "was not counted" not in caplog.text
    resumed.close()
    batches.close()


def test_interrupted_loop_that_continues_with_another_model_logs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def loop(manager: pte.ExtensionsManager, stop: int | None = None) -> None:
        for number, x in enumerate(manager.iterations(DATA.split(2))):
            model(x).square().mean().backward()
            optimizer.step()
            if number == stop:
                raise KeyboardInterrupt

    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    save = extensions.snapshot(trigger=(1, "iteration"))
    manager = pte.ExtensionsManager(model, 2, [save], optimizers=optimizer, out_dir=tmp_path)
    assert isinstance(run_cell(lambda: loop(manager, stop=2)), KeyboardInterrupt)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert run_cell(lambda: loop(manager)) is None
    (message,) = (text for text in caplog.messages if "the loop steps SGD" in text)
    assert "neither this optimizer nor the model" in message


def test_interrupt_in_one_extension_finalizes_the_others_and_ends_the_run(tmp_path: Path) -> None:
    ended = []

    class Interrupted(pte.Extension):
        def __call__(self, manager: pte.Manager) -> None: ...

        def finalize(self, manager: pte.Manager) -> None:
            raise KeyboardInterrupt

    class Other(pte.Extension):
        def __call__(self, manager: pte.Manager) -> None: ...

        def finalize(self, manager: pte.Manager) -> None:
            ended.append(manager.iteration)

    manager = pte.ExtensionsManager({}, 1, [Interrupted(), Other()], out_dir=tmp_path, sinks=[])
    with pytest.raises(KeyboardInterrupt):
        list(manager.iterations([1, 2]))
    assert ended == [2]
    assert not manager.run.is_open
    ((event, _),) = find_events(tmp_path / JOURNAL, RunEnded)
    assert event.status == "KILLED"


@pytest.mark.parametrize("resumes", [True, False])
def test_start_after_an_interrupted_end_waits_for_the_snapshot_that_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumes: bool
) -> None:
    write, wait, may_write = file.write, SnapshotWriter.wait, threading.Event()

    def write_later(*args: Any) -> Any:
        assert may_write.wait(30)
        return write(*args)

    def interrupt(writer: SnapshotWriter) -> None:
        if writer._thread is None:
            return
        monkeypatch.setattr(SnapshotWriter, "wait", wait)
        raise KeyboardInterrupt

    def build() -> pte.ExtensionsManager:
        return pte.ExtensionsManager({}, 1, [extensions.snapshot()], out_dir=tmp_path, sinks=[])

    monkeypatch.setattr(file, "write", write_later)
    monkeypatch.setattr(SnapshotWriter, "wait", interrupt)
    interrupted = build()
    with pytest.raises(KeyboardInterrupt):
        list(interrupted.iterations([1, 2]))
    assert not list(tmp_path.glob("snapshot*"))
    timer = threading.Timer(0.1, may_write.set)
    timer.start()
    manager = build()
    if resumes:
        manager.resume()
        assert manager.iteration == 2
    list(manager.iterations([1, 2]))
    timer.join()
    kept = tmp_path if resumes else tmp_path / "previous" / interrupted.run.id
    assert [checkpoint.path for checkpoint in list_checkpoints(kept)] == ["snapshot_iter_2"]

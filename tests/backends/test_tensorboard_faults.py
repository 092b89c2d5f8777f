"""TensorBoard event file after random faults equals the effective history."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pte_backends.tensorboard import TensorBoardSink
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store import journal, journal_reader
from pte_tracking._store.events import (
    AnyEvent,
    Figure,
    Metrics,
    Params,
    RunEnded,
    RunStarted,
    Status,
)
from pte_tracking._store.layout import DELIVERY, JOURNAL
from pte_tracking._store.manifest import Manifest, SinkEntry
from pte_tracking.testing import RecordedRun
from tests.backends.event_files import (
    TIME,
    FakeRun,
    expected,
    find_event_files,
    read,
    read_hparams,
    read_scalars,
    read_status,
)
from tests.backends.file_changes import replace, truncate


@pytest.mark.parametrize("change", [Path.unlink, truncate, replace])
def test_file_changed_by_another_program_is_written_again(tmp_path: Path, change: Callable[[Path], object]) -> None:
    run = RecordedRun(tmp_path / "run", TensorBoardSink())
    for step in (1, 2):
        run.log(step, {"loss": step / 4})
        run.deliver()
    change(find_event_files(run)[-1])
    run.log(3, {"loss": 0.75})
    with pytest.raises(OSError, match="was deleted, replaced, or truncated, and is written again"):
        run.deliver()
    run.deliver()
    run.log(4, {"loss": 1.0})
    change(find_event_files(run)[-1])
    with contextlib.suppress(OSError):
        run.deliver()
    run.end()
    points = [(step, float(value)) for step, value, _ in read_scalars(run)["loss"]]
    assert points == [(step, step / 4) for step in (1, 2, 3, 4)]


EVENTS = st.one_of(
    st.tuples(st.just("log"), st.integers(1, 4)),
    st.tuples(st.just("params"), st.integers(0, 2)),
    st.tuples(st.just("picture"), st.none()),
    st.tuples(st.just("deliver"), st.none()),
    st.tuples(st.just("crash"), st.integers(0, 300)),
    st.tuples(st.just("lose cursor"), st.none()),
    st.tuples(st.just("lose file"), st.none()),
    st.tuples(st.just("rewind"), st.floats(0, 1)),
    st.tuples(st.just("crash in a rewind"), st.floats(0, 1)),
    st.tuples(st.just("end"), st.sampled_from(["FINISHED", "FAILED", "KILLED"])),
)


class SimulatedRun:
    """Run with a journal and its delivery, with operations that simulate faults."""

    def __init__(self, directory: Path) -> None:
        self.run = FakeRun(directory)
        self.manifest = Manifest(self.run.id, self.run.name, TIME)
        self.journal = journal.Journal(directory / JOURNAL)
        (directory / DELIVERY).mkdir()
        self.cursor_path = directory / DELIVERY / "tensorboard.json"
        self.journal.append(RunStarted, self.run.id, self.run.name, 1, "host")
        self.positions = [self.journal.end]
        self.steps = [0]
        self.consumer = self.open()
        PIL.Image.new("L", (2, 2)).save(directory / "picture.png")

    def open(self) -> SinkConsumer:
        return SinkConsumer(self.run.directory, self.manifest, SinkEntry("tensorboard", "tensorboard"))

    def deliver(self, _: None = None) -> None:
        while self.consumer.deliver_next():
            pass

    def history(self) -> list[AnyEvent]:
        return [event for event, _ in journal_reader.read_effective(self.run.directory / JOURNAL)]

    def apply(self, operation: str, argument: Any) -> None:
        getattr(self, operation.replace(" ", "_"))(argument)

    def log(self, count: int) -> None:
        for _ in range(count):
            step = self.steps[-1] + 1
            values: dict[str, float] = {"train/loss": 1 / step} | ({"val/loss": -1.0} if step % 3 == 0 else {})
            self.journal.append(Metrics, step, values, step / 4)
            self.positions.append(self.journal.end)
            self.steps.append(step)

    def params(self, value: int) -> None:
        self.journal.append(Params, {"lr": value, f"p{value}": 1})

    def picture(self, _: None) -> None:
        self.journal.append(Figure, "picture", self.steps[-1], "picture.png")

    def crash(self, lost: int) -> None:
        """Kill the delivery during a write, or after a write and before its cursor is saved."""
        self.log(1)
        self.deliver()
        before, delivered_size = self.cursor_path.read_bytes(), self.consumer.cursor.state["size"]
        self.log(2)
        self.deliver()
        path = find_event_files(self.run)[-1]
        os.truncate(path, max(path.stat().st_size - lost, delivered_size))
        self.cursor_path.write_bytes(before)
        self.consumer = self.open()
        self.deliver()

    def lose_cursor(self, _: None) -> None:
        self.cursor_path.unlink(missing_ok=True)
        self.consumer = self.open()

    def lose_file(self, _: None) -> None:
        self.log(1)
        self.deliver()
        find_event_files(self.run)[-1].unlink()
        self.consumer.finish(None)

    def rewind(self, fraction: float) -> None:
        index = int(fraction * (len(self.positions) - 1))
        self.journal.rewind(self.positions[index], self.steps[index])
        self.journal.append(RunStarted, self.run.id, self.run.name, 1, "host", True)
        self.positions, self.steps = self.positions[: index + 1], self.steps[: index + 1]

    def crash_in_a_rewind(self, fraction: float) -> None:
        """Kill the delivery after a rewind and before its cursor is saved."""
        self.log(1)
        self.deliver()
        before = self.cursor_path.read_bytes()
        self.rewind(fraction)
        self.deliver()
        self.cursor_path.write_bytes(before)
        self.consumer = self.open()

    def end(self, status: Status) -> None:
        self.journal.append(RunEnded, status)
        self.deliver()
        self.consumer.finish(status)
        self.journal.append(RunStarted, self.run.id, self.run.name, 1, "host", True)


@settings(max_examples=80)
@given(st.lists(EVENTS, min_size=1, max_size=12))
def test_event_file_after_random_faults_equals_effective_history(events: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        simulated = SimulatedRun(Path(folder))
        simulated.log(2)
        simulated.deliver()
        for operation, argument in events:
            simulated.apply(operation, argument)
        simulated.log(1)
        simulated.deliver()
        assert read_scalars(simulated.run) == expected(simulated.history())
        simulated.consumer.finish("FINISHED")
        assert read_scalars(simulated.run) == expected(simulated.history())
        params: dict[str, Any] = {}
        pictures = set()
        for event in simulated.history():
            params |= event.values if isinstance(event, Params) else {}
            pictures |= {event.step} if isinstance(event, Figure) else set()
        accumulator = read(simulated.run)
        assert sorted(event.step for event in accumulator.Images("picture")) == sorted(pictures) if pictures else True
        assert not {"train/loss", "val/loss", "epoch"} & set(accumulator.Tags()["tensors"])
        assert params == (read_hparams(simulated.run) if params else {})
        assert read_status(simulated.run) == ("STATUS_SUCCESS" if params else None)

"""Steps of saving a snapshot, each on its own, and the writer that calls them."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking._distributed.world import SINGLE_PROCESS, World
from pte_tracking._snapshots import file
from pte_tracking._snapshots.buffers import Buffers
from pte_tracking._snapshots.job import ObjectSnapshotJob, SnapshotDetails, SnapshotJob, StateJob
from pte_tracking._snapshots.retention import BestPolicy, Retention
from pte_tracking._snapshots.template import Template
from pte_tracking._snapshots.writer import SnapshotWriter
from pte_tracking._store.checkpoint_files import FileDigest, digest_file

SECOND_OF_TWO = World(rank=1, size=2)
TEMPLATE = Template("s_{.iteration}")
KEEP_ALL = Retention(TEMPLATE, -1)


class ModelState:
    """Source of a state, as a manager is one."""

    def __init__(self) -> None:
        self.model = nn.Linear(2, 1)

    def state_dict(self) -> dict[str, Any]:
        return {"models": {"main": {name: value.detach() for name, value in self.model.state_dict().items()}}}


def make_snapshot_job(run: pte.Run, step: int, retention: Retention = KEEP_ALL, **values: Any) -> SnapshotJob:
    source = ModelState()
    return SnapshotJob(
        run,
        f"s_{step}",
        source.state_dict,
        {"main": source.model},
        SnapshotDetails(step, step / 2, values),
        retention,
        SINGLE_PROCESS,
    )


def save(job: StateJob) -> None:
    job.capture()
    job.copy(None)
    digest = job.write()
    assert digest is not None
    job.publish(digest)


# -- capture -----------------------------------------------------------------------------------------------------------


def test_capture_shares_memory_with_training(tmp_path: Path) -> None:
    source = ModelState()
    job = StateJob(tmp_path / "s", source.state_dict)
    job.capture()
    source.model.weight.data.fill_(7)
    assert job.state["models"]["main"]["weight"].tolist() == [[7, 7]]
    assert not job.has_shards
    assert list(tmp_path.iterdir()) == []


def test_capture_releases_source_and_models(tmp_path: Path) -> None:
    source = ModelState()
    references: list[weakref.ref[Any]] = [weakref.ref(source), weakref.ref(source.model)]
    job = SnapshotJob(
        pte.Run(tmp_path),
        "s_1",
        source.state_dict,
        {"main": source.model},
        SnapshotDetails(1, None, {}),
        KEEP_ALL,
        SINGLE_PROCESS,
    )
    job.capture()
    del source
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_capture_object_state_has_no_other_entries(tmp_path: Path) -> None:
    job = ObjectSnapshotJob(tmp_path, "s_1", ModelState().state_dict, KEEP_ALL, SINGLE_PROCESS)
    job.capture()
    assert job.state.keys() == {"models"}


def test_is_written_here_without_shards_is_true_on_rank_zero_only(tmp_path: Path) -> None:
    first, second = (StateJob(tmp_path / "s", dict, world) for world in (SINGLE_PROCESS, SECOND_OF_TWO))
    assert (first.is_written_here, second.is_written_here) == (True, False)
    second.has_shards = True
    assert second.is_written_here


# -- copy --------------------------------------------------------------------------------------------------------------


def test_copy_into_buffers_excludes_later_updates(tmp_path: Path) -> None:
    source, buffers = ModelState(), Buffers()
    source.model.weight.data.fill_(1)
    job = StateJob(tmp_path / "s", source.state_dict)
    job.capture()
    job.copy(buffers)
    source.model.weight.data.fill_(2)
    assert job.state["models"]["main"]["weight"].tolist() == [[1, 1]]


def test_copy_without_buffers_shares_host_memory(tmp_path: Path) -> None:
    source = ModelState()
    job = StateJob(tmp_path / "s", source.state_dict)
    job.capture()
    job.copy(None)
    assert job.state["models"]["main"]["weight"].data_ptr() == source.model.weight.data_ptr()


# -- write -------------------------------------------------------------------------------------------------------------


def test_write_creates_folders_and_returns_digest(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "s"
    job = StateJob(path, lambda: {"step": 3})
    job.capture()
    job.copy(None)
    digest = job.write()
    assert digest == digest_file(path)
    assert file.load(path) == {"step": 3}


def test_write_synchronizes_journal_before_file_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pte.Run(tmp_path)
    run.log_params({"a": 1})
    existed: list[bool] = []
    monkeypatch.setattr(run, "sync", lambda: existed.append((tmp_path / "s_1").exists()))
    job = make_snapshot_job(run, 1)
    job.capture()
    job.copy(None)
    job.write()
    assert existed == [False]
    run.close()


def test_write_saves_observation_as_numbers(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        save(make_snapshot_job(run, 1, loss=torch.tensor(0.5)))
    assert torch.load(tmp_path / "s_1")["values"] == {"loss": 0.5}


def test_write_alone_registers_no_checkpoint(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_params({"a": 1})
        job = make_snapshot_job(run, 1)
        job.capture()
        job.copy(None)
        job.write()
        assert run.checkpoints() == []


# -- publish -----------------------------------------------------------------------------------------------------------


def test_publish_registers_checkpoint_with_digest_and_values(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        save(make_snapshot_job(run, 3, loss=torch.tensor(0.25)))
        (checkpoint,) = run.checkpoints()
    assert (checkpoint.path, checkpoint.step, checkpoint.epoch) == ("s_3", 3, 1.5)
    assert checkpoint.values == {"loss": 0.25}
    assert FileDigest(checkpoint.sha256, checkpoint.size) == digest_file(tmp_path / "s_3")


def test_publish_prunes_files_and_checkpoints(tmp_path: Path) -> None:
    retention = Retention(TEMPLATE, 1, BestPolicy("loss", "min", 1))
    with pte.Run(tmp_path) as run:
        for step, loss in enumerate((3.0, 1.0, 2.0, 4.0), 1):
            save(make_snapshot_job(run, step, retention, loss=loss))
        assert [checkpoint.path for checkpoint in run.checkpoints()] == ["s_2", "s_4"]
    assert sorted(path.name for path in tmp_path.glob("s_*")) == ["s_2", "s_4"]


def test_publish_object_prunes_files_by_number(tmp_path: Path) -> None:
    for step in (1, 9, 10):
        save(ObjectSnapshotJob(tmp_path, f"s_{step}", dict, Retention(TEMPLATE, 2), SINGLE_PROCESS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s_10", "s_9"]


# -- writer ------------------------------------------------------------------------------------------------------------


class RecordingJob(StateJob):
    """Job that records its steps and their threads, and writes nothing."""

    def __init__(
        self,
        steps: list[tuple[str, bool]],
        world: World = SINGLE_PROCESS,
        has_shards: bool = False,
        gate: threading.Event | None = None,
        failing_step: str = "",
    ) -> None:
        super().__init__(Path("s"), dict, world)
        self._steps = steps
        self._will_have_shards = has_shards
        self._gate = gate
        self._failing_step = failing_step

    def capture(self) -> None:
        self._record("capture")
        self.has_shards = self._will_have_shards

    def copy(self, buffers: Buffers | None) -> None:
        self._record("copy")

    def write(self) -> FileDigest | None:
        if self._gate is not None:
            assert self._gate.wait(30)
        self._record("write")
        return FileDigest("", 0) if self.world.rank == 0 else None

    def publish(self, digest: FileDigest) -> None:
        self._record("publish")

    def _record(self, step: str) -> None:
        self._steps.append((step, threading.current_thread() is threading.main_thread()))
        if step == self._failing_step:
            raise ZeroDivisionError(step)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_submit_runs_steps_in_order_and_writes_in_thread_if_asynchronous(asynchronous: bool) -> None:
    steps: list[tuple[str, bool]] = []
    writer = SnapshotWriter(asynchronous)
    writer.submit(RecordingJob(steps))
    writer.wait()
    is_main = not asynchronous
    assert steps == [("capture", True), ("copy", True), ("write", is_main), ("publish", is_main)]


def test_submit_waits_for_previous_job() -> None:
    steps: list[tuple[str, bool]] = []
    gate = threading.Event()
    writer = SnapshotWriter(True)
    writer.submit(RecordingJob(steps, gate=gate))
    threading.Timer(0.05, gate.set).start()
    writer.submit(RecordingJob(steps))
    writer.wait()
    assert [step for step, _ in steps] == ["capture", "copy", "write", "publish"] * 2


@pytest.mark.parametrize(("has_shards", "expected"), [(False, ["capture"]), (True, ["capture", "copy", "write"])])
def test_submit_on_other_rank_writes_shards_only(has_shards: bool, expected: list[str]) -> None:
    steps: list[tuple[str, bool]] = []
    writer = SnapshotWriter(True)
    writer.submit(RecordingJob(steps, SECOND_OF_TWO, has_shards))
    writer.wait()
    assert [step for step, _ in steps] == expected


@pytest.mark.parametrize("step", ["capture", "copy", "write", "publish"])
def test_submit_failing_step_logs_error_and_skips_later_steps(step: str, caplog: pytest.LogCaptureFixture) -> None:
    steps: list[tuple[str, bool]] = []
    writer = SnapshotWriter(True)
    writer.submit(RecordingJob(steps, failing_step=step))
    writer.submit(RecordingJob(steps))
    writer.wait()
    order = ["capture", "copy", "write", "publish"]
    assert [name for name, _ in steps] == [*order[: order.index(step) + 1], *order]
    (message,) = (entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR)
    assert message == f"s: the snapshot was not saved: ZeroDivisionError: {step}"


def test_submit_failure_on_other_rank_is_not_logged_as_error(caplog: pytest.LogCaptureFixture) -> None:
    SnapshotWriter(True).submit(RecordingJob([], SECOND_OF_TWO, failing_step="capture"))
    assert [entry for entry in caplog.records if entry.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("has_shards", [True, False])
def test_submit_writers_take_turns_if_both_write_shards(has_shards: bool) -> None:
    first_steps: list[tuple[str, bool]] = []
    second_steps: list[tuple[str, bool]] = []
    gate = threading.Event()
    first, second = SnapshotWriter(True), SnapshotWriter(True)
    first.submit(RecordingJob(first_steps, has_shards=has_shards, gate=gate))
    timer = threading.Timer(0.2, gate.set)
    timer.start()
    second.submit(RecordingJob(second_steps, has_shards=has_shards))
    assert gate.is_set() == has_shards
    for writer in (first, second):
        writer.wait()
    timer.join()
    assert len(first_steps) == len(second_steps) == 4

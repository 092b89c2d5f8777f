"""Errors, asynchronous writes, and signals of snapshot extensions."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._platform.signals import UNCATCHABLE_SIGNALS
from tests.snapshots.weight_training import EVERY, list_files, make_manager, run, weight

# -- errors ------------------------------------------------------------------------------------------------------------


def test_snapshot_on_error_saves_separate_file_only_if_enabled(tmp_path: Path) -> None:
    for is_enabled in (True, False):
        out = tmp_path / str(is_enabled)
        model = nn.Linear(3, 2)
        manager = make_manager(
            out,
            extensions.snapshot(trigger=EVERY, snapshot_on_error=is_enabled),
            extensions.snapshot_object(model, "model", trigger=(99, "epoch"), snapshot_on_error=is_enabled),
        )

        def fail(done: int) -> dict[str, Any]:
            if done == 3:
                raise ZeroDivisionError
            return {}

        with pytest.raises(ZeroDivisionError):
            run(manager, 5, fail)
        regular = ["snapshot_iter_1", "snapshot_iter_2"]
        error_files = ["model_on_error", "snapshot_iter_2_on_error"]
        assert list_files(out) == (sorted(regular + error_files) if is_enabled else regular)
        assert weight(out / "snapshot_iter_2") == 2
        if is_enabled:
            assert weight(out / "snapshot_iter_2_on_error") == 3
        resumed_manager = make_manager(
            out,
            extensions.snapshot(trigger=EVERY, snapshot_on_error=is_enabled),
            extensions.snapshot_object(model, "model"),
        )
        resumed = resumed_manager.resume()
        assert resumed is not None
        assert resumed.path == "snapshot_iter_2"
        resumed_manager.close()


@pytest.fixture
def small_files() -> Iterator[Callable[[], None]]:
    """Limit the size of files to 20 kB until the returned function is called."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    yield lift
    lift()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_snapshot_disk_full_logs_error_and_training_continues(
    asynchronous: bool, tmp_path: Path, small_files: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    saved = extensions.snapshot(trigger=EVERY, n_retains=1, asynchronous=asynchronous)

    def free_at_three(done: int) -> dict[str, Any]:
        if done == 3:
            manager.get_extension("snapshot").finalize(manager)  # waits until the second snapshot is written
            small_files()
        return {}

    manager = make_manager(tmp_path, saved, state_objects={"large": nn.Linear(100, 100)})
    run(manager, 3, free_at_three)
    errors = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert [entry.getMessage().split(":")[0] for entry in errors] == [
        str(tmp_path / f"snapshot_iter_{i}") for i in (1, 2)
    ]
    assert "MB of the disk are free" in errors[0].getMessage()
    assert list_files(tmp_path) == ["snapshot_iter_3"]
    assert weight(tmp_path / "snapshot_iter_3") == 3


def test_snapshot_unsavable_state_raises_before_first_iteration(tmp_path: Path) -> None:
    class Odd(pte.Extension):
        def state_dict(self) -> dict[str, Any]:
            return {"since": threading.Lock()}

    manager = make_manager(tmp_path, Odd(), extensions.snapshot())
    with pytest.raises(TypeError, match="extensions/Odd/extension/since: a value of type _thread"):
        run(manager, 1)
    assert manager.iteration == 0


def test_snapshot_state_turning_unsavable_is_logged_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class GoesBad(pte.Extension):
        trigger = (3, "iteration")
        state: Any = 1

        def __call__(self, manager: pte.Manager) -> None:
            self.state = object()

        def state_dict(self) -> dict[str, Any]:
            return {"state": self.state}

    run(make_manager(tmp_path, GoesBad(), extensions.snapshot()), 4)
    assert list_files(tmp_path) == ["snapshot_iter_2"]
    assert "extensions/GoesBad/extension/state" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"filename": torch.save}, TypeError, "filename: expected a format string"),
        ({"filename": "/tmp/x"}, ValueError, "inside the run directory"),
        ({"filename": "../x"}, ValueError, "inside the run directory"),
        ({"filename": ""}, ValueError, "inside the run directory"),
        ({"filename": "a_{.iteration"}, ValueError, "is not a format string"),
        ({"condition": True}, TypeError, "condition: expected a function without arguments, got True"),
        ({"n_retains": 2.5}, TypeError, r"n_retains: expected an integer, got 2\.5"),
        ({"keep_best": "val/loss"}, TypeError, r"keep_best: expected \(key, 'min' or 'max', count\)"),
        ({"keep_best": ("val/loss", "lowest", 3)}, ValueError, "expected the mode 'min' or 'max', got 'lowest'"),
        ({"keep_best": ("val/loss", "min", 0)}, ValueError, "expected a count of at least 1, got 0"),
        ({"on_signal": 99}, ValueError, "on_signal: expected a signal such as signal.SIGTERM, got 99"),
        ({"on_signal": next(iter(UNCATCHABLE_SIGNALS), 99)}, ValueError, "SIGKILL cannot be caught|expected a signal"),
        ({"target": nn.Linear(1, 1), "on_signal": signal.SIGTERM}, ValueError, "not allowed with target="),
        ({"target": object()}, TypeError, "target: expected an object with state_dict"),
    ],
)
def test_snapshot_invalid_argument_raises(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        extensions.snapshot(**arguments)


@pytest.mark.parametrize("filename", ["{.nothing}", "{.out}", "{}", "{1.iteration}"])
def test_snapshot_invalid_filename_field_raises_value_error(filename: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="filename: "):
        run(make_manager(tmp_path, extensions.snapshot(filename)), 1)


# -- asynchronous writes -----------------------------------------------------------------------------------------------


def test_asynchronous_snapshot_excludes_later_updates(tmp_path: Path) -> None:
    """A writer that saves live tensors would store values of later updates."""
    large = nn.Linear(500, 2000)
    manager = make_manager(tmp_path, extensions.snapshot(trigger=EVERY), state_objects={"large": large})
    with manager:
        for i in range(1, 6):
            with manager.run_iteration():
                large.weight.data.fill_(-1)  # while the thread is writing
                large.weight.data.fill_(i)
    for i in range(1, 6):
        saved = torch.load(tmp_path / f"snapshot_iter_{i}")["state_objects"]["large"]["weight"]
        assert saved.min() == saved.max() == i


def test_asynchronous_snapshots_use_one_thread_and_finish_at_end(tmp_path: Path) -> None:
    def check_single_thread(done: int) -> dict[str, Any]:
        assert sum(thread.name.startswith("snapshot ") for thread in threading.enumerate()) <= 1
        return {}

    large = {"large": nn.Linear(1000, 1000)}
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY), state_objects=large), 6, check_single_thread)
    assert len(list_files(tmp_path)) == 6
    assert not any(thread.name.startswith("snapshot ") for thread in threading.enumerate())


def test_snapshot_never_triggered_writes_no_file(tmp_path: Path) -> None:
    run(
        make_manager(
            tmp_path, extensions.snapshot(trigger=(99, "epoch")), extensions.snapshot_object(nn.Linear(1, 1), "m")
        ),
        1,
    )
    assert list_files(tmp_path) == []


def test_snapshot_failure_does_not_prevent_later_snapshots(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A writer thread that dies at the first error would block the end of the training."""
    manager = make_manager(tmp_path, extensions.snapshot(trigger=EVERY))
    manager.extend(lambda _: (tmp_path / "snapshot_iter_1").mkdir(exist_ok=True), trigger=EVERY, name="obstacle")
    run(manager, 3)
    assert "snapshot_iter_1: the snapshot was not saved" in caplog.text
    assert weight(tmp_path / "snapshot_iter_2") == 2
    assert weight(tmp_path / "snapshot_iter_3") == 3


def test_snapshot_removes_its_stale_temporary_file(tmp_path: Path) -> None:
    (tmp_path / ".snapshot_iter_77.tmp").touch()
    (tmp_path / ".other.tmp").touch()
    run(make_manager(tmp_path, extensions.snapshot()), 2)
    assert list_files(tmp_path) == [".other.tmp", "snapshot_iter_2"]


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_on_signal_saves_snapshot_and_exits_after_iteration(number: signal.Signals, tmp_path: Path) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:

        def signal_in_third(done: int) -> dict[str, Any]:
            if done == 3:
                os.kill(os.getpid(), number)
                time.sleep(0)
            return {}

        manager = make_manager(tmp_path, extensions.snapshot(on_signal=number))
        with pytest.raises(SystemExit) as caught:
            run(manager, 50, signal_in_third)
        assert caught.value.code == 128 + number
        assert signal.getsignal(number) is signal.SIG_IGN, "the previous handler is restored"
    finally:
        signal.signal(number, before)
    assert list_files(tmp_path) == ["snapshot_iter_2", "snapshot_iter_3"]
    assert '"kind":"run_ended"' in (tmp_path / "journal.jsonl").read_text().splitlines()[-1]
    assert '"KILLED"' in (tmp_path / "journal.jsonl").read_text().splitlines()[-1]

    resumed_manager = make_manager(tmp_path, extensions.snapshot(on_signal=number))
    resumed = resumed_manager.resume()
    assert resumed is not None
    assert resumed.step == 3
    resumed_manager.close()


def test_on_signal_with_snapshot_every_iteration_exits(tmp_path: Path) -> None:
    def signal_in_second(done: int) -> dict[str, Any]:
        if done == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return {}

    manager = make_manager(tmp_path, extensions.snapshot(trigger=(1, "iteration"), on_signal=signal.SIGUSR1))
    with pytest.raises(SystemExit):
        run(manager, 50, signal_in_second)
    assert manager.iteration == 2


def test_on_signal_outside_main_thread_raises(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def train() -> None:
        try:
            run(make_manager(tmp_path, extensions.snapshot(on_signal=signal.SIGUSR1)), 1)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert "only the main thread can handle signals" in str(caught[0])

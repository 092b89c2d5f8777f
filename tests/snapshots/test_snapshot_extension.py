"""Triggers, names, retention, and signals of snapshot extensions."""

import logging
import math
import os
import resource
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
from pte_tracking._snapshots.retention import BestPolicy, prunable
from pte_tracking._store.events import Checkpoint

EVERY: Any = (1, "iteration")


def make_manager(out: Path, *own_extensions: Any, iters_per_epoch: int = 2, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager(
        nn.Linear(3, 2),
        50,
        [*own_extensions, extensions.LogReport()],
        out_dir=out,
        iters_per_epoch=iters_per_epoch,
        **options,
    )


def run(
    manager: pte.ExtensionsManager, iterations: int, report: Callable[[int], dict[str, Any]] = lambda i: {}
) -> pte.ExtensionsManager:
    """Run iterations that set each weight to the number of completed iterations."""
    with manager:
        for _ in range(iterations):
            with manager.run_iteration():
                done = manager.iteration + 1
                for parameter in manager.models["main"].parameters():
                    parameter.data.fill_(done)
                pte.report(report(done))
    return manager


def list_files(out: Path) -> list[str]:
    run_files = {"journal.jsonl", "run.json", "checkpoints.json", "log", "delivery", ".lock"}
    return sorted(path.name for path in out.iterdir() if path.name not in run_files)


def weight(path: Path) -> float:
    state = torch.load(path)
    first_weight: float = state["models"]["main"]["weight"][0, 0].item()
    return first_weight


# -- trigger and content -----------------------------------------------------------------------------------------------


def test_snapshot_default_saves_complete_state_each_epoch(tmp_path: Path) -> None:
    run(make_manager(tmp_path, extensions.snapshot()), 5)
    assert list_files(tmp_path) == ["snapshot_iter_2", "snapshot_iter_4"]
    state = torch.load(tmp_path / "snapshot_iter_4")
    parts = {"format", "models", "optimizers", "extensions", "state_objects", "manager", "rng", "run", "values"}
    assert set(state) == parts
    fresh = nn.Linear(3, 2)
    fresh.load_state_dict(state["models"]["main"])
    assert fresh.bias.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("filename", "names"),
    [
        ("snapshot_iter_{.iteration}", ["snapshot_iter_1", "snapshot_iter_2"]),
        ("{.updater.iteration:04d}.pt", ["0001.pt", "0002.pt"]),
        ("at_{0.epoch_detail}_{0.iteration}", ["at_0.5_1", "at_1.0_2"]),
        ("newest", ["newest"]),
    ],
)
def test_snapshot_filename_template_names_file(filename: str, names: list[str], tmp_path: Path) -> None:
    run(make_manager(tmp_path, extensions.snapshot(filename, trigger=EVERY)), 2)
    assert list_files(tmp_path) == names
    assert weight(tmp_path / names[-1]) == 2


def test_snapshot_filename_with_folder_creates_folder(tmp_path: Path) -> None:
    manager = run(make_manager(tmp_path, extensions.snapshot("saved/{.iteration}", trigger=EVERY, n_retains=1)), 3)
    assert list_files(tmp_path) == ["saved"]
    assert os.listdir(tmp_path / "saved") == ["3"]
    assert [entry.path for entry in manager.run.checkpoints()] == ["saved/3"]


def test_snapshot_condition_false_skips_snapshot(tmp_path: Path) -> None:
    conditions = iter([True, False, True])
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY, condition=lambda: next(conditions))), 3)
    assert list_files(tmp_path) == ["snapshot_iter_1", "snapshot_iter_3"]


def test_snapshot_registers_checkpoint_with_metrics_of_its_step(tmp_path: Path) -> None:
    observed = extensions.observe_value("learned", lambda manager: 7)
    manager = make_manager(tmp_path, extensions.snapshot(), observed)
    run(manager, 4, lambda i: {"loss": torch.tensor(1 / i), "bad": math.nan if i == 4 else 0})
    first, second = manager.run.checkpoints()
    assert (first.path, first.step, first.epoch) == ("snapshot_iter_2", 2, 1)
    assert first.values == {"loss": 0.5, "bad": 0, "learned": 7}
    assert second.values["loss"] == 0.25
    assert math.isnan(second.values["bad"])
    assert second.size == (tmp_path / "snapshot_iter_4").stat().st_size


def test_snapshot_runs_after_other_extensions_and_stop_trigger(tmp_path: Path) -> None:
    iterations = []

    class Last(pte.Extension):
        priority = -50
        trigger = (1, "iteration")

        def __call__(self, manager: pte.Manager) -> None:
            iterations.append(manager.iteration)

        def state_dict(self) -> dict[str, Any]:
            return {"iterations": list(iterations)}

    stop = pte.get_trigger((3, "iteration"))
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY), Last(), stop_trigger=stop), 3)
    state = torch.load(tmp_path / "snapshot_iter_3")
    assert state["extensions"]["Last"]["extension"] == {"iterations": [1, 2, 3]}
    assert state["manager"]["is_over"]


# -- retention ---------------------------------------------------------------------------------------------------------


def test_n_retains_keeps_newest_snapshots(tmp_path: Path) -> None:
    manager = run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY, n_retains=2)), 12)
    assert list_files(tmp_path) == ["snapshot_iter_11", "snapshot_iter_12"]
    assert [entry.path for entry in manager.run.checkpoints()] == ["snapshot_iter_11", "snapshot_iter_12"]


def test_n_retains_ignores_file_times(tmp_path: Path) -> None:
    saved = extensions.snapshot(trigger=EVERY, n_retains=2, asynchronous=False)
    touch_first = pte.make_extension(trigger=EVERY, priority=-200)(
        lambda manager: os.utime(tmp_path / "snapshot_iter_1") if manager.iteration < 3 else None
    )
    run(make_manager(tmp_path, saved, touch_first), 4)
    assert list_files(tmp_path) == ["snapshot_iter_3", "snapshot_iter_4"]


def test_keep_best_keeps_best_and_newest_snapshots(tmp_path: Path) -> None:
    losses = [5, 1, math.nan, 3, 2, math.inf, 4, 6]
    saved = extensions.snapshot(trigger=EVERY, keep_best=("loss", "min", 2))
    run(make_manager(tmp_path, saved), 8, lambda i: {"loss": losses[i - 1]})
    assert list_files(tmp_path) == ["snapshot_iter_2", "snapshot_iter_5", "snapshot_iter_8"]


@pytest.mark.parametrize(("reported", "is_warned"), [("loss", False), ("other", True)])
def test_keep_best_unreported_metric_logs_warning_at_end(
    reported: str, is_warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved = extensions.snapshot(trigger=EVERY, n_retains=1, keep_best=("loss", "min", 2))
    run(make_manager(tmp_path, saved), 3, lambda i: {reported: i})
    assert ("keep_best: none of the kept snapshots (1) has a finite value of 'loss'" in caplog.text) == is_warned


def test_n_retains_keeps_files_of_other_extensions(tmp_path: Path) -> None:
    tmp_path.joinpath("snapshot_iter_0.bak").touch()
    few = extensions.snapshot(trigger=EVERY, n_retains=1)
    others = extensions.snapshot("other_{.iteration}", trigger=(2, "iteration"))
    run(make_manager(tmp_path, few, others), 5)
    assert list_files(tmp_path) == ["other_2", "other_4", "snapshot_iter_0.bak", "snapshot_iter_5"]


def make_checkpoint(step: int, **values: float) -> Checkpoint:
    return Checkpoint(seq=step, time=0.0, path=f"s{step}", step=step, sha256="", size=0, values=values)


def test_prunable_never_includes_newest_checkpoint() -> None:
    ten = [make_checkpoint(step, loss=step) for step in range(10)]
    for n_retains in (-1, 0, 1, 3, 20):
        for best in (None, BestPolicy("loss", "min", 2), BestPolicy("loss", "max", 1), BestPolicy("other", "max", 1)):
            retained = [entry for entry in ten if entry not in prunable(ten, n_retains, best)]
            assert retained[-1] is ten[-1]
    assert prunable(ten, -1, None) == []
    assert prunable([], 1, BestPolicy("loss", "min", 1)) == []
    assert [entry.step for entry in ten if entry not in prunable(ten, 2, BestPolicy("loss", "min", 2))] == [0, 1, 8, 9]


# -- object ------------------------------------------------------------------------------------------------------------


def test_snapshot_object_saves_state_without_checkpoint(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    manager.extend(extensions.snapshot_object(manager.models["main"], "model_{.iteration}", n_retains=1))
    run(manager, 4)
    assert list_files(tmp_path) == ["model_4"]
    nn.Linear(3, 2).load_state_dict(torch.load(tmp_path / "model_4"))
    assert manager.run.checkpoints() == [], "an object is not a checkpoint"


def test_snapshot_target_saves_only_that_object(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    run(make_manager(tmp_path, extensions.snapshot(target=model, filename="model")), 2)
    assert torch.load(tmp_path / "model").keys() == {"weight", "bias"}


def test_snapshot_object_autoload_selects_newest_intact_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (2, 9, 10, 11):
        torch.save({"weight": torch.full((1, 1), float(number)), "bias": torch.zeros(1)}, tmp_path / f"model_{number}")
    (tmp_path / "model_10.bak").write_bytes((tmp_path / "model_2").read_bytes())
    (tmp_path / "model_11").write_bytes((tmp_path / "model_11").read_bytes()[:-100])
    os.utime(tmp_path / "model_9")
    model = nn.Linear(1, 1)
    saved = extensions.snapshot_object(model, "model_{.iteration}", trigger=(99, "epoch"), autoload=True)
    run(make_manager(tmp_path, saved), 1)
    assert model.weight.item() == 10
    assert "model_11" in caplog.text


def test_snapshot_object_dict_target_saves_and_loads_one_file(tmp_path: Path) -> None:
    first, second = nn.Linear(1, 1), nn.Linear(2, 2)
    targets = {"first": first, "second": second}
    run(make_manager(tmp_path, extensions.snapshot_object(targets, "both_{.iteration}")), 2)
    saved = torch.load(tmp_path / "both_2")
    assert {name: part.keys() for name, part in saved.items()} == {name: {"weight", "bias"} for name in targets}
    fresh = {"first": nn.Linear(1, 1), "second": nn.Linear(2, 2)}
    loads = extensions.snapshot_object(fresh, "both_{.iteration}", trigger=(99, "epoch"), autoload=True)
    manager = make_manager(tmp_path / "loaded", loads)
    (tmp_path / "loaded").mkdir()
    (tmp_path / "both_2").rename(tmp_path / "loaded" / "both_2")
    run(manager, 1)
    for name, part in targets.items():
        assert torch.equal(fresh[name].weight, part.weight)
    with pytest.raises(TypeError, match="target: expected an object with"):
        extensions.snapshot_object({"first": first, "second": 3}, "both")  # type: ignore[dict-item]


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
    assert "MB are free" in errors[0].getMessage()
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
        ({"n_retains": 2.5}, TypeError, r"n_retains: expected a whole number, got 2\.5"),
        ({"keep_best": "val/loss"}, TypeError, r"keep_best: expected \(key, 'min' or 'max', count\)"),
        ({"keep_best": ("val/loss", "lowest", 3)}, ValueError, "expected the mode 'min' or 'max', got 'lowest'"),
        ({"keep_best": ("val/loss", "min", 0)}, ValueError, "expected a count of at least 1, got 0"),
        ({"on_signal": 99}, ValueError, "on_signal: expected a signal such as signal.SIGTERM, got 99"),
        ({"on_signal": signal.SIGKILL}, ValueError, "SIGKILL cannot be caught"),
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
                large.weight.data.fill_(i)
            large.weight.data.fill_(-1)  # while the thread is writing
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
    (tmp_path / "snapshot_iter_1").mkdir()
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY)), 3)
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

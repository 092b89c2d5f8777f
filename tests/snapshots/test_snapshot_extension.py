"""When snapshots are taken, what they are called, and which of them stay."""

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
from pte_tracking._snapshots.retention import Best, excess
from pte_tracking._store.events import Checkpoint

EVERY: Any = (1, "iteration")


def make(out: Path, *ours: Any, iters_per_epoch: int = 2, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager(
        nn.Linear(3, 2), 50, [*ours, extensions.LogReport()], out_dir=out, iters_per_epoch=iters_per_epoch, **options
    )


def run(
    manager: pte.ExtensionsManager, iterations: int, report: Callable[[int], dict[str, Any]] = lambda i: {}
) -> pte.ExtensionsManager:
    """Do some iterations, in which each weight becomes the number of those done."""
    with manager:
        for _ in range(iterations):
            with manager.run_iteration():
                done = manager.iteration + 1
                for parameter in manager.models["main"].parameters():
                    parameter.data.fill_(done)
                pte.report(report(done))
    return manager


def files(out: Path) -> list[str]:
    ours = {"journal.jsonl", "run.json", "checkpoints.json", "log", "delivery", ".lock"}
    return sorted(path.name for path in out.iterdir() if path.name not in ours)


def weight(path: Path) -> float:
    state = torch.load(path)
    found: float = state["models"]["main"]["weight"][0, 0].item()
    return found


# -- when and what -----------------------------------------------------------------------------------------------------


def test_by_default_it_saves_the_whole_training_after_each_epoch(tmp_path: Path) -> None:
    run(make(tmp_path, extensions.snapshot()), 5)
    assert files(tmp_path) == ["snapshot_iter_2", "snapshot_iter_4"]
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
def test_the_file_is_called_by_its_template(filename: str, names: list[str], tmp_path: Path) -> None:
    run(make(tmp_path, extensions.snapshot(filename, trigger=EVERY)), 2)
    assert files(tmp_path) == names
    assert weight(tmp_path / names[-1]) == 2


def test_it_may_lie_in_a_folder(tmp_path: Path) -> None:
    manager = run(make(tmp_path, extensions.snapshot("saved/{.iteration}", trigger=EVERY, n_retains=1)), 3)
    assert files(tmp_path) == ["saved"]
    assert os.listdir(tmp_path / "saved") == ["3"]
    assert [one.path for one in manager.run.checkpoints()] == ["saved/3"]


def test_a_condition_is_asked_without_arguments(tmp_path: Path) -> None:
    answers = iter([True, False, True])
    run(make(tmp_path, extensions.snapshot(trigger=EVERY, condition=lambda: next(answers))), 3)
    assert files(tmp_path) == ["snapshot_iter_1", "snapshot_iter_3"]


def test_a_checkpoint_of_the_run_has_the_values_of_its_step(tmp_path: Path) -> None:
    observed = extensions.observe_value("learned", lambda manager: 7)
    manager = make(tmp_path, extensions.snapshot(), observed)
    run(manager, 4, lambda i: {"loss": torch.tensor(1 / i), "bad": math.nan if i == 4 else 0})
    first, second = manager.run.checkpoints()
    assert (first.path, first.step, first.epoch) == ("snapshot_iter_2", 2, 1)
    assert first.values == {"loss": 0.5, "bad": 0, "learned": 7}
    assert second.values["loss"] == 0.25
    assert math.isnan(second.values["bad"])
    assert second.size == (tmp_path / "snapshot_iter_4").stat().st_size


def test_it_runs_when_all_others_have_run_and_every_trigger_has_decided(tmp_path: Path) -> None:
    seen = []

    class Last(pte.Extension):
        priority = -50
        trigger = (1, "iteration")

        def __call__(self, manager: pte.Manager) -> None:
            seen.append(manager.iteration)

        def state_dict(self) -> dict[str, Any]:
            return {"seen": list(seen)}

    stop = pte.get_trigger((3, "iteration"))
    run(make(tmp_path, extensions.snapshot(trigger=EVERY), Last(), stop_trigger=stop), 3)
    state = torch.load(tmp_path / "snapshot_iter_3")
    assert state["extensions"]["Last"]["extension"] == {"seen": [1, 2, 3]}
    assert state["manager"]["is_over"]


# -- which stay --------------------------------------------------------------------------------------------------------


def test_the_newest_are_retained(tmp_path: Path) -> None:
    manager = run(make(tmp_path, extensions.snapshot(trigger=EVERY, n_retains=2)), 12)
    assert files(tmp_path) == ["snapshot_iter_11", "snapshot_iter_12"]
    assert [one.path for one in manager.run.checkpoints()] == ["snapshot_iter_11", "snapshot_iter_12"]


def test_times_of_files_do_not_matter(tmp_path: Path) -> None:
    saved = extensions.snapshot(trigger=EVERY, n_retains=2, asynchronous=False)
    touched = pte.make_extension(trigger=EVERY, priority=-200)(
        lambda manager: os.utime(tmp_path / "snapshot_iter_1") if manager.iteration < 3 else None
    )
    run(make(tmp_path, saved, touched), 4)
    assert files(tmp_path) == ["snapshot_iter_3", "snapshot_iter_4"]


def test_the_best_are_kept_beside_the_newest(tmp_path: Path) -> None:
    losses = [5, 1, math.nan, 3, 2, math.inf, 4, 6]
    saved = extensions.snapshot(trigger=EVERY, keep_best=("loss", "min", 2))
    run(make(tmp_path, saved), 8, lambda i: {"loss": losses[i - 1]})
    assert files(tmp_path) == ["snapshot_iter_2", "snapshot_iter_5", "snapshot_iter_8"]


@pytest.mark.parametrize(("reported", "told"), [("loss", False), ("other", True)])
def test_a_value_that_no_snapshot_has_is_told_at_the_end(
    reported: str, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved = extensions.snapshot(trigger=EVERY, n_retains=1, keep_best=("loss", "min", 2))
    run(make(tmp_path, saved), 3, lambda i: {reported: i})
    assert ("keep_best: none of 1 snapshots has a finite value of 'loss'" in caplog.text) == told


def test_retention_leaves_the_files_of_others_alone(tmp_path: Path) -> None:
    tmp_path.joinpath("snapshot_iter_0.bak").touch()
    few = extensions.snapshot(trigger=EVERY, n_retains=1)
    others = extensions.snapshot("other_{.iteration}", trigger=(2, "iteration"))
    run(make(tmp_path, few, others), 5)
    assert files(tmp_path) == ["other_2", "other_4", "snapshot_iter_0.bak", "snapshot_iter_5"]


def checkpoint(step: int, **values: float) -> Checkpoint:
    return Checkpoint(seq=step, time=0.0, path=f"s{step}", step=step, sha256="", size=0, values=values)


def test_excess_never_holds_the_newest() -> None:
    ten = [checkpoint(step, loss=step) for step in range(10)]
    for n_retains in (-1, 0, 1, 3, 20):
        for best in (None, Best("loss", "min", 2), Best("loss", "max", 1), Best("other", "max", 1)):
            left = [one for one in ten if one not in excess(ten, n_retains, best)]
            assert left[-1] is ten[-1]
    assert excess(ten, -1, None) == []
    assert excess([], 1, Best("loss", "min", 1)) == []
    assert [one.step for one in ten if one not in excess(ten, 2, Best("loss", "min", 2))] == [0, 1, 8, 9]


# -- one object --------------------------------------------------------------------------------------------------------


def test_an_object_is_saved_as_its_state_alone(tmp_path: Path) -> None:
    manager = make(tmp_path)
    manager.extend(extensions.snapshot_object(manager.models["main"], "model_{.iteration}", n_retains=1))
    run(manager, 4)
    assert files(tmp_path) == ["model_4"]
    nn.Linear(3, 2).load_state_dict(torch.load(tmp_path / "model_4"))
    assert manager.run.checkpoints() == [], "nothing can be resumed from it"


def test_snapshot_with_a_target_saves_that(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    run(make(tmp_path, extensions.snapshot(target=model, filename="model")), 2)
    assert torch.load(tmp_path / "model").keys() == {"weight", "bias"}


def test_an_object_is_loaded_from_the_newest_intact_file_by_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (2, 9, 10, 11):
        torch.save({"weight": torch.full((1, 1), float(number)), "bias": torch.zeros(1)}, tmp_path / f"model_{number}")
    (tmp_path / "model_10.bak").write_bytes((tmp_path / "model_2").read_bytes())
    (tmp_path / "model_11").write_bytes((tmp_path / "model_11").read_bytes()[:-100])
    os.utime(tmp_path / "model_9")
    model = nn.Linear(1, 1)
    saved = extensions.snapshot_object(model, "model_{.iteration}", trigger=(99, "epoch"), autoload=True)
    run(make(tmp_path, saved), 1)
    assert model.weight.item() == 10
    assert "model_11" in caplog.text


def test_several_objects_are_saved_in_one_file_and_loaded_from_it(tmp_path: Path) -> None:
    first, second = nn.Linear(1, 1), nn.Linear(2, 2)
    targets = {"first": first, "second": second}
    run(make(tmp_path, extensions.snapshot_object(targets, "both_{.iteration}")), 2)
    saved = torch.load(tmp_path / "both_2")
    assert {name: part.keys() for name, part in saved.items()} == {name: {"weight", "bias"} for name in targets}
    fresh = {"first": nn.Linear(1, 1), "second": nn.Linear(2, 2)}
    loads = extensions.snapshot_object(fresh, "both_{.iteration}", trigger=(99, "epoch"), autoload=True)
    manager = make(tmp_path / "again", loads)
    (tmp_path / "again").mkdir()
    (tmp_path / "both_2").rename(tmp_path / "again" / "both_2")
    run(manager, 1)
    for name, part in targets.items():
        assert torch.equal(fresh[name].weight, part.weight)
    with pytest.raises(TypeError, match="target: expected an object with"):
        extensions.snapshot_object({"first": first, "second": 3}, "both")  # type: ignore[dict-item]


# -- errors ------------------------------------------------------------------------------------------------------------


def test_an_error_saves_its_state_apart_if_wanted(tmp_path: Path) -> None:
    for wanted in (True, False):
        out = tmp_path / str(wanted)
        model = nn.Linear(3, 2)
        manager = make(
            out,
            extensions.snapshot(trigger=EVERY, snapshot_on_error=wanted),
            extensions.snapshot_object(model, "model", trigger=(99, "epoch"), snapshot_on_error=wanted),
        )

        def fail(done: int) -> dict[str, Any]:
            if done == 3:
                raise ZeroDivisionError
            return {}

        with pytest.raises(ZeroDivisionError):
            run(manager, 5, fail)
        regular = ["snapshot_iter_1", "snapshot_iter_2"]
        apart = ["model_on_error", "snapshot_iter_2_on_error"]
        assert files(out) == (sorted(regular + apart) if wanted else regular)
        assert weight(out / "snapshot_iter_2") == 2
        if wanted:
            assert weight(out / "snapshot_iter_2_on_error") == 3
        again = make(
            out,
            extensions.snapshot(trigger=EVERY, snapshot_on_error=wanted),
            extensions.snapshot_object(model, "model"),
        )
        resumed = again.resume()
        assert resumed is not None
        assert resumed.path == "snapshot_iter_2"
        again.close()


@pytest.fixture
def small_files() -> Iterator[Callable[[], None]]:
    """No file may grow beyond 20 kB, until the function that this gives is called."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    yield lift
    lift()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_on_a_full_disk_the_training_goes_on(
    asynchronous: bool, tmp_path: Path, small_files: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    saved = extensions.snapshot(trigger=EVERY, n_retains=1, asynchronous=asynchronous)

    def free_at_three(done: int) -> dict[str, Any]:
        if done == 3:
            manager.get_extension("snapshot").finalize(manager)  # waits for the second
            small_files()
        return {}

    manager = make(tmp_path, saved, state_objects={"large": nn.Linear(100, 100)})
    run(manager, 3, free_at_three)
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert [one.getMessage().split(":")[0] for one in errors] == [str(tmp_path / f"snapshot_iter_{i}") for i in (1, 2)]
    assert "MB are free" in errors[0].getMessage()
    assert files(tmp_path) == ["snapshot_iter_3"]
    assert weight(tmp_path / "snapshot_iter_3") == 3


def test_a_state_that_cannot_be_saved_is_told_before_the_first_iteration(tmp_path: Path) -> None:
    class Odd(pte.Extension):
        def state_dict(self) -> dict[str, Any]:
            return {"since": threading.Lock()}

    manager = make(tmp_path, Odd(), extensions.snapshot())
    with pytest.raises(TypeError, match="extensions/Odd/extension/since: a value of type _thread"):
        run(manager, 1)
    assert manager.iteration == 0


def test_a_state_that_goes_bad_later_is_told_and_the_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class GoesBad(pte.Extension):
        trigger = (3, "iteration")
        state: Any = 1

        def __call__(self, manager: pte.Manager) -> None:
            self.state = object()

        def state_dict(self) -> dict[str, Any]:
            return {"state": self.state}

    run(make(tmp_path, GoesBad(), extensions.snapshot()), 4)
    assert files(tmp_path) == ["snapshot_iter_2"]
    assert "extensions/GoesBad/extension/state" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"filename": torch.save}, TypeError, "filename: expected a format string"),
        ({"filename": "/tmp/x"}, ValueError, "inside the run's directory"),
        ({"filename": "../x"}, ValueError, "inside the run's directory"),
        ({"filename": ""}, ValueError, "inside the run's directory"),
        ({"filename": "a_{.iteration"}, ValueError, "no format string"),
        ({"condition": True}, TypeError, "condition: expected a function without arguments, got True"),
        ({"n_retains": 2.5}, TypeError, r"n_retains: expected a whole number, got 2\.5"),
        ({"keep_best": "val/loss"}, TypeError, r"keep_best: expected \(key, 'min' or 'max', count\)"),
        ({"keep_best": ("val/loss", "lowest", 3)}, ValueError, "expected the mode 'min' or 'max', got 'lowest'"),
        ({"keep_best": ("val/loss", "min", 0)}, ValueError, "expected a count of at least 1, got 0"),
        ({"on_signal": 99}, ValueError, "on_signal: expected a signal such as signal.SIGTERM, got 99"),
        ({"on_signal": signal.SIGKILL}, ValueError, "SIGKILL cannot be caught"),
        ({"target": nn.Linear(1, 1), "on_signal": signal.SIGTERM}, ValueError, "not together with target="),
        ({"target": object()}, TypeError, "target: expected an object with state_dict"),
    ],
)
def test_wrong_arguments_are_told_at_the_call(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        extensions.snapshot(**arguments)


@pytest.mark.parametrize("filename", ["{.nothing}", "{.out}", "{}", "{1.iteration}"])
def test_a_name_that_cannot_be_filled_in_is_told_before_the_first_iteration(filename: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="filename: "):
        run(make(tmp_path, extensions.snapshot(filename)), 1)


# -- behind the training -----------------------------------------------------------------------------------------------


def test_a_snapshot_is_never_torn(tmp_path: Path) -> None:
    """Another library saved the live tensors: the file held what the optimizer made of them meanwhile."""
    large = nn.Linear(500, 2000)
    manager = make(tmp_path, extensions.snapshot(trigger=EVERY), state_objects={"large": large})
    with manager:
        for i in range(1, 6):
            with manager.run_iteration():
                large.weight.data.fill_(i)
            large.weight.data.fill_(-1)  # the thread is writing now
    for i in range(1, 6):
        saved = torch.load(tmp_path / f"snapshot_iter_{i}")["state_objects"]["large"]["weight"]
        assert saved.min() == saved.max() == i


def test_never_two_at_once_and_the_last_is_awaited(tmp_path: Path) -> None:
    def at_most_one(done: int) -> dict[str, Any]:
        assert sum(thread.name.startswith("snapshot ") for thread in threading.enumerate()) <= 1
        return {}

    large = {"large": nn.Linear(1000, 1000)}
    run(make(tmp_path, extensions.snapshot(trigger=EVERY), state_objects=large), 6, at_most_one)
    assert len(files(tmp_path)) == 6
    assert not any(thread.name.startswith("snapshot ") for thread in threading.enumerate())


def test_no_snapshot_at_all_is_no_trouble(tmp_path: Path) -> None:
    run(make(tmp_path, extensions.snapshot(trigger=(99, "epoch")), extensions.snapshot_object(nn.Linear(1, 1), "m")), 1)
    assert files(tmp_path) == []


def test_one_that_fails_does_not_end_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another library's thread died of the first error, and the end of the training waited for it for ever."""
    (tmp_path / "snapshot_iter_1").mkdir()
    run(make(tmp_path, extensions.snapshot(trigger=EVERY)), 3)
    assert "snapshot_iter_1: the snapshot was not saved" in caplog.text
    assert weight(tmp_path / "snapshot_iter_2") == 2
    assert weight(tmp_path / "snapshot_iter_3") == 3


def test_what_a_kill_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".snapshot_iter_77.tmp").touch()
    (tmp_path / ".other.tmp").touch()
    run(make(tmp_path, extensions.snapshot()), 2)
    assert files(tmp_path) == [".other.tmp", "snapshot_iter_2"]


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_training_after_its_iteration_with_a_snapshot(number: signal.Signals, tmp_path: Path) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:

        def preempted_in_the_third(done: int) -> dict[str, Any]:
            if done == 3:
                os.kill(os.getpid(), number)
                time.sleep(0)
            return {}

        manager = make(tmp_path, extensions.snapshot(on_signal=number))
        with pytest.raises(SystemExit) as caught:
            run(manager, 50, preempted_in_the_third)
        assert caught.value.code == 128 + number
        assert signal.getsignal(number) is signal.SIG_IGN, "the handler before is in place again"
    finally:
        signal.signal(number, before)
    assert files(tmp_path) == ["snapshot_iter_2", "snapshot_iter_3"]
    assert '"kind":"run_ended"' in (tmp_path / "journal.jsonl").read_text().splitlines()[-1]
    assert '"KILLED"' in (tmp_path / "journal.jsonl").read_text().splitlines()[-1]

    again = make(tmp_path, extensions.snapshot(on_signal=number))
    resumed = again.resume()
    assert resumed is not None
    assert resumed.step == 3
    again.close()


def test_a_signal_is_answered_where_snapshots_are_due_in_every_iteration_anyway(tmp_path: Path) -> None:
    def preempted_in_the_second(done: int) -> dict[str, Any]:
        if done == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return {}

    manager = make(tmp_path, extensions.snapshot(trigger=(1, "iteration"), on_signal=signal.SIGUSR1))
    with pytest.raises(SystemExit):
        run(manager, 50, preempted_in_the_second)
    assert manager.iteration == 2


def test_signals_need_the_main_thread(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def train() -> None:
        try:
            run(make(tmp_path, extensions.snapshot(on_signal=signal.SIGUSR1)), 1)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert "signals reach the main thread only" in str(caught[0])

"""Manager: order, names, state, and ways in which a training ends."""

from __future__ import annotations

import collections
import logging
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking._interface.extension import Extension, Manager
from pte_tracking._interface.function_extension import make_extension
from pte_tracking._store.events import RunEnded
from pte_tracking._store.journal_reader import read_effective


def read_end_statuses(directory: Path) -> list[tuple[str, str | None]]:
    events = [event for event, _ in read_effective(directory / "journal.jsonl")]
    return [(event.status, event.error) for event in events if isinstance(event, RunEnded)]


@pytest.fixture
def make_manager(tmp_path: Path) -> Any:
    def make(*extensions: Any, epochs: float = 5, **options: Any) -> pte.ExtensionsManager:
        options = {"iters_per_epoch": 4, "out_dir": tmp_path, "sinks": [], **options}
        return pte.ExtensionsManager(options.pop("models", {}), epochs, extensions, **options)

    return make


def iterate(manager: pte.ExtensionsManager, times: int = 1) -> None:
    for _ in range(times):
        with manager.run_iteration():
            pass


def iterate_over(manager: pte.ExtensionsManager, loader: Iterable[Any]) -> None:
    for _ in manager.batches(loader):
        iterate(manager)


def fail() -> None:
    raise ZeroDivisionError("no way")


class Recorder(Extension):
    """Record the calls, and raise in one hook."""

    def __init__(self, label: str, calls: list[str], fails_in: str = "") -> None:
        self.label, self.calls, self.fails_in = label, calls, fails_in

    def _note(self, hook: str) -> None:
        self.calls.append(f"{self.label}.{hook}")
        if hook == self.fails_in:
            raise RuntimeError(f"{self.label} failed in {hook}")

    def initialize(self, manager: Manager) -> None:
        self._note("initialize")

    def __call__(self, manager: Manager) -> None:
        self._note("call")

    def on_error(self, manager: Manager, exc: Exception, tb: Any) -> None:
        self._note("on_error")

    def finalize(self, manager: Manager) -> None:
        self._note("finalize")


# -- progress ----------------------------------------------------------------------------------------------------------


def test_run_iteration_explicit_counts_drive_progress_and_stop(tmp_path: Path) -> None:
    seen = []
    manager = pte.ExtensionsManager({}, 3, [lambda m: seen.append((m.iteration, m.epoch))], out_dir=tmp_path)
    for epoch in range(3):
        for i in range(2):
            assert not manager.stop_trigger
            with manager.run_iteration(epoch=epoch, iteration=epoch * 2 + i, epoch_size=2):
                pte.reporter.report({"loss": i / 100 + epoch})
    assert manager.stop_trigger
    assert seen == [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)]


def test_stop_trigger_as_loop_condition_ends_after_max_epochs(make_manager: Any) -> None:
    manager = make_manager(epochs=2)
    while not manager.stop_trigger:
        iterate(manager)
    assert (manager.iteration, manager.epoch, manager.epoch_detail) == (8, 2, 2.0)


def test_batches_repeats_epochs_and_finishes_run(make_manager: Any, tmp_path: Path) -> None:
    manager, seen = make_manager(epochs=1.5, iters_per_epoch=None), []
    for batch in manager.batches([1, 2]):
        with manager.run_iteration():
            seen.append(batch)
    assert seen == [1, 2, 1]
    assert read_end_statuses(tmp_path) == [("FINISHED", None)]


def test_batches_several_per_iteration_yields_every_batch(make_manager: Any) -> None:
    manager, collected = make_manager(epochs=2, iters_per_epoch=2), []
    for number, batch in enumerate(manager.batches([1, 2, 3, 4])):
        collected.append(batch)
        if number % 2:
            iterate(manager)
    assert collected == [1, 2, 3, 4] * 2


@pytest.mark.parametrize("loader", [[], [1, 2]])
def test_batches_without_run_iteration_raises_runtime_error(make_manager: Any, loader: list[int]) -> None:
    manager = make_manager()
    with pytest.raises(RuntimeError, match=r"run_iteration\(\)"):
        collections.deque(manager.batches(loader))


def test_batches_unknown_epoch_length_raises_runtime_error(make_manager: Any) -> None:
    def numbers() -> Iterator[int]:
        yield from range(100)

    manager = make_manager(epochs=1, iters_per_epoch=None)
    with pytest.raises(RuntimeError, match="iters_per_epoch"):
        iterate_over(manager, numbers())


def test_manager_attributes_reflect_progress_and_arguments(make_manager: Any, tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    manager = make_manager(models=model, optimizers=optimizer, iters_per_epoch=4)
    assert manager.is_before_training
    iterate(manager, 5)
    assert not manager.is_before_training
    assert (manager.iteration, manager.epoch, manager.epoch_detail) == (5, 1, 1.25)
    assert manager.updater.iteration == 5
    assert manager.training_length == (5, "epoch")
    assert manager.models == manager.raw_models == {"main": model}
    assert manager.optimizers == {"main": optimizer}
    assert manager.out == str(tmp_path)
    assert manager.elapsed_time > 0


def test_observation_contains_current_iteration_only(make_manager: Any) -> None:
    seen = []
    manager = make_manager(lambda manager: seen.append(manager.observation))
    for value in (1, 2):
        with manager.run_iteration():
            pte.report({str(value): value})
    assert seen == [{"1": 1}, {"2": 2}]


def test_report_in_extension_is_added_to_observation(make_manager: Any) -> None:
    manager = make_manager(lambda manager: pte.report({"x": 1}))
    iterate(manager)
    assert manager.observation == {"x": 1}


def test_step_optimizers_clears_gradients_and_steps(make_manager: Any) -> None:
    weight = torch.ones(1, requires_grad=True)
    weight.grad = torch.ones(1)
    manager = make_manager(optimizers=torch.optim.SGD([weight], lr=1.0))
    with manager.run_iteration(step_optimizers=["main"]):
        assert weight.grad is None
        weight.grad = torch.tensor([2.0])
    assert weight.item() == -1


class OptimizerLike:
    """Object with the least methods that an optimizer needs."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}


@pytest.mark.parametrize(("names", "cleared"), [(("main", "other"), [True, False]), (("a", "b"), [True, True])])
def test_step_optimizers_without_zero_grad_clears_gradients_of_models(
    names: tuple[str, str], cleared: list[bool], make_manager: Any
) -> None:
    models = {name: nn.Linear(1, 1) for name in names}
    for model in models.values():
        model(torch.ones(1)).sum().backward()
    optimizer = OptimizerLike()
    with make_manager(models=models, optimizers=optimizer).run_iteration(step_optimizers=["main"]):
        assert [model.weight.grad is None for model in models.values()] == cleared
    assert optimizer.steps == 1


@pytest.mark.parametrize("argument", ["models", "optimizers"])
def test_class_in_place_of_an_object_raises_type_error(argument: str, make_manager: Any) -> None:
    with pytest.raises(TypeError, match=f"{argument}: expected an .*, got 'main': <class "):
        make_manager(**{argument: {"models": nn.Linear, "optimizers": torch.optim.SGD}[argument]})


@pytest.mark.parametrize("names", [["adam"], ["main", "adam"], "main"])
def test_step_optimizers_invalid_names_raise_before_iteration(make_manager: Any, names: Any) -> None:
    manager = make_manager(optimizers=torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0))
    with pytest.raises(ValueError, match=r"step_optimizers: expected a list of names from main, got"):
        manager.run_iteration(step_optimizers=names)
    iterate(manager)
    assert manager.iteration == 1


# -- order and names ---------------------------------------------------------------------------------------------------


def test_extensions_run_by_priority_then_registration_order(make_manager: Any) -> None:
    calls: list[str] = []
    manager = make_manager()
    for label, priority in [("a", 1), ("b", 300), ("c", 1), ("d", 0), ("e", -200), ("f", -100), ("g", -1), ("h", None)]:
        manager.extend(Recorder(label, calls), priority=priority)
    iterate(manager)
    assert [call for call in calls if call.endswith("call")] == [f"{label}.call" for label in "bhacdgfe"]
    assert [call for call in calls if call.endswith("initialize")] == [f"{label}.initialize" for label in "bhacdgfe"]


def test_trigger_uses_value_reported_by_earlier_extension(make_manager: Any) -> None:
    fired: list[int] = []
    manager = make_manager()
    manager.extend(lambda m: fired.append(m.iteration), trigger=pte.triggers.MinValueTrigger("val", (1, "iteration")))
    manager.extend(lambda m: pte.report({"val": m.iteration % 2}), priority=pte.PRIORITY_WRITER)
    iterate(manager, 3)
    assert fired == [1, 2]


def test_snapshot_state_includes_decisions_of_all_triggers(make_manager: Any) -> None:
    """Otherwise a trigger would be evaluated twice in the iteration of the snapshot, or not at all."""
    states: list[Any] = []
    value_trigger = pte.triggers.MaxValueTrigger("v", (2, "iteration"))
    stop = pte.triggers.EarlyStoppingTrigger((1, "iteration"), "v", patience=9)
    manager = make_manager(stop_trigger=stop)
    for name, trigger in [("first", (1, "iteration")), ("second", value_trigger)]:
        manager.extend(lambda m: states.append(m.state_dict()), name, trigger, pte.PRIORITY_SNAPSHOT)
    with manager.run_iteration():
        pte.report({"v": 7})
    assert states[0]["extensions"]["second"]["trigger"] == value_trigger.state_dict()
    assert states[0]["manager"]["stop_trigger"] == stop.state_dict()
    assert stop.state_dict()["best"] == -7


def test_extend_duplicate_names_get_numeric_suffixes(make_manager: Any) -> None:
    manager = make_manager()
    recorders = [Recorder(str(number), []) for number in range(4)]
    manager.extend(recorders[0])
    manager.extend(recorders[1])
    manager.extend(recorders[2], name="Recorder")
    manager.extend(recorders[3], name="custom")
    assert [extension.name for extension in recorders] == ["Recorder", "Recorder_1", "Recorder_2", "custom"]
    assert manager.get_extension("Recorder_1") is recorders[1]
    with pytest.raises(ValueError, match=r"'other'.*Recorder, Recorder_1, Recorder_2, custom"):
        manager.get_extension("other")


def test_extension_name_defaults_to_function_name(make_manager: Any) -> None:
    def record_call(manager: Manager) -> None: ...

    manager = make_manager(record_call, lambda manager: None)
    assert manager.get_extension("record_call").name == "record_call"
    assert manager.get_extension("<lambda>").default_name == "<lambda>"


def test_call_before_training_runs_extension_before_first_iteration(make_manager: Any) -> None:
    calls: list[str] = []
    manager = make_manager()
    manager.extend(Recorder("a", calls), call_before_training=True, trigger=(2, "iteration"))
    manager.extend(Recorder("b", calls))
    with manager.run_iteration():
        assert calls == ["a.initialize", "b.initialize", "a.call"]
    assert calls[3:] == ["b.call"]


def test_extension_entry_settings_apply_to_extension(make_manager: Any) -> None:
    calls: list[str] = []
    entry = pte.ExtensionEntry(
        Recorder("a", calls), name="x", priority=0, trigger=(2, "iteration"), call_before_training=True
    )
    manager = make_manager(entry)
    iterate(manager)
    assert calls == ["a.initialize", "a.call"]
    assert manager.get_extension("x") is entry.extension


def test_extend_arguments_override_extension_entry(make_manager: Any) -> None:
    calls: list[str] = []
    entry = pte.ExtensionEntry(Recorder("a", calls), name="x", priority=-2, call_before_training=True)
    manager = make_manager(Recorder("b", calls))
    manager.extend(entry, "y", (1, "iteration"), 200, call_before_training=False)
    iterate(manager)
    assert calls == ["a.initialize", "b.initialize", "a.call", "b.call"]
    assert manager.get_extension("y") is entry.extension


def test_make_extension_sets_attributes_and_hooks() -> None:
    hook_calls: list[str] = []

    @make_extension(
        (2, "epoch"),
        "custom",
        50,
        lambda m: hook_calls.append("final"),
        lambda m: hook_calls.append("init"),
        lambda *a: hook_calls.append("error"),
    )
    def function(manager: Manager) -> str:
        return "called"

    assert (function.trigger, function.default_name, function.priority) == ((2, "epoch"), "custom", 50)
    manager: Any = None
    function.initialize(manager)
    function.on_error(manager, ValueError(), None)
    function.finalize(manager)
    assert hook_calls == ["init", "error", "final"]
    assert function(manager) == "called"


def test_make_extension_without_arguments_uses_defaults() -> None:
    @make_extension()
    def function(manager: Manager) -> None: ...

    assert (function.trigger, function.default_name, function.priority) == ((1, "iteration"), "function", 100)


def test_callable_object_attributes_and_state_are_used(make_manager: Any) -> None:
    class CallCounter:
        trigger = (2, "iteration")
        priority = 7
        default_name = "call_counter"

        def __init__(self) -> None:
            self.count = 0

        def __call__(self, manager: Manager) -> None:
            self.count += 1

        def state_dict(self) -> dict[str, int]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    manager = make_manager(CallCounter())
    iterate(manager, 4)
    state = manager.state_dict()
    assert state["extensions"]["call_counter"]["extension"] == {"count": 2}
    manager.close()
    call_counter = CallCounter()
    make_manager(call_counter).load_state_dict(state)
    assert call_counter.count == 2


def test_extension_with_spent_trigger_is_not_initialized(make_manager: Any) -> None:
    calls: list[str] = []
    state = {"is_due": False}
    trigger = pte.triggers.OnceTrigger()
    trigger.load_state_dict(state)
    manager = make_manager()
    manager.extend(Recorder("a", calls), trigger=trigger)
    iterate(manager)
    assert calls == []


# -- end --------------------------------------------------------------------------------------------------------------


def test_end_of_training_finalizes_once_and_rejects_iterations(make_manager: Any, tmp_path: Path) -> None:
    calls: list[str] = []
    manager = make_manager(Recorder("a", calls), Recorder("b", calls), epochs=0.25)
    iterate(manager)
    assert calls == ["a.initialize", "b.initialize", "a.call", "b.call"]
    assert manager.stop_trigger
    assert calls[4:] == ["a.finalize", "b.finalize"]
    with pytest.raises(RuntimeError, match="stopped at iteration 1"):
        iterate(manager)
    manager.close()
    assert len(calls) == 6
    assert read_end_statuses(tmp_path) == [("FINISHED", None)]


@pytest.mark.parametrize("failure_site", ["body", "extension", "trigger", "stop trigger"])
def test_exception_in_iteration_calls_on_error_and_fails_run(
    make_manager: Any, tmp_path: Path, failure_site: str
) -> None:
    calls: list[str] = []
    manager = make_manager(
        *(Recorder("a", calls), Recorder("b", calls)),
        stop_trigger=lambda manager: fail() if failure_site == "stop trigger" else False,
    )
    manager.extend(lambda manager: fail() if failure_site == "extension" else None)
    manager.extend(lambda manager: None, trigger=lambda manager: fail() if failure_site == "trigger" else False)
    with pytest.raises(ZeroDivisionError), manager.run_iteration():
        1 / (failure_site != "body")
    assert calls[-4:] == ["a.on_error", "b.on_error", "a.finalize", "b.finalize"]
    assert [status for status, _ in read_end_statuses(tmp_path)] == ["FAILED"]
    assert str(read_end_statuses(tmp_path)[0][1]).startswith("ZeroDivisionError: ")


def test_exception_in_initialize_calls_on_error_and_fails_run(make_manager: Any, tmp_path: Path) -> None:
    calls: list[str] = []
    manager = make_manager(Recorder("a", calls, fails_in="initialize"), Recorder("b", calls))
    with pytest.raises(RuntimeError, match="a failed in initialize"):
        iterate(manager)
    assert calls == ["a.initialize", "a.on_error", "b.on_error", "a.finalize", "b.finalize"]
    assert read_end_statuses(tmp_path) == [
        ("FAILED", "RuntimeError: a failed in initialize; ended at iteration 0 of 20")
    ]


def test_exceptions_in_error_hooks_are_logged_and_first_is_raised(
    make_manager: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    manager = make_manager(
        Recorder("a", calls, fails_in="on_error"), Recorder("b", calls, fails_in="finalize"), Recorder("c", calls)
    )
    with caplog.at_level(logging.ERROR, "pte_tracking"), pytest.raises(ZeroDivisionError), manager.run_iteration():
        fail()
    assert calls[-6:] == ["a.on_error", "b.on_error", "c.on_error", "a.finalize", "b.finalize", "c.finalize"]
    assert [record.message.split(". ")[0] for record in caplog.records] == [
        "Extension 'Recorder' raised in on_error()",
        "Extension 'Recorder_1' raised in finalize()",
    ]
    assert read_end_statuses(tmp_path) == [("FAILED", "ZeroDivisionError: no way; ended at iteration 0 of 20")]


def test_exception_in_finalize_is_raised_and_fails_run(make_manager: Any, tmp_path: Path) -> None:
    calls: list[str] = []
    manager = make_manager(Recorder("a", calls, fails_in="finalize"), Recorder("b", calls, fails_in="finalize"))
    iterate(manager)
    with pytest.raises(RuntimeError, match="a failed in finalize"):
        manager.close()
    assert calls[-2:] == ["a.finalize", "b.finalize"]
    assert read_end_statuses(tmp_path) == [("FAILED", "RuntimeError: a failed in finalize; ended at iteration 1 of 20")]


def test_with_block_exception_outside_iteration_fails_run(make_manager: Any, tmp_path: Path) -> None:
    calls: list[str] = []
    manager = make_manager(Recorder("a", calls))
    iterate(manager)
    with pytest.raises(ZeroDivisionError), manager:
        fail()
    assert calls == ["a.initialize", "a.call", "a.on_error", "a.finalize"]
    assert read_end_statuses(tmp_path) == [("FAILED", "ZeroDivisionError: no way; ended at iteration 1 of 20")]


def test_with_block_exit_finishes_run(make_manager: Any, tmp_path: Path) -> None:
    with make_manager() as manager:
        iterate(manager)
    assert read_end_statuses(tmp_path) == [("FINISHED", None)]


def test_keyboard_interrupt_finalizes_without_on_error(make_manager: Any, tmp_path: Path) -> None:
    calls: list[str] = []
    manager = make_manager(Recorder("a", calls))
    with pytest.raises(KeyboardInterrupt), manager.run_iteration():
        raise KeyboardInterrupt
    assert calls == ["a.initialize", "a.finalize"]
    assert [status for status, _ in read_end_statuses(tmp_path)] == ["KILLED"]


def test_close_with_status_in_extension_sets_run_status(make_manager: Any, tmp_path: Path) -> None:
    def leave(manager: Any) -> None:
        manager.close("KILLED")
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        iterate(make_manager(leave))
    assert read_end_statuses(tmp_path) == [("KILLED", "ended at iteration 1 of 20")]


def test_close_within_iteration_skips_extension_calls(make_manager: Any) -> None:
    calls: list[str] = []
    manager = make_manager(Recorder("a", calls))
    with manager.run_iteration():
        manager.close()
    assert calls == ["a.initialize", "a.finalize"]


def test_run_close_finalizes_extensions_and_ends_manager(make_manager: Any) -> None:
    calls: list[str] = []
    manager = make_manager(Recorder("a", calls))
    iterate(manager)
    manager.run.close()
    assert calls == ["a.initialize", "a.call", "a.finalize"]
    assert manager.is_ended


@pytest.mark.slow
def test_interpreter_exit_finalizes_extensions_and_finishes_run(tmp_path: Path) -> None:
    program = """
import sys
import pte_tracking as pte
class Last(pte.Extension):
    def __call__(self, manager): ...
    def finalize(self, manager): print("finalized", manager.iteration)
manager = pte.ExtensionsManager({}, 5, [Last()], iters_per_epoch=4, out_dir=sys.argv[1])
with manager.run_iteration():
    pass
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("finalized 1\n", "")
    assert read_end_statuses(tmp_path) == [("FINISHED", None)]


def test_report_after_failed_iteration_is_ignored(make_manager: Any) -> None:
    manager = make_manager()
    with pytest.raises(ZeroDivisionError), manager.run_iteration():
        fail()
    pte.report({"x": 1})
    assert manager.reporter.observation == {}


def test_unused_manager_creates_no_files(make_manager: Any, tmp_path: Path) -> None:
    with make_manager(Recorder("a", calls := [])):
        pass
    assert calls == []
    assert list(tmp_path.iterdir()) == []


def test_loop_without_stop_check_raises_after_max_epochs(make_manager: Any) -> None:
    manager = make_manager(epochs=1)
    with pytest.raises(RuntimeError, match="stop_trigger"):
        iterate(manager, 5)
    assert manager.iteration == 4


# -- state -------------------------------------------------------------------------------------------------------------


def test_state_dict_contains_named_parts(make_manager: Any) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    manager = make_manager(
        Recorder("a", []), models=model, optimizers=optimizer, state_objects={"scheduler": scheduler}
    )
    iterate(manager)
    state = manager.state_dict()
    assert state["models"]["main"].keys() == model.state_dict().keys()
    assert state["optimizers"] == {"main": optimizer.state_dict()}
    assert state["state_objects"] == {"scheduler": scheduler.state_dict()}
    assert state["extensions"] == {"Recorder": {"extension": {}, "trigger": {}}}
    assert state["manager"]["iteration"] == 1


def test_load_state_dict_restores_iteration_and_weights(make_manager: Any) -> None:
    first = nn.Linear(1, 1)
    manager = make_manager(models=first)
    iterate(manager, 3)
    state = manager.state_dict()
    manager.close()
    second = nn.Linear(1, 1)
    manager = make_manager(models=second)
    manager.load_state_dict(state)
    assert manager.iteration == 3
    assert second.weight.equal(first.weight)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_iteration_after_interruption_raises_and_suggests_resume(make_manager: Any, error: type[BaseException]) -> None:
    """As in an interrupted notebook cell. The training is incomplete, so the stop trigger is False."""
    manager = make_manager()
    iterate(manager)
    with pytest.raises(error), manager.run_iteration():
        raise error
    with pytest.raises(RuntimeError, match=r"ended after iteration 1, before.*another manager.*resume\(\)"):
        iterate(manager)


class Counter(Extension):
    """Extension with a state."""

    def __call__(self, manager: Manager) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"count": 0}


def test_load_state_dict_name_mismatch_lists_names_and_changes_nothing(make_manager: Any) -> None:
    model = nn.Linear(1, 1)
    manager = make_manager(Counter(), models={"old": nn.Linear(1, 1), "main": nn.Linear(1, 1)})
    iterate(manager)
    state = manager.state_dict()
    manager.close()
    before = model.weight.clone()
    manager = make_manager(models=model, optimizers={"sgd": torch.optim.SGD(model.parameters())})
    manager.extend(Counter(), name="new")
    with pytest.raises(ValueError, match="does not match this run") as caught:
        manager.load_state_dict(state)
    assert (
        "models: only in the snapshot: 'old'; optimizers: not in the snapshot: 'sgd'; extensions: not in the snapshot: "
        "'new'; extensions: only in the snapshot: 'Counter'. Nothing was restored. To continue anyway, pass "
        "allow=['old', 'sgd', 'new', 'Counter']"
    ) in str(caught.value)
    assert model.weight.equal(before)


def test_load_state_dict_foreign_state_raises(make_manager: Any) -> None:
    with pytest.raises(ValueError, match=r"not that of a training\. It contains 'weight'\."):
        make_manager().load_state_dict({"weight": 1})
    with pytest.raises(TypeError, match="dictionary"):
        make_manager().load_state_dict("snapshot.pt")


def test_load_state_dict_after_first_iteration_raises_runtime_error(make_manager: Any) -> None:
    manager = make_manager()
    iterate(manager)
    with pytest.raises(RuntimeError, match="already started"):
        manager.load_state_dict(manager.state_dict())


@pytest.mark.parametrize(("epochs", "is_over"), [(1, True), (2, True), (3, False)])
def test_resume_uses_newly_given_max_epochs(make_manager: Any, epochs: int, is_over: bool) -> None:
    manager = make_manager(epochs=2)
    while not manager.stop_trigger:
        iterate(manager)
    state = manager.state_dict()
    manager = make_manager(epochs=epochs)
    manager.load_state_dict(state)
    assert manager.stop_trigger is is_over


def test_resume_finished_training_rejects_iterations(make_manager: Any, tmp_path: Path) -> None:
    manager = make_manager(epochs=1)
    iterate(manager, 4)
    resumed_manager = make_manager(epochs=1)
    resumed_manager.load_state_dict(manager.state_dict())
    with pytest.raises(RuntimeError, match="stopped at iteration 4"):
        iterate(resumed_manager)
    assert (resumed_manager.iteration, read_end_statuses(tmp_path)) == (4, [("FINISHED", None)])


def test_stop_trigger_iteration_beyond_end_fires(make_manager: Any) -> None:
    manager = make_manager(epochs=1)
    with manager.run_iteration(iteration=2):
        pass
    assert not manager.stop_trigger
    with manager.run_iteration(iteration=9):
        pass
    assert manager.stop_trigger


def test_stop_trigger_is_evaluated_once_per_iteration(make_manager: Any) -> None:
    evaluated_at: list[int] = []
    manager = make_manager(
        stop_trigger=lambda manager: evaluated_at.append(manager.iteration) or len(evaluated_at) == 3
    )
    while not manager.stop_trigger:
        iterate(manager)
        assert not manager.stop_trigger or len(evaluated_at) == 3
    assert evaluated_at == [1, 2, 3]


def test_resume_keeps_stop_decision_of_saved_trigger(make_manager: Any) -> None:
    manager = make_manager(stop_trigger=lambda manager: True)
    iterate(manager)
    state = manager.state_dict()
    manager = make_manager(stop_trigger=lambda manager: False)
    manager.load_state_dict(state)
    assert manager.stop_trigger


def test_run_iteration_before_resumed_position_raises_value_error(make_manager: Any) -> None:
    manager = make_manager(iters_per_epoch=None, epochs=2)
    with manager.run_iteration(epoch=0, iteration=0, epoch_size=4):
        pass
    state = manager.state_dict()
    manager.close()
    manager = make_manager(iters_per_epoch=None, epochs=2)
    manager.load_state_dict(state)
    assert not manager.stop_trigger
    with pytest.raises(ValueError, match=r"iteration: expected at least 1, .* got 0\. .*manager\.iteration"):
        manager.run_iteration(epoch=0, iteration=0, epoch_size=4)


# -- invalid arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"iters_per_epoch": 0}, ValueError, "iters_per_epoch.*got 0"),
        ({"iters_per_epoch": 2.5}, TypeError, r"iters_per_epoch.*2\.5"),
        ({"epochs": 0}, ValueError, "max_epochs.*0"),
        ({"epochs": "5"}, TypeError, "max_epochs.*'5'"),
        ({"epochs": torch.optim.SGD([torch.ones(1)])}, TypeError, r"\(models, max_epochs, extensions, optimizers"),
        ({"models": 5}, TypeError, "models.*5"),
        ({"models": {"main": None}}, TypeError, "models.*None"),
        ({"optimizers": {1: torch.optim.SGD([torch.ones(1)])}}, TypeError, "optimizers.*1"),
        ({"state_objects": {"x": 5}}, TypeError, "state_objects.*'x': 5"),
        ({"stop_trigger": (1, "day")}, ValueError, "'day'"),
        ({"sinks": ["jsonn"]}, ValueError, "jsonn"),
        ({"params": 5}, TypeError, "params"),
    ],
)
def test_constructor_invalid_argument_raises(
    make_manager: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_manager(**options)


@pytest.mark.parametrize(
    ("extension", "message"), [(5, "expected an Extension.*5"), (Recorder, r"class Recorder\. Write Recorder\(\)")]
)
def test_constructor_invalid_extension_raises_type_error(make_manager: Any, extension: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make_manager(extension)


def test_extend_after_first_iteration_raises_runtime_error(make_manager: Any) -> None:
    manager = make_manager()
    iterate(manager)
    with pytest.raises(RuntimeError, match="already started"):
        manager.extend(lambda manager: None)


def test_run_iteration_nested_raises_runtime_error(make_manager: Any) -> None:
    manager = make_manager()
    with pytest.raises(RuntimeError, match="an iteration is in progress"), manager.run_iteration():
        iterate(manager)


def test_run_iteration_contradictory_counts_raise_value_error(make_manager: Any) -> None:
    manager = make_manager(iters_per_epoch=4)
    with pytest.raises(ValueError, match=r"epoch_size.*4.*got 5"):
        manager.run_iteration(epoch_size=5)
    with pytest.raises(ValueError, match="is in epoch 0, not 1"):
        manager.run_iteration(epoch=1, iteration=1)


def report_x(manager: Any) -> None:
    with manager:
        for _ in range(2):
            with manager.run_iteration():
                pte.report({"x": 1.0, "y": 2.0})


@pytest.mark.parametrize("sinks", [None, ["json"]])
def test_reports_without_log_report_log_one_warning(
    sinks: Any, make_manager: Any, caplog: pytest.LogCaptureFixture
) -> None:
    report_x(make_manager(pte.extensions.snapshot(), sinks=sinks))
    (message,) = caplog.messages
    assert "'x' and all other reported values are not recorded. Add extensions.LogReport()." in message


def test_reports_with_log_report_or_without_sinks_do_not_warn(
    make_manager: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    report_x(make_manager(pte.extensions.LogReport(), sinks=["json"], out_dir=tmp_path / "a"))
    own = pte.extensions.PrintReport(log_report=pte.extensions.LogReport())
    report_x(make_manager(own, sinks=["json"], out_dir=tmp_path / "b"))
    report_x(make_manager(sinks=[], out_dir=tmp_path / "c"))
    iterate(make_manager(sinks=None, out_dir=tmp_path / "d"), 2)
    assert not caplog.messages


@pytest.mark.parametrize("is_recorded", [False, True])
def test_reports_with_extension_of_the_user_warn_unless_it_records(
    is_recorded: bool, make_manager: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def record(manager: Any) -> None:
        if is_recorded:
            manager.run.log_metrics(manager.observation, manager.iteration)

    manager = make_manager(record, sinks=["json"])
    report_x(manager)
    assert [message[:30] for message in caplog.messages] == ([] if is_recorded else ["No extension is a LogReport, s"])


def test_extension_without_call_method_raises_not_implemented_error(make_manager: Any) -> None:
    class Idle(Extension):
        pass

    with pytest.raises(NotImplementedError, match="Idle"):
        iterate(make_manager(Idle()))

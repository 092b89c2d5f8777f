"""The manager: order, names, state, and the ends of a training."""

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
from pte_tracking._interface.extension import Extension, Manager, make_extension
from pte_tracking._store.events import RunEnded
from pte_tracking._store.journal import effective


def statuses(directory: Path) -> list[tuple[str, str | None]]:
    events = [event for event, _ in effective(directory / "journal.jsonl")]
    return [(event.status, event.error) for event in events if isinstance(event, RunEnded)]


@pytest.fixture
def managed(tmp_path: Path) -> Any:
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
    """Writes down what is called; raises where it is told to."""

    def __init__(self, label: str, calls: list[str], fails_in: str = "") -> None:
        self.label, self.calls, self.fails_in = label, calls, fails_in

    def _note(self, what: str) -> None:
        self.calls.append(f"{self.label}.{what}")
        if what == self.fails_in:
            raise RuntimeError(f"{self.label} failed in {what}")

    def initialize(self, manager: Manager) -> None:
        self._note("initialize")

    def __call__(self, manager: Manager) -> None:
        self._note("call")

    def on_error(self, manager: Manager, exc: Exception, tb: Any) -> None:
        self._note("on_error")

    def finalize(self, manager: Manager) -> None:
        self._note("finalize")


# -- progress ----------------------------------------------------------------------------------------------------------


def test_the_seeds_own_loop(tmp_path: Path) -> None:
    seen = []
    manager = pte.ExtensionsManager({}, 3, [lambda m: seen.append((m.iteration, m.epoch))], out_dir=tmp_path)
    for epoch in range(3):
        for i in range(2):
            assert not manager.stop_trigger
            with manager.run_iteration(epoch=epoch, iteration=epoch * 2 + i, epoch_size=2):
                pte.reporter.report({"loss": i / 100 + epoch})
    assert manager.stop_trigger
    assert seen == [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)]


def test_while_not_stop_trigger(managed: Any) -> None:
    manager = managed(epochs=2)
    while not manager.stop_trigger:
        iterate(manager)
    assert (manager.iteration, manager.epoch, manager.epoch_detail) == (8, 2, 2.0)


def test_batches_go_on_epoch_after_epoch_and_end_the_run(managed: Any, tmp_path: Path) -> None:
    manager, seen = managed(epochs=1.5, iters_per_epoch=None), []
    for batch in manager.batches([1, 2]):
        with manager.run_iteration():
            seen.append(batch)
    assert seen == [1, 2, 1]
    assert statuses(tmp_path) == [("FINISHED", None)]


def test_batches_may_be_gathered_into_one_iteration(managed: Any) -> None:
    manager, gathered = managed(epochs=2, iters_per_epoch=2), []
    for number, batch in enumerate(manager.batches([1, 2, 3, 4])):
        gathered.append(batch)
        if number % 2:
            iterate(manager)
    assert gathered == [1, 2, 3, 4] * 2


@pytest.mark.parametrize("loader", [[], [1, 2]])
def test_batches_without_iterations_do_not_go_on_for_ever(managed: Any, loader: list[int]) -> None:
    manager = managed()
    with pytest.raises(RuntimeError, match=r"run_iteration\(\)"):
        collections.deque(manager.batches(loader))


def test_a_loader_without_length_needs_the_length_of_an_epoch(managed: Any) -> None:
    def numbers() -> Iterator[int]:
        yield from range(100)

    manager = managed(epochs=1, iters_per_epoch=None)
    with pytest.raises(RuntimeError, match="iters_per_epoch"):
        iterate_over(manager, numbers())


def test_what_extensions_see(managed: Any, tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    manager = managed(models=model, optimizers=optimizer, iters_per_epoch=4)
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


def test_an_extension_sees_what_was_reported_in_its_iteration_only(managed: Any) -> None:
    seen = []
    manager = managed(lambda manager: seen.append(manager.observation))
    for value in (1, 2):
        with manager.run_iteration():
            pte.report({str(value): value})
    assert seen == [{"1": 1}, {"2": 2}]


def test_an_extension_may_report(managed: Any) -> None:
    manager = managed(lambda manager: pte.report({"x": 1}))
    iterate(manager)
    assert manager.observation == {"x": 1}


def test_step_optimizers(managed: Any) -> None:
    weight = torch.ones(1, requires_grad=True)
    weight.grad = torch.ones(1)
    manager = managed(optimizers=torch.optim.SGD([weight], lr=1.0))
    with manager.run_iteration(step_optimizers=["main"]):
        assert weight.grad is None
        weight.grad = torch.tensor([2.0])
    assert weight.item() == -1


@pytest.mark.parametrize("names", [["adam"], ["main", "adam"], "main"])
def test_an_optimizer_to_step_that_is_not_there_is_told_before_the_iteration(managed: Any, names: Any) -> None:
    manager = managed(optimizers=torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0))
    with pytest.raises(ValueError, match=r"step_optimizers: expected a list of names out of main, got"):
        manager.run_iteration(step_optimizers=names)
    iterate(manager)
    assert manager.iteration == 1


# -- order and names ---------------------------------------------------------------------------------------------------


def test_higher_priorities_first_then_order_of_registration(managed: Any) -> None:
    calls: list[str] = []
    manager = managed()
    for label, priority in [("a", 1), ("b", 300), ("c", 1), ("d", 0), ("e", -200), ("f", -100), ("g", -1), ("h", None)]:
        manager.extend(Recorder(label, calls), priority=priority)
    iterate(manager)
    assert [call for call in calls if call.endswith("call")] == [f"{label}.call" for label in "bhacdgfe"]
    assert [call for call in calls if call.endswith("initialize")] == [f"{label}.initialize" for label in "bhacdgfe"]


def test_a_trigger_sees_what_an_earlier_extension_reported(managed: Any) -> None:
    fired: list[int] = []
    manager = managed()
    manager.extend(lambda m: fired.append(m.iteration), trigger=pte.triggers.MinValueTrigger("val", (1, "iteration")))
    manager.extend(lambda m: pte.report({"val": m.iteration % 2}), priority=pte.PRIORITY_WRITER)
    iterate(manager, 3)
    assert fired == [1, 2]


def test_snapshots_hold_what_every_trigger_decided(managed: Any) -> None:
    """Else a trigger would decide twice about the iteration of the snapshot, or never."""
    states: list[Any] = []
    counts = pte.triggers.MaxValueTrigger("v", (2, "iteration"))
    stop = pte.triggers.EarlyStoppingTrigger((1, "iteration"), "v", patience=9)
    manager = managed(stop_trigger=stop)
    for name, trigger in [("first", (1, "iteration")), ("second", counts)]:
        manager.extend(lambda m: states.append(m.state_dict()), name, trigger, pte.PRIORITY_SNAPSHOT)
    with manager.run_iteration():
        pte.report({"v": 7})
    assert states[0]["extensions"]["second"]["trigger"] == counts.state_dict()
    assert states[0]["manager"]["stop_trigger"] == stop.state_dict()
    assert stop.state_dict()["best"] == -7


def test_equal_names_get_numbers(managed: Any) -> None:
    manager = managed()
    made = [Recorder(str(number), []) for number in range(4)]
    manager.extend(made[0])
    manager.extend(made[1])
    manager.extend(made[2], name="Recorder")
    manager.extend(made[3], name="mine")
    assert [extension.name for extension in made] == ["Recorder", "Recorder_1", "Recorder_2", "mine"]
    assert manager.get_extension("Recorder_1") is made[1]
    with pytest.raises(ValueError, match=r"'other'.*Recorder, Recorder_1, Recorder_2, mine"):
        manager.get_extension("other")


def test_names_of_functions(managed: Any) -> None:
    def noted(manager: Manager) -> None: ...

    manager = managed(noted, lambda manager: None)
    assert manager.get_extension("noted").name == "noted"
    assert manager.get_extension("<lambda>").default_name == "<lambda>"


def test_call_before_training(managed: Any) -> None:
    calls: list[str] = []
    manager = managed()
    manager.extend(Recorder("a", calls), call_before_training=True, trigger=(2, "iteration"))
    manager.extend(Recorder("b", calls))
    with manager.run_iteration():
        assert calls == ["a.initialize", "b.initialize", "a.call"]
    assert calls[3:] == ["b.call"]


def test_entries_say_it_beforehand(managed: Any) -> None:
    calls: list[str] = []
    entry = pte.ExtensionEntry(
        Recorder("a", calls), name="x", priority=0, trigger=(2, "iteration"), call_before_training=True
    )
    manager = managed(entry)
    iterate(manager)
    assert calls == ["a.initialize", "a.call"]
    assert manager.get_extension("x") is entry.extension


def test_what_an_entry_says_can_be_amended(managed: Any) -> None:
    calls: list[str] = []
    entry = pte.ExtensionEntry(Recorder("a", calls), name="x", priority=-2, call_before_training=True)
    manager = managed(Recorder("b", calls))
    manager.extend(entry, "y", (1, "iteration"), 200, call_before_training=False)
    iterate(manager)
    assert calls == ["a.initialize", "b.initialize", "a.call", "b.call"]
    assert manager.get_extension("y") is entry.extension


def test_make_extension() -> None:
    told: list[str] = []

    @make_extension(
        (2, "epoch"),
        "mine",
        50,
        lambda m: told.append("final"),
        lambda m: told.append("init"),
        lambda *a: told.append("error"),
    )
    def function(manager: Manager) -> str:
        return "called"

    assert (function.trigger, function.default_name, function.priority) == ((2, "epoch"), "mine", 50)
    manager: Any = None
    function.initialize(manager)
    function.on_error(manager, ValueError(), None)
    function.finalize(manager)
    assert told == ["init", "error", "final"]
    assert function(manager) == "called"


def test_make_extension_by_default() -> None:
    @make_extension()
    def function(manager: Manager) -> None: ...

    assert (function.trigger, function.default_name, function.priority) == ((1, "iteration"), "function", 100)


def test_a_callable_object_brings_its_own_settings_and_state(managed: Any) -> None:
    class Thing:
        trigger = (2, "iteration")
        priority = 7
        default_name = "thing"

        def __init__(self) -> None:
            self.count = 0

        def __call__(self, manager: Manager) -> None:
            self.count += 1

        def state_dict(self) -> dict[str, int]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    manager = managed(Thing())
    iterate(manager, 4)
    state = manager.state_dict()
    assert state["extensions"]["thing"]["extension"] == {"count": 2}
    manager.close()
    thing = Thing()
    managed(thing).load_state_dict(state)
    assert thing.count == 2


def test_what_never_runs_is_not_initialized(managed: Any) -> None:
    calls: list[str] = []
    state = {"is_due": False}
    trigger = pte.triggers.OnceTrigger()
    trigger.load_state_dict(state)
    manager = managed()
    manager.extend(Recorder("a", calls), trigger=trigger)
    iterate(manager)
    assert calls == []


# -- the ends ----------------------------------------------------------------------------------------------------------


def test_the_end_finalizes_once_in_order_and_nothing_runs_after_it(managed: Any, tmp_path: Path) -> None:
    calls: list[str] = []
    manager = managed(Recorder("a", calls), Recorder("b", calls), epochs=0.25)
    iterate(manager)
    assert calls == ["a.initialize", "b.initialize", "a.call", "b.call", "a.finalize", "b.finalize"]
    with pytest.raises(RuntimeError, match="over since iteration 1"):
        iterate(manager)
    manager.close()
    assert len(calls) == 6
    assert statuses(tmp_path) == [("FINISHED", None)]


@pytest.mark.parametrize("where", ["body", "extension", "trigger", "stop trigger"])
def test_an_error_is_told_to_all_and_fails_the_run(managed: Any, tmp_path: Path, where: str) -> None:
    calls: list[str] = []
    manager = managed(
        *(Recorder("a", calls), Recorder("b", calls)),
        stop_trigger=lambda manager: fail() if where == "stop trigger" else False,
    )
    manager.extend(lambda manager: fail() if where == "extension" else None)
    manager.extend(lambda manager: None, trigger=lambda manager: fail() if where == "trigger" else False)
    with pytest.raises(ZeroDivisionError), manager.run_iteration():
        1 / (where != "body")
    assert calls[-4:] == ["a.on_error", "b.on_error", "a.finalize", "b.finalize"]
    assert [status for status, _ in statuses(tmp_path)] == ["FAILED"]
    assert str(statuses(tmp_path)[0][1]).startswith("ZeroDivisionError: ")


def test_an_error_in_initialize_is_told_to_all(managed: Any, tmp_path: Path) -> None:
    calls: list[str] = []
    manager = managed(Recorder("a", calls, fails_in="initialize"), Recorder("b", calls))
    with pytest.raises(RuntimeError, match="a failed in initialize"):
        iterate(manager)
    assert calls == ["a.initialize", "a.on_error", "b.on_error", "a.finalize", "b.finalize"]
    assert statuses(tmp_path) == [("FAILED", "RuntimeError: a failed in initialize")]


def test_the_first_error_is_the_one_that_is_seen(
    managed: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    manager = managed(
        Recorder("a", calls, fails_in="on_error"), Recorder("b", calls, fails_in="finalize"), Recorder("c", calls)
    )
    with caplog.at_level(logging.ERROR, "pte_tracking"), pytest.raises(ZeroDivisionError), manager.run_iteration():
        fail()
    assert calls[-6:] == ["a.on_error", "b.on_error", "c.on_error", "a.finalize", "b.finalize", "c.finalize"]
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "the extension 'Recorder' raised in on_error",
        "the extension 'Recorder_1' raised in finalize",
    ]
    assert statuses(tmp_path) == [("FAILED", "ZeroDivisionError: no way")]


def test_an_error_in_finalize_is_seen_when_it_is_the_first(managed: Any, tmp_path: Path) -> None:
    calls: list[str] = []
    manager = managed(Recorder("a", calls, fails_in="finalize"), Recorder("b", calls, fails_in="finalize"))
    iterate(manager)
    with pytest.raises(RuntimeError, match="a failed in finalize"):
        manager.close()
    assert calls[-2:] == ["a.finalize", "b.finalize"]
    assert statuses(tmp_path) == [("FAILED", "RuntimeError: a failed in finalize")]


def test_an_error_outside_of_the_iterations_fails_the_run_of_a_with_block(managed: Any, tmp_path: Path) -> None:
    calls: list[str] = []
    manager = managed(Recorder("a", calls))
    iterate(manager)
    with pytest.raises(ZeroDivisionError), manager:
        fail()
    assert calls == ["a.initialize", "a.call", "a.on_error", "a.finalize"]
    assert statuses(tmp_path) == [("FAILED", "ZeroDivisionError: no way")]


def test_a_with_block_ends_the_run(managed: Any, tmp_path: Path) -> None:
    with managed() as manager:
        iterate(manager)
    assert statuses(tmp_path) == [("FINISHED", None)]


def test_control_c_finalizes_without_on_error(managed: Any, tmp_path: Path) -> None:
    calls: list[str] = []
    manager = managed(Recorder("a", calls))
    with pytest.raises(KeyboardInterrupt), manager.run_iteration():
        raise KeyboardInterrupt
    assert calls == ["a.initialize", "a.finalize"]
    assert [status for status, _ in statuses(tmp_path)] == ["KILLED"]


def test_an_extension_may_end_the_training(managed: Any, tmp_path: Path) -> None:
    def leave(manager: Any) -> None:
        manager.close("KILLED")
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        iterate(managed(leave))
    assert statuses(tmp_path) == [("KILLED", None)]


def test_a_training_that_is_closed_within_an_iteration_does_not_go_on(managed: Any) -> None:
    calls: list[str] = []
    manager = managed(Recorder("a", calls))
    with manager.run_iteration():
        manager.close()
    assert calls == ["a.initialize", "a.finalize"]


def test_extensions_end_with_the_run(managed: Any) -> None:
    calls: list[str] = []
    manager = managed(Recorder("a", calls))
    iterate(manager)
    manager.run.close()
    assert calls == ["a.initialize", "a.call", "a.finalize"]
    assert manager.is_ended


@pytest.mark.slow
def test_extensions_end_with_the_interpreter(tmp_path: Path) -> None:
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
    assert statuses(tmp_path) == [("FINISHED", None)]


def test_reports_after_a_failed_iteration_go_nowhere(managed: Any) -> None:
    manager = managed()
    with pytest.raises(ZeroDivisionError), manager.run_iteration():
        fail()
    pte.report({"x": 1})
    assert manager.reporter.observation == {}


def test_a_manager_that_was_never_used_leaves_nothing(managed: Any, tmp_path: Path) -> None:
    with managed(Recorder("a", calls := [])):
        pass
    assert calls == []
    assert list(tmp_path.iterdir()) == []


def test_the_end_is_bounded_in_a_loop_without_check(managed: Any) -> None:
    manager = managed(epochs=1)
    with pytest.raises(RuntimeError, match="stop_trigger"):
        iterate(manager, 5)
    assert manager.iteration == 4


# -- the state ---------------------------------------------------------------------------------------------------------


def test_the_state_names_its_parts(managed: Any) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    manager = managed(Recorder("a", []), models=model, optimizers=optimizer, state_objects={"scheduler": scheduler})
    iterate(manager)
    state = manager.state_dict()
    assert state["models"]["main"].keys() == model.state_dict().keys()
    assert state["optimizers"] == {"main": optimizer.state_dict()}
    assert state["state_objects"] == {"scheduler": scheduler.state_dict()}
    assert state["extensions"] == {"Recorder": {"extension": {}, "trigger": {}}}
    assert state["manager"]["iteration"] == 1


def test_a_state_is_restored(managed: Any) -> None:
    first = nn.Linear(1, 1)
    manager = managed(models=first)
    iterate(manager, 3)
    state = manager.state_dict()
    manager.close()
    second = nn.Linear(1, 1)
    manager = managed(models=second)
    manager.load_state_dict(state)
    assert manager.iteration == 3
    assert second.weight.equal(first.weight)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_loop_that_is_run_again_after_an_interrupt_is_told_how_to_go_on(
    managed: Any, error: type[BaseException]
) -> None:
    """As the cell of a notebook is; the training is not over, so the stop trigger says nothing."""
    manager = managed()
    iterate(manager)
    with pytest.raises(error), manager.run_iteration():
        raise error
    with pytest.raises(RuntimeError, match=r"ended after iteration 1, before.*another manager.*resume\(\)"):
        iterate(manager)


class Counter(Extension):
    """Has a state."""

    def __call__(self, manager: Manager) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"count": 0}


def test_a_state_of_another_training_is_told_name_by_name_and_changes_nothing(managed: Any) -> None:
    model = nn.Linear(1, 1)
    manager = managed(Counter(), models={"old": nn.Linear(1, 1), "main": nn.Linear(1, 1)})
    iterate(manager)
    state = manager.state_dict()
    manager.close()
    before = model.weight.clone()
    manager = managed(models=model, optimizers={"sgd": torch.optim.SGD(model.parameters())})
    manager.extend(Counter(), name="new")
    with pytest.raises(ValueError, match="another training") as caught:
        manager.load_state_dict(state)
    assert str(caught.value).endswith(
        "models: unexpected 'old'; optimizers: missing 'sgd'; "
        "extensions: missing 'new'; extensions: unexpected 'Counter'"
    )
    assert model.weight.equal(before)


def test_a_state_of_something_else_is_told(managed: Any) -> None:
    with pytest.raises(ValueError, match="'models' is missing"):
        managed().load_state_dict({"weight": 1})
    with pytest.raises(TypeError, match="dictionary"):
        managed().load_state_dict("snapshot.pt")


def test_a_state_comes_before_the_first_iteration(managed: Any) -> None:
    manager = managed()
    iterate(manager)
    with pytest.raises(RuntimeError, match="begun"):
        manager.load_state_dict(manager.state_dict())


@pytest.mark.parametrize(("epochs", "is_over"), [(1, True), (2, True), (3, False)])
def test_after_a_resume_the_length_given_now_counts(managed: Any, epochs: int, is_over: bool) -> None:
    manager = managed(epochs=2)
    while not manager.stop_trigger:
        iterate(manager)
    state = manager.state_dict()
    manager = managed(epochs=epochs)
    manager.load_state_dict(state)
    assert manager.stop_trigger is is_over


def test_a_restored_training_that_was_over_does_no_more(managed: Any, tmp_path: Path) -> None:
    manager = managed(epochs=1)
    iterate(manager, 4)
    again = managed(epochs=1)
    again.load_state_dict(manager.state_dict())
    with pytest.raises(RuntimeError, match="over since iteration 4"):
        iterate(again)
    assert (again.iteration, statuses(tmp_path)) == (4, [("FINISHED", None)] * 2)


def test_a_length_that_was_passed_by_is_over(managed: Any) -> None:
    manager = managed(epochs=1)
    with manager.run_iteration(iteration=2):
        pass
    assert not manager.stop_trigger
    with manager.run_iteration(iteration=9):
        pass
    assert manager.stop_trigger


def test_the_stop_trigger_is_asked_once_an_iteration(managed: Any) -> None:
    asked: list[int] = []
    manager = managed(stop_trigger=lambda manager: asked.append(manager.iteration) or len(asked) == 3)
    while not manager.stop_trigger:
        iterate(manager)
        assert not manager.stop_trigger or len(asked) == 3
    assert asked == [1, 2, 3]


def test_the_decision_of_another_stop_trigger_is_kept(managed: Any) -> None:
    manager = managed(stop_trigger=lambda manager: True)
    iterate(manager)
    state = manager.state_dict()
    manager = managed(stop_trigger=lambda manager: False)
    manager.load_state_dict(state)
    assert manager.stop_trigger


def test_the_seeds_loop_goes_on_where_it_was(managed: Any) -> None:
    manager = managed(iters_per_epoch=None, epochs=2)
    with manager.run_iteration(epoch=0, iteration=0, epoch_size=4):
        pass
    state = manager.state_dict()
    manager.close()
    manager = managed(iters_per_epoch=None, epochs=2)
    manager.load_state_dict(state)
    assert not manager.stop_trigger
    with pytest.raises(ValueError, match=r"iteration: 0 lies behind, 1 are done; .*manager\.iteration"):
        manager.run_iteration(epoch=0, iteration=0, epoch_size=4)


# -- bad input ---------------------------------------------------------------------------------------------------------


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
def test_bad_arguments_are_told_at_construction(
    managed: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        managed(**options)


@pytest.mark.parametrize(
    ("extension", "message"), [(5, "expected an Extension.*5"), (Recorder, r"class Recorder; write Recorder\(\)")]
)
def test_what_is_no_extension_is_told(managed: Any, extension: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        managed(extension)


def test_extensions_come_before_the_first_iteration(managed: Any) -> None:
    manager = managed()
    iterate(manager)
    with pytest.raises(RuntimeError, match="begun"):
        manager.extend(lambda manager: None)


def test_iterations_do_not_nest(managed: Any) -> None:
    manager = managed()
    with pytest.raises(RuntimeError, match="an iteration is running"), manager.run_iteration():
        iterate(manager)


def test_contradictory_counts_are_told(managed: Any) -> None:
    manager = managed(iters_per_epoch=4)
    with pytest.raises(ValueError, match=r"epoch_size.*4.*got 5"):
        manager.run_iteration(epoch_size=5)
    with pytest.raises(ValueError, match="is in epoch 0, not 1"):
        manager.run_iteration(epoch=1, iteration=1)


def test_sinks_that_would_get_nothing_are_told_once(managed: Any) -> None:
    manager = managed(sinks=["json"])
    with pytest.warns(UserWarning, match=r"add extensions\.LogReport\(\)") as caught:
        iterate(manager, 2)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_sinks_with_a_log_report_are_well(managed: Any) -> None:
    iterate(managed(pte.extensions.LogReport(), sinks=["json"]))


def test_the_sinks_of_default_are_well_without_a_log_report(managed: Any) -> None:
    iterate(managed(sinks=None))


def test_an_extension_without_a_call_is_told(managed: Any) -> None:
    class Idle(Extension):
        pass

    with pytest.raises(NotImplementedError, match="Idle"):
        iterate(managed(Idle()))

"""Extensions in an Ignite engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, State, create_supervised_trainer
from ignite.metrics import RunningAverage
from torch import Tensor, nn
from torch.nn import functional as F

import pte_tracking as pte
from pte_tracking._store.events import RunEnded
from pte_tracking._store.journal_reader import read_effective

LOADER = [1.0, 2.0, 3.0]


class Recorder(pte.Extension):
    """Record the calls."""

    def __init__(self) -> None:
        self.iterations: list[int] = []
        self.observations: list[Any] = []
        self.calls: list[str] = []

    def initialize(self, manager: Any) -> None:
        self.calls.append("initialize")

    def __call__(self, manager: Any) -> None:
        self.iterations.append(manager.iteration)
        self.observations.append(manager.observation)

    def on_error(self, manager: Any, exc: Exception, tb: Any) -> None:
        self.calls.append(f"on_error {type(exc).__name__}")

    def finalize(self, manager: Any) -> None:
        self.calls.append("finalize")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def make_manager(tmp_path: Path, recorder: Recorder) -> Any:
    def make(engine: Engine, epochs: float = 2, **options: Any) -> pte.IgniteExtensionsManager:
        options = {"out_dir": tmp_path, "sinks": [], **options}
        return pte.IgniteExtensionsManager(engine, {}, epochs, [recorder], **options)

    return make


def make_doubling_engine() -> Engine:
    return Engine(lambda engine, batch: batch * 2)


def read_end_statuses(directory: Path) -> list[str]:
    events = [event for event, _ in read_effective(directory / "journal.jsonl")]
    return [event.status for event in events if isinstance(event, RunEnded)]


def test_ignite_training_collects_reported_loss_each_iteration(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = create_supervised_trainer(model, optimizer, F.mse_loss)
    seen: list[Any] = []
    pte.IgniteExtensionsManager(
        trainer,
        {"main": model},
        2,
        [lambda m: seen.append(m.observation)],
        optimizers={"main": optimizer},
        out_dir=tmp_path,
    )

    @trainer.on(Events.ITERATION_COMPLETED)
    def report_loss(engine: Engine) -> None:
        pte.reporter.report({"train/loss": engine.state.output})

    x = torch.linspace(0, 1, 8)[:, None]
    trainer.run([(x, x)] * 3, max_epochs=2)
    assert len(seen) == 6
    assert seen[-1]["train/loss"] < seen[0]["train/loss"]


def test_extension_receives_manager_with_engine_and_progress(make_manager: Any) -> None:
    engine, received = make_doubling_engine(), list[Any]()
    manager = make_manager(engine)
    manager.extend(lambda manager: received.append((manager.engine, manager.iteration, manager.epoch_detail)))
    engine.run(LOADER, max_epochs=2)
    assert received[-1] == (engine, 6, 2.0)
    assert manager.stop_trigger


def test_extensions_run_after_user_handlers_attached_at_any_time(make_manager: Any) -> None:
    engine, order = make_doubling_engine(), list[str]()

    def note(label: str) -> Callable[[], None]:
        return lambda: order.append(label)

    engine.add_event_handler(Events.ITERATION_COMPLETED, note("before"))
    make_manager(engine).extend(lambda manager: order.append("extension"))
    engine.add_event_handler(Events.ITERATION_COMPLETED, note("after"))
    for event in (Events.STARTED, Events.EPOCH_STARTED(once=1)):
        engine.add_event_handler(
            event, lambda: engine.add_event_handler(Events.ITERATION_COMPLETED, note("while it runs"))
        )
    engine.run([1.0], max_epochs=2)
    assert order == ["before", "after", "while it runs", "while it runs", "extension"] * 2


def test_handlers_attached_after_manager_see_iteration_as_completed(make_manager: Any) -> None:
    engine = make_doubling_engine()
    manager = make_manager(engine, epochs=1)
    seen: list[int] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED(every=2), lambda: seen.append(manager.iteration))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.append(manager.iteration))
    engine.run([1, 2, 3, 4], max_epochs=1)
    assert seen == [2, 4, 4]


def test_report_in_engine_step_appears_in_observation(make_manager: Any, recorder: Recorder) -> None:
    def step(engine: Engine, batch: float) -> None:
        pte.report({"batch": batch})

    engine = Engine(step)
    make_manager(engine, 1)
    engine.run(LOADER)
    assert recorder.observations == [{"batch": 1.0}, {"batch": 2.0}, {"batch": 3.0}]
    pte.report({"x": 1})  # after the end, without effect
    assert recorder.observations[-1] == {"batch": 3.0}


def test_run_closes_after_user_completion_handlers(make_manager: Any, recorder: Recorder, tmp_path: Path) -> None:
    engine = make_doubling_engine()
    manager = make_manager(engine)
    open_flags: list[bool] = []
    for event in (Events.EPOCH_COMPLETED, Events.COMPLETED):
        engine.add_event_handler(event, lambda: open_flags.append(manager.run.is_open))
    engine.run(LOADER, max_epochs=2)
    assert open_flags == [True] * 3
    assert recorder.calls == ["initialize", "finalize"]
    assert read_end_statuses(tmp_path) == ["FINISHED"]


# -- run() again -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", [{"max_epochs": 4}, {"max_epochs": 2}])
def test_second_engine_run_continues_iteration_count(
    make_manager: Any, recorder: Recorder, second: dict[str, int]
) -> None:
    engine = make_doubling_engine()
    manager = make_manager(engine, 4)
    engine.run(LOADER, max_epochs=2)
    assert not manager.is_ended
    engine.run(LOADER, **second)
    assert recorder.iterations == list(range(1, 13))
    assert recorder.calls == ["initialize", "finalize"]
    assert manager.is_ended


def test_third_engine_run_continues_iteration_count(make_manager: Any, recorder: Recorder) -> None:
    engine = make_doubling_engine()
    make_manager(engine, 4)
    engine.run(LOADER, max_epochs=1)
    engine.run(LOADER, max_epochs=1)
    engine.run(LOADER, max_epochs=2)
    assert recorder.iterations == list(range(1, 10))


def test_engine_run_after_end_raises_runtime_error(make_manager: Any) -> None:
    engine = make_doubling_engine()
    make_manager(engine, 1)
    engine.run(LOADER)
    with pytest.raises(RuntimeError, match="ended at iteration 3"):
        engine.run(LOADER)


def test_engine_run_after_interrupt_continues_iteration_count(make_manager: Any, recorder: Recorder) -> None:
    engine = make_doubling_engine()
    make_manager(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.interrupt)
    engine.run(LOADER, max_epochs=2)
    assert recorder.iterations == [1, 2]
    engine.run(LOADER, max_epochs=2)
    assert recorder.iterations == [1, 2, 3, 4, 5, 6]


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure_site", ["step", "user handler", "extension"])
def test_exception_in_engine_calls_on_error_and_fails_run(
    make_manager: Any, recorder: Recorder, tmp_path: Path, failure_site: str
) -> None:
    def fail_at(place: str) -> None:
        if place == failure_site:
            raise ZeroDivisionError

    engine = Engine(lambda engine, batch: fail_at("step"))
    make_manager(engine).extend(lambda manager: fail_at("extension"))
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: fail_at("user handler"))
    with pytest.raises(ZeroDivisionError):
        engine.run(LOADER, max_epochs=2)
    assert recorder.calls == ["initialize", "on_error ZeroDivisionError", "finalize"]
    assert read_end_statuses(tmp_path) == ["FAILED"]
    pte.report({"x": 1})
    assert len(recorder.observations) <= 1


def fail_in_second(engine: Engine, batch: float) -> None:
    if engine.state.iteration == 2:
        raise ZeroDivisionError


def test_exception_handled_by_user_does_not_fail_run(make_manager: Any, recorder: Recorder) -> None:
    engine, handled = Engine(fail_in_second), list[Exception]()
    make_manager(engine)
    engine.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: handled.append(error))
    engine.run(LOADER, max_epochs=2)
    assert [type(error) for error in handled] == [ZeroDivisionError]
    assert recorder.calls == ["initialize"]
    assert recorder.iterations == [1, 3, 4, 5]  # Ignite continues with the next epoch


def test_exception_reraised_by_user_handler_calls_on_error(make_manager: Any, recorder: Recorder) -> None:
    def handle(engine: Engine, error: Exception) -> None:
        raise error

    engine = Engine(fail_in_second)
    make_manager(engine)
    engine.add_event_handler(Events.EXCEPTION_RAISED, handle)
    with pytest.raises(ZeroDivisionError):
        engine.run(LOADER, max_epochs=2)
    assert recorder.calls == ["initialize", "on_error ZeroDivisionError", "finalize"]


# -- stops -------------------------------------------------------------------------------------------------------------


def test_engine_terminate_keeps_run_open_until_close(make_manager: Any, recorder: Recorder, tmp_path: Path) -> None:
    engine = make_doubling_engine()
    manager = make_manager(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.terminate)
    engine.run(LOADER, max_epochs=2)
    assert recorder.iterations == [1, 2]
    assert not manager.is_ended
    manager.close()
    assert recorder.calls == ["initialize", "finalize"]
    assert read_end_statuses(tmp_path) == ["FINISHED"]


def test_engine_run_after_terminate_follows_engine_iteration_count(make_manager: Any, recorder: Recorder) -> None:
    engine = make_doubling_engine()
    make_manager(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.terminate)
    engine.run(LOADER, max_epochs=2)
    engine.run(LOADER, max_epochs=2)
    assert recorder.iterations == [1, 2, 3, 4, 5]  # Ignite runs the rest as one epoch of three iterations
    assert engine.state.iteration == 5


def test_engine_terminate_before_iteration_leaves_no_active_scope(make_manager: Any, recorder: Recorder) -> None:
    engine = make_doubling_engine()
    make_manager(engine).engine.add_event_handler(Events.ITERATION_STARTED(once=2), engine.terminate)
    engine.run(LOADER, max_epochs=2)
    pte.report({"x": 1})
    assert recorder.observations == [{}]
    engine.run(LOADER, max_epochs=2)
    assert recorder.iterations[0:2] == [1, 3]  # the engine counts the second iteration that it skipped


@pytest.mark.parametrize(("stop", "iterations", "epochs"), [((2, "iteration"), 2, 0), ((1, "epoch"), 3, 1)])
def test_stop_trigger_terminates_engine_and_ends_manager(
    make_manager: Any, recorder: Recorder, stop: Any, iterations: int, epochs: int
) -> None:
    engine, completed = make_doubling_engine(), list[int]()
    manager = make_manager(engine, 5, stop_trigger=stop)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: completed.append(engine.state.epoch))
    engine.run(LOADER, max_epochs=5)
    assert recorder.iterations[-1] == engine.state.iteration == iterations
    assert len(completed) == epochs
    assert manager.is_ended


def test_normal_end_does_not_fire_terminate_event(make_manager: Any) -> None:
    engine, terminated = make_doubling_engine(), list[int]()
    make_manager(engine)
    engine.add_event_handler(Events.TERMINATE, lambda: terminated.append(1))
    engine.run(LOADER, max_epochs=2)
    assert terminated == []


# -- epochs and resuming -----------------------------------------------------------------------------------------------


def test_epoch_length_follows_engine_run_argument(make_manager: Any, recorder: Recorder) -> None:
    engine, batches = Engine(lambda engine, batch: batches.append(batch)), list[float]()
    manager = make_manager(engine)
    engine.run(LOADER, max_epochs=2, epoch_length=4)
    assert (manager.iteration, manager.epoch) == (8, 2)
    assert batches == [1, 2, 3, 1, 2, 3, 1, 2]


def test_engine_without_data_counts_iterations_and_epochs(make_manager: Any) -> None:
    engine = Engine(lambda engine, batch: None)
    manager = make_manager(engine)
    engine.run(max_epochs=2, epoch_length=4)
    assert (manager.iteration, manager.epoch) == (8, 2)


def test_data_without_length_uses_iters_per_epoch(make_manager: Any) -> None:
    engine = make_doubling_engine()
    manager = make_manager(engine, iters_per_epoch=3)
    engine.run((value for value in LOADER), max_epochs=1)
    assert (manager.iteration, manager.epoch) == (3, 1)


@pytest.mark.skipif("max_iters" not in inspect.signature(Engine.run).parameters, reason="Requires Ignite 0.5.5.")
def test_engine_max_iters_with_iteration_stop_trigger_ends_manager(make_manager: Any) -> None:
    engine = make_doubling_engine()
    manager = make_manager(engine, 3, stop_trigger=(5, "iteration"))
    engine.run(LOADER, max_iters=5)
    assert manager.iteration == 5
    assert manager.is_ended


def test_manager_load_state_dict_restores_engine_position(make_manager: Any, recorder: Recorder) -> None:
    engine = make_doubling_engine()
    manager = make_manager(engine)
    engine.run(LOADER, max_epochs=1)
    state = manager.state_dict()
    manager.close()
    recorder.iterations.clear()
    engine = make_doubling_engine()
    manager = make_manager(engine)
    manager.load_state_dict(state)
    final = engine.run(LOADER, max_epochs=2)
    assert recorder.iterations == [4, 5, 6]
    assert (final.iteration, final.epoch) == (6, 2)


def test_state_objects_ignite_metric_is_saved_and_restored(make_manager: Any) -> None:
    """Metrics of Ignite return a function for each attribute name, also for ``param_groups``."""

    def make() -> tuple[Engine, RunningAverage, pte.IgniteExtensionsManager]:
        engine = make_doubling_engine()
        average = RunningAverage(output_transform=lambda output: output)
        average.attach(engine, "average")
        return engine, average, make_manager(engine, state_objects={"average": average})

    engine, average, manager = make()
    engine.run(LOADER, max_epochs=1)
    state, expected = manager.state_dict(), average.state_dict()
    manager.close()
    _, average, manager = make()
    assert average.state_dict() != expected
    manager.load_state_dict(state)
    assert average.state_dict() == expected


def test_engine_load_state_dict_sets_manager_iteration(make_manager: Any, recorder: Recorder) -> None:
    engine = make_doubling_engine()
    make_manager(engine)
    engine.load_state_dict({"iteration": 4, "max_epochs": 2, "epoch_length": 3})
    engine.run(LOADER)
    assert recorder.iterations == [5, 6]


def test_loading_manager_and_engine_states_resumes_at_same_iteration(make_manager: Any, recorder: Recorder) -> None:
    engine = make_doubling_engine()
    manager = make_manager(engine)
    engine.run(LOADER, max_epochs=1)
    states = manager.state_dict(), engine.state_dict()
    manager.close()
    recorder.iterations.clear()
    engine = make_doubling_engine()
    manager = make_manager(engine)
    manager.load_state_dict(states[0])
    engine.load_state_dict(states[1])
    engine.run(LOADER, max_epochs=2)
    assert recorder.iterations == [4, 5, 6]


def test_resume_finished_training_runs_no_iterations(make_manager: Any, recorder: Recorder) -> None:
    engine = make_doubling_engine()
    manager = make_manager(engine)
    engine.run(LOADER, max_epochs=2)
    recorder.iterations.clear()
    engine = make_doubling_engine()
    resumed_manager = make_manager(engine)
    resumed_manager.load_state_dict(manager.state_dict())
    result = engine.run(LOADER, max_epochs=2)
    assert isinstance(result, State)
    assert recorder.iterations == []
    assert resumed_manager.is_ended


def test_ignite_manager_non_engine_raises_type_error(make_manager: Any) -> None:
    with pytest.raises(TypeError, match=r"engine: expected an ignite\.engine\.Engine, got 5"):
        make_manager(5)


def test_ignite_manager_does_not_change_trained_weights(tmp_path: Path) -> None:
    def train(manage: bool) -> Tensor:
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        engine = create_supervised_trainer(model, optimizer, F.mse_loss)
        if manage:
            pte.IgniteExtensionsManager(engine, model, 2, optimizers=optimizer, out_dir=tmp_path, sinks=[])
        engine.run([(torch.rand(4, 2), torch.rand(4, 1)) for _ in range(4)], max_epochs=2)
        return model.weight

    assert train(True).equal(train(False))


def test_handler_attached_within_an_epoch_reports_to_that_epoch(make_manager: Any, recorder: Recorder) -> None:
    engine = make_doubling_engine()
    make_manager(engine)

    @engine.on(Events.ITERATION_COMPLETED(once=2))
    def attach(engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: pte.report({"epoch": engine.state.epoch}))

    engine.run(range(3), max_epochs=2)
    reported = [observation.get("epoch") for observation in recorder.observations]
    assert reported == [None, None, 1, None, None, 2]

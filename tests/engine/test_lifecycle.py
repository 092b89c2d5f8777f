"""Phases of a manager: which calls each phase allows, and the message of each refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_tracking._engine.phase import TRANSITIONS, Phase

Operation = Callable[[pte.ExtensionsManager], object]


def enter_iteration(manager: pte.ExtensionsManager) -> None:
    with manager.run_iteration():
        pass


def close_after_iteration(manager: pte.ExtensionsManager) -> None:
    enter_iteration(manager)
    manager.close()


def iterate_to_end(manager: pte.ExtensionsManager) -> None:
    enter_iteration(manager)
    enter_iteration(manager)


def iterate_until_stopped(manager: pte.ExtensionsManager) -> None:
    iterate_to_end(manager)
    assert manager.stop_trigger


#: Calls that bring a new manager into a phase. The training stops after two iterations.
PHASES: dict[str, Callable[[pte.ExtensionsManager, ExitStack], object]] = {
    "new": lambda manager, stack: None,
    "open": lambda manager, stack: manager.resume(),
    "running": lambda manager, stack: enter_iteration(manager),
    "in iteration": lambda manager, stack: stack.enter_context(manager.run_iteration()),
    "closed": lambda manager, stack: close_after_iteration(manager),
    "over": lambda manager, stack: iterate_to_end(manager),
    "stopped": lambda manager, stack: iterate_until_stopped(manager),
    "closed unused": lambda manager, stack: manager.close(),
}

OPERATIONS: dict[str, Operation] = {
    "extend": lambda manager: manager.extend(lambda manager: None),
    "resume": lambda manager: manager.resume(),
    "load_state_dict": lambda manager: manager.load_state_dict(manager.state_dict()),
    "start": lambda manager: manager.start(),
    "run_iteration": enter_iteration,
    "close": lambda manager: manager.close(),
}

EXTEND = r"extend\(\): the training has already started or ended\. Add all extensions before the first iteration"
RESUME = r"resume\(\): the training has already started or ended\. Restore its state before the first iteration"
LOAD = r"load_state_dict\(\): the training has already started or ended\. Restore its state before the first iteration"
NESTED = r"run_iteration\(\): an iteration is in progress\. End its 'with' block first"
CLOSED = r"The run ended after iteration 1, before the training was complete\. .* call its resume\(\)"
UNUSED = r"The run ended after iteration 0, before the training was complete\. .* call its resume\(\)"
STOPPED = r"Training already stopped at iteration 2\. Check manager\.stop_trigger"

#: The refused calls. Every pair of a phase and an operation that is not in this table is allowed.
REFUSED: dict[tuple[str, str], str] = {
    (
        "open",
        "resume",
    ): r"resume\(\): an earlier call found no snapshot, and started the run at iteration 0\. Call it once",
    ("running", "extend"): EXTEND,
    ("running", "resume"): RESUME,
    ("running", "load_state_dict"): LOAD,
    ("in iteration", "extend"): EXTEND,
    ("in iteration", "resume"): RESUME,
    ("in iteration", "load_state_dict"): LOAD,
    ("in iteration", "run_iteration"): NESTED,
    ("over", "extend"): EXTEND,
    ("over", "resume"): RESUME,
    ("over", "load_state_dict"): LOAD,
    ("over", "run_iteration"): STOPPED,
    ("closed", "extend"): EXTEND,
    ("closed", "resume"): RESUME,
    ("closed", "load_state_dict"): LOAD,
    ("closed", "run_iteration"): CLOSED,
    ("stopped", "extend"): EXTEND,
    ("stopped", "resume"): RESUME,
    ("stopped", "load_state_dict"): LOAD,
    ("stopped", "run_iteration"): STOPPED,
    ("closed unused", "extend"): EXTEND,
    ("closed unused", "resume"): RESUME,
    ("closed unused", "load_state_dict"): LOAD,
    ("closed unused", "run_iteration"): UNUSED,
}


@pytest.fixture
def manager(tmp_path: Path) -> pte.ExtensionsManager:
    return pte.ExtensionsManager({}, 1, iters_per_epoch=2, out_dir=tmp_path, sinks=[])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("phase", PHASES)
def test_operation_is_allowed_or_refused_by_phase(
    manager: pte.ExtensionsManager, stack: ExitStack, phase: str, operation: str
) -> None:
    PHASES[phase](manager, stack)
    message = REFUSED.get((phase, operation))
    if message is None:
        OPERATIONS[operation](manager)
    else:
        with pytest.raises(RuntimeError, match=message):
            OPERATIONS[operation](manager)


@pytest.mark.parametrize("phase", PHASES)
def test_is_ended_is_true_in_final_phases_only(manager: pte.ExtensionsManager, stack: ExitStack, phase: str) -> None:
    PHASES[phase](manager, stack)
    assert manager.is_ended is (phase in ("closed", "over", "stopped", "closed unused"))


def test_trainer_run_after_end_raises_runtime_error(tmp_path: Path) -> None:
    class Updater:
        def __init__(self) -> None:
            self.models: Any = {}
            self.optimizers: Any = {}
            self.state_objects: Any = {}
            self.iters_per_epoch = 1

        def connect(self, loaders: Any, progress: Any) -> None: ...

        def update(self) -> None: ...

    trainer = pte.Trainer(Updater(), (1, "epoch"), tmp_path, sinks=[])
    trainer.run()
    with pytest.raises(RuntimeError, match=r"run\(\): the training has already ended\. .* create another Trainer"):
        trainer.run()


PHASE_OF = {
    "new": Phase.NEW,
    "open": Phase.OPEN,
    "running": Phase.RUNNING,
    "in iteration": Phase.IN_ITERATION,
    "closed": Phase.ENDED,
    "over": Phase.RUNNING,
    "stopped": Phase.ENDED,
    "closed unused": Phase.ENDED,
}


@pytest.mark.parametrize("phase", PHASES)
def test_lifecycle_phase_follows_calls(manager: pte.ExtensionsManager, stack: ExitStack, phase: str) -> None:
    PHASES[phase](manager, stack)
    assert manager._lifecycle.phase is PHASE_OF[phase]


ALLOWED = [
    (Phase.NEW, Phase.OPEN),
    (Phase.NEW, Phase.ENDED),
    (Phase.OPEN, Phase.OPEN),  # resume() after resume()
    (Phase.OPEN, Phase.RUNNING),
    (Phase.OPEN, Phase.ENDED),
    (Phase.RUNNING, Phase.IN_ITERATION),
    (Phase.RUNNING, Phase.ENDED),
    (Phase.IN_ITERATION, Phase.RUNNING),
    (Phase.IN_ITERATION, Phase.ENDED),
]


@pytest.mark.parametrize("following", Phase)
@pytest.mark.parametrize("phase", Phase)
def test_transitions_contain_allowed_pairs_only(phase: Phase, following: Phase) -> None:
    assert (following in TRANSITIONS[phase]) is ((phase, following) in ALLOWED)


def test_phase_remains_ended_in_block_that_closed_manager(manager: pte.ExtensionsManager) -> None:
    with manager.run_iteration():
        manager.close()
        pte.report({"x": 1})
    assert manager._lifecycle.phase is Phase.ENDED
    pte.report({"y": 1})
    assert manager.observation == {"x": 1}


def test_phase_is_ended_if_initialize_closes_manager(manager: pte.ExtensionsManager) -> None:
    class Closing(pte.Extension):
        def initialize(self, manager: Any) -> None:
            manager.close()

    manager.extend(Closing())
    with manager.run_iteration():
        assert manager.is_ended
    assert manager.iteration == 0

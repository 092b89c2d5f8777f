"""Snapshots of objects that fail to return their states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from tests.snapshots.weight_training import EVERY, list_files, make_manager, run


class Failing:
    """Object that fails to return its state if requested."""

    is_failing = False

    def state_dict(self) -> dict[str, Any]:
        if self.is_failing:
            raise KeyError(1406)
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class FailingModule(Failing, nn.Linear):  # type: ignore[misc]
    """Model that fails."""

    def __init__(self) -> None:
        nn.Linear.__init__(self, 1, 1)


class FailingExtension(Failing, pte.Extension):
    """Extension that fails."""

    def __call__(self, manager: pte.Manager) -> None:
        pass


class FailingTrigger(Failing, pte.Trigger):
    """Trigger that fails."""

    def __call__(self, manager: pte.Manager) -> bool:
        return False


@pytest.mark.parametrize(
    ("failing", "expected"),
    [
        (Failing(), "the state object 'average': state_dict() of Failing failed with KeyError: 1406. Correct the"),
        (FailingModule(), "the state object 'average': state_dict() of FailingModule failed with KeyError: 1406."),
        (FailingExtension(), "the extension 'FailingExtension': state_dict() of FailingExtension failed with KeyError"),
        (FailingTrigger(), "the trigger of 'Sleeping': state_dict() of FailingTrigger failed with KeyError: 1406."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_snapshot_of_object_that_fails_to_return_its_state_names_the_object(
    failing: Any, expected: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = [failing] if isinstance(failing, pte.Extension) else []
    objects = {} if isinstance(failing, pte.Extension | pte.Trigger) else {"average": failing}
    manager = make_manager(tmp_path, *own, extensions.snapshot(trigger=EVERY), state_objects=objects)
    if isinstance(failing, pte.Trigger):
        manager.extend(lambda _: None, name="Sleeping", trigger=failing)
    run(manager, 3, lambda done: fail(failing, done))
    assert list_files(tmp_path) == ["snapshot_iter_2", "snapshot_iter_3"]
    (message,) = (entry.getMessage() for entry in caplog.records if "was not saved" in entry.getMessage())
    assert expected in message


def test_stop_trigger_that_fails_to_return_its_state_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trigger = FailingTrigger()
    manager = make_manager(tmp_path, extensions.snapshot(trigger=EVERY), stop_trigger=trigger)
    run(manager, 3, lambda done: fail(trigger, done))
    assert "the stop trigger: state_dict() of FailingTrigger failed with KeyError: 1406." in caplog.text


def test_model_that_fails_to_return_its_state_is_named(tmp_path: Path) -> None:
    model = FailingModule()
    manager = pte.ExtensionsManager(model, 1, out_dir=tmp_path)
    model.is_failing = True
    with pytest.raises(RuntimeError, match="the model 'main': state_dict\\(\\) of FailingModule failed with KeyError"):
        manager.state_dict()


@pytest.mark.parametrize("is_group", [False, True])
def test_snapshot_object_that_fails_names_the_object(
    is_group: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing()
    target = {"average": failing} if is_group else failing
    manager = make_manager(tmp_path, extensions.snapshot_object(target, "object", trigger=EVERY))
    run(manager, 2, lambda done: fail(failing, done))
    name = "the object 'average' of snapshot_object()" if is_group else "the object of snapshot_object()"
    assert f"{name}: state_dict() of Failing failed with KeyError: 1406." in caplog.text


def fail(failing: Failing, done: int) -> dict[str, Any]:
    failing.is_failing = done == 1
    return {}

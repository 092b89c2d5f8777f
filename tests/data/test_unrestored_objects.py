"""States of objects below a loader that cannot be saved or restored are named, and the training continues."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from torch import nn

from pte_tracking._data import object_states
from tests.data.passes import BATCHES, resume_after
from tests.data.state_objects import Order, PositionOrder, loader, shuffled


def test_state_that_cannot_be_loaded_within_a_pass_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def skip_to_later_epoch(source: Any) -> None:
        source.sampler.state["epoch"][1]["later"] = 7

    resume_after(lambda: loader(PositionOrder()), 3, skip_to_later_epoch)
    assert "loader 'main': sampler (PositionOrder) has another state than at the snapshot" in caplog.text


class Unsavable(Order):
    def state_dict(self) -> dict[str, Any]:
        return {"order": [self.order]}


class Unready(Order):
    """Sampler without a state before its first pass."""

    def state_dict(self) -> dict[str, Any]:
        if self.order[0] == 0:
            raise RuntimeError("not started")
        return super().state_dict()


class Failing(Order):
    def state_dict(self) -> dict[str, Any]:
        raise RuntimeError("not supported here")


class Refusing(Order):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise KeyError("epoch")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Unsavable, "the state of sampler (Unsavable) is not part of the snapshot: state_dict()/order/0: a value of "),
        (Failing, "the state of sampler (Failing) is not part of the snapshot: RuntimeError: not supported here."),
        (Refusing, "sampler (Refusing) refused its state: KeyError: 'epoch'."),
    ],
)
def test_state_that_is_not_saved_or_refused_is_named_once(
    make: Any, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    resume_after(lambda: loader(make()), BATCHES + 2)
    names = {record.getMessage() for record in caplog.records if "sampler (" in record.getMessage()}
    assert len(names) == 1
    assert expected in names.pop()


def test_state_that_is_larger_than_the_limit_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_states, "MAX_BYTES", 100)
    resume_after(lambda: loader(Order()), BATCHES + 2)
    assert "the state of sampler (Order) is not part of the snapshot: state_dict(): the state has" in caplog.text


def test_object_without_a_state_before_its_first_pass_is_restored(caplog: pytest.LogCaptureFixture) -> None:
    uninterrupted, resumed = resume_after(lambda: loader(Unready()), 2)
    assert resumed == uninterrupted
    uninterrupted, resumed = resume_after(lambda: loader(Unready()), BATCHES + 2)
    assert resumed == uninterrupted
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("make_other", "expected"),
    [
        (shuffled, "sampler (RandomSampler) refused its state: TypeError: it has no load_state_dict()."),
        (lambda: [[0]] * BATCHES, "the snapshot contains the state of sampler, which this loader does not refer to"),
    ],
)
def test_object_that_is_missing_after_the_resume_is_named(
    make_other: Any, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    loaders = itertools.cycle([lambda: loader(Order()), make_other])
    resume_after(lambda: next(loaders)(), BATCHES + 2)
    assert expected in caplog.text


def test_object_that_trains_a_model_is_not_restored_by_a_function_of_the_loader() -> None:
    class Training:
        def __init__(self) -> None:
            self.model, self.loads = nn.Linear(1, 1), 0

        def collate(self, items: list[int]) -> list[int]:
            return items

        def state_dict(self) -> dict[str, Any]:
            raise AssertionError("called")

        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise AssertionError("called")

    uninterrupted, resumed = resume_after(lambda: shuffled(collate_fn=Training().collate), 2)
    assert resumed == uninterrupted


def test_methods_with_other_arguments_are_not_called() -> None:
    class Versioned(Order):
        def state_dict(self, version: int) -> dict[str, Any]:  # type: ignore[override]
            raise AssertionError("called")

    resume_after(lambda: loader(Versioned()), 2)

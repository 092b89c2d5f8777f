"""Who is called when, in every front end: once, in order, and the first error is the one that is seen."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

import pte_tracking as pte
from pte_tracking.updaters import StandardUpdater

#: Trains for one epoch of two iterations with these extensions; returns the run's directory.
FrontEnd = Callable[[Path, list[Any]], Path]


class Recorder(pte.Extension):
    def __init__(self, label: str, calls: list[str], raises_in: tuple[str, ...] = (), priority: int = 100) -> None:
        self.label, self.calls, self.raises_in, self.priority = label, calls, raises_in, priority

    def note(self, what: str) -> None:
        self.calls.append(f"{self.label}.{what}")
        if what in self.raises_in:
            raise ArithmeticError(f"{self.label}.{what}")

    def initialize(self, manager: pte.Manager) -> None:
        self.note("initialize")

    def __call__(self, manager: pte.Manager) -> None:
        self.note("call")

    def on_error(self, manager: pte.Manager, exc: Exception, tb: TracebackType | None) -> None:
        assert tb is not None
        self.note(f"on_error({exc})" if "on_error" not in self.raises_in else "on_error")

    def finalize(self, manager: pte.Manager) -> None:
        self.note("finalize")


def plain_loop(out: Path, extensions: list[Any]) -> Path:
    manager = pte.ExtensionsManager({}, 1, extensions, iters_per_epoch=2, out_dir=out)
    while not manager.stop_trigger:
        with manager.run_iteration():
            pass
    return out


def trainer(out: Path, extensions: list[Any]) -> Path:
    optimizer: Any = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    optimizer.target = nn.Identity()
    updater = StandardUpdater([1, 2], optimizer, loss_func=lambda x: torch.zeros((), requires_grad=True))
    pte.Trainer(updater, (1, "epoch"), out, extensions).run()
    return out


def ignite(out: Path, extensions: list[Any]) -> Path:
    engine = Engine(lambda engine, batch: None)
    pte.IgniteExtensionsManager(engine, {}, 1, extensions, out_dir=out)
    engine.run([1, 2], max_epochs=1)
    return out


front_ends = pytest.mark.parametrize("train", [plain_loop, trainer, ignite])


def ended(out: Path) -> list[tuple[str, str | None]]:
    events = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    return [(event["status"], event.get("error")) for event in events if event["kind"] == "run_ended"]


@front_ends
def test_each_is_called_once_and_in_order(train: FrontEnd, tmp_path: Path) -> None:
    calls: list[str] = []
    train(tmp_path, [Recorder("low", calls, priority=1), Recorder("a", calls), Recorder("b", calls)])
    assert calls == [
        *("a.initialize", "b.initialize", "low.initialize"),
        *("a.call", "b.call", "low.call"),
        *("a.call", "b.call", "low.call"),
        *("a.finalize", "b.finalize", "low.finalize"),
    ]
    assert ended(tmp_path) == [("FINISHED", None)]


PLACES = ("initialize", "call", "finalize")


@front_ends
@pytest.mark.parametrize("places", [two for n in (1, 2, 3) for two in itertools.combinations(PLACES, n)])
def test_an_extension_that_raises_ends_the_training_with_its_first_error(
    train: FrontEnd, places: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    first = f"bad.{places[0]}"
    others = [Recorder("before", calls), Recorder("bad", calls, (*places, "on_error")), Recorder("after", calls)]
    with pytest.raises(ArithmeticError, match=rf"^{first}$"):
        train(tmp_path, others)
    told = [] if places[0] == "finalize" else [f"before.on_error({first})", "bad.on_error", f"after.on_error({first})"]
    assert calls[-len(told) - 3 :] == [*told, "before.finalize", "bad.finalize", "after.finalize"]
    assert calls.count("bad.initialize") == calls.count("bad.finalize") == 1
    assert ended(tmp_path) == [("FAILED", f"ArithmeticError: {first}")]
    # What came after the first error is not lost.
    hidden = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert sorted(map(str, hidden)) == sorted(
        [*(["bad.on_error"] if told else []), *(["bad.finalize"] if "finalize" in places[1:] else [])]
    )


@front_ends
def test_of_two_extensions_that_raise_the_first_is_seen(train: FrontEnd, tmp_path: Path) -> None:
    calls: list[str] = []
    with pytest.raises(ArithmeticError, match=r"^early\.call$"):
        train(tmp_path, [Recorder("late", calls, ("call",), priority=1), Recorder("early", calls, ("call",))])
    assert "late.call" not in calls


def test_an_error_of_the_users_own_code_is_told_once_and_raised_as_it_is(tmp_path: Path) -> None:
    calls: list[str] = []
    manager = pte.ExtensionsManager({}, 1, [Recorder("a", calls, ("finalize",))], iters_per_epoch=2, out_dir=tmp_path)
    error = ZeroDivisionError("mine")
    with pytest.raises(ZeroDivisionError) as caught, manager, manager.run_iteration():
        raise error
    assert caught.value is error
    assert calls == ["a.initialize", "a.on_error(mine)", "a.finalize"]


def test_an_error_in_a_handler_of_ignite_is_told_to_the_extensions(tmp_path: Path) -> None:
    calls: list[str] = []
    engine = Engine(lambda engine, batch: None)
    pte.IgniteExtensionsManager(engine, {}, 1, [Recorder("a", calls)], out_dir=tmp_path)

    @engine.on(Events.ITERATION_COMPLETED)
    def fail(engine: Engine) -> None:
        raise ArithmeticError("handler")

    with pytest.raises(ArithmeticError, match="handler"):
        engine.run([1, 2], max_epochs=1)
    assert calls == ["a.initialize", "a.on_error(handler)", "a.finalize"]
    assert ended(tmp_path) == [("FAILED", "ArithmeticError: handler")]


def test_extensions_see_each_other_initialized_before_the_first_is_called(tmp_path: Path) -> None:
    calls: list[str] = []
    manager = pte.ExtensionsManager({}, 1, iters_per_epoch=1, out_dir=tmp_path)
    for label, priority, before in [("a", 2, True), ("b", 3, False), ("c", 1, True)]:
        manager.extend(Recorder(label, calls), label, priority=priority, call_before_training=before)
    with manager.run_iteration():
        assert calls == ["b.initialize", "a.initialize", "c.initialize", "a.call", "c.call"]
    assert calls[5:8] == ["b.call", "a.call", "c.call"]


def test_equal_names_get_numbers_in_order_of_registration(tmp_path: Path) -> None:
    calls: list[str] = []
    manager = pte.ExtensionsManager({}, 1, [Recorder(label, calls) for label in "abc"], out_dir=tmp_path)
    found = [manager.get_extension(name) for name in ("Recorder", "Recorder_1", "Recorder_2")]
    assert [extension.label for extension in found if isinstance(extension, Recorder)] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="no extension is called 'Recorder_3'; there are Recorder, Recorder_1"):
        manager.get_extension("Recorder_3")

"""Order of extension calls and error handling in every front end."""

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

#: Trains for one epoch of two iterations with the given extensions, and returns the run directory.
FrontEnd = Callable[[Path, list[Any]], Path]


class CallRecorder(pte.Extension):
    def __init__(self, label: str, calls: list[str], raises_in: tuple[str, ...] = (), priority: int = 100) -> None:
        self.label, self.calls, self.raises_in, self.priority = label, calls, raises_in, priority

    def record_call(self, method: str) -> None:
        self.calls.append(f"{self.label}.{method}")
        if method in self.raises_in:
            raise ArithmeticError(f"{self.label}.{method}")

    def initialize(self, manager: pte.Manager) -> None:
        self.record_call("initialize")

    def __call__(self, manager: pte.Manager) -> None:
        self.record_call("call")

    def on_error(self, manager: pte.Manager, exc: Exception, tb: TracebackType | None) -> None:
        assert tb is not None
        self.record_call(f"on_error({exc})" if "on_error" not in self.raises_in else "on_error")

    def finalize(self, manager: pte.Manager) -> None:
        self.record_call("finalize")


def train_plain_loop(out: Path, extensions: list[Any]) -> Path:
    manager = pte.ExtensionsManager({}, 1, extensions, iters_per_epoch=2, out_dir=out)
    while not manager.stop_trigger:
        with manager.run_iteration():
            pass
    return out


def train_with_trainer(out: Path, extensions: list[Any]) -> Path:
    optimizer: Any = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    optimizer.target = nn.Identity()
    updater = StandardUpdater([1, 2], optimizer, loss_func=lambda x: torch.zeros((), requires_grad=True))
    pte.Trainer(updater, (1, "epoch"), out, extensions).run()
    return out


def train_with_ignite(out: Path, extensions: list[Any]) -> Path:
    engine = Engine(lambda engine, batch: None)
    pte.IgniteExtensionsManager(engine, {}, 1, extensions, out_dir=out)
    engine.run([1, 2], max_epochs=1)
    return out


front_ends = pytest.mark.parametrize("train", [train_plain_loop, train_with_trainer, train_with_ignite])


def read_end_events(out: Path) -> list[tuple[str, str | None]]:
    events = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    return [(event["status"], event.get("error")) for event in events if event["kind"] == "run_ended"]


@front_ends
def test_extensions_are_called_once_in_priority_order(train: FrontEnd, tmp_path: Path) -> None:
    calls: list[str] = []
    train(tmp_path, [CallRecorder("low", calls, priority=1), CallRecorder("a", calls), CallRecorder("b", calls)])
    assert calls == [
        *("a.initialize", "b.initialize", "low.initialize"),
        *("a.call", "b.call", "low.call"),
        *("a.call", "b.call", "low.call"),
        *("a.finalize", "b.finalize", "low.finalize"),
    ]
    assert read_end_events(tmp_path) == [("FINISHED", None)]


METHODS = ("initialize", "call", "finalize")


@front_ends
@pytest.mark.parametrize(
    "failing_methods", [combination for n in (1, 2, 3) for combination in itertools.combinations(METHODS, n)]
)
def test_failing_extension_ends_run_with_its_first_error(
    train: FrontEnd, failing_methods: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    first = f"bad.{failing_methods[0]}"
    recorders = [
        CallRecorder("before", calls),
        CallRecorder("bad", calls, (*failing_methods, "on_error")),
        CallRecorder("after", calls),
    ]
    with pytest.raises(ArithmeticError, match=rf"^{first}$"):
        train(tmp_path, recorders)
    error_calls = (
        []
        if failing_methods[0] == "finalize"
        else [f"before.on_error({first})", "bad.on_error", f"after.on_error({first})"]
    )
    assert calls[-len(error_calls) - 3 :] == [*error_calls, "before.finalize", "bad.finalize", "after.finalize"]
    assert calls.count("bad.initialize") == calls.count("bad.finalize") == 1
    ((status, message),) = read_end_events(tmp_path)
    assert (status, message.partition(";")[0]) == ("FAILED", f"ArithmeticError: {first}")
    # Errors after the first one are logged.
    later_errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert sorted(map(str, later_errors)) == sorted(
        [*(["bad.on_error"] if error_calls else []), *(["bad.finalize"] if "finalize" in failing_methods[1:] else [])]
    )


@front_ends
def test_two_failing_extensions_first_error_is_raised(train: FrontEnd, tmp_path: Path) -> None:
    calls: list[str] = []
    with pytest.raises(ArithmeticError, match=r"^early\.call$"):
        train(tmp_path, [CallRecorder("late", calls, ("call",), priority=1), CallRecorder("early", calls, ("call",))])
    assert "late.call" not in calls


def test_manager_user_error_reaches_extensions_once_and_is_reraised(tmp_path: Path) -> None:
    calls: list[str] = []
    manager = pte.ExtensionsManager(
        {}, 1, [CallRecorder("a", calls, ("finalize",))], iters_per_epoch=2, out_dir=tmp_path
    )
    error = ZeroDivisionError("user error")
    with pytest.raises(ZeroDivisionError) as caught, manager, manager.run_iteration():
        raise error
    assert caught.value is error
    assert calls == ["a.initialize", "a.on_error(user error)", "a.finalize"]


def test_ignite_handler_error_reaches_extensions(tmp_path: Path) -> None:
    calls: list[str] = []
    engine = Engine(lambda engine, batch: None)
    pte.IgniteExtensionsManager(engine, {}, 1, [CallRecorder("a", calls)], out_dir=tmp_path)

    @engine.on(Events.ITERATION_COMPLETED)
    def fail(engine: Engine) -> None:
        raise ArithmeticError("handler")

    with pytest.raises(ArithmeticError, match="handler"):
        engine.run([1, 2], max_epochs=1)
    assert calls == ["a.initialize", "a.on_error(handler)", "a.finalize"]
    assert read_end_events(tmp_path) == [("FAILED", "ArithmeticError: handler; ended at iteration 0 of 2")]


def test_extensions_are_all_initialized_before_first_call(tmp_path: Path) -> None:
    calls: list[str] = []
    manager = pte.ExtensionsManager({}, 1, iters_per_epoch=1, out_dir=tmp_path)
    for label, priority, before in [("a", 2, True), ("b", 3, False), ("c", 1, True)]:
        manager.extend(CallRecorder(label, calls), label, priority=priority, call_before_training=before)
    with manager.run_iteration():
        assert calls == ["b.initialize", "a.initialize", "c.initialize", "a.call", "c.call"]
    assert calls[5:8] == ["b.call", "a.call", "c.call"]


def test_extension_duplicate_names_are_numbered_in_order(tmp_path: Path) -> None:
    calls: list[str] = []
    manager = pte.ExtensionsManager({}, 1, [CallRecorder(label, calls) for label in "abc"], out_dir=tmp_path)
    registered = [manager.get_extension(name) for name in ("CallRecorder", "CallRecorder_1", "CallRecorder_2")]
    assert [extension.label for extension in registered if isinstance(extension, CallRecorder)] == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"'CallRecorder_3'\. Registered extensions: CallRecorder, CallRecorder_1"):
        manager.get_extension("CallRecorder_3")

"""Tests of the warning about a loop that trains without an iteration of its manager."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions

MESSAGE = "ended without an iteration since its start, although the loop stepped SGD"


def make(out: Path) -> tuple[pte.ExtensionsManager, Any]:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    saved = extensions.snapshot(trigger=(1, "iteration"))
    manager = pte.ExtensionsManager(model, 1, [saved], optimizers=optimizer, iters_per_epoch=2, out_dir=out, sinks=[])

    def update() -> None:
        optimizer.zero_grad()
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()

    return manager, update


@pytest.mark.parametrize("is_resumed", [False, True], ids=["new", "resumed"])
def test_loop_without_iterations_warns_at_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_resumed: bool
) -> None:
    manager, update = make(tmp_path)
    if is_resumed:
        manager.resume()
    update()
    manager.close()
    (message,) = caplog.messages
    assert MESSAGE in message
    assert "Iterate over manager.iterations(loader)" in message


def test_second_manager_without_iterations_is_named_by_position(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    used, unused = (
        pte.ExtensionsManager(model, 1, optimizers=optimizer, iters_per_epoch=1, out_dir=tmp_path, sinks=[]),
        pte.ExtensionsManager(model, 1, optimizers=optimizer, iters_per_epoch=1, out_dir=tmp_path, sinks=[]),
    )
    for _ in used.iterations():
        optimizer.step()
    unused.close()
    (message,) = caplog.messages
    line = next(
        number for number, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "used, unused" in text
    )
    assert f"the manager created at {__file__}:{line + 2} {MESSAGE}" in message
    assert "If another manager trains, do not create this one." in message


def test_loop_without_iterations_in_with_block_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager, update = make(tmp_path)
    with manager:
        update()
    assert MESSAGE in caplog.text


def test_trained_evaluating_or_failed_manager_does_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager, update = make(tmp_path)
    update()  # for example, a warm-up
    for _ in manager.iterations():
        update()
    complete, update = make(tmp_path)
    complete.resume()
    update()
    complete.close()
    evaluating, _ = make(tmp_path / "evaluated")
    evaluating.resume()
    evaluating.close()
    failed, update = make(tmp_path / "failed")
    with pytest.raises(ZeroDivisionError), failed:
        print(update() or 1 / 0)
    del manager, complete, evaluating, failed
    gc.collect()
    assert not [message for message in caplog.messages if "without an iteration" in message]


@pytest.mark.parametrize(
    ("end", "is_expected"), [("", True), ("raise ValueError('wrong')", False)], ids=["end", "error"]
)
def test_script_without_iterations_warns_unless_it_fails(tmp_path: Path, end: str, is_expected: bool) -> None:
    script = """
        import torch, pte_tracking as pte
        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        manager = pte.ExtensionsManager(model, 1, optimizers=optimizer, iters_per_epoch=2, out_dir="out")
        for x in torch.ones(2, 1, 1):
            model(x).sum().backward()
            optimizer.step()
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script) + end], cwd=tmp_path, capture_output=True, text=True
    )
    assert (MESSAGE in process.stderr) is is_expected

"""Python calls that a row takes on the training thread. Each one costs about as much as a key of the row."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch

import pte_tracking as pte
from pte_tracking import extensions

KEYS = ["train/loss", "train/accuracy", "train/norm", "train/a", "train/b"]


def count_calls(function: Callable[[], object]) -> int:
    """Return the number of Python functions that a call of a function calls, after the first calls."""
    for _ in range(3):
        function()
    calls = []

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return len(calls) - 1


def test_row_of_tensors_to_a_run_takes_at_most_eight_calls(tmp_path: Path) -> None:
    values = {key: torch.rand(()) for key in KEYS}
    with pte.Run(tmp_path, sinks=[]) as run:
        assert count_calls(lambda: run.log_metrics(values, 1)) <= 8


def test_iteration_with_a_row_of_tensors_takes_at_most_23_calls(tmp_path: Path) -> None:
    values = {key: torch.rand(()) for key in KEYS}
    log_report = extensions.LogReport(trigger=(1, "iteration"))
    with pte.ExtensionsManager({}, 1, [log_report], iters_per_epoch=100, out_dir=tmp_path, sinks=[]) as manager:

        def iterate() -> None:
            with manager.run_iteration():
                pte.report(values)

        assert count_calls(iterate) <= 23


def test_extension_that_is_a_function_takes_one_call_per_iteration(tmp_path: Path) -> None:
    def count(number_of_extensions: int) -> int:
        functions = [lambda manager: None] * number_of_extensions
        out_dir = tmp_path / str(number_of_extensions)
        with pte.ExtensionsManager({}, 1, functions, iters_per_epoch=100, out_dir=out_dir, sinks=[]) as manager:

            def iterate() -> None:
                with manager.run_iteration():
                    pass

            return count_calls(iterate)

    assert count(9) - count(1) == 8

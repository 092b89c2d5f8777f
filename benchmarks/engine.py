"""What the engine costs per iteration, beside pytorch-pfn-extras: reporting, triggers, extensions, the means of a log.

``python benchmarks/engine.py`` (with pytorch-pfn-extras installed) prints microseconds per iteration and their ratio.
Each iteration reports five values, eight extensions fire and do nothing, and a LogReport writes the means of every
hundred iterations to its file. Both libraries run in turns in one process; the figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_pfn_extras as ppe
import torch
from _measure import Figure, in_turns, ratios, spread
from pytorch_pfn_extras.training import extensions as ppe_extensions

import pte_tracking as pte
from pte_tracking import extensions

NAMES = ["train/loss", "train/accuracy", "train/norm", "train/a", "train/b"]


def nothing(manager: Any) -> None:
    """An extension that fires and does nothing."""


def ours(out: str, iterations: int) -> Any:
    return pte.ExtensionsManager(
        {},
        1,
        [nothing] * 8 + [extensions.LogReport(trigger=(100, "iteration"))],
        iters_per_epoch=iterations,
        out_dir=out,
    )


def theirs(out: str, iterations: int) -> Any:
    made = [ppe.training.make_extension(default_name=f"nothing{number}")(lambda manager: None) for number in range(8)]
    made.append(ppe_extensions.LogReport(trigger=(100, "iteration")))
    return ppe.training.ExtensionsManager({}, {}, 1, iters_per_epoch=iterations, extensions=made, out_dir=out)


def bare_ours(out: str, iterations: int) -> Any:
    return pte.ExtensionsManager({}, 1, iters_per_epoch=iterations, out_dir=out, sinks=[])


def bare_theirs(out: str, iterations: int) -> Any:
    return ppe.training.ExtensionsManager({}, {}, 1, iters_per_epoch=iterations, extensions=[], out_dir=out)


def microseconds(
    make: Callable[[str, int], Any], report: Callable[[dict[str, Any]], None], values: dict[str, Any], iterations: int
) -> float:
    with tempfile.TemporaryDirectory() as out:
        manager = make(out, iterations)
        with manager.run_iteration():  # what happens once is not counted
            report(values)
        start = time.perf_counter()
        for _ in range(iterations - 2):
            with manager.run_iteration():
                report(values)
        taken = time.perf_counter() - start
        if isinstance(manager, pte.ExtensionsManager):
            manager.close()
    return taken / (iterations - 2) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    cases: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
        "8 extensions and LogReport, 5 tensors": (ours, theirs, {name: torch.rand(()) for name in NAMES}, "<= 0.2"),
        "the same, 5 floats": (ours, theirs, dict.fromkeys(NAMES, 0.5), "<= 0.33"),
        "manager and report alone, 5 floats": (bare_ours, bare_theirs, dict.fromkeys(NAMES, 0.5), "<= 1"),
    }
    for case, (make_ours, make_theirs, values, target) in cases.items():
        times = in_turns(
            args.rounds,
            {
                "ours": partial(microseconds, make_ours, pte.report, values, args.iterations),
                "theirs": partial(microseconds, make_theirs, ppe.reporting.report, values, args.iterations),
            },
        )
        print(f"{case}: {spread(times['ours'])} us, pytorch-pfn-extras {spread(times['theirs'])} us")
        found = ratios(times["ours"], times["theirs"])
        Figure(f"an iteration: {case}", "pytorch-pfn-extras", found, target).tell()


if __name__ == "__main__":
    main()

"""Time of an iteration in the engine, compared with pytorch-pfn-extras.

``python benchmarks/engine.py [--iterations N] [--rounds N]`` (requires pytorch-pfn-extras)

Each iteration reports five values, eight extensions run without doing anything, and LogReport writes the means of
every hundred iterations to its file. Printed are microseconds per iteration for both libraries, and their ratio. Both
run alternately in one process.
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
from _measure import Figure, format_spread, interleave, ratios
from pytorch_pfn_extras.training import extensions as ppe_extensions

import pte_tracking as pte
from pte_tracking import extensions

NAMES = ["train/loss", "train/accuracy", "train/norm", "train/a", "train/b"]


def do_nothing(manager: Any) -> None:
    """Extension without an effect."""


def pte_manager(out: str, iterations: int) -> Any:
    return pte.ExtensionsManager(
        {},
        1,
        [do_nothing] * 8 + [extensions.LogReport(trigger=(100, "iteration"))],
        iters_per_epoch=iterations,
        out_dir=out,
    )


def ppe_manager(out: str, iterations: int) -> Any:
    registered = [
        ppe.training.make_extension(default_name=f"do_nothing{number}")(lambda manager: None) for number in range(8)
    ]
    registered.append(ppe_extensions.LogReport(trigger=(100, "iteration")))
    return ppe.training.ExtensionsManager({}, {}, 1, iters_per_epoch=iterations, extensions=registered, out_dir=out)


def bare_pte_manager(out: str, iterations: int) -> Any:
    return pte.ExtensionsManager({}, 1, iters_per_epoch=iterations, out_dir=out, sinks=[])


def bare_ppe_manager(out: str, iterations: int) -> Any:
    return ppe.training.ExtensionsManager({}, {}, 1, iters_per_epoch=iterations, extensions=[], out_dir=out)


def microseconds(
    create_manager: Callable[[str, int], Any],
    report: Callable[[dict[str, Any]], None],
    values: dict[str, Any],
    iterations: int,
) -> float:
    with tempfile.TemporaryDirectory() as out:
        manager = create_manager(out, iterations)
        with manager.run_iteration():  # exclude the one-time initialization
            report(values)
        start = time.perf_counter()
        for _ in range(iterations - 2):
            with manager.run_iteration():
                report(values)
        elapsed = time.perf_counter() - start
        if isinstance(manager, pte.ExtensionsManager):
            manager.close()
    return elapsed / (iterations - 2) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    cases: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
        "8 extensions and LogReport, 5 tensors": (
            pte_manager,
            ppe_manager,
            {name: torch.rand(()) for name in NAMES},
            "<= 0.1",
        ),
        "8 extensions and LogReport, 5 floats": (pte_manager, ppe_manager, dict.fromkeys(NAMES, 0.5), "<= 0.15"),
        "manager and report only, 5 floats": (bare_pte_manager, bare_ppe_manager, dict.fromkeys(NAMES, 0.5), "<= 1"),
    }
    for case, (create_pte_manager, create_ppe_manager, values, target) in cases.items():
        times = interleave(
            args.rounds,
            {
                "pte_tracking": partial(microseconds, create_pte_manager, pte.report, values, args.iterations),
                "pytorch_pfn_extras": partial(
                    microseconds, create_ppe_manager, ppe.reporting.report, values, args.iterations
                ),
            },
        )
        print(
            f"{case}: {format_spread(times['pte_tracking'])} us, "
            f"pytorch-pfn-extras {format_spread(times['pytorch_pfn_extras'])} us"
        )
        speed_ratios = ratios(times["pte_tracking"], times["pytorch_pfn_extras"])
        Figure(f"an iteration: {case}", "pytorch-pfn-extras", speed_ratios, target).publish()


if __name__ == "__main__":
    main()

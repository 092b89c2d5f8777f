"""Training in which each weight is the number of completed iterations, for tests of resume()."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

import pte_tracking as pte
from pte_tracking import extensions

EVERY: Any = (1, "iteration")


def make_manager(
    out: Path, *own_extensions: Any, model: nn.Module | None = None, **options: Any
) -> pte.ExtensionsManager:
    return pte.ExtensionsManager(
        nn.Linear(3, 2) if model is None else model,
        10,
        [*(own_extensions or [extensions.snapshot(trigger=EVERY)]), extensions.LogReport(trigger=EVERY)],
        out_dir=out,
        iters_per_epoch=2,
        **options,
    )


def run(manager: pte.ExtensionsManager, iterations: int, losses: Mapping[int, float] | None = None) -> None:
    """Run iterations that set each weight to the number of completed iterations."""
    with manager:
        for _ in range(iterations):
            with manager.run_iteration():
                done = manager.iteration + 1
                for parameter in manager.models["main"].parameters():
                    parameter.data.fill_(done)
                pte.report({"loss": (losses or {}).get(done, 1.0)})


def resume_and_inspect(
    out: Path, source: Any = "latest", *own_extensions: Any, rewinds: bool = False
) -> tuple[int | None, float]:
    """Resume, and rewind the run as the first iteration does. Return the step of the checkpoint and a weight."""
    manager = make_manager(out, *own_extensions)
    weight = manager.models["main"].get_parameter("weight")
    weight.data.fill_(-1)
    checkpoint = manager.resume(source)
    assert manager.iteration == (0 if checkpoint is None else checkpoint.step)
    if rewinds:
        manager.run.rewind()
    manager.close()
    return None if checkpoint is None else checkpoint.step, weight[0, 0].item()


def damage(path: Path) -> None:
    """Flip a bit in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def checkpoints(out: Path) -> list[tuple[str, int]]:
    return [(entry.path, entry.step) for entry in pte.Run(out).checkpoints()]

"""Kill and resume a training that exports models: ``python -m tests.extensions.exporting FOLDER``."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch
from torch import Tensor, nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._store.effective_files import list_models
from tests.crash import killing

#: The metric of each iteration. It improves in iterations 1, 2, and 4.
ACCURACIES = [0.5, 0.75, 0.7, 0.8, 0.6]
EXAMPLE = torch.linspace(-1, 1, 8).reshape(2, 4)
KILL_POINTS = [
    "pte_tracking.extensions.model_export:write:2:after",
    "pte_tracking.extensions.model_export:replace_file:2:after",
    "pte_tracking._runs.run:Run.log_model:3:after",
    "pte_tracking._runs.run:Run.log_model:4:before",
]


class Net(nn.Module):
    """Model whose output in training mode is random."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output


def make_model() -> Net:
    torch.manual_seed(0)
    return Net()


def make_manager(
    model: nn.Module, out: Path, *extension_list: pte.Extension, sinks: list[str] | None = None
) -> pte.ExtensionsManager:
    return pte.ExtensionsManager(
        model,
        1,
        extension_list,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.01),
        iters_per_epoch=len(ACCURACIES),
        out_dir=out,
        sinks=sinks or [],
    )


def export_best() -> pte.Extension:
    return extensions.export_model(input_example=EXAMPLE, best=("accuracy", "max"), trigger=(1, "iteration"))


def train(manager: pte.ExtensionsManager, *, stop_after: int | None = None) -> None:
    """Train for one epoch, or leave the loop early."""
    model = manager.raw_models["main"]
    for accuracy in manager.batches(ACCURACIES):
        with manager.run_iteration(step_optimizers=["main"]):
            model(EXAMPLE + torch.randn(2, 4)).pow(2).sum().backward()
            pte.report({"accuracy": accuracy})
        if manager.iteration == stop_after:
            break


def session(out: Path, kill_point: str | None = None) -> int:
    """Train in a forked child, and return its exit code: negative signal number, or 0 on success."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        if kill_point:
            killing.arm(kill_point)
        with make_manager(make_model(), out, export_best(), extensions.snapshot(trigger=(1, "iteration"))) as manager:
            manager.resume()
            train(manager)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def describe(out: Path) -> list[tuple[int, str, bool]]:
    """Return the step, the digest of the weights, and whether it is the best, of each export. Check its files."""
    models = list_models(out)
    folder = out / "artifacts" / "models" / "main"
    assert sorted(path.name for path in folder.iterdir()) == sorted(Path(model.path).name for model in models)
    for model in models:
        torch.export.load(out / model.path / "model.pt2")
    return [(model.step, model.sha256, model.best is not None) for model in models]


def main(folder: Path) -> None:
    torch.export.export(make_model().eval(), (EXAMPLE,), strict=False)  # imports what each child would import
    assert session(folder / "whole") == 0
    results = {"": describe(folder / "whole")}
    for number, kill_point in enumerate(KILL_POINTS):
        out = folder / str(number)
        assert session(out, kill_point) == -signal.SIGKILL, kill_point
        assert session(out) == 0, kill_point
        results[kill_point] = describe(out)
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

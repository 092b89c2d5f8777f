"""Code of a user, which mypy and pyright check in strict mode: ``python -m nox -s types``. It does not run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas  # pyright: ignore[reportMissingTypeStubs]
import polars
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import assert_type

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking import extensions, triggers
from pte_tracking.sinks import Checkpoint, Connection, Metrics, RunView, Scalar, Sink

model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader: DataLoader[tuple[Tensor, ...]] = DataLoader(TensorDataset(torch.ones(4, 2), torch.ones(4, 1)))


def evaluate(x: Tensor, target: Tensor) -> None:
    pte.report({"val/loss": (nn.functional.mse_loss(model(x), target), len(x))})


@pte.make_extension(trigger=(1, "epoch"), priority=pte.PRIORITY_WRITER)
def report_norm(manager: pte.Manager) -> None:
    assert_type(manager.iteration, int)
    assert_type(manager.epoch_detail, float)
    pte.report({"norm": model.weight.norm()})


class Greeting(pte.Extension):
    trigger = (1, "epoch")

    def __call__(self, manager: pte.Manager) -> None:
        manager.run.log_text("greeting", "hello", manager.iteration)


manager = pte.ExtensionsManager(
    model,
    max_epochs=2,
    extensions=[
        extensions.Evaluator(loader, model, eval_func=evaluate),
        Greeting(),
        report_norm,
        lambda manager: None,
        pte.ExtensionEntry(extensions.LogReport(), trigger=triggers.OnceTrigger()),
        *extensions.defaults(),
    ],
    optimizers={"main": optimizer},
    out_dir=Path("result"),
    sinks=["json", MLflowSink(experiment="digits")],
    params={"lr": 0.1},
    tags={"purpose": "test"},
    stop_trigger=triggers.EarlyStoppingTrigger(monitor="val/loss"),
)
assert_type(manager.resume(), Checkpoint | None)
assert_type(manager.stop_trigger, bool)
for batch in manager.iterations(loader):
    pte.report({"train/loss": model(batch[0]).mean()})
for batch in manager.batches(loader):
    with manager.run_iteration():
        loss: Tensor = model(batch[0]).mean()
        loss.backward()
        optimizer.step()
        pte.report({"train/loss": loss})
assert_type(manager.iterations([1, 2]), Iterator[int])
assert_type(manager.iterations(), Iterator[int])

with pte.Run("result", sinks=["json"], params={"lr": 0.1}) as run:
    run.log_metrics({"loss": 0.5}, 1)
    run.log_artifact(Path("model.pt"))
    assert_type(run.id, str)
    assert_type(run.checkpoints(), list[Checkpoint])

runs = pte.open_runs("results")
assert_type(runs, list[pte.StoredRun])
for stored in runs:
    assert_type(stored.params, dict[str, Scalar])
    status: str = stored.status
    assert_type(stored.frame(), pandas.DataFrame)
    assert_type(stored.frame("points", library="polars"), polars.DataFrame)
    stored.frame().iloc[0].to_csv("row.csv")
loaded = pte.load("result", "best", models=model, optimizers={"main": optimizer}, best=("val/loss", "min"))
assert_type(loaded.step, int)


class PrintConnection:
    def write(self, events: object) -> None: ...

    def state(self) -> dict[str, object]:
        return {}

    def close(self, status: str | None) -> None: ...


class PrintSink(Sink):
    name = "print"

    def open(self, run: RunView, state: object) -> Connection:
        assert_type(run.directory, Path)
        return PrintConnection()


event = Metrics(seq=1, time=0.0, step=1, values={"loss": 0.5})
assert_type(event.step, int)

extensions.snapshot(trigger=(1, "epoch"), keep_best=("val/loss", "min", 3))
extensions.export_model(input_example=torch.ones(1, 2), best=("val/accuracy", "max"))
extensions.ProgressBar(training_length=manager.training_length)

# Each of the following lines is an error.
pte.ExtensionsManager(model, "two")  # type: ignore[arg-type]
pte.ExtensionsManager(model, 2, optimizer=optimizer)  # type: ignore[call-arg]
pte.ExtensionsManager(3, 2)  # type: ignore[arg-type]
pte.report("loss")  # type: ignore[arg-type]
extensions.snapshot(keep=3)  # type: ignore[call-arg]
triggers.IntervalTrigger("epoch")  # type: ignore[call-arg, arg-type]
pte.load("result", optimizer=optimizer)  # type: ignore[call-arg]
extensions.LogReport(trigger=(1, "epochs"))  # type: ignore[arg-type]
triggers.IntervalTrigger(1, "epochs")  # type: ignore[arg-type]
triggers.ManualScheduleTrigger([1, 2], "step")  # type: ignore[arg-type]
triggers.EarlyStoppingTrigger(mode="lowest")  # type: ignore[arg-type]
extensions.snapshot(keep_best=("loss", "minimum", 1))  # type: ignore[arg-type]
extensions.export_model(input_example=0, best=("loss", "minimum"))  # type: ignore[arg-type]
pte.load("result", models="main")  # type: ignore[arg-type]
pte.load("result", best=("loss", "minimum"))  # type: ignore[arg-type]
pte.open_runs("results")[0].frame(library="arrow")  # type: ignore[call-overload]

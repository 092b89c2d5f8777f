"""Sweep with Hydra; the same command continues a killed sweep: python sweep_hydra.py -m lr=0.1,0.01 momentum=0,0.9

Each job is a run in the output directory of Hydra, and all jobs of a sweep are one group.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import hydra
import torch
from digits import digits, network
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from torch import Tensor
from torch.nn import functional as F

import pte_tracking as pte
from pte_tracking import extensions

# Without the date that Hydra adds by default, the same command finds its run directories again.
DIRECTORIES = {
    "run": {"dir": "outputs/${hydra.job.name}"},
    "sweep": {"dir": "multirun/${hydra.job.name}", "subdir": "${hydra.job.override_dirname}"},
}


@dataclasses.dataclass
class Config:
    lr: float = 0.1
    momentum: float = 0.9
    epochs: int = 3
    hydra: Any = dataclasses.field(default_factory=lambda: DIRECTORIES)


ConfigStore.instance().store("config", Config)


@hydra.main(version_base="1.3", config_name="config", config_path=None)
def main(config: Config) -> float:
    torch.set_num_threads(1)  # more threads are slower for a small network
    torch.manual_seed(0)
    train, val = digits()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)

    def evaluate(image: Tensor, label: Tensor) -> None:
        pte.report({"val/accuracy": (model(image).argmax(1) == label).double().mean()})

    job = HydraConfig.get()
    is_sweep = job.mode is RunMode.MULTIRUN
    manager = pte.ExtensionsManager(
        model,
        config.epochs,
        [extensions.Evaluator(val, model, eval_func=evaluate), extensions.LogReport(), extensions.snapshot()],
        optimizers=optimizer,
        iters_per_epoch=len(train),
        out_dir=job.runtime.output_dir,
        sinks=["json", "mlflow"],
        group=job.job.name if is_sweep else None,
        params=config,
    )
    manager.resume()
    for image, label in manager.batches(train):
        with manager.run_iteration():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(image), label)
            loss.backward()
            optimizer.step()
            pte.report({"train/loss": loss})
    return float(manager.run.rows()[-1].values["val/accuracy"])  # the objective of Hydra's sweepers


if __name__ == "__main__":
    main()

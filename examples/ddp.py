"""Train on digits in several processes.

torchrun --nproc-per-node 2 ddp.py [--fsdp] [--resume]

Every process makes the same calls, and rank 0 writes the run. With --max-restarts 3 and --resume, training continues
from the last snapshot after a process fails. Also works with --nproc-per-node 1.
"""

from __future__ import annotations

import argparse
import gc

import torch
import torch.distributed as dist
from digits import digits, network
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import pte_tracking as pte
from pte_tracking import extensions


def shard_loader(dataset: Dataset[tuple[Tensor, ...]], shuffle: bool) -> DataLoader[tuple[Tensor, ...]]:
    """Return a loader for the part of the data that belongs to this rank."""
    return DataLoader(dataset, batch_size=32, sampler=DistributedSampler(dataset, shuffle=shuffle))


def train(epochs: int, fsdp: bool, resume: bool) -> None:
    torch.manual_seed(0)  # every rank needs the same split of the data and the same initial weights
    train, val = (
        shard_loader(loader.dataset, shuffle) for loader, shuffle in zip(digits(), (True, False), strict=True)
    )
    model: nn.Module = network()
    if fsdp:
        fully_shard(model)
    else:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def evaluate(image: Tensor, label: Tensor) -> None:
        output = model(image)
        pte.report({"val/loss": F.cross_entropy(output, label)})
        pte.report({"val/accuracy": (output.argmax(1) == label).double().mean()})

    manager = pte.ExtensionsManager(
        model,
        epochs,
        [
            extensions.Evaluator(val, model, eval_func=evaluate),
            extensions.LogReport(),
            extensions.PrintReport(["epoch", "train/loss", "val/loss", "val/accuracy", "elapsed_time"]),
            extensions.ProgressBar(),
            extensions.snapshot(n_retains=2),
        ],
        optimizers=optimizer,
        sinks=["json", "tensorboard", "mlflow"],
        params={"epochs": epochs, "ranks": dist.get_world_size(), "fsdp": fsdp},
    )
    if resume:
        manager.resume()
    for image, label in manager.batches(train):
        with manager.run_iteration():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(image), label)
            loss.backward()
            optimizer.step()
            pte.report({"train/loss": loss})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--fsdp", action="store_true", help="shard the model instead of copying it")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    dist.init_process_group("gloo")
    train(args.epochs, args.fsdp, args.resume)
    gc.collect()  # torch sometimes aborts if a wrapped model still exists after its process group
    dist.destroy_process_group()

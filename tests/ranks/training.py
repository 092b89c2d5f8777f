"""Training script for torchrun, with options that inject failures."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions

SAMPLES, BATCH_SIZE = 24, 2  # 12 batches are divisible by 1, 2, 3 and 4 ranks.


class ReportingNet(nn.Module):
    """Model that reports its loss itself, as in Chainer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss = nn.functional.mse_loss(self.layers(x), y)
        pte.report({"loss": loss}, self)
        return loss


def make_dataset(seed: int = 0, samples: int = SAMPLES) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True))


def make_loader(seed: int = 0, samples: int = SAMPLES) -> DataLoader[Any]:
    """Create the loader of the samples of this rank."""
    dataset = make_dataset(seed, samples)
    return DataLoader(dataset, BATCH_SIZE, sampler=DistributedSampler(dataset, shuffle=True, seed=1))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train under torchrun. The options can inject failures.")
    parser.add_argument("--out", type=Path, required=True, help="run directory")
    parser.add_argument("--front-end", default="loop", choices=["loop", "trainer", "ignite"], help="default: loop")
    parser.add_argument("--epochs", type=int, default=2, help="default: 2")
    parser.add_argument("--sharded", action="store_true", help="use fully_shard instead of DistributedDataParallel")
    parser.add_argument("--resume", action="store_true", help="resume from the newest snapshot if one exists")
    parser.add_argument("--sinks", nargs="*", default=["json"], help="default: json")
    parser.add_argument("--kill", type=int, nargs=2, metavar=("RANK", "ITERATION"), help="send SIGKILL to a rank")
    parser.add_argument("--raise-in", type=int, nargs=2, metavar=("RANK", "ITERATION"), help="raise on a rank")
    parser.add_argument("--once", action="store_true", help="inject the failure only before the first restart")
    args = parser.parse_args()
    dist.init_process_group("gloo", timeout=timedelta(seconds=30))
    train(args)
    # Destroy the model before the interpreter exits. Otherwise torch 2.13 aborts in about one of four runs with
    # DistributedDataParallel over gloo.
    gc.collect()
    dist.destroy_process_group()


def train(args: argparse.Namespace) -> None:
    rank = dist.get_rank()
    torch.manual_seed(0)
    net: nn.Module = ReportingNet()
    if args.sharded:
        for layer in net.modules():
            if isinstance(layer, nn.Linear):
                fully_shard(layer)
        fully_shard(net)
    else:
        net = DistributedDataParallel(net)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    batches = make_loader()

    def inject_failure(manager: Any) -> None:
        if args.once and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
            return
        if args.kill == [rank, manager.iteration]:
            os.kill(os.getpid(), signal.SIGKILL)
        if args.raise_in == [rank, manager.iteration]:
            raise ValueError("injected failure")

    extension_list = [
        extensions.Evaluator(make_loader(1, 10), net),
        extensions.LogReport(trigger=(3, "iteration")),
        extensions.PrintReport(),
        extensions.ProgressBar(),
        extensions.snapshot(trigger=(4, "iteration")),
        inject_failure,
    ]
    common: dict[str, Any] = {"out_dir": args.out, "sinks": args.sinks, "params": {"lr": 0.01}}
    if args.front_end == "trainer":
        optimizer.target = net  # type: ignore[attr-defined]
        trainer = pte.Trainer(
            pte.updaters.StandardUpdater(batches, optimizer),
            (args.epochs, "epoch"),
            extensions=extension_list,
            **common,
        )
        manager = trainer.manager
        if args.resume:
            trainer.resume()
        trainer.run()
    elif args.front_end == "ignite":
        from ignite.engine import Engine

        engine = Engine(lambda engine, batch: update_net(net, optimizer, batch))
        manager = pte.IgniteExtensionsManager(engine, net, args.epochs, extension_list, optimizers=optimizer, **common)
        if args.resume:
            manager.resume()
        engine.run(batches, max_epochs=args.epochs)
    else:
        manager = pte.ExtensionsManager(net, args.epochs, extension_list, optimizers=optimizer, **common)
        if args.resume:
            manager.resume()
        for batch in manager.batches(batches):
            with manager.run_iteration():
                update_net(net, optimizer, batch)
    files = [link for link in map(os.path.realpath, Path("/proc/self/fd").iterdir()) if link.startswith(f"{args.out}/")]
    threads = threading.active_count()
    print(f"rank {rank}: run {manager.run.id}, open files: {len(files)}, threads: {threads}", flush=True)


def update_net(net: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    optimizer.zero_grad()
    net(*batch).backward()
    optimizer.step()


if __name__ == "__main__":
    main()

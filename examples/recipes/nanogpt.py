"""Train as nanoGPT does, counted in iterations, on random batches of an array of tokens: python nanogpt.py"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

import pte_tracking as pte
from pte_tracking import extensions

ITERATIONS, WARM_UP, EVALUATION_INTERVAL = 200, 20, 40
BATCH_SIZE, LENGTH, ACCUMULATED = 8, 32, 4
MAX_RATE, MIN_RATE = 1e-2, 1e-3


def learning_rate(step: int) -> float:
    if step < WARM_UP:
        return MAX_RATE * (step + 1) / WARM_UP
    progress = (step - WARM_UP) / (ITERATIONS - WARM_UP)
    return MIN_RATE + (MAX_RATE - MIN_RATE) * (1 + math.cos(math.pi * progress)) / 2


def get_batch(tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    starts = torch.randint(len(tokens) - LENGTH, (BATCH_SIZE, 1), generator=generator)
    windows = tokens[starts + torch.arange(LENGTH + 1)]
    return windows[:, :-1], windows[:, 1:]


def main() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(3, (10_000,)).cumsum(0) % 31
    data = {"train": tokens[:9_000], "val": tokens[9_000:]}
    model = nn.Sequential(nn.Embedding(31, 32), nn.Linear(32, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 31))
    optimizer = optim.AdamW(model.parameters())
    generator = torch.Generator().manual_seed(1)  # draws the batches of the training

    def compute_loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    @pte.make_extension(trigger=(EVALUATION_INTERVAL, "iteration"), priority=pte.PRIORITY_WRITER)
    @torch.no_grad()
    def estimate_loss(manager: pte.Manager) -> None:
        model.eval()
        fixed = torch.Generator().manual_seed(2)  # the same batches in each evaluation
        for split in data:
            losses = [compute_loss(*get_batch(data[split], fixed)) for _ in range(10)]
            pte.report({f"estimate/{split}": torch.stack(losses).mean()})
        model.train()

    manager = pte.ExtensionsManager(
        model,
        max_iterations=ITERATIONS,
        extensions=[
            pte.ExtensionEntry(estimate_loss, call_before_training=True),  # also at step 0
            extensions.LogReport(trigger=(20, "iteration")),
            extensions.PrintReport(["iteration", "train/loss", "train/lr", "estimate/train", "estimate/val"]),
            extensions.snapshot(
                trigger=(EVALUATION_INTERVAL, "iteration"), n_retains=1, keep_best=("estimate/val", "min", 1)
            ),
        ],
        optimizers=optimizer,
        out_dir="nanogpt",
        state_objects={"batches": generator},
        params={"max_rate": MAX_RATE, "min_rate": MIN_RATE, "accumulated": ACCUMULATED},
    )
    manager.resume()
    for step in manager.iterations():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        total = torch.zeros(())
        for _ in range(ACCUMULATED):
            loss = compute_loss(*get_batch(data["train"], generator)) / ACCUMULATED
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        pte.report({"train/loss": total, "train/lr": learning_rate(step)})


if __name__ == "__main__":
    main()

"""Train a convolutional autoencoder with two learning rates, stop early, and export the best: python autoencoder.py"""

from __future__ import annotations

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions, triggers


def main() -> None:
    torch.manual_seed(0)
    shapes = F.interpolate(torch.randint(2, (480, 1, 4, 4)).float(), scale_factor=4)
    images = 0.8 * shapes + 0.1 * torch.rand(480, 1, 16, 16)
    train, val = images[:400], images[400:]
    encoder = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, stride=2, padding=1), nn.ReLU()
    )
    decoder = nn.Sequential(
        nn.ConvTranspose2d(4, 16, 2, stride=2), nn.ReLU(), nn.ConvTranspose2d(16, 1, 2, stride=2), nn.Sigmoid()
    )
    model = nn.Sequential(encoder, decoder)
    optimizer = optim.Adam([{"params": encoder.parameters(), "lr": 2e-3}, {"params": decoder.parameters(), "lr": 4e-3}])
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)

    def evaluate(x: Tensor) -> None:
        pte.report({"val/loss": (F.mse_loss(model(x), x), len(x))})

    @pte.make_extension(trigger=(1, "epoch"))
    @torch.no_grad()
    def log_reconstructions(manager: pte.Manager) -> None:
        sample = val[:8]
        manager.run.log_image("reconstructions", torch.cat([sample, model(sample)]), manager.iteration)

    manager = pte.ExtensionsManager(
        model,
        max_epochs=30,
        extensions=[
            extensions.Evaluator(DataLoader(TensorDataset(val), 40), model, eval_func=evaluate),
            # The rates of the epoch that ends: observe_lr runs before the scheduler changes them.
            extensions.observe_lr(param_group=0, observation_key="lr/encoder"),
            extensions.observe_lr(param_group=1, observation_key="lr/decoder"),
            extensions.LRScheduler(scheduler),
            log_reconstructions,
            extensions.LogReport(),
            extensions.PrintReport(["epoch", "train/loss", "val/loss", "lr/encoder", "lr/decoder"]),
            extensions.snapshot(n_retains=1, keep_best=("val/loss", "min", 1)),
        ],
        optimizers=optimizer,
        out_dir="autoencoder",
        stop_trigger=triggers.EarlyStoppingTrigger(monitor="val/loss", patience=2, min_delta=1e-4),
    )
    manager.resume()
    for (x,) in manager.iterations(DataLoader(TensorDataset(train), 20, shuffle=True)):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), x)
        loss.backward()
        optimizer.step()
        pte.report({"train/loss": loss})

    checkpoint = pte.load("autoencoder", "best", models=model)
    model.eval()
    with torch.no_grad():
        loss = F.mse_loss(model(val), val)
    print(f"best checkpoint: epoch {checkpoint.epoch}, val/loss {loss:.5f}")
    program = torch.export.export(model, (val[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, "autoencoder.pt2")


if __name__ == "__main__":
    main()

"""Train two models with two optimizers against each other, and log samples: python gan.py"""

from __future__ import annotations

import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions


def main() -> None:
    torch.manual_seed(0)
    images = (torch.arange(64).view(8, 8) % 2).float().expand(256, 8, 8) * 0.8 + 0.1 * torch.rand(256, 8, 8)
    generator = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.Sigmoid())
    discriminator = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    optimizers = {
        "generator": optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999)),
        "discriminator": optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.999)),
    }
    noise = torch.randn(16, 4)  # the same for all samples

    @pte.make_extension(trigger=(1, "epoch"))
    def log_samples(manager: pte.Manager) -> None:
        with torch.no_grad():
            manager.run.log_image("samples", generator(noise).view(16, 1, 8, 8), manager.iteration)

    manager = pte.ExtensionsManager(
        {"generator": generator, "discriminator": discriminator},
        max_epochs=10,
        extensions=[log_samples, extensions.LogReport(), extensions.PrintReport(), extensions.snapshot(n_retains=2)],
        optimizers=optimizers,
    )
    manager.resume()
    ones, zeros = torch.ones(32, 1), torch.zeros(32, 1)
    for (batch,) in manager.iterations(DataLoader(TensorDataset(images), 32, shuffle=True)):
        fake = generator(torch.randn(32, 4))
        optimizers["discriminator"].zero_grad()
        on_real = F.binary_cross_entropy_with_logits(discriminator(batch.flatten(1)), ones)
        on_fake = F.binary_cross_entropy_with_logits(discriminator(fake.detach()), zeros)
        (on_real + on_fake).backward()
        optimizers["discriminator"].step()

        optimizers["generator"].zero_grad()
        loss = F.binary_cross_entropy_with_logits(discriminator(fake), ones)
        loss.backward()
        optimizers["generator"].step()
        pte.report({"loss/discriminator": on_real + on_fake, "loss/generator": loss})


if __name__ == "__main__":
    main()

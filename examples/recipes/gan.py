"""Train two models against each other, with several critic steps per generator step, and log samples: python gan.py"""

from __future__ import annotations

import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions

N_CRITIC = 2  # steps of the critic per iteration, each on its own batch


def main() -> None:
    torch.manual_seed(0)
    images = (torch.arange(64).view(8, 8) % 2).float().expand(256, 8, 8) * 0.8 + 0.1 * torch.rand(256, 8, 8)
    loader = DataLoader(TensorDataset(images.flatten(1)), 32, shuffle=True)
    generator = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.Sigmoid())
    critic = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    optimizers = {
        "generator": optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999)),
        "critic": optim.Adam(critic.parameters(), lr=2e-3, betas=(0.5, 0.999)),
    }
    noise = torch.randn(16, 4)  # the same for all samples

    @pte.make_extension(trigger=(1, "epoch"))
    def log_samples(manager: pte.Manager) -> None:
        with torch.no_grad():
            manager.run.log_image("samples", generator(noise).view(16, 1, 8, 8), manager.iteration)

    manager = pte.ExtensionsManager(
        {"generator": generator, "critic": critic},
        max_epochs=10,
        iters_per_epoch=len(loader) // N_CRITIC,
        extensions=[log_samples, extensions.LogReport(), extensions.PrintReport(), extensions.snapshot(n_retains=2)],
        optimizers=optimizers,
        out_dir="gan",
    )
    manager.resume()
    batches = manager.batches(loader)
    ones, zeros = torch.ones(32, 1), torch.zeros(32, 1)
    for _ in manager.iterations():
        for _ in range(N_CRITIC):
            (batch,) = next(batches)
            fake = generator(torch.randn(32, 4)).detach()
            on_real = F.binary_cross_entropy_with_logits(critic(batch), ones)
            on_fake = F.binary_cross_entropy_with_logits(critic(fake), zeros)
            optimizers["critic"].zero_grad()
            (on_real + on_fake).backward()
            optimizers["critic"].step()

        loss = F.binary_cross_entropy_with_logits(critic(generator(torch.randn(32, 4))), ones)
        optimizers["generator"].zero_grad()
        loss.backward()
        optimizers["generator"].step()
        pte.report({"loss/critic": on_real + on_fake, "loss/generator": loss})


if __name__ == "__main__":
    main()

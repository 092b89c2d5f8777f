"""Learn by interaction, with steps of the environment as the x axis: python reinforcement.py"""

from __future__ import annotations

import torch
from torch import nn, optim

import pte_tracking as pte
from pte_tracking import extensions

ENVIRONMENT_STEPS = 6_000
DISCOUNT = 0.9


class Corridor:
    """Walk of 6 fields. The goal is at the right end."""

    def __init__(self) -> None:
        self.position = 0

    def step(self, is_right: bool) -> tuple[int, float, bool]:
        self.position = max(0, self.position + (1 if is_right else -1))
        is_done = self.position == 5
        if is_done:
            self.position = 0
        return self.position, float(is_done), is_done


def main() -> None:
    torch.manual_seed(0)
    environment, policy = Corridor(), nn.Embedding(6, 1)
    optimizer = optim.Adam(policy.parameters(), lr=0.05)
    # An iteration is a step of the environment, so this is the x axis in every backend. An episode that is
    # interrupted is not part of the snapshot: the resumed training starts with a new one.
    manager = pte.ExtensionsManager(
        policy,
        max_iterations=ENVIRONMENT_STEPS,
        extensions=[
            extensions.LogReport(trigger=(500, "iteration")),
            extensions.PrintReport(["iteration", "episode/length", "episode/return"]),
            extensions.snapshot(trigger=(2_000, "iteration")),
        ],
        optimizers=optimizer,
        out_dir="reinforcement",
    )
    manager.resume()
    state, log_probabilities = 0, list[torch.Tensor]()
    for _ in manager.iterations():
        distribution = torch.distributions.Bernoulli(logits=policy(torch.tensor(state)))
        action = distribution.sample()
        log_probabilities.append(distribution.log_prob(action))
        state, reward, is_done = environment.step(bool(action))
        if is_done:
            length = len(log_probabilities)
            discounts = DISCOUNT ** torch.arange(length - 1, -1, -1)
            optimizer.zero_grad()
            (-reward * (discounts * torch.cat(log_probabilities)).sum()).backward()
            optimizer.step()
            pte.report({"episode/length": length, "episode/return": reward * DISCOUNT ** (length - 1)})
            log_probabilities = []


if __name__ == "__main__":
    main()

"""Train on a given number of tokens of an endless stream: python tokens.py"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

import pte_tracking as pte
from pte_tracking import extensions

TEXT = "the journal is written first, and delivered later. " * 20
VOCABULARY = sorted(set(TEXT))
BATCH_SIZE, LENGTH = 16, 32  # windows per batch, predicted tokens per window
TRAINING_TOKENS = 51_200


class Windows(IterableDataset[Tensor]):
    """Windows of LENGTH + 1 characters at random positions, without an end."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)  # its state is part of the snapshots

    def __iter__(self) -> Iterator[Tensor]:
        tokens = torch.tensor([VOCABULARY.index(character) for character in TEXT])
        while True:
            start = int(torch.randint(len(tokens) - LENGTH - 1, (), generator=self.generator))
            yield tokens[start : start + LENGTH + 1]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), 32)
        self.recurrent = nn.GRU(32, 64, batch_first=True)
        self.output = nn.Linear(64, len(VOCABULARY))

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.recurrent(self.embedding(tokens))
        scores: Tensor = self.output(hidden)
        return scores


def main() -> None:
    torch.manual_seed(0)
    model = Model()
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    manager = pte.ExtensionsManager(
        model,
        max_iterations=TRAINING_TOKENS // (BATCH_SIZE * LENGTH),
        extensions=[
            # A value reported in each iteration would be averaged by LogReport.
            extensions.observe_value(
                "tokens", lambda manager: manager.iteration * BATCH_SIZE * LENGTH, trigger=(20, "iteration")
            ),
            extensions.LogReport(trigger=(20, "iteration")),
            extensions.PrintReport(["iteration", "tokens", "train/loss"]),
            extensions.snapshot(trigger=(50, "iteration")),
        ],
        optimizers=optimizer,
        out_dir="tokens",
    )
    manager.resume()
    for window in manager.iterations(DataLoader(Windows(), BATCH_SIZE)):
        optimizer.zero_grad()
        scores = model(window[:, :-1])
        loss = F.cross_entropy(scores.flatten(0, 1), window[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        pte.report({"train/loss": loss})


if __name__ == "__main__":
    main()

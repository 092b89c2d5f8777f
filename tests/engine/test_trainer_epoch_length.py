"""Epochs of a Trainer whose data have no length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pte_tracking as pte
from pte_tracking.updaters import StandardUpdater


class Stream:
    def __iter__(self) -> Iterator[Tensor]:
        yield from torch.ones(5, 2, 3)


class StreamWithoutImplementedLength(Stream):
    def __len__(self) -> int:
        raise NotImplementedError


def make_trainer(kind: type[StandardUpdater], stream: Stream, out_dir: Path) -> pte.Trainer:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.target = model  # type: ignore[attr-defined]
    return pte.Trainer(kind(stream, optimizer, loss_func=lambda x: model(x).sum()), (2, "epoch"), out_dir)


@pytest.mark.parametrize("stream", [Stream, StreamWithoutImplementedLength])
def test_stream_without_epoch_length_raises_and_names_the_property_of_the_updater(
    stream: type[Stream], tmp_path: Path
) -> None:
    trainer = make_trainer(StandardUpdater, stream(), tmp_path)
    with pytest.raises(RuntimeError, match=r"define the property iters_per_epoch in a subclass of the updater"):
        trainer.run()


def test_stream_with_epoch_length_of_the_updater_counts_epochs(tmp_path: Path) -> None:
    class StreamUpdater(StandardUpdater):
        @property
        def iters_per_epoch(self) -> int:
            return 4

    trainer = make_trainer(StreamUpdater, Stream(), tmp_path)
    trainer.run()
    assert (trainer.manager.iteration, trainer.manager.epoch) == (8, 2)

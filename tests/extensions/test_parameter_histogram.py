"""Tests of ParameterHistogram."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from pte_tracking import ExtensionsManager
from pte_tracking._store.events import Histogram
from pte_tracking._store.journal_reader import read
from pte_tracking.extensions import ParameterHistogram


def record_histograms(out: Path, extension: ParameterHistogram) -> list[Histogram]:
    with ExtensionsManager({}, 2, [extension], iters_per_epoch=2, out_dir=out, sinks=[]) as manager:
        for _ in range(4):
            with manager.run_iteration():
                pass
    return [event for event, _ in read(out / "journal.jsonl") if isinstance(event, Histogram)]


def test_parameter_histogram_logs_each_tensor_every_epoch(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    model.weight.grad = torch.tensor([[0.0, 1.0, 2.0], [3.0, math.nan, math.inf]])
    events = record_histograms(tmp_path, ParameterHistogram(model, prefix="net"))
    keys = ["net/weight/data", "net/weight/grad", "net/bias/data"]
    assert [(event.key, event.step) for event in events] == [(key, step) for step in (2, 4) for key in keys]
    gradient = events[1]
    assert (gradient.min, gradient.max, gradient.sum, sum(gradient.counts)) == (0, 3, 6, 4)
    assert sum(events[0].counts) == 6


def test_parameter_histogram_logs_selected_kinds_only(tmp_path: Path) -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.grad = torch.ones(1, 1)
    assert {event.key for event in record_histograms(tmp_path / "a", ParameterHistogram(model, False))} == {
        "weight/grad"
    }
    assert {event.key for event in record_histograms(tmp_path / "b", ParameterHistogram(model, True, False))} == {
        "weight/data"
    }


def test_parameter_histogram_low_precision_weights_are_logged(tmp_path: Path) -> None:
    events = record_histograms(tmp_path, ParameterHistogram(nn.Linear(2, 2, bias=False, dtype=torch.bfloat16)))
    assert sum(events[0].counts) == 4


def test_parameter_histogram_colliding_names_raise_value_error() -> None:
    with pytest.raises(ValueError, match=r"links: several modules have parameters named 'weight'"):
        ParameterHistogram([nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)])

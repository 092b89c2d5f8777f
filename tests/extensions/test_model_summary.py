"""Tests of ModelSummary."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from pte_tracking import ExtensionsManager
from pte_tracking._store.events import Text
from pte_tracking._store.journal_reader import read_effective
from pte_tracking.extensions import ModelSummary


def read_texts(out: Path) -> list[Text]:
    return [event for event, _ in read_effective(out / "journal.jsonl") if isinstance(event, Text)]


def make_manager(out: Path, *models: nn.Module) -> ExtensionsManager:
    named = {f"net{index}": model for index, model in enumerate(models)}
    return ExtensionsManager(named, 2, [ModelSummary()], iters_per_epoch=2, out_dir=out, sinks=[])


def test_model_summary_lists_layers_and_counts_parameters(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 1, bias=False)))
    model[0].bias.requires_grad_(False)
    with make_manager(tmp_path, model) as manager, manager.run_iteration():
        pass
    (text,) = read_texts(tmp_path)
    assert (text.key, text.step) == ("model", 0)
    assert text.text.splitlines() == [
        "**net0**: 10 parameters, 8 of them trained, 0.00 MB",
        "",
        "| name | layer | weights |",
        "|---|---|---:|",
        "| 0 | Linear(in_features=3, out_features=2, bias=True) | 8 |",
        "| 1.0 | ReLU() | 0 |",
        "| 1.1 | Linear(in_features=2, out_features=1, bias=False) | 2 |",
    ]


def test_model_summary_leaves_out_last_arguments_of_long_layers(tmp_path: Path) -> None:
    class Layer(nn.Module):
        def extra_repr(self) -> str:
            return "x" * 100

    with make_manager(tmp_path, nn.Sequential(nn.BatchNorm2d(32), Layer())) as manager, manager.run_iteration():
        pass
    (text,) = read_texts(tmp_path)
    assert text.text.splitlines()[4:] == [
        "| 0 | BatchNorm2d(32, eps=1e-05, momentum=0.1, affine=True, …) | 64 |",
        f"| 1 | Layer({'x' * 50}, …) | 0 |",
    ]


def test_model_summary_counts_tied_weights_once_and_omits_lazy_weights(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    with make_manager(tmp_path, tied, nn.LazyLinear(3)) as manager, manager.run_iteration():
        pass
    (text,) = read_texts(tmp_path)
    assert "**net0**: 4 parameters" in text.text
    assert "**net1**: 0 parameters" in text.text


def test_model_summary_empty_models_log_no_text(tmp_path: Path) -> None:
    with make_manager(tmp_path) as manager, manager.run_iteration():
        pass
    assert read_texts(tmp_path) == []


def test_model_summary_resumed_run_keeps_single_text(tmp_path: Path) -> None:
    with make_manager(tmp_path, nn.Linear(1, 1)) as manager:
        with manager.run_iteration():
            pass
        state = manager.state_dict()
    with make_manager(tmp_path, nn.Linear(1, 1)) as manager:
        manager.load_state_dict(state)
        with manager.run_iteration():
            pass
    assert len(read_texts(tmp_path)) == 1


def test_model_summary_new_run_logs_text_again(tmp_path: Path) -> None:
    for _ in range(2):
        with make_manager(tmp_path, nn.Linear(1, 1)) as manager:
            assert manager.resume() is None
            with manager.run_iteration():
                pass
    assert len(read_texts(tmp_path)) == 1

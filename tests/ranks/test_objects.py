"""Exact resume of models and optimizers whose states are distributed over the ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.extensions.weight_readers import WEIGHT_READERS
from tests.ranks import object_scenarios
from tests.ranks.forked import on_ranks

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("scenario", "ranks"),
    [
        (object_scenarios.compare_zero, 2),
        (object_scenarios.compare_flat, 2),
        (object_scenarios.compare_flat_with_original_parameters, 2),
        (object_scenarios.compare_hybrid, 4),
        (object_scenarios.compare_accumulating_data_parallel, 2),
        (object_scenarios.compare_accumulating_sharded, 2),
        (object_scenarios.compare_never_zeroing_sharded, 2),
        (object_scenarios.compare_accumulating_flat, 2),
        (object_scenarios.compare_constant_communication_hook, 2),
    ],
)
def test_resumed_distributed_training_equals_uninterrupted_one(
    scenario: Callable[[Path], Any], ranks: int, tmp_path: Path
) -> None:
    for result in on_ranks(scenario, ranks, tmp_path):
        assert result == {"start": 4, "is_equal": True, "messages": []}


@pytest.mark.parametrize("scenario", [object_scenarios.lose_gradients_sharded, object_scenarios.lose_gradients_flat])
def test_unsynchronized_gradients_of_sharded_model_are_reported(
    scenario: Callable[[Path], Any], tmp_path: Path
) -> None:
    for result in on_ranks(scenario, 2, tmp_path):
        assert "without synchronization (no_sync() or" in result["messages"][0]
        assert len(result["messages"]) <= 2, "once for each manager"


def test_state_of_communication_hook_is_reported_once_per_run(tmp_path: Path) -> None:
    rank_zero, other = on_ranks(object_scenarios.lose_state_of_communication_hook, 2, tmp_path)
    assert rank_zero["start"] == other["start"] == 4
    assert not rank_zero["is_equal"], "nothing to report"
    for message in rank_zero["messages"]:
        assert "the communication hook powerSGD_hook of the model 'main' (PowerSGDState: error feedback" in message
    assert len(rank_zero["messages"]) == 2, "once for each manager"
    assert other["messages"] == []


def test_communication_hook_that_is_state_object_is_restored_without_a_message(tmp_path: Path) -> None:
    for result in on_ranks(object_scenarios.save_communication_hook_as_state_object, 2, tmp_path):
        assert result == {"count": 8, "messages": []}


@pytest.mark.parametrize("train", [object_scenarios.train_zero, object_scenarios.train_flat])
def test_distributed_optimizer_state_is_restored_in_single_process(
    train: Callable[[Path], Any], tmp_path: Path
) -> None:
    on_ranks(train, 2, tmp_path)
    saved = torch.load(tmp_path / "run" / "snapshot_iter_4")["optimizers"]["main"]["state"]
    result = object_scenarios.inspect_single(tmp_path)
    assert result["start"] == 4
    assert result["moments"] == [entry["exp_avg"].tolist() for entry in saved.values()]
    assert any(value for row in result["moments"][0] for value in row)


def test_flat_optimizer_state_is_restored_from_zero_redundancy_optimizer(tmp_path: Path) -> None:
    on_ranks(object_scenarios.train_zero, 2, tmp_path)
    saved = torch.load(tmp_path / "run" / "snapshot_iter_4")["optimizers"]["main"]["state"]
    rank_zero, _ = on_ranks(object_scenarios.inspect_flat, 2, tmp_path)
    assert rank_zero == {"start": 4, "moments": [entry["exp_avg"].tolist() for entry in saved.values()]}


def test_accumulated_gradients_on_fewer_ranks_are_their_mean(tmp_path: Path) -> None:
    on_ranks(object_scenarios.train_accumulating, 2, tmp_path)
    state = torch.load(tmp_path / "run" / "snapshot_iter_4")
    rank_zero, other = state["gradients"]["main"], state["ranks"][0]["gradients"]["main"]
    assert other.keys() == rank_zero.keys()
    result = object_scenarios.inspect_single(tmp_path)
    assert result["gradients"] == [((rank_zero[name] + other[name]) / 2).tolist() for name in rank_zero]


def test_first_snapshot_of_differing_ranks_names_tensors_once(tmp_path: Path) -> None:
    messages, no_messages = on_ranks(object_scenarios.save_different_ranks, 2, tmp_path)
    (message,) = messages
    assert "ranks differ from rank 0 in models/main/0.weight (rank 1)" in message
    assert "and 3 more" in message
    assert no_messages == []


def test_snapshot_on_error_with_zero_redundancy_optimizer_is_refused(tmp_path: Path) -> None:
    for message in on_ranks(object_scenarios.snapshot_on_error, 2, tmp_path):
        assert "snapshot_on_error: not supported with sharded models and optimizers" in message


def test_flat_weights_are_refused_by_extensions_that_would_report_a_shard(tmp_path: Path) -> None:
    rank_zero, other = on_ranks(object_scenarios.read_flat_weights, 2, tmp_path)
    for result in (rank_zero, other):
        assert len(result["errors"]) == 2 * len(WEIGHT_READERS) + 1
        assert all("FullyShardedDataParallel hides its weights" in error for error in result["errors"])
    (text,) = rank_zero["texts"]
    assert text.startswith("**single**: 144 parameters")
    monitor, summary = rank_zero["messages"]
    assert summary.startswith("ModelSummary: FullyShardedDataParallel hides the weights of 'flat'")
    assert monitor.startswith("Monitor: FullyShardedDataParallel hides the gradients")


def test_weights_of_sharded_model_are_read_as_those_of_a_whole_one(tmp_path: Path) -> None:
    sharded, other = on_ranks(object_scenarios.measure_sharded_weights, 2, tmp_path / "sharded")
    whole = object_scenarios.measure_weights(tmp_path / "whole", object_scenarios.make_single)
    assert other is None
    assert sharded["row"] == pytest.approx(whole["row"], rel=1e-5)
    assert len(whole["row"]) == 2 * 4 * 5
    assert sharded["histograms"] == whole["histograms"]
    assert (tmp_path / "sharded" / "run" / "statistics.png").exists()

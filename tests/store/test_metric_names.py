"""Selection of the metric that summarizes a run."""

from __future__ import annotations

import pytest

from pte_tracking._store.metric_names import is_lower_better, primary_metric


@pytest.mark.parametrize(
    ("keys", "primary"),
    [
        (["eval/train_loss", "val/loss", "train/loss"], "val/loss"),
        (["main/loss", "validation/main/accuracy", "validation/main/loss"], "validation/main/loss"),
        (["train/loss", "valid/accuracy"], "valid/accuracy"),
        (["train_loss", "valid_loss"], "valid_loss"),
        (["loss", "eval_loss", "eval_runtime_seconds"], "eval_loss"),
        (["loss", "test/acc"], "test/acc"),
        (["test/loss", "val/acc"], "val/acc"),
        (["trainLoss", "valLoss"], "valLoss"),
        (["trainacc", "valacc"], "valacc"),
        (["interval/loss", "val/psnr"], "val/psnr"),
        (["val/aux_loss", "val/loss"], "val/loss"),
        (["val/loss.std", "val/loss"], "val/loss"),
        (["val/lr", "train/loss"], "train/loss"),
        (["train/loss", "loss"], "loss"),
        (["monitor/gradient_norm", "system/cpu_utilization_percentage", "train/loss"], "train/loss"),
        (["tokens", "train/loss"], "train/loss"),
        (["layer.weight/data/norm", "train/loss"], "train/loss"),
        (["bias_norm", "train/accuracy", "weight_decay"], "train/accuracy"),
        (["bias_norm", "train/bias_norm"], "bias_norm"),
        (["train/loss", "val/agreement", "weight_decay"], "val/agreement"),
        (["test/agreement", "train/loss"], "test/agreement"),
        (["a", "b"], "a"),
        (["日本"], "日本"),
        ([], None),
    ],
)
def test_primary_metric_prefers_validation(keys: list[str], primary: str | None) -> None:
    assert primary_metric(keys) == primary


@pytest.mark.parametrize("key", ["val/loss", "error", "val/nll", "accuracy_loss", "accumulated_loss", "wer", "x"])
def test_is_lower_better_of_losses_and_unknown_metrics(key: str) -> None:
    assert is_lower_better(key)


@pytest.mark.parametrize("key", ["val/acc", "testAccuracy", "top5", "F1", "val/r2", "mAP50", "recall@10", "AUC"])
def test_is_lower_better_not_of_accuracies_and_scores(key: str) -> None:
    assert not is_lower_better(key)

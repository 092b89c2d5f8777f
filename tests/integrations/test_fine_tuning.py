"""Test of the example that fine-tunes a pretrained model in a plain loop."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

import pte_tracking as pte

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "fine_tuning.py"
WORDS = (
    "[PAD]",
    "[UNK]",
    "this",
    "film",
    "book",
    "song",
    "is",
    "excellent",
    "great",
    "good",
    "poor",
    "bad",
    "terrible",
)


@pytest.fixture
def pretrained_model(tmp_path: Path) -> Path:
    """Directory of a small model with random weights, which saves the download of a large one."""
    directory = tmp_path / "pretrained"
    vocabulary = WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(vocabulary), pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(directory)
    config = DistilBertConfig(
        vocab_size=len(WORDS), dim=32, hidden_dim=64, n_layers=1, n_heads=2, max_position_embeddings=16
    )
    DistilBertForMaskedLM(config).save_pretrained(directory)
    return directory


@pytest.mark.slow
def test_fine_tuning_started_again_continues_and_saves_weights_of_last_snapshot(
    pretrained_model: Path, tmp_path: Path
) -> None:
    for epochs in ("1", "2", "2"):
        done = subprocess.run(
            [sys.executable, str(EXAMPLE), "--model", str(pretrained_model), "--epochs", epochs],
            cwd=tmp_path,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert "nothing is left to train" in done.stderr
    (run,) = pte.open_runs(tmp_path / "fine_tuning")
    assert list(run.frame()["epoch"]) == [1, 2]
    tuned = DistilBertForSequenceClassification.from_pretrained(tmp_path / "fine_tuned").state_dict()
    saved = pte.load(tmp_path / "fine_tuning").state["models"]["main"]
    assert tuned.keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in tuned.items())

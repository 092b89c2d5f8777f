"""Weights & Biases in offline mode: files that ``wandb sync`` sends."""

from pte_wandb.sink import WandbSink

__all__ = ["WandbSink"]

"""Weights & Biases in offline mode: files that ``wandb sync`` sends."""

from pte_backends.wandb._sink import WandbSink

__all__ = ["WandbSink"]

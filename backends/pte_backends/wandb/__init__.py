"""Weights & Biases backend in offline mode, for upload with ``wandb sync``."""

from pte_backends.wandb._sink import WandbSink

__all__ = ["WandbSink"]

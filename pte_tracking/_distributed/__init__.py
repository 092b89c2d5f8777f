"""Distributed training with ``torch.distributed``."""

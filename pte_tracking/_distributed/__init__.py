"""Processes that train together under ``torch.distributed``."""

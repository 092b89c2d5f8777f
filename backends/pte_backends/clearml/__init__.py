"""ClearML backend in offline mode, for upload with ``clearml-task --import-offline-session``."""

from pte_backends.clearml._sink import ClearMLSink

__all__ = ["ClearMLSink"]

"""SwanLab backend in offline mode, for upload with ``swanlab sync``."""

from pte_backends.swanlab._sink import SwanLabSink

__all__ = ["SwanLabSink"]

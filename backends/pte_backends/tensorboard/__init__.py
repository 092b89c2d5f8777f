"""TensorBoard backend that requires neither TensorFlow nor torch."""

from pte_backends.tensorboard._sink import TensorBoardSink

__all__ = ["TensorBoardSink"]

"""TensorBoard event files, written without TensorFlow and without torch."""

from pte_backends.tensorboard._sink import TensorBoardSink

__all__ = ["TensorBoardSink"]

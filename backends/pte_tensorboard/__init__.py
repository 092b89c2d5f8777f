"""TensorBoard event files, written without TensorFlow and without torch."""

from pte_tensorboard.sink import TensorBoardSink

__all__ = ["TensorBoardSink"]

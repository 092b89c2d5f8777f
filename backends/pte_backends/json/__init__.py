"""JSON log in the format of Chainer's ``LogReport``, appended to in constant time."""

from pte_backends.json._sink import JsonSink

__all__ = ["JsonSink"]

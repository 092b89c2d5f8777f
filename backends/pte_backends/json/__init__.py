"""The JSON log of a run, as Chainer's ``LogReport`` left it, but appended in constant time."""

from pte_backends.json._sink import JsonSink

__all__ = ["JsonSink"]

"""The JSON log of a run, as Chainer's ``LogReport`` left it, but appended in constant time."""

from pte_json.sink import JsonSink

__all__ = ["JsonSink"]

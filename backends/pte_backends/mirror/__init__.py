"""Copies of the snapshots and the journal of a run in an object store, on another machine, or on a second disk."""

from pte_backends.mirror._sink import MirrorSink

__all__ = ["MirrorSink"]

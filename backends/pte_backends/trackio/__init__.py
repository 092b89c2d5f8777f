"""Trackio backend for the local SQLite database of a project."""

from pte_backends.trackio._sink import TrackioSink

__all__ = ["TrackioSink"]

"""Aim backend."""

from pte_backends.aim._sink import AimSink

__all__ = ["AimSink"]

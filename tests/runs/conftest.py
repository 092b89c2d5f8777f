"""Fixtures that install the probe sink."""

from tests.probe.fixtures import _installed, packages, probe, probes

__all__ = ["_installed", "packages", "probe", "probes"]

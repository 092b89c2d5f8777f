"""Contract tests detect a sink that breaks the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pte_tracking.sinks import Sink
from pte_tracking.testing import Points, SinkContract

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe


def contract(probe: Probe) -> SinkContract:
    """Return the contract tests for a probe sink."""

    class ProbeContract(SinkContract):
        def make_sink(self, folder: Path) -> Sink:
            return probe.sink()

        def read_points(self, sink: Sink, run_directory: Path) -> Points:
            points: Points = {}
            for key, step, value in probe.points():
                points.setdefault(key, []).append((step, value))
            return points

    return ProbeContract()


def test_sink_contract_rejecting_sink_fails(probes: Callable[[str], Probe], tmp_path: Path) -> None:
    contract(probes("good")).test_every_event_kind_is_accepted(tmp_path / "good-run")
    refusing = probes("refusing")
    refusing.control(bad=[5])
    with pytest.raises(AssertionError, match="rejected events"):
        contract(refusing).test_every_event_kind_is_accepted(tmp_path / "refusing-run")

"""The contract of backends finds fault with those that do not keep it."""

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
    """That of a probe."""

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
    with pytest.raises(AssertionError, match="RejectedEventError"):
        contract(refusing).test_every_event_kind_is_accepted(tmp_path / "refusing-run")

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


def test_sink_that_declares_nothing_is_skipped(probe: Probe, tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="does not declare"):
        contract(probe).test_kind_is_shown_as_declared(tmp_path, "metrics")


def test_declaration_without_reader_fails(probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(probe.sink()), "shows", {"metrics": "native"})
    with pytest.raises(AssertionError, match=r"Override read_shown\(\)"):
        contract(probe).test_kind_is_shown_as_declared(tmp_path, "metrics")


def test_declaration_that_differs_from_backend_fails(
    probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(probe.sink()), "shows", {"metrics": "native", "tags": "native", "text": "artifact"})
    tests = contract(probe)
    found = {"metrics": "native", "text": "native", "image": "native"}
    monkeypatch.setattr(type(tests), "read_shown", lambda self, sink, directory: found)
    tests.test_kind_is_shown_as_declared(tmp_path, "metrics")
    tests.test_kind_is_shown_as_declared(tmp_path, "histogram")
    for kind in ("tags", "text", "image"):
        with pytest.raises(AssertionError, match=f"^{kind}: "):
            tests.test_kind_is_shown_as_declared(tmp_path, kind)


def test_sink_contract_rejecting_sink_fails(probes: Callable[[str], Probe], tmp_path: Path) -> None:
    contract(probes("good")).test_every_event_kind_is_accepted(tmp_path / "good-run")
    refusing = probes("refusing")
    refusing.control(bad=[5])
    with pytest.raises(AssertionError, match="rejected events"):
        contract(refusing).test_every_event_kind_is_accepted(tmp_path / "refusing-run")

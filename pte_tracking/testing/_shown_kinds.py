"""Tests of the kinds of events that a backend declares to show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pte_tracking._store import events
from pte_tracking.sinks import Display, EventKind, Sink, find_display
from pte_tracking.testing._recorded_run import RecordedRun
from pte_tracking.testing._samples import make_sample_events

#: What each contract found in its backend. All tests of a contract check one delivered run.
_found_by_contract: dict[type, Mapping[EventKind, Display | None]] = {}


class ShownKindsContract(ABC):
    """Comparison of :attr:`Sink.shows` with the content of a backend."""

    @abstractmethod
    def make_sink(self, folder: Path) -> Sink:
        """Create a sink with an empty destination.

        Args:
            folder: Empty directory for the destination. A sink may use any other empty destination.

        Returns:
            The sink.
        """

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        """Find out which kinds of events the backend shows, with the reader of the client library.

        The run has finished. It contains one event of each kind at step 1: the metric ``a``, the parameter ``lr`` with
        the value 0.1, the tag ``team``, the figure ``figures/loss``, the image ``image``, the histogram ``weights``,
        the text ``note``, the table ``words``, the page ``page``, the sound ``sound``, the video ``clip``, the dataset
        ``digits``, the artifact ``file.txt`` in ``folder``, the checkpoint ``snapshot``, and the exported model
        ``main`` in ``exports/model``.

        Override the method if the sink declares :attr:`Sink.shows`. Search for all kinds, also for those that the sink
        does not declare.

        Args:
            sink: Sink that :meth:`make_sink` returned.
            run_directory: Run directory.

        Returns:
            How the backend shows each kind. Kinds that are not found are None or missing.
        """
        raise AssertionError(
            f"{type(sink).__name__} declares `shows`, but {type(self).__name__} does not read the backend. "
            "Override read_shown()."
        )

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Test each kind of event separately; a hook of pytest.

        Args:
            metafunc: Test function, as passed by pytest.
        """
        if "kind" in metafunc.fixturenames:
            metafunc.parametrize("kind", get_args(EventKind))

    def test_kind_is_shown_as_declared(self, tmp_path: Path, kind: EventKind) -> None:
        sink = self.make_sink(tmp_path)
        if sink.shows is None:
            # Imported here, because the other parts of the module do not require pytest.
            import pytest

            pytest.skip(f"{type(sink).__name__} does not declare the kinds of events that it shows.")
        if type(self) not in _found_by_contract:
            _found_by_contract[type(self)] = self.read_shown(sink, _deliver_every_kind(tmp_path / "run", sink))
        declared, found = sink.shows.get(kind), _found_by_contract[type(self)].get(kind)
        if declared is None and found == find_display(sink.shows, kind):
            return  # The core delivered the file as an artifact.
        assert found == declared, f"{kind}: shows declares {declared}, but the backend contains {found}."


def _deliver_every_kind(directory: Path, sink: Sink) -> Path:
    run = RecordedRun(directory, sink)
    run.log(1, {"a": 1.0}, epoch=0.5)
    for kind, fields in make_sample_events(directory):
        if kind is not events.CheckpointRemoved:
            run.journal.append(kind, *fields)
    run.end()
    return directory

"""Test of a backend that reads runs, and the comparison of data points."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from pte_tracking._store import events
from pte_tracking._store.events import Number
from pte_tracking.sinks import ENTRY_POINT_GROUP, Sink, installed_sinks
from pte_tracking.testing._recorded_run import RecordedRun
from pte_tracking.testing._samples import UNUSUAL_NUMBERS, Points
from pte_tracking.testing._shown_kinds import ShownKindsContract


class ReadRunContract(ShownKindsContract):
    """Comparison of a run that :meth:`Sink.read_run` reads with the delivered one."""

    is_single_precision = False

    def find_source(self, sink: Sink, run_directory: Path) -> tuple[str, Mapping[str, str]]:
        """Find the delivered run, so that :meth:`Sink.read_run` can read it.

        Override the method if the sink declares :attr:`Sink.sources`.

        Args:
            sink: Sink that :meth:`make_sink` returned.
            run_directory: Run directory.

        Returns:
            Source, and options of :meth:`Sink.read_run`.
        """
        raise AssertionError(
            f"{type(sink).__name__} declares `sources`, but {type(self).__name__} does not name the delivered run. "
            "Override find_source()."
        )

    def test_run_that_is_read_has_delivered_metrics(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        if not sink.sources:
            # Imported here, because the other parts of the module do not require pytest.
            import pytest

            pytest.skip(f"{type(sink).__name__} does not read runs.")
        for step, number in enumerate(UNUSUAL_NUMBERS, 1):
            run.log(step, {"a": number, "group/b": -number})
        run.end()
        source, options = self.find_source(sink, run.directory)
        (tmp_path / "files").mkdir()
        points: Points = {}
        for event in type(sink).read_run(source, tmp_path / "files", **options):
            if isinstance(event, events.Metrics):
                for key, value in event.values.items():
                    points.setdefault(key, []).append((event.step, float(value)))
        self._check(points, "a", list(enumerate(UNUSUAL_NUMBERS, 1)))
        self._check(points, "group/b", [(step, -number) for step, number in enumerate(UNUSUAL_NUMBERS, 1)])

    def _start_run(self, folder: Path) -> tuple[Sink, RecordedRun]:
        folder.mkdir(parents=True, exist_ok=True)
        sink = self.make_sink(folder)
        assert sink.name in installed_sinks(), (
            f"No installed package registers the sink {sink.name!r}. Check the entry point in the group "
            f"{ENTRY_POINT_GROUP!r}, and install the package: pip install -e ."
        )
        return sink, RecordedRun(folder / "run", sink)

    def _check(self, points: Points, key: str, expected: Sequence[tuple[int, Number]]) -> None:
        assert key in points, f"The key {key!r} is missing. Stored keys: {sorted(points)}"
        stored_points = [(step, _bits(value)) for step, value in points[key]]
        expected_points = [(step, _bits(self._round_as_stored(number))) for step, number in expected]
        assert stored_points == expected_points, f"{key!r}: expected {list(expected)}, got {points[key]}"

    def _round_as_stored(self, number: Number) -> float:
        value = float(number)
        if not self.is_single_precision or not math.isfinite(value):
            return value
        try:
            return float(struct.unpack("f", struct.pack("f", value))[0])
        except OverflowError:
            return math.copysign(math.inf, value)


def _bits(value: float) -> str:
    # Databases do not preserve the signs of zeros and NaNs.
    return "nan" if math.isnan(value) else (value + 0.0).hex()

"""Tests that every backend must pass."""

from __future__ import annotations

import contextlib
import itertools
import math
import operator
from abc import abstractmethod
from pathlib import Path

from pte_tracking._delivery.cursor import Cursor
from pte_tracking._store import events
from pte_tracking._store.events import Number
from pte_tracking._store.values import to_numbers
from pte_tracking.sinks import Location, Sink, map_key
from pte_tracking.testing._reading import ReadRunContract
from pte_tracking.testing._samples import UNUSUAL_KEYS, UNUSUAL_NUMBERS, Points, make_sample_events

_WIDE_ROW_KEYS = 1_500  # more than the default of Limits.batch_values


class SinkContract(ReadRunContract):
    """Test suite for a backend.

    A subclass provides a sink and a function that reads the stored data points. A subclass for a sink that declares
    ``shows`` also provides ``read_shown``. Each test creates a sink and a run. The tests drive the sink as the delivery
    process does. One test delivers in a separate process and kills it.

    Attributes:
        is_single_precision: Whether the backend stores numbers as 32-bit floats. Defaults to False.
        keeps_non_finite: Whether the backend stores NaN and infinities unchanged. Defaults to True. If False, they only
            must not affect other values.
        large_run_rows: Number of rows in the test of a large run. Defaults to 20,000.
        large_run_keys: Number of values in each of these rows. Defaults to 50, which makes 1 million data points.
        generated_runs: Number of runs with generated keys and values. Defaults to 20.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from pte_backends.json import JsonSink
        >>> from pte_tracking.testing import SinkContract
        >>> class TestJsonSink(SinkContract):
        ...     keeps_non_finite = False
        ...     def make_sink(self, folder):
        ...         return JsonSink()
        ...     def read_points(self, sink, run_directory):
        ...         points = {}
        ...         for row in json.loads((run_directory / "log").read_text()):
        ...             step = row.pop("iteration")
        ...             for key, value in row.items():
        ...                 points.setdefault(key, []).append((step, value))
        ...         return points
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     TestJsonSink().test_redelivered_batch_is_stored_once(Path(directory))
    """

    keeps_non_finite = True
    large_run_rows = 20_000
    large_run_keys = 50
    generated_runs = 20

    @abstractmethod
    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        """Read all data points of a run from the backend.

        Args:
            sink: Sink that :meth:`make_sink` returned.
            run_directory: Run directory.

        Returns:
            Pairs of step and value for each key, ordered by step.
        """

    # -- tests ---------------------------------------------------------------------------------------------------------

    def test_metrics_round_trip_exactly(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        for step, number in enumerate(UNUSUAL_NUMBERS, 1):
            run.log(step, {"a": number, "group/b": -number})
        run.end()
        points = self.read_points(sink, run.directory)
        self._check(points, "a", list(enumerate(UNUSUAL_NUMBERS, 1)))
        self._check(points, "group/b", [(step, -number) for step, number in enumerate(UNUSUAL_NUMBERS, 1)])

    def test_non_finite_values_do_not_affect_others(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        non_finite = [math.nan, math.inf, -math.inf]
        for step, number in enumerate(non_finite, 1):
            run.log(step, {"odd": number, "plain": step})
        run.end()
        points = self.read_points(sink, run.directory)
        self._check(points, "plain", [(1, 1), (2, 2), (3, 3)])
        if self.keeps_non_finite:
            self._check(points, "odd", list(enumerate(non_finite, 1)))

    def test_unusual_keys_stay_distinct(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        run.log(1, {key: index for index, key in enumerate(UNUSUAL_KEYS)})
        run.end()
        points = self.read_points(sink, run.directory)
        names: list[str] = []
        for index, key in enumerate(UNUSUAL_KEYS):
            names.append(map_key(key, sink.limits, names))
            self._check(points, names[-1], [(1, index)])

    def test_generated_keys_and_values_stay_distinct(self, tmp_path: Path) -> None:
        # Imported here, because the other parts of the module do not require pytest and hypothesis.
        import pytest

        pytest.importorskip("hypothesis")
        from hypothesis import HealthCheck, Phase, Verbosity, given, settings
        from hypothesis import strategies as st

        text = st.text(min_size=1)
        paths = st.lists(text, min_size=2, max_size=4).map("/".join)
        long = st.builds(operator.mul, text, st.integers(2, 400))
        tricky = st.text("./\\ -_%:\0\t\nAaÄ日", min_size=1)
        numbers = st.floats() | st.integers() | st.integers(-(10**400), 10**400)
        rows = st.dictionaries(text | paths | long | tricky, numbers, min_size=10, max_size=40).map(to_numbers)
        folders = (tmp_path / str(number) for number in itertools.count())

        @settings(
            max_examples=self.generated_runs,
            deadline=None,
            database=None,
            # The failure message names the key, so shrinking the example is not worth its time.
            phases=[Phase.generate],
            verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(rows, min_size=1, max_size=4))
        def check(rows: list[dict[str, Number]]) -> None:
            sink, run = self._start_run(next(folders))
            names: dict[str, str] = {}
            expected: dict[str, dict[int, Number]] = {}
            for step, generated in enumerate(rows, 1):
                # Hypothesis also generates texts that occur in the code. Reserved names are stored under other names.
                row = {key: number for key, number in generated.items() if key not in sink.limits.reserved_names}
                run.log(step, row)
                for key, number in row.items():
                    if key not in names:
                        names[key] = map_key(key, sink.limits, set(names.values()))
                    expected.setdefault(names[key], {})[step] = number
            run.end()
            points = self.read_points(sink, run.directory)
            for key, numbers in expected.items():
                ignored_steps = {step for step, number in numbers.items() if not math.isfinite(number)}
                ignored_steps = set() if self.keeps_non_finite else ignored_steps
                stored_points = [point for point in points.get(key, []) if point[0] not in ignored_steps]
                self._check(
                    {key: stored_points}, key, [point for point in numbers.items() if point[0] not in ignored_steps]
                )

        check()

    def test_every_event_kind_is_accepted(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        run.log(1, {"a": 1.0}, epoch=0.5)
        for kind, fields in make_sample_events(run.directory):
            run.journal.append(kind, *fields)
        run.log(2, {"a": 2.0}, epoch=1)
        run.end()
        assert not run.rejected_events, f"The backend rejected events that it must store: {run.rejected_events}"
        self._check(self.read_points(sink, run.directory), "a", [(1, 1.0), (2, 2.0)])

    def test_metric_with_name_of_text_is_stored(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        run.journal.append(events.Text, "note", 0, "text")
        run.log(1, {"note": 1.0})
        run.deliver()
        run.log(2, {"note": 2.0})
        run.end()
        points = self.read_points(sink, run.directory)
        keys = [key for key in points if key in ("note", "note/metric")]
        assert len(keys) == 1, f"expected one key for the metric 'note', got {list(points)}"
        self._check(points, keys[0], [(1, 1.0), (2, 2.0)])

    def test_redelivered_batch_is_stored_once(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        run.log(1, {"a": 1.0})
        run.deliver()
        run.log(2, {"a": 2.0, "b": 5.0})
        run.deliver(save_cursor=False)
        run.deliver(save_cursor=False)
        run.log(3, {"a": 3.0})
        run.end()
        points = self.read_points(sink, run.directory)
        self._check(points, "a", [(1, 1.0), (2, 2.0), (3, 3.0)])
        self._check(points, "b", [(2, 5.0)])

    def test_unsaved_first_batch_is_redelivered(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        run.log(1, {"a": 1.0})
        run.deliver(save_cursor=False)
        run.end()
        self._check(self.read_points(sink, run.directory), "a", [(1, 1.0)])

    def test_killed_delivery_loses_and_repeats_nothing(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        run.log(1, {"a": 1.0})
        run.deliver_and_kill(save_cursor=False)
        run.log(2, {"a": 2.0, "b": 5.0})
        run.deliver_and_kill(save_cursor=True)
        run.log(3, {"a": 3.0})
        run.deliver_and_kill(save_cursor=False)
        run.log(4, {"a": 4.0})
        run.end()
        points = self.read_points(sink, run.directory)
        self._check(points, "a", [(step, float(step)) for step in range(1, 5)])
        self._check(points, "b", [(2, 5.0)])

    def test_resumed_run_continues_same_backend_run(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        run.log(1, {"a": 1.0})
        run.end()
        run.journal.append(events.RunStarted, run.manifest.id, run.manifest.name, 1, "host", True)
        run.log(2, {"a": 2.0})
        run.end()
        self._check(self.read_points(sink, run.directory), "a", [(1, 1.0), (2, 2.0)])

    def test_rewound_run_has_one_point_per_key_and_step(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        for step in range(1, 4):
            position = run.log(step, {"a": float(step), "b": 1.0})
        for step in range(4, 7):
            run.log(step, {"a": float(step), "c": 1.0})
        run.deliver()
        run.journal.rewind(position, 3)
        for step in range(4, 8):
            run.log(step, {"a": float(step), "c": 1.0})
        run.end()
        points = self.read_points(sink, run.directory)
        self._check(points, "a", [(step, float(step)) for step in range(1, 8)])
        self._check(points, "b", [(1, 1.0), (2, 1.0), (3, 1.0)])
        self._check(points, "c", [(step, 1.0) for step in range(4, 8)])

    def test_rewind_with_changed_values_has_one_point_per_step(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        position = run.log(1, {"a": 1.0})
        run.log(2, {"a": 2.0})
        run.deliver()
        run.journal.rewind(position, 1)
        run.log(2, {"a": 20.0})
        run.log(3, {"a": 30.0})
        run.end()
        second = 20.0 if sink.rewinds else 2.0
        self._check(self.read_points(sink, run.directory), "a", [(1, 1.0), (2, second), (3, 30.0)])

    def test_unsaved_rewind_is_applied_again(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        position = run.log(1, {"a": 1.0})
        run.log(2, {"a": 2.0})
        run.deliver()
        run.journal.rewind(position, 1)
        run.deliver(save_cursor=False)
        run.log(2, {"a": 2.0})
        run.deliver(save_cursor=False)
        run.end()
        self._check(self.read_points(sink, run.directory), "a", [(1, 1.0), (2, 2.0)])

    def test_unsaved_superseded_batch_is_stored_once(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        position = run.log(1, {"a": 1.0})
        run.deliver()
        run.log(2, {"a": 2.0})
        run.deliver(save_cursor=False)
        run.journal.rewind(position, 1)
        run.log(2, {"a": 2.0})
        run.log(3, {"a": 3.0})
        run.end()
        self._check(self.read_points(sink, run.directory), "a", [(1, 1.0), (2, 2.0), (3, 3.0)])

    def test_samples_survive_redelivery_and_rewind(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        position = run.log(1, {"a": 1.0})
        run.log(2, {"a": 2.0})
        run.sample({"system/cpu": 0.5})
        run.deliver()
        run.sample({"system/cpu": 1.5})
        run.deliver(save_cursor=False)
        run.deliver()
        run.journal.rewind(position, 1)
        run.sample({"system/cpu": 2.5})
        run.log(2, {"a": 2.0})
        run.end()
        points = self.read_points(sink, run.directory)
        self._check(points, "a", [(1, 1.0), (2, 2.0)])
        key = map_key("system/cpu", sink.limits)
        if sink.limits.separate_logs:  # samples belong to no log
            assert key not in points
        else:
            self._check(points, key, [(1, 0.5), (2, 1.5), (3, 2.5)])

    def test_deleted_file_is_written_again_with_all_points(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        for step in (1, 2):
            run.log(step, {"a": float(step)})
            run.sample({"system/cpu": float(step)})
            run.deliver()
        files = [path for pattern in sink.files for path in run.directory.glob(pattern) if path.is_file()]
        if not files:
            # Imported here, because the other parts of the module do not require pytest.
            import pytest

            pytest.skip(f"{type(sink).__name__} has no file in the run directory.")
        for path in files:
            path.unlink()
        run.sample({"system/cpu": 3.0})
        with contextlib.suppress(OSError):  # Then the next connection delivers the sample.
            run.deliver()
        run.log(3, {"a": 3.0})
        run.end()
        points = self.read_points(sink, run.directory)
        self._check(points, "a", [(1, 1.0), (2, 2.0), (3, 3.0)])
        if not sink.limits.separate_logs:
            self._check(points, map_key("system/cpu", sink.limits), [(1, 1.0), (2, 2.0), (3, 3.0)])

    def test_place_of_a_run_is_location_or_none(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        assert isinstance(sink.locate(run.directory, {}), Location | None)  # before the first delivery
        run.log(1, {"a": 1.0})
        run.deliver()
        state = Cursor.load(run.directory, run.manifest.sinks[0].key).state
        assert isinstance(sink.locate(run.directory, state), Location | None)
        run.end()

    def test_large_run_is_stored_completely(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        for step in range(self.large_run_rows):
            run.log(step, {f"key{number}": float(step + number) for number in range(self.large_run_keys)})
        run.end()
        points = self.read_points(sink, run.directory)
        for number in range(self.large_run_keys):
            self._check(points, f"key{number}", [(step, float(step + number)) for step in range(self.large_run_rows)])

    def test_row_with_more_values_than_a_batch_is_stored_completely(self, tmp_path: Path) -> None:
        sink, run = self._start_run(tmp_path)
        # The parts of the row have one sequence number. A crash repeats the first part.
        run.log(1, {f"key{number}": float(number) for number in range(_WIDE_ROW_KEYS)})
        run.deliver(save_cursor=False)
        run.log(2, {"key0": 0.5})
        run.end()
        points = self.read_points(sink, run.directory)
        self._check(points, "key0", [(1, 0.0), (2, 0.5)])
        for number in range(1, _WIDE_ROW_KEYS):
            self._check(points, f"key{number}", [(1, float(number))])

    # -- helpers -------------------------------------------------------------------------------------------------------

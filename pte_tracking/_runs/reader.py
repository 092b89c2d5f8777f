"""Reading of a run, which does not open it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pte_tracking._delivery.sink_entries import check_sinks
from pte_tracking._distributed import environment
from pte_tracking._runs.directory import Claim
from pte_tracking._runs.existing_run import current_manifest, read_start_position
from pte_tracking._runs.held_writer import HeldWriter, Interim
from pte_tracking._runs.null_writer import NullWriter
from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.writer import RunWriter
from pte_tracking._store import events, metrics
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.events import Checkpoint
from pte_tracking._store.layout import JOURNAL, check_directory
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.params import flatten_params
from pte_tracking._store.provenance import provenance_level
from pte_tracking._store.values import check_key, to_texts
from pte_tracking.sinks import Sink


class RunReader:
    """Base class of :class:`~pte_tracking.Run` that holds its configuration and reads the run directory."""

    @refuse_unknown()
    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        sinks: Iterable[str | Sink] = ("json",),
        params: object = None,
        tags: Mapping[str, Any] | None = None,
        name: str | None = None,
        group: str | None = None,
        resume: bool = False,
        close_timeout: float = 30.0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        check_directory("directory", directory)
        provenance_level()  # raises if the variable is invalid, before anything is written
        # The run stays in this directory if a symbolic link to it changes while the training runs.
        self.directory = Path(os.path.realpath(directory))
        self._sinks = check_sinks(sinks)
        self._params = flatten_params({} if params is None else params)
        self._tags = to_texts(tags or {})
        self._name = name if name is None else check_key(name, "name")
        self._group = group if group is None else check_key(group, "group")
        self._resume = resume
        if isinstance(close_timeout, bool) or not isinstance(close_timeout, int | float) or not close_timeout >= 0:
            raise ValueError(f"close_timeout: expected a number of seconds, got {close_timeout!r}")
        self._close_timeout = close_timeout
        self.before_close: list[Callable[[], object]] = []
        #: Called once, by the first :meth:`rewind`.
        self.after_rewind: list[Callable[[], object]] = []
        #: Returns whether the training of the run is complete, so another run may use the directory.
        self.is_complete: Callable[[], bool] | None = None
        #: Whether an exception left the training loop, so another run may use the directory.
        self.is_abandoned = False
        #: Called when an exception leaves the training loop, maybe long before the run ends.
        self.on_interrupt: list[Callable[[], object]] = []
        #: Called before the checkpoints are listed, so that a snapshot that is due is among them.
        self.before_checkpoints: Callable[[], object] | None = None
        #: Returns text for the error message of a run that does not finish, such as "ended at iteration 7 of 30".
        self.describe_progress: Callable[[], str] | None = None
        #: None on rank 0 before the run is opened, and on every rank after the run has ended.
        self._writer: RunWriter | NullWriter | HeldWriter | None = None
        #: Claimed directory, until something is logged.
        self._claim: Claim | None = None
        #: Manifest of the next new run.
        self._planned: Manifest | None = None
        #: ID that was read before the run was opened.
        self._read_id: str | None = None
        if (environment.rank() if rank is None else rank) != 0:
            self._writer = NullWriter()
        #: Manifest of an ended run.
        self._manifest: Manifest | None = None
        self._logs: set[str] = set()
        self._lock = threading.RLock()
        #: Set while the run is opened or ended.
        self._interim: Interim | None = None
        self._is_closed = False
        self._world_size = environment.size() if world_size is None else world_size
        self._pid = os.getpid()
        self._register()

    def _register(self) -> None:
        """Do nothing. A run that can be opened overrides this method."""

    @property
    def is_open(self) -> bool:
        """Whether the run was opened and has not ended."""
        has_manifest = self._writer is not None and self._writer.manifest is not None
        return not self._is_closed and (has_manifest or self._claim is not None)

    @property
    def sinks(self) -> Sequence[Sink]:
        """Sinks passed to the constructor."""
        return self._sinks

    def add_sink(self, sink: str | Sink) -> None:
        """Add a sink before the run is opened, unless an equal one was passed to the constructor.

        Args:
            sink: Name of an installed sink, or a configured sink.

        Raises:
            RuntimeError: If the run is open.
            TypeError: If the argument is neither a name nor a sink.
            ValueError: If the sink is unknown or not installed.
        """
        added = [checked for checked in check_sinks([sink]) if checked not in self._sinks]
        if added and self.is_open:
            raise RuntimeError(f"add_sink({sink!r}): the run is already open. Add the sink before resume() and open().")
        self._sinks += added

    @property
    def params(self) -> dict[str, events.Scalar]:
        """Parameters passed to the constructor, with flat names."""
        return self._params

    @property
    def id(self) -> str:
        """ID of the run, 32 hexadecimal digits that stay the same after a resume.

        Before the run is opened, the ID is that of the run in the directory if the run is going to continue it, or may
        continue it. Otherwise, it is the ID that the new run receives. Reading it does not open the run.

        Raises:
            RuntimeError: If training has not started on a rank other than 0.
        """
        return self.manifest().id

    @property
    def name(self) -> str:
        """Display name of the run. Reading the name does not open the run."""
        return self.manifest().name

    @property
    def group(self) -> str | None:
        """Group of the run, such as a sweep. None if it belongs to none. Reading the group does not open the run."""
        return self.manifest().group

    @property
    def start_time(self) -> float:
        """Time of the first start in seconds since the Unix epoch. Reading the time does not open the run."""
        return self.manifest().start_time

    def manifest(self) -> Manifest:
        """Return the manifest of the run, the content of ``run.json``. This method does not open the run.

        Raises:
            RunNotFoundError: If the run in the directory is unreadable.
            RuntimeError: If training has not started on a rank other than 0.
        """
        if self._claim is not None:
            return self._claim.manifest
        if isinstance(self._writer, RunWriter | NullWriter):
            manifest = self._writer.manifest
        else:
            manifest = self._manifest or self._expected_manifest()
        if manifest is None:
            raise RuntimeError(
                f"The ID and the name of the run in {str(self.directory)!r} are available on ranks other than 0 after "
                "training has started."
            )
        return manifest

    def start_position(self) -> RunPosition | None:
        """Return the position before the first logged value of the run in the directory.

        Returns:
            The position, or None if the directory contains no run. Pass it to :meth:`open` to restart the run.

        Raises:
            RunNotFoundError: If the run in the directory is unreadable.
        """
        return read_start_position(self.directory)

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints that were not pruned or superseded. The run does not need to be open.

        Returns:
            Checkpoints in ascending order of their steps. Empty on a rank other than 0 after training has started.
        """
        if self.before_checkpoints is not None:
            self.before_checkpoints()
        if isinstance(self._writer, RunWriter | NullWriter) and self.is_open:
            return self._writer.checkpoints()
        return list_checkpoints(self.directory)

    @property
    def latest_values(self) -> dict[str, events.Number]:
        """Metrics that were logged last, by key, independent of their steps. Empty before the first one."""
        return {} if self._writer is None else self._writer.latest_values()

    def recent_values(self, key: str) -> dict[int, events.Number]:
        """Return the values of a metric by step, from the last 1,000 rows or more that this session logged.

        Args:
            key: Key of the metric.

        Returns:
            The last value of each step, the step that was logged last at the end. Empty on a rank other than 0.
        """
        return {} if self._writer is None else self._writer.recent_values(key)

    def rows(self, log: str = "log") -> list[events.Metrics]:
        """Return the effective rows of one log.

        Args:
            log: File name of the JSON log.

        Returns:
            Rows in the order in which they were logged. Empty if the directory contains no run.
        """
        if not (self.directory / JOURNAL).exists():
            return []
        return [row for row in metrics.read_rows(self.directory) if row.log == log]

    def _plan(self) -> Manifest:
        """Return the manifest of a new run, which is the same in each call before the run is opened."""
        if self._planned is None:
            self._planned = Manifest.new(self.directory, self._name, self._group)
        return self._planned

    def _expected_manifest(self) -> Manifest:
        """Return the manifest of the run that will be continued or started."""
        may_continue = self._resume or isinstance(self._writer, HeldWriter)
        manifest = (current_manifest(self.directory) if may_continue else None) or self._plan()
        self._read_id = manifest.id
        return manifest

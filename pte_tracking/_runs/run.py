"""A run: begun in its directory, logged to, and ended."""

from __future__ import annotations

import atexit
import glob
import logging
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from pte_tracking._delivery.sink_entries import check_sinks, merge_sink_entries
from pte_tracking._distributed import environment
from pte_tracking._runs import media
from pte_tracking._runs.confusion_matrix import confusion_figure
from pte_tracking._runs.directory import archive_run, existing_manifest, is_archive_incomplete, lock_directory
from pte_tracking._runs.null_writer import NullWriter
from pte_tracking._runs.outcome import last_error, outcome_of
from pte_tracking._runs.writer import RunPosition, RunWriter
from pte_tracking._store import events, metrics
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.events import AnyEvent, Checkpoint, Number, Status
from pte_tracking._store.files import safe_file_name, write_atomically
from pte_tracking._store.journal_reader import read
from pte_tracking._store.layout import ARTIFACTS, DELIVERY, FIGURES, IMAGES, JOURNAL, check_file_name
from pte_tracking._store.manifest import Manifest, update_manifest
from pte_tracking._store.values import check_key, check_step, flatten_params, to_numbers, to_progress, to_text, to_texts
from pte_tracking.sinks import Sink

_logger = logging.getLogger("pte_tracking")
_open_runs: weakref.WeakSet[Run] = weakref.WeakSet()
#: In a forked child: closing the parent's files here would write their buffers a second time.
_parent_writers: list[RunWriter] = []


class Run:
    """The record of one training run, and the way from there to the tracking backends.

    Its directory is taken (locked; an earlier run in it moved aside) when the first thing is logged, or by
    :meth:`open`. It ends by :meth:`close`, at the end of ``with``, or with the interpreter: FINISHED, or FAILED after
    an error.

    Args:
        directory: Where the run's files lie.
        sinks: Where it is delivered to: names of installed sinks, or configured ones.
        params: Hyperparameters; nested ones are flattened with ``/``.
        tags: Labels.
        name: The run's name, for people; by default made from the directory's.
        resume: Go on with the run that is in the directory, if there is one.
        close_timeout: Seconds that the end of the run waits for the backends at most. Delivery goes on behind.
        rank: This process's number among those that train together: the others than 0 write nothing, and what they
            log is left out. By default what ``torch.distributed`` or ``RANK`` says, as torchrun sets it.
        world_size: How many they are. By default what ``torch.distributed`` or ``WORLD_SIZE`` says.

    Raises:
        ValueError: A sink is unknown or not installed.
        TypeError: An argument is of the wrong type.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        sinks: Iterable[str | Sink] = ("json",),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        name: str | None = None,
        resume: bool = False,
        close_timeout: float = 30.0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if not isinstance(directory, str | os.PathLike):
            raise TypeError(f"out_dir: expected the path of a directory, got {directory!r}")
        if not os.fspath(directory):
            raise ValueError("out_dir: expected the path of a directory, got ''; '.' is the current one")
        self.directory = Path(os.path.abspath(directory))
        self._sinks = check_sinks(sinks)
        self._params = flatten_params(params or {})
        self._tags = to_texts(tags or {})
        self._given_name = name if name is None else check_key(name, "name")
        self._resume = resume
        self._close_timeout = close_timeout
        #: Called when the run is about to end, the last added first: the last things to be logged.
        self.before_close: list[Callable[[], object]] = []
        #: On rank 0: None before the run is opened. On all ranks: None after it has ended.
        self._writer: RunWriter | NullWriter | None = None
        if (environment.rank() if rank is None else rank) != 0:
            self._writer = NullWriter()
        #: Manifest of a run that has ended.
        self._manifest: Manifest | None = None
        self._logs: set[str] = set()
        self._lock = threading.RLock()
        self._is_closed = False
        self._world_size = environment.size() if world_size is None else world_size
        self._error_before: BaseException | None = None

    # -- its life ------------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the directory is taken and the run has not ended."""
        return self._writer is not None and self._writer.manifest is not None

    @property
    def sinks(self) -> Sequence[Sink]:
        """Where it is delivered to, as constructed."""
        return self._sinks

    @property
    def id(self) -> str:
        """The run's identity, the same after every resume: 32 hexadecimal digits. Opens the run.

        On other ranks than 0 it is known when the training begins; before that it is a RuntimeError.
        """
        return self._open_manifest().id

    @property
    def name(self) -> str:
        """The run's name. Opens the run."""
        return self._open_manifest().name

    @property
    def start_time(self) -> float:
        """When it first started, in seconds since the epoch. Opens the run."""
        return self._open_manifest().start_time

    def open(self, at: RunPosition | None = None, *, resume: bool | None = None, journal: Path | None = None) -> None:
        """Take the directory.

        Args:
            at: Go on from this point of its run, taking back what came after. Where the directory holds another run,
                that one is moved aside; where it does not hold this one, the run is made here again.
            resume: Without ``at``: go on with the run that is there, taking nothing back. By default as constructed.
            record: The journal of ``at``'s run from elsewhere, used where the directory has none.

        Raises:
            DirectoryInUseError: Another live process writes there.
            RuntimeError: The run is open, or has ended.
        """
        if self._is_closed:
            raise RuntimeError(f"the run in {str(self.directory)!r} has ended; go on with it by Run(..., resume=True)")
        if isinstance(self._writer, NullWriter):
            return
        if self._writer is not None:
            raise RuntimeError(f"the run in {str(self.directory)!r} is open already")
        resume = self._resume if resume is None else resume
        with self._lock:
            held = lock_directory(self.directory)
            try:
                fresh = self._prepare_directory(at, resume)
                (self.directory / DELIVERY).mkdir(exist_ok=True)
                manifest = update_manifest(self.directory, self._add_configuration, fresh)
                if journal and not (self.directory / JOURNAL).exists():
                    write_atomically(self.directory / JOURNAL, journal.read_bytes())
                self._writer = writer = RunWriter(self.directory, held, manifest, at)
            except BaseException:
                held.release()
                raise
            if self._params:
                writer.add(events.Params, self._params)
            if self._tags:
                writer.add(events.Tags, self._tags)
            self._error_before = last_error()
        _open_runs.add(self)

    def manifest(self) -> Manifest:
        """What ``run.json`` holds. Opens the run."""
        return self._open_manifest()

    def attach(self, manifest: Manifest) -> None:
        """Learn, on another rank than 0, which run it is."""
        if isinstance(self._writer, NullWriter):
            self._writer.attach(manifest)

    def start_position(self) -> RunPosition | None:
        """The point before anything was logged in the directory's run; None if it holds none."""
        found = existing_manifest(self.directory)
        path = self.directory / JOURNAL
        first = next(read(path), None) if found and path.exists() else None
        if not found or not first:
            return None
        event, behind = first
        return RunPosition(
            id=found.id, name=found.name, start_time=found.start_time, step=0, seq=event.seq, position=behind
        )

    def position(self, step: int) -> RunPosition:
        """This moment in the run's life, for a snapshot. Before that is published, :meth:`sync` is called.

        Args:
            step: Iterations done.
        """
        return self._opened().position(step)

    def sync(self) -> None:
        """Make everything logged so far durable. Any thread may do it while others log.

        Raises:
            OSError: The disk is full or broken.
        """
        self._opened().sync()

    def close(self, status: Status | None = None, error: str | None = None) -> None:
        """End the run. What a function of ``before_close`` raises, it raises when the run has ended, as FAILED.

        Args:
            status: How it ended; by default FINISHED.
            error: What it failed with, for people.
        """
        while self.before_close:
            try:
                self.before_close.pop()()
            except BaseException as problem:
                self.close(*(outcome_of(problem) if status in (None, "FINISHED") else (status, error)))
                raise
        writer = self._writer
        if writer is None:
            self._is_closed = True
            return
        status = status or "FINISHED"
        writer.finish(status, error and to_text(error))
        self._is_closed, self._manifest, self._writer = True, writer.manifest, None
        _open_runs.discard(self)
        writer.close(status, self._close_timeout)

    def __enter__(self) -> Run:
        if not self.is_open:
            self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(*outcome_of(error))

    # -- what is logged ------------------------------------------------------------------------------------------------

    def log_metrics(
        self,
        values: Mapping[str, Any],
        step: int,
        *,
        epoch: float | None = None,
        elapsed_time: float | None = None,
        log: str = "log",
        sinks: list[str] | None = None,
    ) -> None:
        """Log numbers of one step.

        Args:
            values: Numbers by name: Python or NumPy numbers, or tensors of one element.
            step: Iterations done.
            epoch: Epochs done.
            elapsed_time: Seconds of training so far.
            log: The JSON log that the row belongs to.
            sinks: The sinks that get it; all by default.
        """
        self.log_row(
            to_numbers(values),
            check_step(step),
            to_progress("epoch", epoch),
            to_progress("elapsed_time", elapsed_time),
            log,
            sinks if sinks is None else _check_names(sinks),
        )

    def log_row(
        self,
        values: dict[str, Number],
        step: int,
        epoch: Number | None,
        elapsed_time: Number | None,
        log: str,
        sinks: list[str] | None,
    ) -> None:
        """Like :meth:`log_metrics`, for callers whose arguments are checked and plain: the shortest way."""
        if log not in self._logs:
            self.register_files(glob.escape(check_file_name(log, "log")))
            self._logs.add(log)
        (self._writer or self._opened()).add(events.Metrics, step, values, epoch, elapsed_time, log, sinks)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log hyperparameters, flattened with ``/``."""
        if flat := flatten_params(params):
            self._append(events.Params, flat)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set labels; a later value replaces an earlier one."""
        if texts := to_texts(tags):
            self._append(events.Tags, texts)

    def log_figure(self, key: str, figure: Any, step: int) -> None:
        """Log a drawn figure: a matplotlib ``Figure``, or the bytes of a PNG."""
        media.check_figure(figure)
        self._add_picture(events.Figure, FIGURES, key, step, lambda: media.figure_png(figure))

    def log_image(self, key: str, image: Any, step: int) -> None:
        """Log a picture, with integers from 0 to 255 or floats from 0 to 1.

        Args:
            key: Its name.
            image: A PIL image, an array ``(height, width[, channels])``, or a tensor ``([channels,] height, width)``.
            step: Iterations done.
        """
        self._add_picture(events.Image, IMAGES, key, step, lambda: media.image_png(image))

    def log_confusion_matrix(self, key: str, matrix: Any, step: int, labels: Sequence[str] | None = None) -> None:
        """Log a figure of how often each class was taken for which; matplotlib draws it.

        Args:
            key: Its name.
            matrix: Counts as an array or tensor of shape ``(classes, classes)``: rows are the true classes, columns
                those predicted.
            step: Iterations done.
            labels: The classes' names; their numbers by default.
        """
        self._add_picture(events.Figure, FIGURES, key, step, lambda: media.figure_png(confusion_figure(matrix, labels)))

    def log_histogram(self, key: str, values: Any, step: int) -> None:
        """Log the distribution of an array or tensor; its non-finite values are left out."""
        key, step = check_key(key), check_step(step)

        def build_fields() -> tuple[Any, ...] | None:
            bins = media.histogram(values)
            return None if bins is None else (key, step, *bins)

        self._opened().add_deferred(events.Histogram, build_fields)

    def log_text(self, key: str, text: str, step: int = 0) -> None:
        """Log a text; Markdown is rendered where a backend can."""
        if not isinstance(text, str):
            raise TypeError(f"text: expected a string, got {text!r} of type {type(text).__name__}")
        self._append(events.Text, check_key(key), check_step(step), to_text(text))

    def log_dataset(self, name: str, digest: str, *, context: str = "train", source: str = "") -> None:
        """Log which data the run uses; they are not copied.

        Args:
            name: What they are called.
            digest: Which version of them it is, such as ``hashlib.sha256(array.tobytes()).hexdigest()``.
            context: What they are used for.
            source: The path or URI that they come from.
        """
        texts = {"name": name, "digest": digest, "context": context}
        fields = [check_key(text, argument) for argument, text in texts.items()]
        self._append(events.Dataset, *fields, check_key(source, "source") if source else "")

    def log_artifact(self, path: str | os.PathLike[str], artifact_path: str = "") -> None:
        """Log a file or folder; it is copied into the run's directory unless it lies there.

        Args:
            path: The file or folder.
            artifact_path: The folder that backends show it in.

        Raises:
            FileNotFoundError: There is nothing at ``path``.
            ValueError: The run's directory itself lies in it, or ``artifact_path`` leads elsewhere.
        """
        source = Path(os.path.abspath(path))
        if artifact_path:
            check_file_name(artifact_path, "artifact_path")
        if source in (self.directory, *self.directory.parents):
            raise ValueError(f"path: {str(path)!r} holds the run's own directory; give what is to be kept of it")

        def build_fields() -> tuple[str, str] | None:
            if not source.exists():
                raise FileNotFoundError(f"path: {str(path)!r} does not exist")
            kept = self._keep_artifact(source, artifact_path)
            return None if kept is None else (self._relative_path(kept), artifact_path)

        self._opened().add_deferred(events.Artifact, build_fields)

    def log_checkpoint(
        self,
        path: str | os.PathLike[str],
        step: int,
        sha256: str,
        size: int,
        epoch: float | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Log a snapshot that is whole and durable in the run's directory.

        Args:
            path: The file.
            step: Iterations done in it.
            sha256: Its digest in hexadecimal.
            size: Its bytes.
            epoch: Epochs done in it.
            values: The latest reported values.
        """
        name = self._relative_path(path)
        fields = (check_step(step), sha256, size, to_progress("epoch", epoch), to_numbers(values or {}))
        writer = self._opened()
        writer.add_files(glob.escape(name))
        writer.add(Checkpoint, name, *fields)
        writer.write_checkpoint_list()

    def remove_checkpoint(self, path: str | os.PathLike[str], step: int) -> None:
        """Log that a snapshot was pruned, so that it vanishes from every backend."""
        fields = self._relative_path(path), check_step(step)
        writer = self._opened()
        writer.add(events.CheckpointRemoved, *fields)
        writer.write_checkpoint_list()

    def checkpoints(self) -> list[Checkpoint]:
        """The snapshots of the run in the directory that hold, by step, whether the run is open or not."""
        if self._writer is not None and self.is_open:
            return self._writer.checkpoints()
        return list_checkpoints(self.directory)

    def rows(self, log: str = "log") -> list[events.Metrics]:
        """The rows of one log that hold, read back from the journal."""
        if not (self.directory / JOURNAL).exists():
            return []
        return [row for row in metrics.read_rows(self.directory) if row.log == log]

    def register_files(self, pattern: str) -> None:
        """Say that files at the top of the directory belong to the run: they are moved aside with it.

        Args:
            pattern: A glob; of a path, its first part counts.
        """
        self._opened().add_files(pattern)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _opened(self) -> RunWriter | NullWriter:
        with self._lock:
            if self._writer is None:
                self.open()
            assert self._writer is not None
            return self._writer

    def _open_manifest(self) -> Manifest:
        manifest = self._manifest or self._opened().manifest
        if manifest is None:
            raise RuntimeError(
                f"another rank writes the run in {str(self.directory)!r}; this one knows its id and its name when the "
                "training has begun"
            )
        return manifest

    def _prepare_directory(self, at: RunPosition | None, resume: bool) -> Manifest | None:
        """Leave in the directory the run that goes on, and nothing of another one; returns a new run's manifest."""
        found = existing_manifest(self.directory)
        if found and not is_archive_incomplete(self.directory, found) and (found.id == at["id"] if at else resume):
            return None
        archive_run(self.directory)
        fresh = Manifest.new(self.directory, at["name"] if at else self._given_name)
        return msgspec.structs.replace(fresh, id=at["id"], start_time=at["start_time"]) if at else fresh

    def _add_configuration(self, manifest: Manifest) -> Manifest:
        files = [pattern for sink in self._sinks for pattern in sink.files]
        return msgspec.structs.replace(
            manifest,
            world_size=self._world_size,
            sinks=merge_sink_entries(self._sinks, manifest.sinks),
            files=list(dict.fromkeys([*manifest.files, *files])),
        )

    def _append(self, kind: type[AnyEvent], *fields: Any) -> None:
        (self._writer or self._opened()).add(kind, *fields)

    def _add_picture(self, kind: type[AnyEvent], folder: str, key: str, step: int, draw: Callable[[], bytes]) -> None:
        """Store a PNG in a folder of the run's directory, and log it."""
        key, step = check_key(key), check_step(step)

        def build_fields() -> tuple[str, int, str] | None:
            data = draw()
            path = Path(folder, safe_file_name(key), f"step_{step}.png")
            try:
                (self.directory / path.parent).mkdir(parents=True, exist_ok=True)
                write_atomically(self.directory / path, data)
            except OSError as error:
                _logger.error("%s was not kept: %s", path, error)
                return None
            return key, step, path.as_posix()

        self._opened().add_deferred(kind, build_fields)

    def _keep_artifact(self, source: Path, artifact_path: str) -> Path | None:
        """Copy a file or folder into the run's directory unless it is there; None if that fails."""
        if self.directory in source.parents:
            return source
        target = self.directory / ARTIFACTS / artifact_path / source.name
        try:
            _copy(source, target)
        except OSError as error:
            _logger.error("%s was not kept: %s", source, error)
            return None
        return target

    def _relative_path(self, path: str | os.PathLike[str]) -> str:
        """A path of a file in the run's directory, relative to it."""
        whole = Path(os.path.abspath(self.directory / path))
        if self.directory not in whole.parents:
            raise ValueError(f"path: {str(path)!r} is not in the run's directory {str(self.directory)!r}")
        return check_key(whole.relative_to(self.directory).as_posix(), "path")


def _check_names(sinks: object) -> list[str]:
    if isinstance(sinks, list | tuple) and all(isinstance(name, str) for name in sinks):
        return list(sinks)
    raise TypeError(f"sinks: expected a list of names of sinks, got {sinks!r}")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


@atexit.register
def _close_all() -> None:
    for run in list(_open_runs):
        error = last_error()
        run.close(*outcome_of(None if error is run._error_before else error))


def _detach_in_child() -> None:
    # A forked child (a data loader's worker, say) writes nothing: the run is its parent's.
    for run in _open_runs:
        if isinstance(run._writer, RunWriter):
            _parent_writers.append(run._writer)
            run._writer = NullWriter(run._writer)
        run.before_close.clear()  # its parent's to do, with threads that are not here
        run._lock = threading.RLock()


os.register_at_fork(after_in_child=_detach_in_child)

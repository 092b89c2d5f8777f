"""Logging to a run."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pte_tracking._runs import attachments
from pte_tracking._runs.held_writer import HeldWriter
from pte_tracking._runs.run_media_files import RunMediaFiles
from pte_tracking._store import events
from pte_tracking._store.events import Checkpoint, Metrics, Number
from pte_tracking._store.files import absolute_path
from pte_tracking._store.layout import check_file_name
from pte_tracking._store.model_event import BestMetric, ModelSignature
from pte_tracking._store.params import flatten_params
from pte_tracking._store.secrets import mask_secrets
from pte_tracking._store.values import check_key, check_step, to_numbers, to_progress, to_text, to_texts


class Run(RunMediaFiles):
    """Training run that is logged to a directory and delivered to sinks.

    The first logged value or :meth:`open` locks the directory and archives an earlier run in it. Reading the run does
    not open it. The run ends with :meth:`close`, at the end of a ``with`` block, with the interpreter, or when nothing
    refers to it. Its status is FINISHED, FAILED after an error or a non-zero exit status, or KILLED after a signal.
    A value that is logged after the end opens the run again, which keeps its status. The methods may be called from any
    thread.

    Only rank 0 writes. On other ranks and in forked processes, the methods check their arguments and write nothing.

    Args:
        directory: Run directory. It is created if it does not exist.
        sinks: Names of installed sinks, or configured :class:`~pte_tracking.sinks.Sink` objects.
        params: Hyperparameters; see :meth:`log_params`.
        tags: Labels of the run.
        name: Display name of the run. Defaults to the directory name and a short ID.
        group: Group of runs that belong together, such as a sweep or the folds of a cross-validation, which backends
            show together. A run that is continued keeps its group. Defaults to none.
        resume: Whether to continue the run in the directory, if there is one.
        close_timeout: Maximum number of seconds that :meth:`close` waits for delivery. Remaining events are delivered
            in the background.
        rank: Rank of this process. Defaults to that of ``torch.distributed``, the variable ``RANK``, or 0.
        world_size: Number of ranks. Defaults to that of ``torch.distributed``, the variable ``WORLD_SIZE``, or 1.

    Attributes:
        directory: Absolute path of the run directory, without symbolic links.
        current_step: Function that returns the step of media that are logged without one. A manager sets it to its
            iteration.
        before_close: Functions that :meth:`close` calls before the run ends, in reverse order of their addition.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``directory``, ``name``, or ``group`` is empty, or a sink is unknown or not installed.

    Example:
        >>> import tempfile
        >>> import pte_tracking as pte
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(directory, sinks=["json"], params={"lr": 0.1}) as run:
        ...         for step in range(1, 4):
        ...             run.log_metrics({"train/loss": 1 / step}, step)
        ...     print([row.values for row in run.rows()][0])
        {'train/loss': 1.0}
    """

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
        """Log metrics of one step as a row.

        Args:
            values: Numbers by key: Python numbers, NumPy scalars, or arrays or tensors with one element.
            step: Number of completed iterations.
            epoch: Number of completed epochs.
            elapsed_time: Training time in seconds.
            log: File name of the JSON log that contains the row.
            sinks: Names of the sinks that receive the row. None means all sinks.

        Raises:
            TypeError: If a key is not a string, a value is not a number, or another argument has the wrong type.
            ValueError: If a value has several elements, or a key or ``log`` is invalid.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        self.log_row(  # without names of arguments, which cost time in each row
            to_numbers(values),
            check_step(step),
            None if epoch is None else to_progress("epoch", epoch),
            None if elapsed_time is None else to_progress("elapsed_time", elapsed_time),
            log,
            None if sinks is None else _check_names(sinks),
            None,
            True,
        )

    def log_row(
        self,
        values: dict[str, Number],
        step: int,
        epoch: Number | None,
        elapsed_time: Number | None,
        log: str | None,
        sinks: list[str] | None,
        measured: list[str] | None = None,
        explicit: bool = False,
        at: float | None = None,
    ) -> None:
        """Log a row of metrics as :meth:`log_metrics` does, without checking the values, which takes less time.

        Args:
            values: Python numbers by key.
            step: Number of completed iterations.
            epoch: Number of completed epochs, or None.
            elapsed_time: Training time in seconds, or None.
            log: File name of the JSON log. None for data points that belong to no row.
            sinks: Names of the sinks, or None for all sinks.
            measured: Keys whose data points other calls log, or None.
            explicit: Whether the user logs the row, and not a LogReport.
            at: Time of the row in seconds since the Unix epoch. None for the current time.
        """
        if log not in self._logs and log is not None:
            self.register_files(glob.escape(check_file_name(log, "log")))
            self._logs.add(log)
        self._last_step = step
        writer = self._writer or self._opened()
        writer.add(Metrics, step, values, epoch, elapsed_time, log, sinks, measured, explicit, at=at)

    def log_params(self, params: object) -> None:
        """Log hyperparameters.

        Strings, booleans, None, integers of at most 64 bits, and finite numbers are recorded as they are. Other values
        are recorded as a text that is the same in every process: functions and classes by their qualified names, sets
        in sorted order, arrays as nested lists, and objects by their ``str()`` without memory addresses.

        Args:
            params: Mapping, dataclass, ``argparse.Namespace``, named tuple, or object of OmegaConf, pydantic, or attrs.
                Names of nested ones are joined with ``/``. A value is shortened to 1,000 items and 65,536 characters,
                which is logged.

        Raises:
            TypeError: If ``params`` has no fields.
            ValueError: If a name is empty, two joined names are equal, or there are more than 10,000 parameters.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        if flat := flatten_params(params):
            self._append(events.Params, flat)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags. A later value of a tag replaces an earlier one.

        Args:
            tags: Values by name. They are converted with ``str()``.

        Raises:
            TypeError: If ``tags`` is not a mapping or a name is not a string.
            ValueError: If a name is empty.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        if texts := to_texts(tags):
            self._append(events.Tags, texts)

    def log_dataset(self, name: str, digest: str, *, context: str = "train", source: str = "") -> None:
        """Log a dataset that the run uses. Its content is not copied.

        Args:
            name: Name of the dataset.
            digest: Digest that identifies its version, such as ``hashlib.sha256(array.tobytes()).hexdigest()``.
            context: Purpose of the dataset.
            source: Path or URI of the dataset.

        Raises:
            TypeError: If an argument is not a string.
            ValueError: If ``name``, ``digest`` or ``context`` is empty.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        texts = {"name": name, "digest": digest, "context": context}
        fields = [check_key(text, argument) for argument, text in texts.items()]
        self._append(events.Dataset, *fields, mask_secrets(check_key(source, "source")) if source else "")

    def log_artifact(self, path: str | os.PathLike[str], artifact_path: str = "") -> None:
        """Log a file or directory. It is copied into the run directory unless it is located there.

        In a directory, a link to a file is copied as the file. Links to directories, links to nothing, unreadable
        files, and pipes are left out, which is logged.

        Args:
            path: File or directory, or a link to it. Ranks other than 0 do not read it.
            artifact_path: Directory in which backends show the artifact. Empty for the top level.

        Raises:
            TypeError: If ``path`` is not a path.
            FileNotFoundError: If ``path`` does not exist.
            ValueError: If ``path`` contains the run directory or is neither a file nor a directory, or
                ``artifact_path`` is not a relative path below the run directory.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        source = absolute_path(path, self.directory)
        if artifact_path:
            check_file_name(artifact_path, "artifact_path")
        if Path(os.path.realpath(source)) in (self.directory, *self.directory.parents):
            raise ValueError(f"path: {str(path)!r} contains the run directory. Pass the files to keep instead.")

        writer = self._opened()

        def render() -> attachments.ArtifactContent:
            # The file may be gone when the run is opened.
            return attachments.read_artifact(source, self.directory, is_held=isinstance(writer, HeldWriter))

        def store(content: attachments.ArtifactContent) -> tuple[str, str] | None:
            with content:
                kept = attachments.keep_artifact(self.directory, content.path, artifact_path)
            return None if kept is None else (kept, artifact_path)

        writer.add_deferred(events.Artifact, render, store)

    def log_checkpoint(
        self,
        path: str | os.PathLike[str],
        step: int,
        sha256: str,
        size: int,
        epoch: float | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Register a snapshot that was written durably to the run directory.

        Args:
            path: Snapshot file or directory in the run directory.
            step: Number of completed iterations.
            sha256: Hexadecimal SHA-256 of the file, or of the index of a sharded snapshot.
            size: Size in bytes.
            epoch: Number of completed epochs.
            values: Latest reported values by key.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If ``path`` is not in the run directory.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        name = attachments.relative_path(self.directory, path)
        fields = (check_step(step), sha256, size, to_progress("epoch", epoch), to_numbers(values or {}))
        writer = self._opened()
        writer.add_files(glob.escape(name), is_written=True)
        writer.add(Checkpoint, name, *fields)
        writer.write_checkpoint_list()

    def log_model(
        self,
        path: str | os.PathLike[str],
        name: str,
        step: int,
        sha256: str,
        size: int,
        torch: str,
        signature: ModelSignature,
        registered_name: str = "",
        best: BestMetric | None = None,
    ) -> None:
        """Log a model that was exported durably to a directory below the run directory.

        Args:
            path: Directory with the files; see :class:`pte_tracking.sinks.Model`.
            name: Name of the model in the manager.
            step: Number of completed iterations.
            sha256: Hexadecimal SHA-256 of the weights.
            size: Size of the directory in bytes.
            torch: Version of torch that wrote the files.
            signature: Inputs and outputs.
            registered_name: Name under which a registry lists the model. Defaults to ``""``: it is not registered.
            best: Metric by which the model is the best of the run so far. Defaults to None: it is not.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If ``path`` is not in the run directory, or ``name`` is empty.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        fields = (check_key(name, "name"), check_step(step), attachments.relative_path(self.directory, path))
        self._opened().add(events.Model, *fields, sha256, size, torch, signature, registered_name, best)

    def log_first_batch(self, step: int, loader: str, parts: Mapping[str, tuple[str, int | None]]) -> None:
        """Log the digest of the first batch that a loader delivers after a snapshot. Do nothing if the run has ended.

        Args:
            step: Number of completed iterations.
            loader: Name of the loader.
            parts: Type and checksum of each part of the batch by its path.
        """
        if self.is_open:
            self._opened().add(events.FirstBatch, step, to_text(loader), dict(parts))

    def remove_checkpoint(self, path: str | os.PathLike[str], step: int) -> None:
        """Log that a snapshot was pruned. Backends delete it.

        Args:
            path: Snapshot file or directory in the run directory.
            step: Number of completed iterations.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If ``path`` is not in the run directory.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        fields = attachments.relative_path(self.directory, path), check_step(step)
        writer = self._opened()
        writer.add(events.CheckpointRemoved, *fields)
        writer.write_checkpoint_list()


def _check_names(sinks: object) -> list[str]:
    if isinstance(sinks, list | tuple) and all(isinstance(name, str) for name in sinks):
        return list(sinks)
    raise TypeError(f"sinks: expected a list of sink names, got {sinks!r}")

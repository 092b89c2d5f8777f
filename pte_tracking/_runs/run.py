"""Logging to a run."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pte_tracking._runs import attachments, media
from pte_tracking._runs.base import RunBase
from pte_tracking._runs.confusion_matrix import confusion_figure
from pte_tracking._store import events
from pte_tracking._store.events import AnyEvent, Checkpoint, Number
from pte_tracking._store.layout import FIGURES, IMAGES, check_file_name
from pte_tracking._store.values import check_key, check_step, flatten_params, to_numbers, to_progress, to_text, to_texts


class Run(RunBase):
    """Training run that is logged to a directory and delivered to sinks.

    The first logged value or :meth:`open` locks the directory and archives an earlier run in it. The run ends with
    :meth:`close`, at the end of a ``with`` block, or with the interpreter. Its status is FINISHED, or FAILED after an
    error. The methods may be called from any thread.

    Only rank 0 writes. On other ranks and in forked processes, the methods check their arguments and write nothing.

    Args:
        directory: Run directory. It is created if it does not exist.
        sinks: Names of installed sinks, or configured :class:`~pte_tracking.sinks.Sink` objects.
        params: Hyperparameters. Nested names are joined with ``/``.
        tags: Labels of the run.
        name: Display name of the run. Defaults to the directory name and a short ID.
        resume: Whether to continue the run in the directory, if there is one.
        close_timeout: Maximum number of seconds that :meth:`close` waits for delivery. Remaining events are delivered
            in the background.
        rank: Rank of this process. Defaults to that of ``torch.distributed``, the variable ``RANK``, or 0.
        world_size: Number of ranks. Defaults to that of ``torch.distributed``, the variable ``WORLD_SIZE``, or 1.

    Attributes:
        directory: Absolute path of the run directory.
        before_close: Functions that :meth:`close` calls before the run ends, in reverse order of their addition.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``directory`` or ``name`` is empty, or a sink is unknown or not installed.

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
            RuntimeError: If the run has ended.
        """
        self.log_row(
            to_numbers(values),
            check_step(step),
            to_progress("epoch", epoch),
            to_progress("elapsed_time", elapsed_time),
            log,
            sinks if sinks is None else _check_names(sinks),
            explicit=True,
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
        """
        if log not in self._logs and log is not None:
            self.register_files(glob.escape(check_file_name(log, "log")))
            self._logs.add(log)
        writer = self._writer or self._opened()
        writer.add(events.Metrics, step, values, epoch, elapsed_time, log, sinks, measured, explicit)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log hyperparameters.

        Args:
            params: Parameters by name. Nested names are joined with ``/``.

        Raises:
            TypeError: If ``params`` is not a mapping.
            ValueError: If a name is empty, or two joined names are equal.
            RuntimeError: If the run has ended.
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
            RuntimeError: If the run has ended.
        """
        if texts := to_texts(tags):
            self._append(events.Tags, texts)

    def log_figure(self, key: str, figure: Any, step: int) -> None:
        """Log a figure. A later figure with the same key and step replaces it.

        Args:
            key: Name of the figure.
            figure: Matplotlib figure, or the bytes of a PNG file.
            step: Number of completed iterations.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If ``key`` is empty.
            RuntimeError: If the run has ended.
        """
        media.check_figure(figure)
        self._add_picture(events.Figure, FIGURES, key, step, lambda: media.figure_png(figure))

    def log_image(self, key: str, image: Any, step: int) -> None:
        """Log an image.

        Args:
            key: Name of the image.
            image: PIL image, array ``(height, width[, channels])``, tensor ``([channels, ]height, width)``, or the
                bytes of a PNG file. Array values are integers from 0 to 255 or floats from 0 to 1.
            step: Number of completed iterations.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If ``key`` is empty, or the image has the wrong shape.
            RuntimeError: If the run has ended.
        """
        self._add_picture(events.Image, IMAGES, key, step, lambda: media.image_png(image))

    def log_confusion_matrix(self, key: str, matrix: Any, step: int, labels: Sequence[str] | None = None) -> None:
        """Log a confusion matrix as a figure. This method requires matplotlib.

        Args:
            key: Name of the figure.
            matrix: Counts as an array or tensor of shape ``(classes, classes)``. Rows are true classes, and columns are
                predicted classes.
            step: Number of completed iterations.
            labels: Class names. None labels the classes with their indices.

        Raises:
            ImportError: If matplotlib is not installed.
            TypeError: If ``key`` or ``step`` has the wrong type.
            ValueError: If ``key`` is empty, ``matrix`` is not square or contains invalid counts, or the number of
                labels is wrong.
            RuntimeError: If the run has ended.
        """
        self._add_picture(events.Figure, FIGURES, key, step, lambda: media.figure_png(confusion_figure(matrix, labels)))

    def log_histogram(self, key: str, values: Any, step: int) -> None:
        """Log the distribution of the finite values of an array or tensor.

        Args:
            key: Name of the histogram.
            values: Array or tensor of any shape. Nothing is logged if it has no finite values.
            step: Number of completed iterations.

        Raises:
            TypeError: If ``key`` or ``step`` has the wrong type.
            ValueError: If ``key`` is empty.
            RuntimeError: If the run has ended.
        """
        key, step = check_key(key), check_step(step)

        def build_fields() -> tuple[Any, ...] | None:
            bins = media.histogram(values)
            return None if bins is None else (key, step, *bins)

        self._opened().add_deferred(events.Histogram, build_fields)

    def log_text(self, key: str, text: str, step: int = 0) -> None:
        """Log a text.

        Args:
            key: Name of the text.
            text: The text. Backends that support Markdown render it.
            step: Number of completed iterations.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If ``key`` is empty.
            RuntimeError: If the run has ended.
        """
        if not isinstance(text, str):
            raise TypeError(f"text: expected a string, got {text!r} of type {type(text).__name__}")
        self._append(events.Text, check_key(key), check_step(step), to_text(text))

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
            RuntimeError: If the run has ended.
        """
        texts = {"name": name, "digest": digest, "context": context}
        fields = [check_key(text, argument) for argument, text in texts.items()]
        self._append(events.Dataset, *fields, check_key(source, "source") if source else "")

    def log_artifact(self, path: str | os.PathLike[str], artifact_path: str = "") -> None:
        """Log a file or directory. It is copied into the run directory unless it is located there.

        Args:
            path: File or directory. Ranks other than 0 do not read it.
            artifact_path: Directory in which backends show the artifact. Empty for the top level.

        Raises:
            TypeError: If ``path`` is not a path.
            FileNotFoundError: If ``path`` does not exist.
            ValueError: If ``path`` contains the run directory, or ``artifact_path`` is not a relative path below it.
            RuntimeError: If the run has ended.
        """
        source = Path(os.path.abspath(path))
        if artifact_path:
            check_file_name(artifact_path, "artifact_path")
        if source in (self.directory, *self.directory.parents):
            raise ValueError(f"path: {str(path)!r} contains the run directory. Pass the files to keep instead.")

        def build_fields() -> tuple[str, str] | None:
            kept = attachments.keep_artifact(self.directory, source, artifact_path)
            return None if kept is None else (kept, artifact_path)

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
            RuntimeError: If the run has ended.
        """
        name = attachments.relative_path(self.directory, path)
        fields = (check_step(step), sha256, size, to_progress("epoch", epoch), to_numbers(values or {}))
        writer = self._opened()
        writer.add_files(glob.escape(name))
        writer.add(Checkpoint, name, *fields)
        writer.write_checkpoint_list()

    def remove_checkpoint(self, path: str | os.PathLike[str], step: int) -> None:
        """Log that a snapshot was pruned. Backends delete it.

        Args:
            path: Snapshot file or directory in the run directory.
            step: Number of completed iterations.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If ``path`` is not in the run directory.
            RuntimeError: If the run has ended.
        """
        fields = attachments.relative_path(self.directory, path), check_step(step)
        writer = self._opened()
        writer.add(events.CheckpointRemoved, *fields)
        writer.write_checkpoint_list()

    def _append(self, kind: type[AnyEvent], *fields: Any) -> None:
        (self._writer or self._opened()).add(kind, *fields)

    def _add_picture(self, kind: type[AnyEvent], folder: str, key: str, step: int, render: Callable[[], bytes]) -> None:
        """Add an event with a PNG file that is rendered only by the process that writes the run."""
        key, step = check_key(key), check_step(step)

        def build_fields() -> tuple[str, int, str] | None:
            path = attachments.save_picture(self.directory, folder, key, step, render())
            return None if path is None else (key, step, path)

        self._opened().add_deferred(kind, build_fields)


def _check_names(sinks: object) -> list[str]:
    if isinstance(sinks, list | tuple) and all(isinstance(name, str) for name in sinks):
        return list(sinks)
    raise TypeError(f"sinks: expected a list of sink names, got {sinks!r}")

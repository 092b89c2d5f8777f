"""Run: log to a run directory."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pte_tracking._runs import attachments, media
from pte_tracking._runs.base import RunBase
from pte_tracking._runs.confusion_matrix import confusion_figure
from pte_tracking._store import events, metrics
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.events import AnyEvent, Checkpoint, Number
from pte_tracking._store.layout import FIGURES, IMAGES, JOURNAL, check_file_name
from pte_tracking._store.values import check_key, check_step, flatten_params, to_numbers, to_progress, to_text, to_texts


class Run(RunBase):
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
        """Log a snapshot that is whole and durable in the run's directory.

        Args:
            path: The file.
            step: Iterations done in it.
            sha256: Its digest in hexadecimal.
            size: Its bytes.
            epoch: Epochs done in it.
            values: The latest reported values.
        """
        name = attachments.relative_path(self.directory, path)
        fields = (check_step(step), sha256, size, to_progress("epoch", epoch), to_numbers(values or {}))
        writer = self._opened()
        writer.add_files(glob.escape(name))
        writer.add(Checkpoint, name, *fields)
        writer.write_checkpoint_list()

    def remove_checkpoint(self, path: str | os.PathLike[str], step: int) -> None:
        """Log that a snapshot was pruned, so that it vanishes from every backend."""
        fields = attachments.relative_path(self.directory, path), check_step(step)
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

    def _append(self, kind: type[AnyEvent], *fields: Any) -> None:
        (self._writer or self._opened()).add(kind, *fields)

    def _add_picture(self, kind: type[AnyEvent], folder: str, key: str, step: int, render: Callable[[], bytes]) -> None:
        """Store a PNG in a folder of the run's directory, and log it."""
        key, step = check_key(key), check_step(step)

        def build_fields() -> tuple[str, int, str] | None:
            path = attachments.save_picture(self.directory, folder, key, step, render())
            return None if path is None else (key, step, path)

        self._opened().add_deferred(kind, build_fields)


def _check_names(sinks: object) -> list[str]:
    if isinstance(sinks, list | tuple) and all(isinstance(name, str) for name in sinks):
        return list(sinks)
    raise TypeError(f"sinks: expected a list of names of sinks, got {sinks!r}")

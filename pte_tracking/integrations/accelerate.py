"""Tracker for Accelerate. Requires the extra ``accelerate``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pte_tracking._runs.run import Run
from pte_tracking._store.dependencies import required_by
from pte_tracking.integrations._adapter_run import AdapterRun
from pte_tracking.sinks import Sink

with required_by("Tracker", "accelerate", "'pte-tracking[accelerate]'"):
    from accelerate.tracking import GeneralTracker, on_main_process

__all__ = ["Tracker"]


class Tracker(GeneralTracker):
    """Tracker of Accelerate that logs to a run and delivers it to any sinks.

    A start in a used directory archives the earlier run, unless the training is resumed. There are two ways to resume:

    - ``accelerator.register_for_checkpointing(tracker)`` saves the last logged step with the state of the training.
      ``accelerator.load_state()`` then continues the run after this step.
    - ``resume=True`` continues the run before the first step that is logged.

    Both supersede what was logged for later steps before the training was killed.

    Other media than images and texts are logged with ``accelerator.get_tracker("pte_tracking", unwrap=True)``, which is
    the :class:`~pte_tracking.Run`.

    ``accelerator.end_training()`` ends the run. Without this call, the end of the process ends it.

    Args:
        directory: Run directory. It is created if it does not exist.
        sinks: Names of installed sinks, or configured :class:`~pte_tracking.sinks.Sink` objects.
        params: Hyperparameters, in addition to the ``config`` of ``accelerator.init_trackers()``.
        tags: Labels of the run.
        name: Display name of the run. Defaults to the directory name and a short ID.
        group: Group of the run, such as a sweep; see :class:`~pte_tracking.Run`. Defaults to none.
        resume: Whether to continue the run in the directory, if there is one.
        close_timeout: Maximum number of seconds that the end of the run waits for delivery.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``directory`` or ``name`` is empty, or a sink is unknown or not installed.

    Example:
        >>> import tempfile
        >>> from accelerate import Accelerator
        >>> from pte_tracking.integrations.accelerate import Tracker
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     accelerator = Accelerator(log_with=Tracker(directory), cpu=True)
        ...     accelerator.init_trackers("digits", {"lr": 0.1})
        ...     accelerator.log({"loss": 0.5}, step=1)
        ...     run = accelerator.get_tracker("pte_tracking", unwrap=True)
        ...     accelerator.end_training()
        ...     [(row.step, row.values) for row in run.rows()]
        [(1, {'loss': 0.5})]
    """

    name = "pte_tracking"
    requires_logging_directory = False

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
    ) -> None:
        super().__init__()
        self._adapter = AdapterRun(
            directory,
            sinks=sinks,
            params=params,
            tags=tags,
            name=name,
            group=group,
            resume=resume,
            close_timeout=close_timeout,
        )

    @property
    def tracker(self) -> Run:
        """The run. What is logged to it before the first call of :meth:`log` is held until then."""
        return self._adapter.run

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Log the ``config`` of ``accelerator.init_trackers()`` as parameters.

        Args:
            values: Parameters by name. Nested names are joined with ``/``.
        """
        self.tracker.log_params(values)

    @on_main_process
    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log metrics and texts of one step.

        Args:
            values: Numbers and texts by key. The keys of nested ones are joined with ``/``.
            step: Number of completed steps. Defaults to the step after the last one.

        Raises:
            TypeError: If a value is neither a number nor a text, or ``step`` is not an integer.
        """
        step = self._step_of(step)
        numbers: dict[str, Any] = {}
        for key, value in _flatten(values):
            if isinstance(value, str):
                self.tracker.log_text(key, value, step)
            else:
                numbers[key] = value
        if numbers:
            self.tracker.log_metrics(numbers, step)

    @on_main_process
    def log_images(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log images; see :meth:`pte_tracking.Run.log_image`.

        Args:
            values: Images by key: an image, a batch, or a list of PIL images or arrays of one shape.
            step: Number of completed steps. Defaults to the step after the last one.
        """
        import numpy as np

        step = self._step_of(step)
        for key, images in values.items():
            is_list = isinstance(images, list | tuple)
            self.tracker.log_image(key, [np.asarray(image) for image in images] if is_list else images, step)

    @on_main_process
    def log_table(
        self,
        table_name: str,
        columns: Sequence[str] | None = None,
        data: Sequence[Sequence[Any]] | None = None,
        dataframe: Any | None = None,
        step: int | None = None,
    ) -> None:
        """Log a table; see :meth:`pte_tracking.Run.log_table`. The arguments are those of Accelerate's own trackers.

        Args:
            table_name: Name of the table.
            columns: Names of the columns of ``data``.
            data: Rows.
            dataframe: Data frame, instead of ``columns`` and ``data``.
            step: Number of completed steps. Defaults to the step after the last one.

        Raises:
            TypeError: If there is neither a data frame nor names and rows.
            ValueError: If a row does not have one cell per column.
        """
        if dataframe is None:
            if columns is None or data is None:
                raise TypeError("log_table: expected dataframe=, or both columns= and data=")
            if any(len(row) != len(columns) for row in data):
                lengths = sorted({len(row) for row in data})
                raise ValueError(f"data: expected rows of {len(columns)} cells, got the lengths {lengths}")
            dataframe = [dict(zip(columns, row, strict=True)) for row in data] or {name: [] for name in columns}
        self.tracker.log_table(table_name, dataframe, self._step_of(step))

    @on_main_process
    def finish(self) -> None:
        """End the run: FINISHED, or FAILED if an exception is being handled."""
        self._adapter.close()

    def state_dict(self) -> dict[str, int | None]:
        """Return the last logged step, which ``accelerator.save_state()`` saves if the tracker is registered."""
        return {"step": self._adapter.last_step}

    def load_state_dict(self, state: Mapping[str, int | None]) -> None:
        """Continue the run after the step of :meth:`state_dict`."""
        step = state["step"]
        self._adapter.resume_at(-1 if step is None else step)

    def _step_of(self, step: int | None) -> int:
        if not self._adapter.is_started:
            self._adapter.start(step)
        return self._adapter.step_of(step)


def _flatten(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", nested) for name, nested in _flatten(value))
        else:
            yield key, value

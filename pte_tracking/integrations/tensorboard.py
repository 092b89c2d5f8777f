"""Writer with the interface of ``torch.utils.tensorboard.SummaryWriter`` that logs to a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pte_tracking._runs.media import Bins
from pte_tracking._store.printable import describe_value
from pte_tracking.integrations._curves import to_bins
from pte_tracking.integrations._summary_files import FileWriter
from pte_tracking.integrations._summary_pictures import PictureWriter

__all__ = ["SummaryWriter"]


class SummaryWriter(PictureWriter, FileWriter):
    """Drop-in for ``torch.utils.tensorboard.SummaryWriter`` whose calls reach every sink of a run.

    All methods of torch's class exist with its arguments. Values that have no event of their own become figures,
    images, texts, or artifacts. The first call opens the run, and archives an earlier run in the directory. See
    :class:`~pte_tracking.Run` for the end of the run and its status.

    Args:
        log_dir: Run directory. Defaults to ``runs/`` with the current time, the name of the host, and ``comment``.
        comment: End of the default of ``log_dir``.
        purge_step: Step at which the training continues. The run in the directory is continued, and its values at this
            step and later ones are superseded. None starts a new run, unless ``resume=True`` is passed.
        max_queue: Has no effect, because each value is written at once.
        flush_secs: Has no effect.
        filename_suffix: Has no effect, which is logged.
        sinks: Names of installed sinks, or configured :class:`~pte_tracking.sinks.Sink` objects.
        params: Hyperparameters; see :meth:`~pte_tracking.Run.log_params`.
        run_options: Other arguments of :class:`~pte_tracking.Run`, such as ``tags``, ``name``, and ``resume``.

    Attributes:
        log_dir: Argument ``log_dir``, or its default.
        run: The run.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a sink is unknown or not installed.

    Example:
        >>> import tempfile
        >>> from pte_tracking.integrations.tensorboard import SummaryWriter
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with SummaryWriter(directory, sinks=["json"], params={"lr": 0.1}) as writer:
        ...         for step in range(3):
        ...             writer.add_scalar("train/loss", 1 / (step + 1), step)
        ...     print([row.values for row in writer.run.rows()][0])
        {'train/loss': 1.0}
    """

    _hparams: Mapping[str, Any] | None = None

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: Any = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """Add a number.

        Args:
            tag: Key of the number.
            scalar_value: Python number, or array or tensor with one element.
            global_step: Step. None counts the numbers of the tag.
            walltime: Time in seconds since the Unix epoch. Defaults to the current time.
            new_style: Has no effect.
            double_precision: Has no effect. The run records 64 bits.

        Raises:
            TypeError: If the value is not a real number.
            ValueError: If the value has several elements.
        """
        self.run.add_scalars({tag: scalar_value}, self._step(global_step, tag), walltime)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Add numbers with a common prefix, such as ``loss/train`` and ``loss/val`` for the tag ``loss``.

        Args:
            main_tag: Prefix of the keys.
            tag_scalar_dict: Numbers by the rest of their keys.
            global_step: Step. None counts the calls with this tag.
            walltime: Time in seconds since the Unix epoch.

        Raises:
            TypeError: If a value is not a real number.
            ValueError: If a value has several elements.
        """
        values = {f"{main_tag}/{tag}": value for tag, value in tag_scalar_dict.items()}
        if values:
            self.run.add_scalars(values, self._step(global_step, *values), walltime)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: Any = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Add the distribution of the finite values of an array or tensor.

        Args:
            tag: Key of the histogram.
            values: Array or tensor of any shape. Without finite values nothing is added, which is logged once.
            global_step: Step. None counts the histograms of the tag.
            bins: Argument of ``numpy.histogram``. Defaults to 64 bins of equal width.
            walltime: Time in seconds since the Unix epoch.
            max_bins: Number of bins above which neighboring bins are joined.

        Raises:
            TypeError: If the values are not real numbers.
            ValueError: If ``bins`` is invalid.
        """
        step = self._step(global_step, tag)
        content = to_bins(values, bins, max_bins, f"histogram {tag!r} at step {step}")
        if content is None:
            self._note(f"add_histogram: {tag!r} has no finite values at step {step} and is not added.")
        else:
            self.run.add_bins(tag, step, content, walltime)

    def add_histogram_raw(
        self,
        tag: str,
        min: float,
        max: float,
        num: int,
        sum: float,
        sum_squares: float,
        bucket_limits: Any,
        bucket_counts: Any,
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Add a histogram.

        Args:
            tag: Key of the histogram.
            min: Lowest value.
            max: Highest value.
            num: Has no effect. The number of values is the sum of ``bucket_counts``.
            sum: Sum of the values.
            sum_squares: Sum of the squared values.
            bucket_limits: Upper limit of each bin.
            bucket_counts: Number of values in each bin.
            global_step: Step. None counts the histograms of the tag.
            walltime: Time in seconds since the Unix epoch.

        Raises:
            ValueError: If there are not as many limits as counts, or none.
        """
        limits, counts = [float(limit) for limit in bucket_limits], [float(count) for count in bucket_counts]
        if len(limits) != len(counts) or not counts:
            raise ValueError(f"bucket_limits: expected one limit for each of {len(counts)} counts, got {len(limits)}")
        edges = [float(min) if min < limits[0] else limits[0], *limits]
        content = Bins(edges, counts, float(min), float(max), float(sum), float(sum_squares))
        self.run.add_bins(tag, self._step(global_step, tag), content, walltime)

    def add_text(self, tag: str, text_string: str, global_step: Any = None, walltime: float | None = None) -> None:
        """Add a text.

        Args:
            tag: Key of the text.
            text_string: The text. Sinks that support Markdown render it.
            global_step: Step. None counts the texts of the tag.
            walltime: Time in seconds since the Unix epoch.

        Raises:
            TypeError: If an argument has the wrong type.
        """
        if not isinstance(text_string, str):
            raise TypeError(f"text_string: expected a string, got {describe_value(text_string)}")
        self.run.add_text(tag, self._step(global_step, tag), text_string, walltime)

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Mapping[str, Sequence[Any]] | None = None,
        run_name: str | None = None,
        global_step: Any = None,
    ) -> None:
        """Add parameters of the run, and the metrics that they led to.

        Args:
            hparam_dict: Parameters by name.
            metric_dict: Numbers by key.
            hparam_domain_discrete: Not recorded, which is logged once.
            run_name: Not recorded, which is logged once. The parameters belong to this run, and not to one below it.
            global_step: Step of the numbers. None counts the calls.

        Raises:
            TypeError: If an argument is not a mapping, or a value of ``metric_dict`` is not a number.
        """
        if not isinstance(hparam_dict, Mapping) or not isinstance(metric_dict, Mapping):
            raise TypeError(
                f"hparam_dict, metric_dict: expected mappings, got {type(hparam_dict).__name__} and "
                f"{type(metric_dict).__name__}"
            )
        if hparam_domain_discrete or run_name:
            self._note(
                "add_hparams: hparam_domain_discrete and run_name are not recorded. Create one SummaryWriter for each "
                "set of parameters."
            )
        if self._hparams not in (None, hparam_dict):
            self._note(
                "add_hparams: a run has one set of parameters, and later values replace earlier ones. Create one "
                "SummaryWriter for each set of parameters."
            )
        self._hparams = dict(hparam_dict)
        self.run.log_params(hparam_dict)
        if metric_dict:
            self.run.add_scalars(metric_dict, self._step(global_step, *metric_dict), None)

    def add_custom_scalars(self, layout: Mapping[str, Any]) -> None:
        """Do nothing except log once that a layout of charts is not recorded.

        Args:
            layout: Charts by category.
        """
        self._note(
            "add_custom_scalars: a layout of charts is not recorded. The sink 'tensorboard' puts tags such as "
            "train/loss and val/loss into one chart. In other stores, combine the charts on the page."
        )

    def add_custom_scalars_multilinechart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """Do the same as :meth:`add_custom_scalars`."""
        self.add_custom_scalars({category: {title: ["Multiline", tags]}})

    def add_custom_scalars_marginchart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """Do the same as :meth:`add_custom_scalars`."""
        self.add_custom_scalars({category: {title: ["Margin", tags]}})

"""Summary of the layers of models."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from torch import nn
from torch.nn.parameter import is_lazy

from pte_tracking._distributed.flat_sharding import is_flat
from pte_tracking._interface.extension import Extension, Manager

_logger = logging.getLogger("pte_tracking")
_MEGABYTE = 1e6
_MAX_LAYER_CHARACTERS = 60  # TensorBoard breaks the words of the other columns if one column is long


class ModelSummary(Extension):
    """Extension that logs the layers and the number of parameters of all models as a text.

    The text is logged with the key ``model`` when the training starts, and is not logged again after a resume. It
    contains one Markdown table per model. The last arguments of a layer with more than 60 characters are left out. The
    extension has no trigger, runs on rank 0 only, and reports no values. Snapshots contain no state of the extension.

    Example:
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions, sinks
        >>> model = torch.nn.Linear(3, 2)
        >>> with pte.ExtensionsManager(
        ...     model, 1, [extensions.ModelSummary()], iters_per_epoch=1, sinks=[]
        ... ) as manager:
        ...     with manager.run_iteration():
        ...         pass
        >>> ((text, _),) = sinks.find_events(manager.run.directory / sinks.JOURNAL, sinks.Text)
        >>> print(text.text)
        **main**: 8 parameters, 8 of them trained, 0.00 MB
        <BLANKLINE>
        | name | layer | weights |
        |---|---|---:|
        | main | Linear(in_features=3, out_features=2, bias=True) | 8 |
    """

    trigger = None
    rank_zero_only = True

    def initialize(self, manager: Manager) -> None:
        if not manager.is_before_training:
            return
        if flat := [name for name, model in manager.models.items() if is_flat(model)]:
            _logger.warning(
                "ModelSummary: FullyShardedDataParallel hides the weights of %s, so its layers are not listed.",
                ", ".join(map(repr, flat)),
            )
        if tables := [_format_table(*named) for named in manager.models.items() if named[0] not in flat]:
            manager.run.log_text("model", "\n\n".join(tables))

    def __call__(self, manager: Manager) -> None:
        """Do nothing. The text is logged in :meth:`initialize`."""


def _format_table(name: str, model: nn.Module) -> str:
    """Return a Markdown table of the layers of a model."""
    lines = [f"**{name}**: {_describe_totals(model)}", "", "| name | layer | weights |", "|---|---|---:|"]
    for layer, module in model.named_modules():
        count = _count_weights(module.parameters(recurse=False))
        is_leaf = next(module.children(), None) is None
        if count or is_leaf:
            kind = str(module) if is_leaf else type(module).__name__
            lines.append(f"| {layer or name} | {_shorten(' '.join(kind.replace('|', '/').split()))} | {count:,} |")
    return "\n".join(lines)


def _shorten(layer: str) -> str:
    """Leave out the last arguments of a long layer."""
    if len(layer) <= _MAX_LAYER_CHARACTERS:
        return layer
    start = layer[: _MAX_LAYER_CHARACTERS - len(", …)")]
    return f"{start.rpartition(', ')[0] or start}, …)"


def _describe_totals(model: nn.Module) -> str:
    trained = _count_weights(parameter for parameter in model.parameters() if parameter.requires_grad)
    size = sum(parameter.nbytes for parameter in model.parameters() if not is_lazy(parameter))
    return f"{_count_weights(model.parameters()):,} parameters, {trained:,} of them trained, {size / _MEGABYTE:,.2f} MB"


def _count_weights(parameters: Iterable[nn.Parameter]) -> int:
    # Parameters of lazy layers have no shape before the first batch.
    return sum(parameter.numel() for parameter in parameters if not is_lazy(parameter))

"""What the models are made of, as a text of the run."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.parameter import is_lazy

from pte_tracking._interface.extension import Extension, Manager

_MEGABYTE = 1e6


class ModelSummary(Extension):
    """Logs the layers of the models, each with the number of its parameters, as a text of the run called ``model``.

    It does so once, when the training begins; a training that goes on has it already. It reports nothing.

    State in snapshots: none.
    """

    trigger = None
    rank_zero_only = True

    def initialize(self, manager: Manager) -> None:
        if manager.is_before_training and manager.models:
            manager.run.log_text("model", "\n\n".join(_format_table(*named) for named in manager.models.items()))

    def __call__(self, manager: Manager) -> None:
        """Nothing is left to do."""


def _format_table(name: str, model: nn.Module) -> str:
    """A model as Markdown."""
    lines = [f"**{name}**: {_describe_totals(model)}", "", "| name | layer | weights |", "|---|---|---:|"]
    for layer, module in model.named_modules():
        count = _count_weights(module.parameters(recurse=False))
        is_leaf = next(module.children(), None) is None
        if count or is_leaf:
            kind = str(module) if is_leaf else type(module).__name__
            lines.append(f"| {layer or name} | {' '.join(kind.replace('|', '/').split())} | {count:,} |")
    return "\n".join(lines)


def _describe_totals(model: nn.Module) -> str:
    trained = _count_weights(parameter for parameter in model.parameters() if parameter.requires_grad)
    size = sum(parameter.nbytes for parameter in model.parameters() if not is_lazy(parameter))
    return f"{_count_weights(model.parameters()):,} parameters, {trained:,} of them trained, {size / _MEGABYTE:,.2f} MB"


def _count_weights(parameters: Iterable[nn.Parameter]) -> int:
    # Those of lazy layers have no shape before the first batch.
    return sum(parameter.numel() for parameter in parameters if not is_lazy(parameter))
